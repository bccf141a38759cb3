"""What is in the cache is whole, and made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlgf.cachedir import cache_root, cached_folder


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLGF_CACHE", str(tmp_path))


def write(folder: Path) -> None:
    (folder / "file").write_text("made")


def test_a_folder_is_made_once() -> None:
    assert cached_folder("a/model", write) == cache_root() / "a" / "model"
    again = cached_folder("a/model", lambda folder: pytest.fail("made again"))
    assert (again / "file").read_text() == "made"


def test_a_folder_that_could_not_be_made_is_not_there() -> None:
    def fail(folder: Path) -> None:
        write(folder)
        raise RuntimeError("half")

    with pytest.raises(RuntimeError, match="half"):
        cached_folder("model", fail)
    assert list(cache_root().iterdir()) == []


def test_of_two_that_make_it_at_once_one_wins() -> None:
    def late(folder: Path) -> None:
        (folder / "file").write_text("late")
        cached_folder("model", write)  # another process

    assert (cached_folder("model", late) / "file").read_text() == "made"
    assert [path.name for path in cache_root().iterdir()] == ["model"]
