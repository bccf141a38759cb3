"""What every paid-for guide needs: requests side by side and ahead of time, a cache, a budget."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace

from rlgf.errors import UserError
from rlgf.guides.base import BudgetSpentError, Request, Usage
from rlgf.guides.cache import GuideCache
from rlgf.guides.http import Answer, Endpoint, HTTPGuideConfig
from rlgf.types import Completion

_CHARACTERS_A_TOKEN = 2.0
"""A low guess, so that what is set aside for a request before it is answered is rarely too little."""


@dataclass
class _UnderWay:
    future: Future[Answer]
    aside: Usage
    """The most that it may cost, set aside until it is answered."""


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
        self._cache = GuideCache(config.cache) if config.cache is not None else None
        self._pool = ThreadPoolExecutor(config.concurrency, thread_name_prefix="guide")
        self._under_way: dict[Request, _UnderWay] = {}
        self._busy = _Stopwatch()

    @property
    def accounts(self) -> dict[str, Usage]:
        """See `RemoteGuide.accounts`."""
        return {self.config.model: self.usage}

    def restore(self, accounts: Mapping[str, Usage]) -> None:
        """See `RemoteGuide.restore`."""
        self.usage = accounts.get(self.config.model, Usage())

    @property
    def aside(self) -> dict[str, Usage]:
        """See `BudgetedGuide.aside`."""
        return {self.config.model: sum((one.aside for one in self._under_way.values()), Usage())}

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
        """See `RemoteGuide.prefetch`. What the budget does not allow is left to `write` to refuse."""
        for request in map(_plain, requests):
            if request not in self._under_way and self._kept(request) is None and self._affords([request]):
                self._submit(request)

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        """See `Guide.write`.

        Every answer is kept in the cache as it comes, also those of a call that fails.

        Raises:
            BudgetSpentError: the budget does not allow these requests; none of the new ones was sent.
            UserError: the server gives no usable answer; see `Endpoint.ask`.
        """
        requests = [_plain(request) for request in requests]
        kept = {request: self._kept(request) for request in requests if request not in self._under_way}
        new = [request for request, answer in kept.items() if answer is None]
        if not self._affords(new):
            raise BudgetSpentError(self._over_budget(), go_on=self.config.budget.then == "unguided")
        for request in new:
            self._submit(request)
        started = time.perf_counter()
        fresh = self._settle([request for request in dict.fromkeys(requests) if request in self._under_way])
        self.usage.waited_seconds += time.perf_counter() - started
        self.usage.busy_seconds += self._busy.take()
        hits = [request for request in requests if request not in fresh]
        self.usage.cached += len(hits)
        if self._cache is not None:
            self._cache.count_hits(self.config.identity, len(hits))
        answers = {**kept, **fresh}
        return [self._completion(answers[request]) for request in requests]

    def close(self) -> None:
        """Give up on what is under way; the guide cannot be asked again."""
        self._endpoint.close()
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._cache is not None:
            self._cache.close()

    def _settle(self, requests: Sequence[Request]) -> dict[Request, Answer]:
        """Wait for what is under way and book it, in the order of the requests."""
        answers: dict[Request, Answer] = {}
        failed: UserError | None = None
        for request in requests:
            under_way = self._under_way.pop(request)
            try:
                answer = under_way.future.result()
            except UserError as error:
                failed = failed or error
                continue
            answers[request] = answer
            self._book(answer, under_way.aside)
        if failed is not None:
            raise failed
        return answers

    def _submit(self, request: Request) -> None:
        self._under_way[request] = _UnderWay(self._pool.submit(self._ask, request), self._most(request))

    def _ask(self, request: Request) -> Answer:
        with self._busy:
            answer = self._endpoint.ask(request)
        if self._cache is not None:
            self._cache.put(self.config.identity, request, asdict(answer))
        return answer

    def _kept(self, request: Request) -> Answer | None:
        found = self._cache.get(self.config.identity, request) if self._cache is not None else None
        return None if found is None else Answer(**found)

    def _completion(self, answer: Answer | None) -> Completion:
        assert answer is not None, "kept, or just asked for"
        self.usage.empty += not answer.text.strip()
        self.usage.refused += answer.refused
        # Some servers do not say what they used.
        return Completion(answer.text, answer.finished, sampled=answer.completion_tokens or None)

    def _book(self, answer: Answer, most: Usage) -> None:
        tokens = (answer.prompt_tokens, answer.completion_tokens)
        # Some servers do not say what they used.
        used = self._price(*tokens) if any(tokens) else most
        self.usage += replace(used, retries=answer.retries)

    def _most(self, request: Request) -> Usage:
        """What a request costs at most, before its answer says what it did cost."""
        around = len(self.config.template) if self.config.style == "chat" else 0
        prompt = (len(request.prefix) + around) / _CHARACTERS_A_TOKEN
        return self._price(math.ceil(prompt), math.ceil(request.max_new_tokens * self.config.token_ratio))

    def _price(self, prompt: int, completion: int) -> Usage:
        prices = self.config.prices
        cost = (prompt * prices.prompt + completion * prices.completion) / 1e6
        return Usage(calls=1, prompt_tokens=prompt, completion_tokens=completion, cost=cost)

    def _affords(self, requests: Sequence[Request]) -> bool:
        """Whether the budget allows all of them on top of what is booked and set aside."""
        aside = [under_way.aside for under_way in self._under_way.values()]
        total = sum([*aside, *map(self._most, requests)], self.usage + self._others)
        budget = self.config.budget
        return (
            total.calls <= (budget.calls or math.inf)
            and total.prompt_tokens + total.completion_tokens <= (budget.tokens or math.inf)
            and total.cost <= (budget.cost or math.inf)
        )

    def _over_budget(self) -> str:
        used, budget = self.usage, self.config.budget
        return (
            f"the guide's budget is spent: {used.calls} calls, {used.prompt_tokens + used.completion_tokens} tokens, "
            f"cost {used.cost:.4g}, and the next update would go over 'guide.budget' "
            f"{budget.model_dump(exclude_none=True, exclude={'then'})}; raise it and --resume, or set "
            "'guide.budget.then: unguided'."
        )


def _plain(request: Request) -> Request:
    """The request as a server sees it: text alone."""
    return replace(request, prompt_ids=None, written_ids=())
