"""What the terms of a step read, how much each weighs, and what a selector does to gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlgf.algorithms import ALGORITHMS, Algorithm, LossInputs, Selection, Term, algorithm_from
from rlgf.algorithms.catalog import LUFFY, PPO_PLUS_PLUS
from rlgf.errors import UserError
from rlgf.learning.inputs import InputReader, StepTerm, read_by, read_by_any, selected, step_terms
from rlgf.models.forward import Tokens
from rlgf.models.sampling import Sampling
from rlgf.types import Author, Experience, Scored
from toys import letter_gpt, sentence_of, written

MIXED = written("cda", "b", authors="ggpp")


def on(span: str) -> Term:
    return Term.model_validate({"loss": "nll", "on": span})


@pytest.mark.parametrize(
    ("span", "read"),
    [
        ("rollin", [[True, True, False, False], [True, True, False, False]]),
        ("rollout", [[False, False, True, True], [False] * 4]),
        ("whole", [[True] * 4, [True, True, False, False]]),
        ("references", [[True] * 4, [True, True, False, False]]),
    ],
)
def test_a_term_reads_the_tokens_of_its_span(span: str, read: list[list[bool]]) -> None:
    assert read_by(on(span), MIXED, PPO_PLUS_PLUS).tolist() == read


def test_several_terms_read_what_any_of_them_does() -> None:
    both = read_by_any([on("rollin"), on("rollout")], MIXED, PPO_PLUS_PLUS)
    assert torch.equal(both, MIXED.response_mask)
    assert not read_by_any([], MIXED, PPO_PLUS_PLUS).any()


@pytest.mark.parametrize("widths", [(5, 7), (7, 5), (5, 5)])
def test_heads_of_other_widths_are_compared_over_what_both_have(widths: tuple[int, int]) -> None:
    reader = InputReader(letter_gpt(), Sampling(), 6, None)
    policy, guide = reader.distributions(torch.randn(1, 2, widths[0]), torch.randn(1, 2, widths[1]))
    assert policy.shape == guide.shape == (1, 2, 5)
    assert torch.allclose(policy.exp().sum(dim=-1), torch.ones(1, 2))


def test_a_loss_over_the_policys_own_distribution_needs_no_guide() -> None:
    policy = letter_gpt()
    tokens = Tokens.of(MIXED)
    reader = InputReader(policy, Sampling(temperature=0.5), 5, None)
    found, _ = reader.read(frozenset({"distribution"}), Experience(Scored(MIXED)), tokens)
    assert found.guide_distribution is None
    assert found.distribution is not None
    assert found.distribution.requires_grad
    ids = torch.tensor([[0, 1, 2, 3, 0, 4]])
    logits = policy.model(ids).logits[0, 1:-1] / 0.5
    torch.testing.assert_close(found.distribution[0], logits.log_softmax(dim=-1))


def first(mask: Tensor) -> Tensor:
    weights = torch.zeros(mask.shape)
    weights[:, 0] = 0.5
    return weights


def negative(mask: Tensor) -> Tensor:
    return -torch.ones(mask.shape)


def narrow(mask: Tensor) -> Tensor:
    return torch.ones(len(mask))


def inputs(logprobs: Tensor) -> LossInputs:
    mask = torch.tensor([[True, True, False]])
    return LossInputs(2.0, mask, torch.full((1, 3), Author.POLICY, dtype=torch.uint8), logprobs=logprobs)


def test_a_selector_weighs_gradients_and_changes_no_number() -> None:
    logprobs = torch.tensor([[-1.0, -2.0, -3.0]], requires_grad=True)
    found = selected(inputs(logprobs), Selection(name=f"{__name__}:first"))
    assert found.mask.tolist() == [[True, False, False]]
    assert found.logprobs is not None
    assert torch.equal(found.logprobs, logprobs)
    found.logprobs.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[0.5, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("name", "message"),
    [("negative", "finite weights of 0 or more"), ("narrow", r"a tensor of \(1, 3\)")],
)
def test_a_selector_that_weighs_nothing_so_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        selected(inputs(torch.zeros(1, 3)), Selection(name=f"{__name__}:{name}"))


def terms(row: Algorithm, progress: float = 0.0, references: Any = None) -> dict[str, tuple[float, float]]:
    """The weight and the normalizer of each term of a step."""
    found = step_terms(row, Experience(Scored(MIXED)), references, progress)
    return {term.name: (term.weight, term.normalizer) for term in found}


def test_normalizers_count_what_is_read_and_terms_over_advantages_share_theirs() -> None:
    assert terms(PPO_PLUS_PLUS) == {"policy": (1.0, 2.0), "value": (0.5, 2.0)}
    shared = {normalizer for _, normalizer in terms(LUFFY).values()}
    assert shared == {float(MIXED.response_mask.sum())}


def test_numbers_of_a_term_are_means_over_its_own_tokens() -> None:
    """Also where its loss is a share of a mean that it has together with others."""
    batch = replace(Experience(Scored(MIXED)), advantages=torch.ones(MIXED.response_mask.shape))
    found: dict[str, float] = {}
    for term in step_terms(LUFFY, batch, None, 0.0):
        mask = read_by(term.term, MIXED, LUFFY)
        logprobs = torch.zeros(mask.shape, requires_grad=True)
        given = LossInputs(
            1.0,
            mask,
            MIXED.author,
            logprobs=logprobs,
            old_logprobs=logprobs.detach() - 1,
            advantages=torch.ones(mask.shape),
        )
        found |= {name: float(value) for name, value in term(given, mask)[1].items()}
    assert found["clip_fraction"] == pytest.approx(1)
    assert found["rollin_shaped_weight"] == pytest.approx(1 / 1.1)


def test_terms_that_weigh_nothing_now_are_left_out() -> None:
    row = algorithm_from(
        {"base": "ppo", "terms": {"late": {"loss": "entropy", "weight": {"start": 0, "end": 1}}}}
    )
    assert isinstance(row, Algorithm)
    assert "late" not in terms(row)
    assert terms(row, 1.0)["late"][0] == 1.0
    kl = ALGORITHMS["grpo"]
    assert isinstance(kl, Algorithm)
    assert set(terms(kl)) == {"policy"}, "without a coefficient there is no penalty"
    batch = Experience(Scored(MIXED), kl_coefficient=0.1)
    assert {term.name for term in step_terms(kl, batch, None, 0.0)} == {"policy", "kl"}


def test_a_term_that_never_weighs_asks_for_nothing_also_while_no_other_does() -> None:
    late = {"loss": "entropy", "weight": {"start": 0, "end": 1}}
    row = algorithm_from({"base": "distill", "terms": {"distill": {"weight": 0}, "late": late}})
    assert isinstance(row, Algorithm)
    assert set(terms(row)) == {"late"}


def test_terms_on_references_read_those() -> None:
    chord = {"terms": {"references": {"loss": "nll", "on": "references", "weight": 0.5}}}
    row = algorithm_from({"base": "ppo", **chord})
    assert isinstance(row, Algorithm)
    assert "references" not in terms(row)
    assert terms(row, references=replace(written("aa"), index=None))["references"] == (0.5, 3.0)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (lambda x: None, "inputs:own' returned None: it must return a tensor of one number"),
        (lambda x: x.sum().item(), "returned 3.0: it must return a tensor of one number"),
        (lambda x: x, "returned a tensor of (1, 3): it must"),
        (lambda x: x.sum().detach(), "returned a number without a gradient, from which nothing is learned"),
        (
            lambda x: (x.sum(), {"a": 1.0}),
            "must report a mapping of names to tensors of one number (it is {'a': 1.0})",
        ),
        (lambda x: (x.sum(), x), "must report a mapping of names to tensors"),
    ],
)
def test_what_a_loss_of_ones_own_returns_is_looked_at(
    found: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "answer", found)
    given = inputs(torch.ones(1, 3, requires_grad=True))
    term = StepTerm("policy", Term.model_validate({"loss": f"{__name__}:own"}), 1.0, 1.0, 1.0, 1.0)
    assert said in sentence_of(lambda: term(given, given.mask))


def test_a_loss_needs_no_gradient_where_there_is_nothing_to_learn_from() -> None:
    given = inputs(torch.ones(1, 3, requires_grad=True))
    term = StepTerm("policy", Term.model_validate({"loss": f"{__name__}:own"}), 1.0, 1.0, 1.0, 1.0)
    assert term(given, torch.zeros_like(given.mask))[0] == 0


def answer(logprobs: Tensor) -> Any:
    return torch.zeros(())


def own(logprobs: Tensor) -> Any:
    return answer(logprobs)
