"""Expected gradients against exact ones, on a problem small enough to write out whole.

Three letters, three tokens, 13 states. Probabilities are multiples of 1/4, so a batch in which each
episode stands as often as it is likely *is* the distribution: its mean gradient is the expectation.
The exact gradients come from automatic differentiation of the objective itself, or from sums over
states, and share no code with the losses, masks and advantages that are tested.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from enumerated import (
    ANY_VALUES,
    GUIDE,
    KL,
    POLICY,
    REFERENCE,
    RESPONSES,
    episodes,
    expected_gradient,
    gradient_of,
    likelihood,
    objective,
    paid_alike,
    penalized,
    reward,
    rollout_of,
    score,
    state_values,
    whole_distribution,
)
from torch import Tensor

from rlgf.algorithms import ALGORITHMS, Algorithm, Mixture
from rlgf.algorithms.catalog import AGGREVATED, PPO, PPO_PLUS_PLUS
from rlgf.learning.assessor import Assessor
from rlgf.learning.rates import UpdateConfig
from rlgf.learning.updater import Updater
from rlgf.models.generate import sample_continuations
from rlgf.models.sampling import Sampling
from rlgf.rollout.writers import Draft
from rlgf.types import Author, Rollout, Sample
from toys import LENGTH, STATES, TableCritic, state_index, table_language_model


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
