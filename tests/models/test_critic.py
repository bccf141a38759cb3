"""Critics value the state before each response token, whatever stands around the row."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlgf.models.critic import Critic, HeadCritic, SeparateCritic, build_critic
from rlgf.models.forward import Tokens, response_outputs
from rlgf.types import pad

PROMPTS = [[3, 5, 0, 7], [1], [2, 2, 9, 4, 8, 6], [0, 11]]
RESPONSES = [[4, 4, 0], [6, 1, 9, 12, 0], [0], [13, 7]]


def tokens_of(rows: list[int], filler: int = 0, extra: int = 0) -> Tokens:
    """Rows of ragged prompts and responses, with ``extra`` columns of padding on both sides."""
    prompts = [torch.tensor(PROMPTS[i]) for i in rows] + [torch.zeros(6 + extra, dtype=torch.long)]
    responses = [torch.tensor(RESPONSES[i]) for i in rows] + [torch.zeros(5 + extra, dtype=torch.long)]
    n = len(rows)
    return Tokens(
        pad(prompts, filler, left=True)[:n],
        pad([torch.ones_like(p, dtype=torch.bool) for p in prompts], False, left=True)[:n],
        pad(responses, filler)[:n],
        pad([torch.ones_like(r, dtype=torch.bool) for r in responses], False)[:n],
    )


def unpadded(row: int) -> Tokens:
    prompt, response = torch.tensor([PROMPTS[row]]), torch.tensor([RESPONSES[row]])
    return Tokens(
        prompt,
        torch.ones_like(prompt, dtype=torch.bool),
        response,
        torch.ones_like(response, dtype=torch.bool),
    )


@pytest.fixture
def policy(tiny_gpt2: PreTrainedModel) -> PreTrainedModel:
    return copy.deepcopy(tiny_gpt2)


def values_of(critic: Critic, policy: PreTrainedModel, tokens: Tokens) -> Tensor:
    hidden = None
    if critic.reads_policy_hidden:
        _, hidden = response_outputs(policy, tokens, hidden=True)
    values: Tensor = critic(tokens, hidden)
    return values


def trained(kind: str, policy: PreTrainedModel) -> SeparateCritic | HeadCritic:
    """A critic whose head is not 0 any more."""
    critic = build_critic(kind, policy)
    assert isinstance(critic, SeparateCritic | HeadCritic)
    with torch.no_grad():
        critic.head.weight.copy_(
            torch.randn(critic.head.weight.shape, generator=torch.Generator().manual_seed(0))
        )
        critic.head.bias.fill_(0.25)
    return critic


KINDS = pytest.mark.parametrize("kind", ["separate", "head"])


@KINDS
def test_a_critic_starts_at_0_everywhere_and_can_leave_it(kind: str, policy: PreTrainedModel) -> None:
    critic = build_critic(kind, policy)
    assert isinstance(critic, SeparateCritic | HeadCritic)
    tokens = tokens_of([0, 1, 2, 3])
    values = values_of(critic, policy, tokens)
    assert values.shape == tokens.response_ids.shape
    assert values.dtype == torch.float32
    assert not values.any()
    values.sum().backward()
    assert critic.head.weight.grad is not None
    assert critic.head.weight.grad.any()


@KINDS
@pytest.mark.parametrize(("filler", "extra"), [(0, 0), (15, 0), (0, 3), (9, 2)])
def test_values_do_not_depend_on_padding_or_companions(
    kind: str, filler: int, extra: int, policy: PreTrainedModel
) -> None:
    critic = trained(kind, policy)
    for rows in ([0, 1, 2, 3], [2, 0], [1]):
        together = values_of(critic, policy, tokens_of(rows, filler, extra))
        for place, row in enumerate(rows):
            alone = values_of(critic, policy, unpadded(row))[0]
            assert alone.abs().min() > 0
            torch.testing.assert_close(together[place, : len(alone)], alone, atol=1e-4, rtol=1e-4)


@KINDS
def test_values_are_the_head_on_the_states_of_a_plain_forward_pass(
    kind: str, policy: PreTrainedModel
) -> None:
    critic = trained(kind, policy)
    values = values_of(critic, policy, tokens_of([0, 1, 2, 3]))
    for row, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        states = policy.base_model(torch.tensor([prompt + response])).last_hidden_state[0]
        expected = states @ critic.head.weight[0] + critic.head.bias
        before = slice(len(prompt) - 1, len(prompt) + len(response) - 1)
        torch.testing.assert_close(values[row, : len(response)], expected[before], atol=1e-4, rtol=1e-4)


def value_step(kind: str, policy: PreTrainedModel) -> SeparateCritic | HeadCritic:
    """One backward pass of a squared value error."""
    critic = trained(kind, policy)
    tokens = tokens_of([0, 1, 2, 3])
    error = (values_of(critic, policy, tokens) - 1) * tokens.response_mask
    (error**2).sum().backward()
    return critic


def test_training_the_head_critic_moves_the_policys_trunk(policy: PreTrainedModel) -> None:
    critic = value_step("head", policy)
    assert all(p.grad is not None and p.grad.any() for p in critic.parameters())
    gradients = [p.grad for p in policy.base_model.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert any(g.any() for g in gradients if g is not None)


def test_training_the_separate_critic_leaves_the_policy_alone(policy: PreTrainedModel) -> None:
    critic = value_step("separate", policy)
    assert all(p.grad is None for p in policy.parameters())
    assert all(p.grad is not None for p in critic.parameters())
    assert any(p.grad.any() for name, p in critic.named_parameters() if name.startswith("trunk"))


def test_the_separate_critic_starts_as_a_copy_and_shares_nothing(policy: PreTrainedModel) -> None:
    critic = build_critic("separate", policy)
    assert isinstance(critic, SeparateCritic)
    own, source = critic.trunk.state_dict(), policy.base_model.state_dict()
    assert own.keys() == source.keys()
    assert all(torch.equal(own[key], source[key]) for key in own)
    storages = {p.data_ptr() for p in policy.parameters()}
    assert not any(p.data_ptr() in storages for p in critic.parameters())


def test_the_separate_critic_does_not_follow_the_policy(policy: PreTrainedModel) -> None:
    critic = trained("separate", policy)
    before = values_of(critic, policy, tokens_of([0, 1]))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(0.5)
    assert torch.equal(values_of(critic, policy, tokens_of([0, 1])), before)


def test_the_separate_critic_drops_nothing_out(policy: PreTrainedModel) -> None:
    """Dropout would make two passes over one state disagree."""
    policy.config.attn_pdrop = policy.config.embd_pdrop = policy.config.resid_pdrop = 0.5
    critic = trained("separate", policy)
    tokens = tokens_of([0, 1])
    assert torch.equal(values_of(critic, policy, tokens), values_of(critic, policy, tokens))


@KINDS
def test_a_critic_reads_back_from_its_state(kind: str, policy: PreTrainedModel) -> None:
    critic, fresh = trained(kind, policy), build_critic(kind, policy)
    fresh.load_state_dict(critic.state_dict())
    tokens = tokens_of([0, 1, 2, 3])
    assert torch.equal(values_of(fresh, policy, tokens), values_of(critic, policy, tokens))


@KINDS
def test_a_value_reads_only_what_came_before(kind: str, policy: PreTrainedModel) -> None:
    critic = trained(kind, policy)
    tokens = tokens_of([1])
    changed = Tokens(tokens.prompt_ids, tokens.prompt_mask, tokens.response_ids.clone(), tokens.response_mask)
    changed.response_ids[0, 2:] = 10
    before, after = values_of(critic, policy, tokens), values_of(critic, policy, changed)
    torch.testing.assert_close(after[0, :3], before[0, :3])
    assert not torch.allclose(after[0, 3:], before[0, 3:])
