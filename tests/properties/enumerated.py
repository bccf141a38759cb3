"""A problem small enough to write out whole: its texts, how likely each is, and the exact gradients of objectives."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from rlgf.algorithms import Algorithm, Term
from rlgf.guides import LocalGuide
from rlgf.learning.assessor import Assessor
from rlgf.learning.inputs import read_by
from rlgf.learning.rates import UpdateConfig
from rlgf.learning.updater import Updater
from rlgf.models.sampling import Sampling
from rlgf.rewards import Reward
from rlgf.rollout.assembly import assemble
from rlgf.rollout.help import positions
from rlgf.rollout.writers import Draft
from rlgf.types import Author, Rollout, Sample
from toys import LENGTH, STATES, TableCritic, TableModel, state_index, table_language_model

RESPONSES = list(itertools.product(range(3), repeat=LENGTH))


PERMUTATIONS = list(itertools.permutations([0.5, 0.25, 0.25]))


KL = 0.3


def table(shift: int) -> Tensor:
    return torch.tensor([PERMUTATIONS[(3 * i + shift) % 6] for i in range(len(STATES))])


POLICY, GUIDE, REFERENCE = table(0), table(2), table(5)


def score(response: tuple[int, ...]) -> float:
    """A reward with no structure to be right by accident."""
    return (
        float((7 * response[0] + 3 * response[1] ** 2 + 5 * response[0] * response[2] + response[2]) % 11)
        / 10
    )


def reward(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    return [score(tuple("abc".index(letter) for letter in text)) for text in completions]


def likelihood(probabilities: Tensor, response: tuple[int, ...], start: int, end: int) -> Tensor:
    """Probability of tokens start..end-1 given those before them."""
    factors = [probabilities[state_index(response[:t]), response[t]] for t in range(start, end)]
    return torch.stack(factors).prod() if factors else torch.tensor(1.0)


def episodes(row: Algorithm) -> Iterator[tuple[tuple[int, ...], int, int]]:
    """Every (response, switch, how often in 256 episodes) of a row with roll-in probability 1/2."""
    tables = {Author.POLICY: POLICY, Author.GUIDE: GUIDE}
    for response in RESPONSES:
        for switch in range(LENGTH) if row.script.rollin is not None else [0]:
            weight = 256.0 if row.script.rollin is None else 128.0 if switch == 0 else 64.0
            first = (
                likelihood(tables[row.script.rollin], response, 0, switch)
                if row.script.rollin is not None
                else 1.0
            )
            rest = likelihood(tables[row.script.rollout], response, switch, LENGTH)
            count = float(weight * first * rest)
            assert count == int(count), "every episode stands a whole number of times"
            yield response, switch, int(count)


def draft(row: Algorithm, response: tuple[int, ...], switch: int) -> Draft:
    made = Draft(Sample(""), [3], seed=0)
    made.ids = list(response)
    made.authors = [row.script.rollin if t < switch else row.script.rollout for t in range(LENGTH)]
    made.logprobs = [
        float(POLICY[state_index(response[:t]), response[t]].log()) if author is Author.POLICY else 0.0
        for t, author in enumerate(made.authors)
    ]
    return made


def rollout_of(drafts: list[Draft], groups: list[int] | None = None) -> Rollout:
    return assemble(drafts, groups or list(range(len(drafts))), table_language_model(POLICY))


def policy_term(row: Algorithm) -> Term:
    return next(term for term in row.terms.values() if not term.of_critic)


def whole_distribution(row: Algorithm) -> Rollout:
    return rollout_of([draft(row, r, h) for r, h, count in episodes(row) for _ in range(count)])


def expected_gradient(
    row: Algorithm,
    rollout: Rollout,
    values: Tensor | None = None,
    kl: float = KL,
    micro_tokens: int = 10**6,
    sampling: Sampling | None = None,
    start: Tensor = POLICY,
    pay: Reward = reward,
) -> Tensor:
    """The library's gradient, summed over tokens and averaged over episodes, (states, 3).

    ``start`` is where the policy stands: where it sampled, or where it has come to since.
    """
    sampling = sampling or Sampling()
    policy = table_language_model(start)
    critics = {} if row.critic is None or values is None else {row.critic: TableCritic(values.clone())}
    assessor = Assessor(policy, table_language_model(REFERENCE), critics, pay, sampling, 10**6)
    experience = assessor.assess(rollout, row, kl)
    config = UpdateConfig(max_micro_tokens=micro_tokens)
    guide = LocalGuide(table_language_model(GUIDE), policy.tokenizer, Sampling())
    updater = Updater(policy, critics, sampling, config, seed=0, guide=guide)
    updater.backward(experience, row)
    assert isinstance(policy.model, TableModel)
    gradient = policy.model.table.grad
    assert gradient is not None
    # The loss is a mean over tokens; its negative, a sum over tokens, is the objective's gradient.
    return -gradient[:, :3] * read_by(policy_term(row), rollout, row).sum() / len(rollout)


def gradient_of(objective: Callable[[Tensor], Tensor], at: Tensor = POLICY) -> Tensor:
    """Exact gradient at a policy's logits of an objective of its probabilities, (states, 3)."""
    logits = at.log().clone().requires_grad_()
    objective(logits.softmax(dim=-1)).backward()
    assert logits.grad is not None
    return logits.grad


def penalized(probabilities: Tensor, response: tuple[int, ...], start: int, kl: float) -> Tensor:
    """Reward less the KL penalty of the tokens from start on."""
    total = torch.tensor(score(response))
    for t in range(start, LENGTH):
        at = state_index(response[:t]), response[t]
        total = total - kl * (probabilities[at].log() - REFERENCE[at].log())
    return total


def objective(row: Algorithm, kl: float) -> Callable[[Tensor], Tensor]:
    """Expected penalized reward of a policy that goes on from the row's start states."""

    def value(probabilities: Tensor) -> Tensor:
        total = torch.tensor(0.0)
        for response in RESPONSES:
            for switch in range(LENGTH) if row.script.rollin is not None else [0]:
                chance = 1.0 if row.script.rollin is None else 0.5 if switch == 0 else 0.25
                start = likelihood(GUIDE, response, 0, switch)
                total = total + chance * start * likelihood(
                    probabilities, response, switch, LENGTH
                ) * penalized(probabilities, response, switch, kl)
        return total

    return value


def state_values(probabilities: Tensor, kl: float) -> Tensor:
    """Exact V(s) of an author who pays a KL penalty, by summing over all ways on."""
    values = []
    for state in STATES:
        total = torch.tensor(0.0)
        for response in RESPONSES:
            if response[: len(state)] == state:
                chance = likelihood(probabilities, response, len(state), LENGTH)
                total = total + chance * penalized(probabilities, response, len(state), kl)
        values.append(total)
    return torch.stack(values)


ANY_VALUES = torch.linspace(-1, 1, len(STATES))


def pairs(row: Algorithm) -> Rollout:
    """Every pair of continuations of one start state, as often as it is likely."""
    starts: dict[tuple[int, ...], list[tuple[tuple[int, ...], int]]] = {}
    for response, switch, _ in episodes(row):
        ways = int(float(likelihood(POLICY, response, switch, LENGTH)) * 4 ** (LENGTH - switch))
        starts.setdefault((switch, *response[:switch]), []).append((response, ways))
    drafts, groups = [], []
    for (switch, *prefix), continuations in starts.items():
        chance = 1.0 if row.script.rollin is None else 0.5 if switch == 0 else 0.25
        start = float(likelihood(GUIDE, tuple(prefix), 0, switch)) if row.script.rollin is not None else 1.0
        # A pair of short continuations is likelier than one of long ones: as often as it is likely.
        copies = int(chance * start * 2 * 16**switch) if row.script.rollin is not None else 1
        listed = [response for response, ways in continuations for _ in range(ways)]
        for one, other in itertools.product(listed, listed):
            for _ in range(copies):
                groups += [len(drafts) // 2] * 2
                drafts += [draft(row, one, switch), draft(row, other, switch)]
    return rollout_of(drafts, groups)


def paired_surrogate(
    probabilities: Tensor, one: tuple[int, ...], other: tuple[int, ...], start: int
) -> Tensor:
    """What GRPO pushes up and down in a group of two that goes on from a state: +1 and -1, 0 for equals."""
    logs = [likelihood(probabilities, response, start, LENGTH).log() for response in (one, other)]
    difference = score(one) - score(other)
    return (logs[0] - logs[1]) * ((difference > 1e-5) - (difference < -1e-5)) / 2


def twice(response: tuple[int, ...], other: tuple[int, ...], start: int) -> float:
    """The probability that two texts of the policy go on from a state like this."""
    return float(likelihood(POLICY, response, start, LENGTH) * likelihood(POLICY, other, start, LENGTH))


REFERENCE_TEXT = (2, 0, 1)


def after_reference(row: Algorithm, switches: list[int]) -> Rollout:
    """Every pair of texts that go on from beginnings of the reference, each beginning as likely as another."""
    drafts = []
    for switch in switches:
        after = [r for r in RESPONSES if r[:switch] == REFERENCE_TEXT[:switch]]
        for one, other in itertools.product(after, after):
            for _ in range(int(twice(one, other, switch) * 16 ** (LENGTH - min(switches)))):
                drafts += [draft(row, response, switch) for response in (one, other)]
    return rollout_of(drafts, [i // 2 for i in range(len(drafts))])


def surrogate_after(probabilities: Tensor, switch: int) -> Tensor:
    """What GRPO pushes over pairs that go on from a beginning of the reference."""
    total = torch.tensor(0.0)
    after = [r for r in RESPONSES if r[:switch] == REFERENCE_TEXT[:switch]]
    for one, other in itertools.product(after, after):
        total = total + twice(one, other, switch) * paired_surrogate(probabilities, one, other, switch)
    return total


def switches_of(row: Algorithm, progress: float) -> list[int]:
    """The lengths among which the row draws that of a roll-in, for the reference of three tokens."""
    opened = Draft(Sample(""), [3], seed=0, help_limit=LENGTH)
    return list(positions(opened, row.help.length, progress))


def total_kl(row: Algorithm, *, forward: bool = False) -> Callable[[Tensor], Tensor]:
    """KL(policy || reference), or the other way round, summed over the states that the old policy visits."""

    def value(probabilities: Tensor) -> Tensor:
        total = torch.tensor(0.0)
        for state in STATES:
            at = state_index(state)
            p, q = (REFERENCE, probabilities) if forward else (probabilities, REFERENCE)
            divergence = (p[at] * (p[at] / q[at]).log()).sum()
            for switch in range(len(state) + 1) if row.script.rollin is not None else [0]:
                chance = 1.0 if row.script.rollin is None else 0.5 if switch == 0 else 0.25
                reach = likelihood(GUIDE, state, 0, switch) * likelihood(POLICY, state, switch, len(state))
                total = total + chance * reach * divergence
        return total

    return value


def paid_alike(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    return [0.7] * len(completions)


def divergence(probabilities: Tensor, state: tuple[int, ...], beta: float) -> Tensor:
    """Of the policy from the guide at one state, from the definition."""
    p, q = GUIDE[state_index(state)], probabilities[state_index(state)]
    if beta == 0:
        return (p * (p / q).log()).sum()
    if beta == 1:
        return (q * (q / p).log()).sum()
    m = beta * p + (1 - beta) * q
    return beta * (p * (p / m).log()).sum() + (1 - beta) * (q * (q / m).log()).sum()


def total_divergence(row: Algorithm, *, through_sampling: bool = False) -> Callable[[Tensor], Tensor]:
    """The expected sum over an episode's states after the switch."""

    def value(probabilities: Tensor) -> Tensor:
        total = torch.tensor(0.0)
        for state in STATES:
            for switch in range(len(state) + 1) if row.script.rollin is not None else [0]:
                chance = 1.0 if row.script.rollin is None else 0.5 if switch == 0 else 0.25
                writer = probabilities if through_sampling else POLICY
                reach = likelihood(GUIDE, state, 0, switch) * likelihood(writer, state, switch, len(state))
                total = total + chance * reach * divergence(
                    probabilities, state, row.terms["distill"].options["jsd_beta"]
                )
        return total

    return value
