"""Guides: models that write text for the policy and are not trained."""

from rlgf.guides.base import (
    BudgetSpentError,
    Guide,
    GuideSettings,
    RecordedGuide,
    RemoteGuide,
    Request,
    ScoringGuide,
    TextScoringGuide,
    Usage,
)
from rlgf.guides.config import GuideConfig, scoring_guide, text_scoring_guide
from rlgf.guides.ensemble import EnsembleConfig, EnsembleGuide
from rlgf.guides.http import HTTPGuide
from rlgf.guides.http_config import HTTPGuideConfig
from rlgf.guides.local import LocalGuide, LocalGuideConfig, guide_template
from rlgf.guides.own import OwnGuideConfig
from rlgf.guides.replay import ReplayGuide, ReplayGuideConfig
from rlgf.objectives.alignment import Piece

__all__ = [
    "BudgetSpentError",
    "EnsembleConfig",
    "EnsembleGuide",
    "Guide",
    "GuideConfig",
    "GuideSettings",
    "HTTPGuide",
    "HTTPGuideConfig",
    "LocalGuide",
    "LocalGuideConfig",
    "OwnGuideConfig",
    "Piece",
    "RecordedGuide",
    "RemoteGuide",
    "ReplayGuide",
    "ReplayGuideConfig",
    "Request",
    "ScoringGuide",
    "TextScoringGuide",
    "Usage",
    "guide_template",
    "scoring_guide",
    "text_scoring_guide",
]
