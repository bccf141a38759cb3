"""A guide on a server: requests side by side and ahead of time, each answer kept and booked."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rlgf.errors import UserError
from rlgf.guides.base import BudgetSpentError, Request, Usage
from rlgf.guides.budget import kept_for_others, most, over_budget, priced, within
from rlgf.guides.endpoint import Endpoint
from rlgf.guides.http_config import HTTPGuideConfig
from rlgf.guides.kept_answers import KeptAnswers
from rlgf.guides.reply import Answer
from rlgf.guides.under_way import Found, Stopwatch, UnderWay, Workers
from rlgf.jsontext import whole_characters
from rlgf.objectives.alignment import Piece
from rlgf.types import Completion, Message

_MANY = 8
"""Answers that can hardly all be cut off in thought by chance."""
_FAREWELL = 3.0
"""Seconds that a guide which is closed waits for answers that are paid for."""


class HTTPGuide:
    """A guide on an OpenAI-compatible server.

    What it answers depends on the requests alone, not on when they are asked or how long they take:
    its account is kept where `write` and `prefetch` are called, in the order of the requests.
    """

    def __init__(self, config: HTTPGuideConfig) -> None:
        """
        Raises:
            UserError: the cache cannot be read.
        """
        self.config = config
        self.usage = Usage()
        self._others = Usage()
        """What the limits keep for other processes of the run."""
        self._endpoint = Endpoint(config)
        self._answers = KeptAnswers(config, self._endpoint)
        self._workers = Workers(config.concurrency, self._find)
        self._under_way: dict[Request, UnderWay] = {}
        self._aside = Usage()
        """The sum set aside for all requests under way."""
        self._has_spoken = False
        self.busy = Stopwatch()
        """One for all members of an ensemble, so that a second in which several are asked counts once."""

    @property
    def accounts(self) -> dict[str, Usage]:
        """See `RemoteGuide.accounts`."""
        return {self.config.model: self.usage}

    def restore(self, accounts: Mapping[str, Usage]) -> None:
        """See `RemoteGuide.restore`."""
        self.usage = accounts.get(self.config.model, Usage())
        self._has_spoken |= self.usage.calls + self.usage.cached > self.usage.thought_only

    @property
    def aside(self) -> dict[str, Usage]:
        """See `RemoteGuide.aside`."""
        return {self.config.model: self._aside}

    def share_budget(self, asides: Sequence[Mapping[str, Usage]], place: int) -> None:
        """See `RemoteGuide.share_budget` and `kept_for_others`."""
        mine = [one.get(self.config.model, Usage()) for one in asides]
        self._others = kept_for_others(self.config.budget, self.usage, mine, place)

    def affords(self, requests: Sequence[Request]) -> bool:
        """See `RemoteGuide.affords`."""
        return self._affords(self._new(requests))

    def prefetch(self, requests: Sequence[Request]) -> None:
        """See `RemoteGuide.prefetch`. Requests that the budget does not allow together are left to `write`.

        Answers in the cache are found where requests are sent, so that the caller does not wait for the disk.
        """
        new = self._new(requests)
        if self._affords(new):
            self._submit(new)

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        """See `Guide.write`.

        Every answer is kept in the cache as it comes, also those of a call that fails.

        Raises:
            BudgetSpentError: the budget does not allow these requests; none of the new ones was sent.
            UserError: the server gives no usable answer, see `Endpoint.ask`; or a model thinks until its limit and
                has not answered yet.
        """
        answers = self._answered(plain := list(map(self._plain, requests)))
        completions = list(map(self._completion, answers))
        self._check_it_speaks(list(dict(zip(plain, answers, strict=True)).values()))
        return completions

    def score(self, requests: Sequence[Request]) -> list[list[Piece]]:
        """See `TextScoringGuide.score`; the probabilities are the server's, which is to say at temperature 1.

        Raises:
            UserError: see `write`, or the server does not say how probable a text is.
        """
        return [list(answer.pieces) for answer in self._answered(list(map(self._plain, requests)))]

    def _answered(self, requests: Sequence[Request]) -> list[Answer]:
        """The answer to each of some plain requests, which is booked."""
        kept = {request: self._answers.get(request) for request in requests if request not in self._under_way}
        new = [request for request, answer in kept.items() if answer is None]
        self._require_budget(new)
        self._submit(new)
        started = time.perf_counter()
        fresh = self._settle([request for request in dict.fromkeys(requests) if request in self._under_way])
        self.usage.waited_seconds += time.perf_counter() - started
        self.usage.busy_seconds += self.busy.take()
        paid = {request for request, found in fresh.items() if not found.cached}
        hits = sum(request not in paid for request in requests)
        self.usage.cached += hits
        self._answers.count_hits(hits)
        known = {request: answer for request, answer in kept.items() if answer is not None}
        known |= {request: found.answer for request, found in fresh.items()}
        return [known[request] for request in requests]

    def _require_budget(self, requests: Sequence[Request]) -> None:
        """Raises a `BudgetSpentError` where the budget does not allow these requests."""
        if not self._affords(requests):
            self._release_cached()
        if not self._affords(requests):
            self.wind_down("the guide's budget is spent.")
            spent = over_budget(self.config.budget, self.usage)
            raise BudgetSpentError(spent, go_on=self.config.budget.then == "unguided")

    def _new(self, requests: Sequence[Request]) -> list[Request]:
        """Those that are not asked ahead already, each once and as the server sees it."""
        return [one for one in dict.fromkeys(map(self._plain, requests)) if one not in self._under_way]

    def _plain(self, request: Request) -> Request:
        """The request as the server sees it: text of whole characters, or a chat without the policy's rendering."""
        plain = replace(request, prompt_ids=None, written_ids=(), scored_ids=(), messages=())
        if request.messages and self.config.style == "chat":
            messages = tuple(Message(m.role, whole_characters(m.content)) for m in request.messages)
            plain = replace(plain, prefix=request.written, prompt_length=0, messages=messages)
        return plain if plain.prefix.isascii() else replace(plain, prefix=whole_characters(plain.prefix))

    def wind_down(self, why: str) -> None:
        """See `RemoteGuide.wind_down`."""
        self._endpoint.halt(why)
        for request, under_way in list(self._under_way.items()):
            found = self._workers.outcome(under_way)
            self._release(under_way)
            if isinstance(found, BaseException):
                del self._under_way[request]
            elif not found.cached:
                self._book(found.answer, self._most([request]))
                under_way.outcome = replace(found, cached=True)
        self._endpoint.go_on()

    def close(self) -> None:
        """See `RemoteGuide.close`. Waits a little for the attempts that are under way."""
        self._endpoint.stop()
        # Those that are left end at once: who waits for one, in another thread, is told.
        self._workers.end(_FAREWELL)
        self._endpoint.close()
        self._answers.close()

    def _settle(self, requests: Sequence[Request]) -> dict[Request, Found]:
        """Wait for all that is under way and book it, in the order of the requests."""
        answers: dict[Request, Found] = {}
        failed: UserError | None = None
        for request in requests:
            under_way = self._under_way.pop(request)
            self._release(under_way)
            found = self._workers.outcome(under_way)
            if isinstance(found, UserError):
                failed = failed or found
                continue
            if isinstance(found, BaseException):
                raise found
            answers[request] = found
            if not found.cached:
                self._book(found.answer, self._most([request]))
        self.usage += priced(self.config, 0, *self._endpoint.take_wasted())
        if failed is not None:
            self.wind_down(str(failed))
            raise failed
        return answers

    def _release_cached(self) -> None:
        """Set nothing aside any more for what turns out to be in the cache."""
        for under_way in self._under_way.values():
            found = self._workers.outcome(under_way)
            if isinstance(found, Found) and found.cached:
                self._release(under_way)

    def _release(self, under_way: UnderWay) -> None:
        if under_way.set_aside:
            self._aside -= self._most([under_way.request])
            under_way.set_aside = False

    def _submit(self, requests: Sequence[Request]) -> None:
        self._under_way.update(zip(requests, self._workers.start(requests), strict=True))
        self._aside += self._most(requests)

    def _find(self, request: Request) -> Found:
        self._endpoint.require_going()
        kept = self._answers.get(request)
        if kept is not None:
            return Found(kept, cached=True)
        with self.busy:
            answer = self._endpoint.ask(request)
        # The first answer of a model that does nothing but think would stand in the way once its server lets it speak.
        if self._has_spoken or not answer.thought_only:
            self._answers.put(request, answer)
        return Found(answer, cached=False)

    def _completion(self, answer: Answer) -> Completion:
        self.usage.empty += not answer.text.strip()
        self.usage.refused += answer.refused
        self.usage.thought_only += answer.thought_only
        self.usage.mended += answer.mended
        # Some servers do not say what they used.
        return Completion(answer.text, answer.finished, sampled=answer.completion_tokens or None)

    def _book(self, answer: Answer, at_most: Usage) -> None:
        tokens = (answer.prompt_tokens, answer.completion_tokens)
        # Some servers do not say what they used.
        used = priced(self.config, 1, *tokens) if any(tokens) else at_most
        self.usage += replace(used, retries=answer.retries)

    def _most(self, requests: Sequence[Request]) -> Usage:
        return most(self.config, requests)

    def _affords(self, requests: Sequence[Request]) -> bool:
        """Whether the budget allows all of them on top of all that is booked and set aside."""
        return not self.config.budget.limited or within(
            self.config.budget, self.usage + self._aside + self._others + self._most(requests)
        )

    def _check_it_speaks(self, answers: Sequence[Answer]) -> None:
        """Refuse a model that does nothing but think; one that does so now and then gives an empty text.

        Raises:
            UserError: all of these are thinking alone, and they are many or none before them was not.
        """
        silent = bool(answers) and all(answer.thought_only for answer in answers)
        self._has_spoken |= bool(answers) and not silent
        if silent and (len(answers) >= _MANY or not self._has_spoken):
            off = "turn its thinking off, with 'guide.extra_body: {chat_template_kwargs: {enable_thinking: false}}' on vLLM"
            if all(answer.finished for answer in answers):
                raise UserError(
                    f"'guide.model' {self.config.model} ends its texts itself and gives its thinking alone: {off}; or start "
                    "the server without its reasoning parser, which may take answers for thinking."
                )
            raise UserError(
                f"'guide.model' {self.config.model} spent all of its tokens on thinking and gave no answer: raise "
                f"'guide.token_ratio' (it is {self.config.token_ratio:g}), or {off}."
            )
