"""What every paid-for guide needs: requests side by side and ahead of time, a cache, a budget."""

from __future__ import annotations

import bisect
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

from transformers import PreTrainedTokenizerBase

from rlgf.errors import UserError
from rlgf.guides.answer_cache import GuideCache
from rlgf.guides.base import BudgetSpentError, Request, Usage
from rlgf.guides.endpoint import Endpoint, chat_messages
from rlgf.guides.http_config import BudgetConfig, HTTPGuideConfig
from rlgf.guides.reply import Answer, whole_characters
from rlgf.guides.settings import GuideSettings
from rlgf.types import Completion, Message

_MANY = 8
"""Answers that can hardly all be cut off in thought by chance."""
_CHARACTERS_A_TOKEN = 2.0
"""A low guess, so that what is set aside for a request before it is answered is rarely too little."""
_AROUND_A_MESSAGE = 16
"""Characters that stand for the tokens which a server's chat template puts around a message."""


@dataclass(frozen=True)
class _Found:
    answer: Answer
    cached: bool
    """Whether it was there already."""


@dataclass(slots=True)
class _UnderWay:
    """Small, since there may be tens of thousands."""

    request: Request
    outcome: _Found | BaseException | None = None
    set_aside: bool = True
    """Whether the most that it may cost is set aside until it is answered."""


class _Stopwatch:
    """Runs while at least one thread is inside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._since = self._seconds = 0.0

    def __enter__(self) -> None:
        with self._lock:
            self._tick()
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._tick()
            self._inside -= 1

    def take(self) -> float:
        """Seconds since the last call."""
        with self._lock:
            self._tick()
            seconds, self._seconds = self._seconds, 0.0
        return seconds

    def _tick(self) -> None:
        now = time.perf_counter()
        if self._inside:
            self._seconds += now - self._since
        self._since = now


def most(config: HTTPGuideConfig, requests: Sequence[Request]) -> Usage:
    """What requests cost at most together, before their answers say what they did cost."""
    prompt = sum(math.ceil(_characters(config, one) / _CHARACTERS_A_TOKEN) for one in requests)
    completion = sum(math.ceil(one.max_new_tokens * config.token_ratio) for one in requests)
    return priced(config, len(requests), prompt, completion)


def _characters(config: HTTPGuideConfig, request: Request) -> int:
    """Of all that a request sends as its text."""
    if request.messages:
        sent = chat_messages(config, request)
        return sum(len(one["content"]) + _AROUND_A_MESSAGE for one in sent)
    around = len(config.template) + len(config.system or "") if config.style == "chat" else 0
    return len(request.prefix) + around


def priced(config: HTTPGuideConfig, calls: int, prompt: int, completion: int) -> Usage:
    """So many calls and tokens at a recipe's prices."""
    cost = (prompt * config.prices.prompt + completion * config.prices.completion) / 1e6
    return Usage(calls=calls, prompt_tokens=prompt, completion_tokens=completion, cost=cost)


def within(budget: BudgetConfig, total: Usage) -> bool:
    """Whether a budget allows it."""
    return (
        total.calls <= (budget.calls or math.inf)
        and total.prompt_tokens + total.completion_tokens <= (budget.tokens or math.inf)
        # A running sum of floats may be off by its last digit.
        and total.cost <= (budget.cost or math.inf) * (1 + 1e-9)
    )


class HTTPGuide:
    """A guide on an OpenAI-compatible server.

    What it answers depends on the requests alone, not on when they are asked or how long they take:
    its account is kept where `write` and `prefetch` are called, in the order of the requests.
    """

    settings: ClassVar[type[GuideSettings]] = HTTPGuideConfig

    @classmethod
    def from_settings(
        cls, settings: GuideSettings, policy_tokenizer: PreTrainedTokenizerBase | None
    ) -> HTTPGuide:
        """See `GuideKind.from_settings`."""
        assert isinstance(settings, HTTPGuideConfig), "made by its kind"
        return cls(settings)

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
        self._cache = GuideCache(config.cache) if config.cache is not None else None
        self._pool = ThreadPoolExecutor(config.concurrency, thread_name_prefix="guide")
        self._arrived = threading.Condition()
        self._under_way: dict[Request, _UnderWay] = {}
        self._aside = Usage()
        """What is set aside for all that is under way."""
        self._has_spoken = False
        self._describing = threading.Lock()
        self._served: dict[str, Any] | None = None
        self._described = False
        self._busy = _Stopwatch()

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
        """See `BudgetedGuide.aside`."""
        return {self.config.model: self._aside}

    def share_budget(self, asides: Sequence[Mapping[str, Usage]], place: int) -> None:
        """See `BudgetedGuide.share_budget`. What is left of each limit is dealt out evenly, so that all
        processes together never pass it; who gets the odd call changes from call to call."""
        mine = [one.get(self.config.model, Usage()) for one in asides]
        total, own, budget = sum(mine, Usage()), mine[place], self.config.budget
        number, parts = (place + self.usage.calls) % len(mine), len(mine)

        def others(limit: int | None, spent: int, under_way: int) -> int:
            left = max((limit or 0) - spent, 0)
            return under_way + left - (left * (number + 1) // parts - left * number // parts)

        spent = self.usage + total
        tokens_spent = spent.prompt_tokens + spent.completion_tokens
        tokens_under_way = (
            total.prompt_tokens + total.completion_tokens - own.prompt_tokens - own.completion_tokens
        )
        self._others = Usage(
            calls=others(budget.calls, spent.calls, total.calls - own.calls),
            prompt_tokens=others(budget.tokens, tokens_spent, tokens_under_way),
            cost=total.cost - own.cost + max((budget.cost or 0.0) - spent.cost, 0.0) * (1 - 1 / parts),
        )

    def prefetch(self, requests: Sequence[Request]) -> None:
        """See `RemoteGuide.prefetch`. What the budget does not allow is left to `write` to refuse.

        What is in the cache is found where requests are sent, so that the caller does not wait for the disk.
        """
        plain = dict.fromkeys(map(self._plain, requests))
        new = [request for request in plain if request not in self._under_way]
        if not self._affords(new):
            # The first number of requests that would be too many.
            counts = range(1, len(new) + 1)
            new = new[: bisect.bisect_left(counts, True, key=lambda count: not self._affords(new[:count]))]
        self._submit(new)

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        """See `Guide.write`.

        Every answer is kept in the cache as it comes, also those of a call that fails.

        Raises:
            BudgetSpentError: the budget does not allow these requests; none of the new ones was sent.
            UserError: the server gives no usable answer, see `Endpoint.ask`; or a model thinks until its limit and
                has not answered yet.
        """
        requests = [self._plain(request) for request in requests]
        kept = {request: self._kept(request) for request in requests if request not in self._under_way}
        new = [request for request, answer in kept.items() if answer is None]
        if not self._affords(new):
            self._release_cached()
            if not self._affords(new):
                raise BudgetSpentError(self._over_budget(), go_on=self.config.budget.then == "unguided")
        self._submit(new)
        started = time.perf_counter()
        fresh = self._settle([request for request in dict.fromkeys(requests) if request in self._under_way])
        self.usage.waited_seconds += time.perf_counter() - started
        self.usage.busy_seconds += self._busy.take()
        paid = {request for request, found in fresh.items() if not found.cached}
        hits = len([request for request in requests if request not in paid])
        self.usage.cached += hits
        if self._cache is not None:
            self._cache.count_hits(self._identity(), hits)
        answers = {**kept, **{request: found.answer for request, found in fresh.items()}}
        completions = [self._completion(answers[request]) for request in requests]
        self._check_it_speaks([answer for answer in answers.values() if answer is not None])
        return completions

    def _plain(self, request: Request) -> Request:
        """The request as the server sees it: text of whole characters, or a chat without the policy's rendering."""
        plain = replace(request, prompt_ids=None, written_ids=(), messages=())
        if request.messages and self.config.style == "chat":
            messages = tuple(Message(m.role, whole_characters(m.content)) for m in request.messages)
            plain = replace(plain, prefix=request.written, prompt_length=0, messages=messages)
        return plain if plain.prefix.isascii() else replace(plain, prefix=whole_characters(plain.prefix))

    def close(self) -> None:
        """See `RemoteGuide.close`. Waits for as long as one attempt may take."""
        self._endpoint.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._endpoint.close()
        if self._cache is not None:
            self._cache.close()

    def _settle(self, requests: Sequence[Request]) -> dict[Request, _Found]:
        """Wait for what is under way and book it, in the order of the requests."""
        answers: dict[Request, _Found] = {}
        failed: UserError | None = None
        for request in requests:
            under_way = self._under_way.pop(request)
            self._release(under_way)
            found = self._outcome(under_way)
            if isinstance(found, UserError):
                failed = failed or found
                continue
            if isinstance(found, BaseException):
                raise found
            answers[request] = found
            if not found.cached:
                self._book(found.answer, self._most([request]))
        if failed is not None:
            raise failed
        return answers

    def _release_cached(self) -> None:
        """Set nothing aside any more for what turns out to be in the cache."""
        for under_way in self._under_way.values():
            found = self._outcome(under_way)
            if isinstance(found, _Found) and found.cached:
                self._release(under_way)

    def _outcome(self, under_way: _UnderWay) -> _Found | BaseException:
        with self._arrived:
            self._arrived.wait_for(lambda: under_way.outcome is not None)
        assert under_way.outcome is not None
        return under_way.outcome

    def _release(self, under_way: _UnderWay) -> None:
        if under_way.set_aside:
            self._aside -= self._most([under_way.request])
            under_way.set_aside = False

    def _submit(self, requests: Sequence[Request]) -> None:
        added = list(map(_UnderWay, requests))
        self._under_way.update(zip(requests, added, strict=True))
        self._aside += self._most(requests)
        # As many jobs as can run, each of which takes what is next: handing over thousands of requests costs no more.
        queue = iter(added)
        for _ in range(min(self.config.concurrency, len(added))):
            self._pool.submit(self._work, queue)

    def _work(self, queue: Iterator[_UnderWay]) -> None:
        for under_way in queue:
            try:
                outcome: _Found | BaseException = self._find(under_way.request)
            except BaseException as error:  # the one who waits for it raises it
                outcome = error
            with self._arrived:
                under_way.outcome = outcome
                self._arrived.notify_all()

    def _find(self, request: Request) -> _Found:
        if self._endpoint.closed:
            raise UserError("the guide was closed while it was asked.")
        kept = self._kept(request)
        if kept is not None:
            return _Found(kept, cached=True)
        with self._busy:
            answer = self._endpoint.ask(request)
        if self._cache is not None:
            self._cache.put(self._identity(reached=True), request, asdict(answer))
        return _Found(answer, cached=False)

    def _kept(self, request: Request) -> Answer | None:
        found = self._cache.get(self._identity(), request) if self._cache is not None else None
        return None if found is None else Answer(**found)

    def _identity(self, *, reached: bool = False) -> dict[str, Any]:
        """What answers are kept by: the settings, and the recipe's revision or else what the server says of its model.

        A server that is off is taken for what it was last; one that is ``reached`` after all is asked once more.
        """
        config, cache = self.config, self._cache
        if cache is None or config.revision is not None:
            return config.identity
        with self._describing:
            if self._served is None or (reached and not self._described):
                said = self._endpoint.describe()
                self._described = said is not None or reached
                if said is not None:
                    cache.remember_served(config.url, config.identity, said)
                self._served = (
                    said if said is not None else cache.last_served(config.url, config.identity) or {}
                )
            return config.identity | ({"served": self._served} if self._served else {})

    def _completion(self, answer: Answer | None) -> Completion:
        assert answer is not None, "kept, or just asked for"
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
        """Whether the budget allows all of them on top of what is booked and set aside."""
        return not self.config.budget.limited or within(
            self.config.budget, self.usage + self._aside + self._others + self._most(requests)
        )

    def _check_it_speaks(self, answers: Sequence[Answer]) -> None:
        """Refuse a model that does nothing but think; one that does so now and then gives an empty text.

        Raises:
            UserError: all of these were cut off in thought, and they are many or none before them was not.
        """
        silent = bool(answers) and all(answer.thought_only for answer in answers)
        self._has_spoken |= bool(answers) and not silent
        if silent and (len(answers) >= _MANY or not self._has_spoken):
            raise UserError(
                f"'guide.model' {self.config.model} spent all of its tokens on thinking and gave no answer: raise "
                f"'guide.token_ratio' (it is {self.config.token_ratio:g}), or turn its thinking off, with "
                "'guide.extra_body: {chat_template_kwargs: {enable_thinking: false}}' on vLLM, then --resume."
            )

    def _over_budget(self) -> str:
        used, budget = self.usage, self.config.budget
        return (
            f"the guide's budget is spent: {used.calls} calls, {used.prompt_tokens + used.completion_tokens} tokens, "
            f"cost {used.cost:.4g}, and the next update would go over 'guide.budget' "
            f"{budget.model_dump(exclude_none=True, exclude={'then'})}; raise it and --resume, or set "
            "'guide.budget.then: unguided'."
        )
