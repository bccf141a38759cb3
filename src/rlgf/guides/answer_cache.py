"""Answers of paid-for guides on disk, so that nothing is asked for twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diskcache
from diskcache.core import DBNAME

from rlgf.cachedir import cache_root
from rlgf.chat import as_dicts
from rlgf.errors import UserError, nearest
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
        with self._may_fail("read"):
            # JSON, since the default would unpickle whatever somebody put there. Never evicts: paid for.
            self._store = diskcache.Cache(str(self.folder), disk=diskcache.JSONDisk, eviction_policy="none")
            with self._store.transact():  # of two processes that make it at once
                if len(self._store) == 0:
                    self._store["format"] = _FORMAT
                written_by = self._store.get("format")
        if written_by != _FORMAT:
            raise UserError(
                f"the guide cache {self.folder} has the format {written_by!r}, and this version reads "
                f"{_FORMAT!r}; move it away or set 'guide.cache' to another folder."
            )

    @classmethod
    def existing(cls, folder: str) -> GuideCache:
        """The cache that is there.

        Raises:
            UserError: there is none, or see above.
        """
        if not (cache_root() / folder / DBNAME).is_file():
            raise UserError(
                f"there is no guide cache in {cache_root() / folder}: a run with 'guide.url' makes one; give --folder what "
                "'guide.cache' says in its recipe."
            )
        return cls(folder)

    def get(self, identity: Mapping[str, Any], request: Request) -> dict[str, Any] | None:
        """The answer that was kept for a request, if there is one.

        Raises:
            UserError: the cache cannot be read any more.
        """
        with self._may_fail("read"):
            entry = self._store.get(_key(identity, request))
            return None if entry is None else entry["answer"]

    def put(self, identity: Mapping[str, Any], request: Request, answer: Mapping[str, Any]) -> None:
        """
        Raises:
            UserError: the cache cannot be written any more.
        """
        with self._may_fail("written"):
            self._store[_key(identity, request)] = {
                "guide": dict(identity),
                "prefix": request.prefix,
                **({"messages": as_dicts(request.messages)} if request.messages else {}),
                "prompt_length": request.prompt_length,
                "max_new_tokens": request.max_new_tokens,
                "seed": request.seed,
                **({} if request.scored is None else {"scored": request.scored}),
                "answer": dict(answer),
            }

    def last_served(self, url: str, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        """What a server last said of a guide's model; where this address never said anything, what another one said.
        Raises what `get` does."""
        with self._may_fail("read"):
            for key in _served_keys(url, identity):
                found = self._store.get(key)
                if found is not None:
                    return dict(found)
            return None

    def remember_served(self, url: str, identity: Mapping[str, Any], served: Mapping[str, Any]) -> None:
        """Remember what a server said of a guide's model; one that says nothing takes nothing back. Raises what `put` does."""
        with self._may_fail("written"):
            for key in _served_keys(url, identity):
                known = self._store.get(key)
                if known is None or (served and known != dict(served)):
                    self._store[key] = dict(served)

    def count_hits(self, identity: Mapping[str, Any], number: int) -> None:
        """Remember that answers were of use once more, for `summary`; raises what `put` does."""
        if number:
            key = _hits_key(identity)
            with self._may_fail("written"), self._store.transact():
                self._store[key] = self._store.get(key, 0) + number

    def entries(self) -> Iterator[dict[str, Any]]:
        """Every answer with its request; raises what `get` does."""
        with self._may_fail("read"):
            for key in self._store.iterkeys():
                if key.startswith("answer "):
                    entry = self._store.get(key)
                    if entry is not None:
                        yield entry

    def summary(self) -> dict[str, dict[str, int]]:
        """For each guide: answers, hits, tokens paid for, and tokens that hits have saved on average.

        A guide is called by its model and by the settings in which it differs from others with that model.
        """
        found: dict[str, dict[str, int]] = {}
        guides: dict[str, dict[str, Any]] = {}
        for entry in self.entries():
            key = _hits_key(entry["guide"])
            guides[key] = entry["guide"]
            row = found.setdefault(key, {"answers": 0, "tokens": 0})
            row["answers"] += 1
            row["tokens"] += entry["answer"]["prompt_tokens"] + entry["answer"]["completion_tokens"]
        for key, row in found.items():
            row["hits"] = self._store.get(key, 0)
            row["tokens saved"] = row["hits"] * row["tokens"] // row["answers"]
        names = guide_names(list(guides.values()))
        return dict(zip(names, found.values(), strict=True))

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return int(self._store.volume())

    def export(self, path: Path, model: str | None = None) -> int:
        """Write the texts of one guide as JSON lines, which a replay guide reads.

        Args:
            model: the guide's name in `summary`, or its model alone where no other guide has that model; may be
                left out where there is one guide alone.

        Returns:
            How many there are.

        Raises:
            UserError: there are several guides and none of them is named, or none of that name.
        """
        entries = [entry for entry in self.entries() if "scored" not in entry]
        by_key = {_hits_key(entry["guide"]): entry["guide"] for entry in entries}
        names = guide_names(list(by_key.values()))
        keys = dict(zip(names, by_key, strict=True))
        chosen = [name for name in names if model in (None, name)] or [
            name for name in names if by_key[keys[name]]["model"] == model
        ]
        if len(chosen) > 1:
            raise UserError(
                f"the cache {self.folder} holds answers of several guides, which a file must not mix: give --model "
                f"and one of: {', '.join(repr(name) for name in sorted(chosen))}."
            )
        if not chosen:
            asked, said = ("any guide", "it is empty.") if model is None else (model, nearest(model, names))
            raise UserError(f"the cache {self.folder} has no answers of '{asked}': {said}")
        lines = [
            json.dumps(entry) + "\n" for entry in entries if _hits_key(entry["guide"]) == keys[chosen[0]]
        ]
        path.write_text("".join(lines))
        return len(lines)

    def clear(self) -> None:
        with self._may_fail("written"):
            self._store.clear()
            self._store["format"] = _FORMAT

    def close(self) -> None:
        self._store.close()

    @contextmanager
    def _may_fail(self, done: str) -> Iterator[None]:
        """Raises a `UserError` where the disk, the data base or what somebody put there fails."""
        try:
            yield
        except Exception as error:  # of many kinds
            raise UserError(
                f"the guide cache {self.folder} cannot be {done} ({error}); "
                "move it away or set 'guide.cache' to another folder."
            ) from error


def guide_names(guides: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each of several guides: its model, and the settings in which those of that model differ."""
    names = []
    for guide in guides:
        same = [other for other in guides if other["model"] == guide["model"]]
        settings = sorted({key for other in same for key in other})
        told = [key for key in settings if any(other.get(key) != guide.get(key) for other in same)]
        names.append(" ".join([guide["model"], *(f"{key}={json.dumps(guide.get(key))}" for key in told)]))
    return names


def _hits_key(identity: Mapping[str, Any]) -> str:
    return f"{_HITS} {json.dumps(dict(identity), sort_keys=True)}"


def _served_keys(url: str, identity: Mapping[str, Any]) -> tuple[str, str]:
    said = json.dumps(dict(identity), sort_keys=True)
    return f"served {url} {said}", f"served {said}"


def _key(identity: Mapping[str, Any], request: Request) -> str:
    asked: list[Any] = [
        dict(identity),
        request.prefix,
        request.prompt_length,
        request.max_new_tokens,
        request.seed,
    ]
    # So that older answers are still found.
    asked += [as_dicts(request.messages)] if request.messages else []
    asked += [] if request.scored is None else [{"scored": request.scored, "ends": request.scores_end}]
    return "answer " + hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
