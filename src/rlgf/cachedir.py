"""Where things that are made once are kept: converted models, trained reward models and judges."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path


def cache_root() -> Path:
    """``$RLGF_CACHE``, or ``~/.cache/rlgf``."""
    return Path(os.environ.get("RLGF_CACHE", Path.home() / ".cache" / "rlgf"))


def cached_folder(name: str, make: Callable[[Path], object]) -> Path:
    """The folder of that name in the cache; ``make`` fills it when it is not there yet.

    It is filled aside and renamed, so a folder that is there is whole, and of two processes that
    make it at once one wins and the other's work is dropped.
    """
    final = cache_root() / name
    if final.is_dir():
        return final
    aside = final.with_name(f".{final.name}.{uuid.uuid4().hex}")
    aside.mkdir(parents=True)
    try:
        make(aside)
        try:
            aside.rename(final)
        except OSError:
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return final
