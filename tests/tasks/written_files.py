"""Files as people have them, and what is read of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlgf.errors import UserError
from rlgf.tasks import build_task


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def load(files: Path | list[Path], **options: Any) -> Any:
    return build_task("data", {"train": files, **options}).load("train")


def prompts(files: Path | list[Path], **options: Any) -> list[str]:
    return [sample.prompt for sample in load(files, **{"reference_field": None, **options})]


def refused(files: Path | list[Path], *parts: str, **options: Any) -> None:
    with pytest.raises(UserError) as caught:
        load(files, **{"reference_field": None, **options})
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
