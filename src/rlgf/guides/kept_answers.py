"""The answers of one server's model that are kept from run to run, where the recipe keeps any."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from rlgf.errors import UserError
from rlgf.guides.answer_cache import GuideCache
from rlgf.guides.base import Request
from rlgf.guides.endpoint import Endpoint
from rlgf.guides.http_config import HTTPGuideConfig
from rlgf.guides.reply import Answer
from rlgf.objectives.alignment import Piece


class KeptAnswers:
    """What a guide's cache holds for its settings and for the model that answers to its name. Safe for threads."""

    def __init__(self, config: HTTPGuideConfig, endpoint: Endpoint) -> None:
        """
        Raises:
            UserError: the cache cannot be read.
        """
        self._config = config
        self._endpoint = endpoint
        self._cache = GuideCache(config.cache) if config.cache is not None else None
        self._describing = threading.Lock()
        self._served: dict[str, Any] | None = None
        self._described = False
        self._writes = True

    def get(self, request: Request) -> Answer | None:
        """The answer to a request, if one was kept.

        Raises:
            UserError: the cache cannot be read any more: to ask for everything anew may cost more than it is worth.
        """
        found = self._cache.get(self._identity(), request) if self._cache is not None else None
        if found is None:
            return None
        known = {name: value for name, value in found.items() if name in Answer.__dataclass_fields__}
        return Answer(**{**known, "pieces": tuple(Piece(*piece) for piece in found.get("pieces", ()))})

    def put(self, request: Request, answer: Answer) -> None:
        """Keep what the server has just answered."""
        kept = {name: value for name, value in asdict(answer).items() if value or name != "pieces"}
        self._write(lambda cache: cache.put(self._identity(reached=True), request, kept))

    def count_hits(self, number: int) -> None:
        """Remember that so many answers were of use once more."""
        self._write(lambda cache: cache.count_hits(self._identity(), number))

    def close(self) -> None:
        if self._cache is not None:
            self._cache.close()

    def _write(self, write: Callable[[GuideCache], None]) -> None:
        """Write into the cache until that fails: an answer that cannot be kept is an answer all the same."""
        if self._cache is None or not self._writes:
            return
        try:
            write(self._cache)
        except UserError as error:
            self._writes = False
            warnings.warn(f"{error} The run goes on, and keeps no more answers.", stacklevel=2)

    def _identity(self, *, reached: bool = False) -> dict[str, Any]:
        """What answers are kept by: the settings, and the recipe's revision or else what the server says of its model.

        A server that is off is taken for what it was last; one that is ``reached`` after all is asked once more.
        """
        config, cache = self._config, self._cache
        if cache is None or config.revision is not None:
            return config.identity
        with self._describing:
            if self._served is None or (reached and not self._described):
                said = self._endpoint.describe()
                self._described = said is not None or reached
                if said is not None:
                    self._write(lambda cache: cache.remember_served(config.url, config.identity, said))
                self._served = (
                    said if said is not None else cache.last_served(config.url, config.identity) or {}
                )
            return config.identity | ({"served": self._served} if self._served else {})
