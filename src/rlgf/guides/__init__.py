"""Guides: models that write text for the policy and are not trained."""

from rlgf.guides.base import Guide, Request
from rlgf.guides.local import LocalGuide, LocalGuideConfig

__all__ = ["Guide", "LocalGuide", "LocalGuideConfig", "Request"]
