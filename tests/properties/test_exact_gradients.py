"""Expected gradients against exact ones, on a problem small enough to write out whole.

Three letters, three tokens, 13 states. Probabilities are multiples of 1/4, so a batch in which each
episode stands as often as it is likely *is* the distribution: its mean gradient is the expectation.
The exact gradients come from automatic differentiation of the objective itself, or from sums over
states, and share no code with the losses, masks and advantages that are tested.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from rlgf.algorithms import ALGORITHMS, Algorithm, Mixture, Term
from rlgf.algorithms.catalog import (
    ADABACK,
    AGGREVATED,
    BC,
    DAGGER,
    DISTILL,
    HPT,
    PPO,
    PPO_PLUS_PLUS,
    PREFIX_RL,
    RLOO,
    SEQ_KD,
    UFT,
)
from rlgf.guides import LocalGuide
from rlgf.learning.assessor import Assessor
from rlgf.learning.config import UpdateConfig
from rlgf.learning.inputs import read_by
from rlgf.learning.updater import Updater
from rlgf.models.generate import sample_continuations
from rlgf.models.sampling import Sampling
from rlgf.rewards import Reward
from rlgf.rollout.assembly import assemble
from rlgf.rollout.help import positions
from rlgf.rollout.record import PromptHistory
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


@pytest.mark.parametrize("base", [PPO, PPO_PLUS_PLUS], ids=lambda row: row.name)
@pytest.mark.parametrize(
    ("gae_lambda", "values"),
    [(1.0, ANY_VALUES), (0.3, state_values(POLICY, KL)), (0.0, state_values(POLICY, KL))],
    ids=["lambda 1, any critic", "lambda 0.3, exact critic", "lambda 0, exact critic"],
)
def test_ppo_follows_the_gradient_of_its_objective(
    base: Algorithm, gae_lambda: float, values: Tensor
) -> None:
    row = base.model_copy(update={"gae_lambda": gae_lambda, "whiten": False})
    found = expected_gradient(row, whole_distribution(row), values)
    torch.testing.assert_close(found, gradient_of(objective(row, KL)), atol=1e-5, rtol=1e-4)


def test_whitening_changes_the_length_of_the_gradient_only() -> None:
    row = PPO.model_copy(update={"gae_lambda": 1.0})
    found = expected_gradient(row, whole_distribution(row), ANY_VALUES)
    exact = gradient_of(objective(row, KL))
    assert torch.cosine_similarity(found.flatten(), exact.flatten(), dim=0) > 1 - 1e-5


def test_gradient_does_not_depend_on_micro_batches() -> None:
    rollout = whole_distribution(PPO_PLUS_PLUS)
    whole = expected_gradient(PPO_PLUS_PLUS, rollout, ANY_VALUES)
    cut = expected_gradient(PPO_PLUS_PLUS, rollout, ANY_VALUES, micro_tokens=40)
    torch.testing.assert_close(cut, whole, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("gae_lambda", [0.0, AGGREVATED.gae_lambda], ids=["lambda 0", "as shipped"])
def test_aggrevated_improves_on_the_guide_by_one_step(gae_lambda: float) -> None:
    """Sum over t < h of E[grad log pi(a|s) A(s, a)], A = A^g + lambda times the next step's up to the switch, and
    A^g = r + V^g(s') - V^g(s): with lambda 0 one step, with the lambda that is shipped what its equation says.
    """
    values = state_values(GUIDE, 0.0)
    row = AGGREVATED.model_copy(update={"gae_lambda": gae_lambda, "whiten": False})

    def advantage(state: tuple[int, ...], token: int, switch: int) -> Tensor:
        at, following = (state_index(state), token), (*state, token)
        penalty = KL * (POLICY[at].log() - REFERENCE[at].log())
        found = values[state_index(following)] - penalty - values[at[0]]
        if len(following) < switch:
            later = [POLICY[state_index(following), a] * advantage(following, a, switch) for a in range(3)]
            found = found + gae_lambda * torch.stack(later).sum()
        return found

    def surrogate(probabilities: Tensor) -> Tensor:
        total = torch.tensor(0.0)
        for switch in (1, 2):
            for state in (s for s in STATES if len(s) < switch):
                reach = likelihood(POLICY, state, 0, len(state))
                for token in range(3):
                    at = state_index(state), token
                    total = total + 0.25 * reach * probabilities[at] * advantage(state, token, switch)
        return total

    found = expected_gradient(row, whole_distribution(row), values)
    torch.testing.assert_close(found, gradient_of(surrogate), atol=1e-5, rtol=1e-4)


def test_what_is_printed_of_aggrevated_is_what_is_shipped() -> None:
    assert f"lambda {AGGREVATED.gae_lambda:g}," in AGGREVATED.equation


@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 1.0])
def test_aggrevated_advantage_at_the_switch_is_the_guides(gae_lambda: float) -> None:
    """Over the guide's ways on, A at the last roll-in token averages to the exact A^g, for any lambda."""
    values = state_values(GUIDE, 0.0)
    row = AGGREVATED.model_copy(update={"gae_lambda": gae_lambda, "whiten": False})
    rollout = whole_distribution(row)
    assessor = Assessor(
        table_language_model(POLICY),
        table_language_model(REFERENCE),
        {"guide": TableCritic(values)},
        reward,
        Sampling(),
        10**6,
    )
    experience = assessor.assess(rollout, row, 0.0)
    switches = rollout.written_by(Author.POLICY).sum(dim=1)
    for switch in (1, 2):
        for prefix in itertools.product(range(3), repeat=switch):
            rows = (switches == switch) & (rollout.response_ids[:, :switch] == torch.tensor(prefix)).all(
                dim=1
            )
            found = experience.advantages[rows, switch - 1].mean()
            exact = values[state_index(prefix)] - values[state_index(prefix[:-1])]
            torch.testing.assert_close(found, exact, atol=1e-5, rtol=1e-4)


# Of each state's three letters the less likely ones are cut off; what is left has a probability of 1/2 or 1.
SKEWED = torch.tensor(
    [[[0.4, 0.4, 0.2], [0.2, 0.4, 0.4], [0.7, 0.2, 0.1]][i % 3] for i in range(len(STATES))]
)
TRUNCATED = [Sampling(top_k=2), Sampling(top_p=0.6)]
KEPT = {
    TRUNCATED[0]: [[1, 1, 0], [0, 1, 1], [1, 1, 0]],
    TRUNCATED[1]: [[1, 1, 0], [0, 1, 1], [1, 0, 0]],
}


def truncated_distribution(sampling: Sampling, start: Tensor) -> Rollout:
    """What the decoder writes for every combination of 18 even uniform numbers a position."""
    grid = (torch.arange(18) + 0.5) / 18
    uniforms = torch.cartesian_prod(*[grid] * LENGTH)
    written = sample_continuations(
        table_language_model(start).model,
        [torch.tensor([3])] * len(uniforms),
        torch.full((len(uniforms),), LENGTH),
        uniforms,
        sampling,
        (),
        use_cache=False,
        keep_sets=True,
    )
    drafts = []
    for continuation in written:
        made = Draft(Sample(""), [3], seed=0)
        made.ids, made.logprobs = continuation.token_ids.tolist(), continuation.logprobs.tolist()
        made.authors = [Author.POLICY] * LENGTH
        assert continuation.kept is not None
        made.kept = [continuation.kept]
        drafts.append(made)
    return rollout_of(drafts)


@pytest.mark.parametrize("sampling", TRUNCATED, ids=["top-k 2 of 3", "top-p 0.6"])
def test_truncated_samples_follow_the_gradient_of_what_was_sampled(sampling: Sampling) -> None:
    """The objective of a policy and a reference that both draw from the sets that sampling kept."""
    kept = torch.tensor([KEPT[sampling][i % 3] for i in range(len(STATES))])

    def truncated(probabilities: Tensor) -> Tensor:
        cut = probabilities * kept
        return cut / cut.sum(dim=1, keepdim=True)

    reference = truncated(REFERENCE)

    def value(logits: Tensor) -> Tensor:
        policy = truncated(logits.softmax(dim=1))
        total = torch.tensor(0.0)
        for response in RESPONSES:
            at = [(state_index(response[:t]), response[t]) for t in range(LENGTH)]
            if all(kept[place] for place in at):
                penalty = sum(policy[place].log() - reference[place].log() for place in at)
                total = total + likelihood(policy, response, 0, LENGTH) * (score(response) - KL * penalty)
        return total

    logits = SKEWED.log().clone().requires_grad_()
    (exact,) = torch.autograd.grad(value(logits), logits)
    row = PPO.model_copy(update={"gae_lambda": 1.0, "whiten": False})
    rollout = truncated_distribution(sampling, SKEWED)
    found = expected_gradient(row, rollout, ANY_VALUES, sampling=sampling, start=SKEWED)
    torch.testing.assert_close(found, exact, atol=1e-5, rtol=1e-4)


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


@pytest.mark.parametrize("name", ["rloo", "guided-rloo"])
def test_rloo_follows_the_gradient_of_its_objective(name: str) -> None:
    row = ALGORITHMS[name]
    assert isinstance(row, Algorithm)
    found = expected_gradient(row, pairs(row))
    torch.testing.assert_close(found, gradient_of(objective(row, KL)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["grpo", "guided-grpo"])
def test_grpo_pushes_the_better_of_two_up_and_the_other_down(name: str) -> None:
    """In a group of two the advantage is +1 and -1, and 0 where the rewards are equal; the penalty is apart."""
    row = ALGORITHMS[name]
    assert isinstance(row, Algorithm)

    def surrogate(probabilities: Tensor) -> Tensor:
        total = torch.tensor(0.0)
        for switch in range(LENGTH) if row.script.rollin is not None else [0]:
            chance = 1.0 if row.script.rollin is None else 0.5 if switch == 0 else 0.25
            for one, other in itertools.product(RESPONSES, RESPONSES):
                if one[:switch] != other[:switch]:
                    continue
                start = likelihood(GUIDE, one, 0, switch)
                weight = chance * start
                ratio = torch.tensor(0.0)
                difference = penalized(POLICY, one, switch, 0.0) - penalized(POLICY, other, switch, 0.0)
                for response, sign in ((one, 1.0), (other, -1.0)):
                    weight = weight * likelihood(POLICY, response, switch, LENGTH)
                    log_likelihood = likelihood(probabilities, response, switch, LENGTH).log()
                    ratio = ratio + sign * difference.sign() * log_likelihood
                if difference.abs() > 1e-5:
                    total = total + weight * ratio / 2
        return total - KL * total_kl(row)(probabilities)

    found = expected_gradient(row, pairs(row))
    torch.testing.assert_close(found, gradient_of(surrogate), atol=1e-4, rtol=1e-3)


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


@pytest.mark.parametrize(
    ("history", "switches"),
    [
        (PromptHistory(), [0, 1, 2]),
        (PromptHistory(low=0.0), [1, 2]),
        (PromptHistory(low=0.0, high=2 / 3), [1]),
    ],
)
def test_a_search_follows_the_gradient_from_the_states_that_its_record_leaves(
    history: PromptHistory, switches: list[int]
) -> None:
    """Evenly from each beginning of the reference between those that are known to fail and to be enough."""
    row = ADABACK.changed(group_size=2)
    opened = Draft(Sample(""), [3], seed=0, history=history, help_limit=LENGTH)
    drafts = []
    for switch in positions(opened, row.help.length, 0.0):
        after = [r for r in RESPONSES if r[:switch] == REFERENCE_TEXT[:switch]]
        for one, other in itertools.product(after, after):
            # Each beginning is as likely as another, however many ways on there are.
            for _ in range(int(twice(one, other, switch) * 16 ** (LENGTH - switches[0]))):
                drafts += [draft(row, response, switch) for response in (one, other)]
    found = expected_gradient(row, rollout_of(drafts, [i // 2 for i in range(len(drafts))]), kl=0.0)

    def surrogate(probabilities: Tensor) -> Tensor:
        total = torch.tensor(0.0)
        for switch in switches:
            after = [r for r in RESPONSES if r[:switch] == REFERENCE_TEXT[:switch]]
            for one, other in itertools.product(after, after):
                pushed = paired_surrogate(probabilities, one, other, switch)
                total = total + twice(one, other, switch) * pushed / len(switches)
        return total

    torch.testing.assert_close(found, gradient_of(surrogate), atol=1e-4, rtol=1e-3)


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


def test_prefix_rl_follows_the_reward_from_the_prompt_and_from_each_beginning_of_the_reference() -> None:
    row = PREFIX_RL.changed(group_size=2)
    assert row.help.probability.at(0.0) == 0.5
    assert switches_of(row, 0.0) == [1, 2]
    # The prompt stands for half of the groups, as two of the beginnings do.
    found = expected_gradient(row, after_reference(row, [0, 0, 1, 2]), kl=0.0)

    def surrogate(probabilities: Tensor) -> Tensor:
        return sum((surrogate_after(probabilities, switch) / 4 for switch in (0, 0, 1, 2)), torch.tensor(0.0))

    torch.testing.assert_close(found, gradient_of(surrogate), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("progress", "switch"), [(0.0, 2), (0.2, 2), (0.3, 1), (0.6, 0), (1.0, 0)])
def test_uft_imitates_the_beginning_that_it_follows_the_reward_from(progress: float, switch: int) -> None:
    """A surrogate over the policy's tokens and a mean of log-probabilities over the reference's, ever fewer of them."""
    row = UFT.changed(group_size=2, terms={"rollin": {"weight": 0.3}})
    assert row.help.probability.at(progress) == 1.0
    assert switches_of(row, progress) == ([switch] if switch else [])
    found = expected_gradient(row, after_reference(row, [switch]), kl=0.0)

    def objective(probabilities: Tensor) -> Tensor:
        total = surrogate_after(probabilities, switch)
        if switch:
            mean = likelihood(probabilities, REFERENCE_TEXT, 0, switch).log() / switch
            total = total + 0.3 * (LENGTH - switch) * mean
        return total

    torch.testing.assert_close(found, gradient_of(objective), atol=1e-4, rtol=1e-3)


def test_hpt_imitates_where_a_group_fails_and_follows_the_reward_elsewhere() -> None:
    """GRPO over the pairs with a success, and the NLL of the reference, as a mean of its own, for all others."""
    row = HPT.changed(group_size=2, help={"success": 0.8})
    drafts, chance = [], 0.0
    for one, other in itertools.product(RESPONSES, RESPONSES):
        succeeds = max(score(one), score(other)) >= 0.8
        chance += succeeds * twice(one, other, 0)
        for _ in range(int(twice(one, other, 0) * 16**LENGTH)):
            if succeeds:
                drafts += [draft(row, response, 0) for response in (one, other)]
            else:
                drafts += [draft(row, REFERENCE_TEXT, LENGTH) for _ in range(2)]
    assert 0.2 < chance < 0.8
    found = expected_gradient(row, rollout_of(drafts, [i // 2 for i in range(len(drafts))]), kl=0.0)

    def surrogate(probabilities: Tensor) -> Tensor:
        # A mean over the policy's tokens, of which a share of `chance` of the episodes consists.
        total = chance * likelihood(probabilities, REFERENCE_TEXT, 0, LENGTH).log()
        for one, other in itertools.product(RESPONSES, RESPONSES):
            if max(score(one), score(other)) >= 0.8:
                total = total + twice(one, other, 0) * paired_surrogate(probabilities, one, other, 0)
        return total

    torch.testing.assert_close(found, gradient_of(surrogate), atol=1e-4, rtol=1e-3)


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


@pytest.mark.parametrize("moved", [POLICY, table(1), table(3)], ids=["on policy", "moved", "moved elsewhere"])
@pytest.mark.parametrize("name", ["grpo", "guided-grpo"])
def test_grpo_is_held_by_the_kl_where_all_are_paid_alike(name: str, moved: Tensor) -> None:
    """Its penalty has the gradient of KL(policy || reference), wherever the policy has come to meanwhile."""
    row = ALGORITHMS[name]
    assert isinstance(row, Algorithm)
    found = expected_gradient(row, pairs(row), kl=1.0, pay=paid_alike, start=moved)
    exact = -gradient_of(total_kl(row), at=moved)
    assert exact.norm() > 0.1
    torch.testing.assert_close(found, exact, atol=1e-5, rtol=1e-4)
    # The estimator k3 has another gradient when it is differentiated alone.
    assert (exact + gradient_of(total_kl(row, forward=True), at=moved)).abs().max() > 1e-2


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_the_spread_of_rewards_does_not_weigh_grpos_penalty(scale: float) -> None:
    row = ALGORITHMS["grpo"]
    assert isinstance(row, Algorithm)

    def pay(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
        return [scale * r for r in reward(prompts, completions)]

    rollout = pairs(row)
    penalty = expected_gradient(row, rollout, kl=1.0, pay=pay) - expected_gradient(
        row, rollout, kl=0.0, pay=pay
    )
    torch.testing.assert_close(penalty, -gradient_of(total_kl(row)), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kl", [0.0, KL])
@pytest.mark.parametrize("base", [PPO, PPO_PLUS_PLUS], ids=lambda row: row.name)
def test_ppo_learns_the_penalty_alone_where_all_are_paid_alike(base: Algorithm, kl: float) -> None:
    """Whitened, and with a critic that is wrong at each state."""
    row = base.model_copy(update={"gae_lambda": 1.0})
    found = expected_gradient(row, whole_distribution(row), ANY_VALUES, kl, pay=paid_alike)
    # The reward is constant, so the objective's gradient is that of the penalty.
    exact = gradient_of(objective(row, kl)) - gradient_of(objective(row, 0.0))
    torch.testing.assert_close(found, exact, atol=1e-5, rtol=1e-4)
    assert bool(found.any()) == bool(kl)


def test_behaviour_cloning_follows_the_likelihood_of_the_references() -> None:
    drafts = [draft(BC, response, 0) for response in RESPONSES[::5]]

    def likelihood_of_all(probabilities: Tensor) -> Tensor:
        logs = [likelihood(probabilities, response, 0, LENGTH).log() for response in RESPONSES[::5]]
        return torch.stack(logs).mean()

    found = expected_gradient(BC, rollout_of(drafts))
    torch.testing.assert_close(found, gradient_of(likelihood_of_all), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("base", [SEQ_KD, DAGGER], ids=lambda row: row.name)
def test_imitation_follows_the_likelihood_of_the_guide_where_it_takes_over(base: Algorithm) -> None:
    """From the prompt, or from the states that the policy reaches; that it reaches them is not differentiated."""
    row = base if base.script.rollin is None else base.changed(help={"probability": 0.5})

    def likelihood_of_guide(probabilities: Tensor, *, through_sampling: bool = False) -> Tensor:
        total = torch.tensor(0.0)
        writer = probabilities if through_sampling else POLICY
        for response in RESPONSES:
            for switch in range(LENGTH) if row.script.rollin is not None else [0]:
                chance = 1.0 if row.script.rollin is None else 0.5 if switch == 0 else 0.25
                reach = likelihood(writer, response, 0, switch) * likelihood(GUIDE, response, switch, LENGTH)
                total = total + chance * reach * likelihood(probabilities, response, switch, LENGTH).log()
        return total

    found = expected_gradient(row, whole_distribution(row))
    torch.testing.assert_close(found, gradient_of(likelihood_of_guide), atol=1e-5, rtol=1e-4)
    through = gradient_of(lambda probabilities: likelihood_of_guide(probabilities, through_sampling=True))
    assert ((found - through).abs().max() > 1e-3) == (row is not base)


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


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("guided", [False, True], ids=["from the prompt", "after a roll-in"])
def test_distillation_follows_the_divergence_at_the_states_that_the_policy_reaches(
    beta: float, guided: bool
) -> None:
    rollin = {"script": {"rollin": "guide"}, "help": {"probability": 0.5}} if guided else {}
    row = DISTILL.changed(terms={"distill": {"options": {"jsd_beta": beta}}}, **rollin)
    found = expected_gradient(row, whole_distribution(row))
    exact = gradient_of(total_divergence(row))
    torch.testing.assert_close(found, -exact, atol=1e-5, rtol=1e-4)
    # The sampling is not differentiated, and that makes a difference here.
    assert (exact - gradient_of(total_divergence(row, through_sampling=True))).abs().max() > 1e-3


def test_distillation_adds_to_a_reward() -> None:
    distill = {"loss": "distillation", "weight": 0.4, "options": {"jsd_beta": 0.3}}
    row = RLOO.changed(group_size=2, terms={"distill": distill})
    found = expected_gradient(row, pairs(row))
    exact = gradient_of(objective(row, KL)) - 0.4 * gradient_of(total_divergence(row))
    torch.testing.assert_close(found, exact, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["lols", "d2lols"])
def test_each_phase_of_a_mixture_runs_its_own_row_and_critic(name: str) -> None:
    mixture = ALGORITHMS[name]
    assert isinstance(mixture, Mixture)
    rows = [mixture.at(update, update / 50, seed=0) for update in range(50)]
    assert {row.name for row in rows} == {"aggrevated", "ppo++"}
    for row in (mixture.imitate, mixture.explore):
        critics = {critic: TableCritic(ANY_VALUES.clone()) for critic in ("policy", "guide")}
        policy = table_language_model(POLICY)
        assessor = Assessor(policy, table_language_model(REFERENCE), critics, reward, Sampling(), 10**6)
        updater = Updater(policy, critics, Sampling(), UpdateConfig(), seed=0)
        updater.backward(assessor.assess(whole_distribution(row), row, KL), row)
        for name, critic in critics.items():
            assert (critic.table.grad is not None) == (name == row.critic)


@pytest.mark.parametrize("base", [PPO_PLUS_PLUS, AGGREVATED], ids=lambda row: row.name)
def test_the_value_loss_reads_the_states_of_the_rollout_alone(base: Algorithm) -> None:
    """At lambda 1 the gradient at V(s) is the mean of V(s) - return over visits after the switch."""
    row = base.changed(gae_lambda=1.0, terms={"value": {"weight": 1.0}})
    assert row.critic is not None
    critic = TableCritic(ANY_VALUES.clone())
    policy = table_language_model(POLICY)
    assessor = Assessor(
        policy, table_language_model(REFERENCE), {row.critic: critic}, reward, Sampling(), 10**6
    )
    updater = Updater(policy, {row.critic: critic}, Sampling(), UpdateConfig(), seed=0)
    updater.backward(assessor.assess(whole_distribution(row), row, KL), row)

    exact, visits = torch.zeros(len(STATES)), 0
    paid = KL if row.script.rollout is Author.POLICY else 0.0
    for response, switch, count in episodes(row):
        for t in range(switch, LENGTH):
            state = state_index(response[:t])
            exact[state] += count * (ANY_VALUES[state] - penalized(POLICY, response, t, paid))
            visits += count
    torch.testing.assert_close(critic.table.grad, exact / visits, atol=1e-5, rtol=1e-4)
