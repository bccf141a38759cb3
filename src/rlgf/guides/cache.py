"""Answers of paid-for guides on disk, so that nothing is asked for twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import diskcache

from rlgf.cachedir import cache_root
from rlgf.errors import UserError
from rlgf.guides.base import Request

DEFAULT_CACHE = "guide"
_FORMAT = "rlgf-guide-cache-1"
_HITS = "hits"


class GuideCache:
    """Answers by guide, settings, text and sample number. Safe for several threads and processes."""

    def __init__(self, folder: str) -> None:
        """
        Args:
            folder: an absolute path, or one under the library's cache folder.

        Raises:
            UserError: the folder holds a cache of another format, or cannot be written.
        """
        self.folder = cache_root() / folder
        try:
            # JSON, since the default would unpickle whatever somebody put there. Never evicts: paid for.
            self._store = diskcache.Cache(str(self.folder), disk=diskcache.JSONDisk, eviction_policy="none")
            written_by = self._store.get("format")
        except Exception as error:
            raise UserError(
                f"the guide cache {self.folder} cannot be read ({error}); "
                "move it away or set 'guide.cache' to another folder."
            ) from error
        if written_by is None and len(self._store) == 0:
            self._store["format"] = written_by = _FORMAT
        if written_by != _FORMAT:
            raise UserError(
                f"the guide cache {self.folder} has the format {written_by!r}, and this version reads "
                f"{_FORMAT!r}; move it away or set 'guide.cache' to another folder."
            )

    def get(self, identity: Mapping[str, Any], request: Request) -> dict[str, Any] | None:
        """The answer that was kept for a request, if there is one."""
        entry = self._store.get(_key(identity, request))
        return None if entry is None else entry["answer"]

    def put(self, identity: Mapping[str, Any], request: Request, answer: Mapping[str, Any]) -> None:
        self._store[_key(identity, request)] = {
            "guide": dict(identity),
            "prefix": request.prefix,
            "prompt_length": request.prompt_length,
            "max_new_tokens": request.max_new_tokens,
            "seed": request.seed,
            "answer": dict(answer),
        }

    def count_hits(self, identity: Mapping[str, Any], number: int) -> None:
        """Remember that answers were of use once more, for `summary`."""
        if number:
            key = f"{_HITS} {identity['model']}"
            with self._store.transact():
                self._store[key] = self._store.get(key, 0) + number

    def entries(self) -> Iterator[dict[str, Any]]:
        """Every answer with its request."""
        for key in self._store.iterkeys():
            if key.startswith("answer "):
                entry = self._store.get(key)
                if entry is not None:
                    yield entry

    def summary(self) -> dict[str, dict[str, int]]:
        """For each guide: answers, hits, tokens paid for, and tokens that hits have saved on average."""
        found: dict[str, dict[str, int]] = {}
        for entry in self.entries():
            row = found.setdefault(entry["guide"]["model"], {"answers": 0, "tokens": 0})
            row["answers"] += 1
            row["tokens"] += entry["answer"]["prompt_tokens"] + entry["answer"]["completion_tokens"]
        for model, row in found.items():
            row["hits"] = self._store.get(f"{_HITS} {model}", 0)
            row["tokens saved"] = row["hits"] * row["tokens"] // row["answers"]
        return found

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return int(self._store.volume())

    def export(self, path: Path) -> int:
        """Write every answer as JSON lines, which a replay guide reads; returns how many."""
        lines = [json.dumps(entry) + "\n" for entry in self.entries()]
        path.write_text("".join(lines))
        return len(lines)

    def clear(self) -> None:
        self._store.clear()
        self._store["format"] = _FORMAT

    def close(self) -> None:
        self._store.close()


def _key(identity: Mapping[str, Any], request: Request) -> str:
    asked = [dict(identity), request.prefix, request.prompt_length, request.max_new_tokens, request.seed]
    return "answer " + hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
