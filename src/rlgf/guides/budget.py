"""What requests may cost at most, and how much of a budget is left for them; several processes share one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rlgf.guides.base import Request, Usage
from rlgf.guides.http_config import BudgetConfig, HTTPGuideConfig
from rlgf.guides.messages import chat_messages

_CHARACTERS_A_TOKEN = 2.0
"""A low guess, so that too little is rarely set aside for a request before it is answered."""
_AROUND_A_MESSAGE = 16
"""Characters that stand for the tokens which a server's chat template puts around a message."""


def most(config: HTTPGuideConfig, requests: Sequence[Request]) -> Usage:
    """What requests cost at most together, before their answers say what they did cost."""
    prompt = sum(math.ceil(_characters(config, one) / _CHARACTERS_A_TOKEN) for one in requests)
    # After a text that is scored one token is written.
    completion = sum(
        math.ceil(one.max_new_tokens * config.token_ratio) if one.scored is None else 1 for one in requests
    )
    return priced(config, len(requests), prompt, completion)


def _characters(config: HTTPGuideConfig, request: Request) -> int:
    """The characters of all that a request sends as its text."""
    if request.messages and config.style == "chat":
        sent = chat_messages(config, request)
        return sum(len(one["content"]) + _AROUND_A_MESSAGE for one in sent)
    around = len(config.template) + len(config.system or "") if config.style == "chat" else 0
    return len(request.prefix) + len(request.scored or "") + around


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


def kept_for_others(budget: BudgetConfig, usage: Usage, asides: Sequence[Usage], place: int) -> Usage:
    """What one of several processes must leave of a budget to the others.

    The rest of each limit is dealt out evenly, so that all processes together never pass it; who gets the odd
    call changes from call to call.

    Args:
        usage: what all of them have used.
        asides: what the requests under way of each process may cost at most.
        place: which of them is this one.
    """
    total, own = sum(asides, Usage()), asides[place]
    number, parts = (place + usage.calls) % len(asides), len(asides)

    def others(limit: int | None, spent: int, under_way: int) -> int:
        left = max((limit or 0) - spent, 0)
        return under_way + left - (left * (number + 1) // parts - left * number // parts)

    spent = usage + total
    tokens_spent = spent.prompt_tokens + spent.completion_tokens
    tokens_under_way = (
        total.prompt_tokens + total.completion_tokens - own.prompt_tokens - own.completion_tokens
    )
    return Usage(
        calls=others(budget.calls, spent.calls, total.calls - own.calls),
        prompt_tokens=others(budget.tokens, tokens_spent, tokens_under_way),
        cost=total.cost - own.cost + max((budget.cost or 0.0) - spent.cost, 0.0) * (1 - 1 / parts),
    )


def over_budget(budget: BudgetConfig, used: Usage) -> str:
    """The message where a budget does not allow the next update."""
    advice = "" if budget.then == "unguided" else "; raise it, or set 'guide.budget.then: unguided'"
    return (
        f"the guide's budget is spent: {used.calls} calls, {used.prompt_tokens + used.completion_tokens} tokens, "
        f"cost {used.cost:.4g}, and the next requests would go over 'guide.budget' "
        f"{budget.model_dump(exclude_none=True, exclude={'then'})}{advice}."
    )
