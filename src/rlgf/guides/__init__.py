"""Guides: models that write text for the policy and are not trained."""

from rlgf.guides.base import (
    BudgetedGuide,
    BudgetSpentError,
    Guide,
    RecordedGuide,
    RemoteGuide,
    Request,
    ScoringGuide,
    Usage,
)
from rlgf.guides.config import GuideConfig, build_guide, guide_models, http_configs, scoring_guide
from rlgf.guides.ensemble import EnsembleConfig, EnsembleGuide
from rlgf.guides.http import HTTPGuide
from rlgf.guides.http_config import HTTPGuideConfig
from rlgf.guides.local import LocalGuide, LocalGuideConfig, guide_template
from rlgf.guides.own import OwnGuideConfig
from rlgf.guides.replay import ReplayGuide, ReplayGuideConfig
from rlgf.guides.settings import GuideKind, GuideSettings

__all__ = [
    "BudgetSpentError",
    "BudgetedGuide",
    "EnsembleConfig",
    "EnsembleGuide",
    "Guide",
    "GuideConfig",
    "GuideKind",
    "GuideSettings",
    "HTTPGuide",
    "HTTPGuideConfig",
    "LocalGuide",
    "LocalGuideConfig",
    "OwnGuideConfig",
    "RecordedGuide",
    "RemoteGuide",
    "ReplayGuide",
    "ReplayGuideConfig",
    "Request",
    "ScoringGuide",
    "Usage",
    "build_guide",
    "guide_models",
    "guide_template",
    "http_configs",
    "scoring_guide",
]
