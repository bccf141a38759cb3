"""The policy as its own guide: what it was when the run began, its average, or what it is, which may read more."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from rlgf.algorithms.catalog import OPSD
from rlgf.config import load_config
from rlgf.guides import Request
from rlgf.guides.itself import SelfGuide, SelfGuideConfig
from rlgf.models.forward import Tokens
from rlgf.models.language_model import LanguageModel
from rlgf.models.lora import POLICY
from rlgf.run.trainer import Trainer
from rlgf.types import Author, Rollout, Sample
from toys import letter_gpt, sentence_of
from training_toys import build

PLAIN = {"script": {"hint": {"template": "{hint}{prompt}"}}}
SAMPLES = [Sample("abca"[: 1 + i % 4], ("dcbadcba"[: 1 + i % 6],)) for i in range(16)]
WAYS = pytest.mark.parametrize("lora", [None, {"r": 2}], ids=["full", "lora"])


def own(algorithm: str = "opsd", **options: Any) -> Trainer:
    return build(algorithm, **{"guide": "self", "changes": PLAIN, **options})


def guide_of(trainer: Trainer) -> SelfGuide:
    guide = trainer.parts.updater.guide
    assert isinstance(guide, SelfGuide)
    return guide


def alone(policy: LanguageModel, ids: list[int]) -> Tensor:
    with torch.no_grad():
        logits: Tensor = policy.model(input_ids=torch.tensor([ids])).logits[0, -1]
    return logits.log_softmax(dim=-1)


def move(trainer: Trainer) -> None:
    """Weights as if training had changed them, and no others."""
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in trainer.parts.updater.trained:
            parameter += 0.3 * torch.randn(parameter.shape, generator=noise)


def collected(trainer: Trainer) -> Rollout:
    return trainer.collect(SAMPLES, trainer.row())


@WAYS
def test_it_scores_as_the_start_does_and_after_the_prompt_with_the_hint(lora: dict[str, Any] | None) -> None:
    trainer = own(lora=lora)
    start = letter_gpt()
    move(trainer)
    rollout = collected(trainer)
    found = guide_of(trainer).log_distribution(Tokens.of(rollout.told))
    policy = trainer.parts.policy
    moved = 0.0
    for b, t in rollout.response_mask.nonzero().tolist():
        sample = SAMPLES[b]
        told = ["abcd".index(letter) for letter in sample.references[0] + sample.prompt]
        written = rollout.response_ids[b, :t].tolist()
        torch.testing.assert_close(found[b, t], alone(start, [*told, *written]), atol=1e-5, rtol=1e-4)
        moved = max(moved, float((found[b, t] - alone(policy, [*told, *written])).abs().max()))
    assert moved > 0.1


@WAYS
def test_it_writes_as_the_start_does(lora: dict[str, Any] | None) -> None:
    requests = [Request(text, 6, seed) for seed, text in enumerate(["ab", "c", "dda"])]
    trainer = own("ppo++", lora=lora, changes={})
    guide = trainer.parts.collector.writers[Author.GUIDE].guide
    before = guide.write(requests)
    move(trainer)
    assert guide.write(requests) == before
    assert trainer.step()["guide_tokens"] > 0


@WAYS
def test_it_takes_no_memory_of_its_own(lora: dict[str, Any] | None) -> None:
    trainer = own(lora=lora)
    reference = trainer.parts.assessor.reference
    assert reference is not None
    assert guide_of(trainer).language_model.model is reference.model
    assert (reference.model is trainer.parts.policy.model) == (lora is not None)


@WAYS
def test_it_stays_as_it_was_and_the_policy_learns(lora: dict[str, Any] | None) -> None:
    trainer = own(lora=lora, update={"learning_rate": 1e-2})
    before = copy.deepcopy(trainer.parts.policy.model.state_dict())
    rollout = collected(trainer)
    said = guide_of(trainer).log_distribution(Tokens.of(rollout.told))
    losses = [float(trainer.step()["distill_loss"]) for _ in range(3)]
    assert losses[0] > losses[-1]
    torch.testing.assert_close(guide_of(trainer).log_distribution(Tokens.of(rollout.told)), said)
    after = trainer.parts.policy.model.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed
    assert lora is None or all(".lora_" in name and f".{POLICY}." in name for name in changed)


def test_the_policy_writes_without_the_hint() -> None:
    trainer = own()
    rollout = collected(trainer)
    bare = trainer.parts.collector.collect(SAMPLES, OPSD.alone)
    assert torch.equal(rollout.prompt_ids, bare.prompt_ids)
    assert rollout.texts == bare.texts
    assert rollout.hints == tuple(sample.references[0] for sample in SAMPLES)
    assert not rollout.hinted.any(), "no text was written after one"
    assert not rollout.hint_tokens.any()
    assert rollout.bare is rollout
    assert (rollout.prompt_tokens == rollout.prompt_mask.sum(dim=1) + rollout_lengths(rollout)).all()


def rollout_lengths(rollout: Rollout) -> Tensor:
    return torch.tensor([len(text or "") for text in rollout.hints or ()])


def test_without_a_hint_it_pulls_nowhere_at_first() -> None:
    help = {"probability": 0.0, "length": {"whole": False}}
    trainer = own(changes={"help": help, "script": {"hint": None}})
    metrics = trainer.parts.updater.backward(trainer.assess(collected(trainer)), trainer.row())
    assert metrics["distill_loss"].item() == pytest.approx(0, abs=1e-6)
    assert max(float(p.grad.abs().max()) for p in trainer.parts.updater.trained if p.grad is not None) < 1e-5


@WAYS
def test_gradients_do_not_depend_on_micro_batches(lora: dict[str, Any] | None) -> None:
    found = []
    for budget in (10_000, 40, 1):
        trainer = own("sdft", lora=lora, update={"max_micro_tokens": budget})
        move(trainer)
        experience = trainer.assess(collected(trainer))
        trainer.parts.updater.backward(experience, trainer.row())
        found.append([p.grad.clone() for p in trainer.parts.updater.trained if p.grad is not None])
    assert max(float(gradient.abs().max()) for gradient in found[0]) > 1e-3
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=1e-6, rtol=1e-4)


def test_a_micro_batch_has_room_for_what_the_guide_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = own(update={"max_micro_tokens": 34})
    read = []
    score = SelfGuide.log_distribution

    def watched(self: SelfGuide, tokens: Tokens) -> Tensor:
        read.append(tokens.prompt_ids.numel() + tokens.response_ids.numel())
        return score(self, tokens)

    monkeypatch.setattr(SelfGuide, "log_distribution", watched)
    trainer.parts.updater.backward(trainer.assess(collected(trainer)), trainer.row())
    assert max(read) <= 34


@pytest.mark.parametrize("other", ["guide", "policy"])
def test_the_hint_may_be_written_by_another(other: str) -> None:
    """Such as a rationale of the reference, which the guide then reads."""
    hint = {"author": other, "ask": "{prompt}{reference}", "template": "{hint}{prompt}"}
    trainer = own(changes={"script": {"hint": hint}})
    rollout = collected(trainer)
    assert rollout.hints is not None
    assert any(rollout.hints)
    assert rollout.guide_ids is not None
    assert rollout.guide_ids.shape[1] > rollout.prompt_ids.shape[1]
    assert not rollout.written_by(Author.GUIDE).any()


def test_a_recipe_says_it_in_a_word() -> None:
    recipe = {"task": "imdb", "policy": {"model": "gpt2"}}
    config = load_config(recipe, "algorithm=sdft", "guide=self")
    assert config.guide == SelfGuideConfig.model_validate({"self": True})
    assert config.guide is not None
    assert config.guide.label == "self"
    assert not config.guide.early
    again = load_config(config.model_dump(mode="json"))
    assert again.guide == config.guide
    other = load_config(recipe, "algorithm=sdft", {"guide": {"model": "x"}}, {"guide": {"self": True}})
    assert other.guide == config.guide


@WAYS
def test_an_average_moves_a_share_of_the_way_at_each_update(lora: dict[str, Any] | None) -> None:
    """``a_n = d a_n-1 + (1 - d) p_n``, written out over two updates, from the start."""
    trainer = own(lora=lora, guide={"self": "average", "decay": 0.75})
    weights = [[w.clone() for w in trainer.parts.updater.trained]]
    for _ in range(2):
        trainer.step()
        weights.append([w.clone() for w in trainer.parts.updater.trained])
    assert any(not torch.equal(a, b) for a, b in zip(weights[0], weights[2], strict=True))
    for start, first, second, found in zip(*weights, trainer.parts.updater.following, strict=True):
        expected = 0.75 * (0.75 * start + 0.25 * first) + 0.25 * second
        torch.testing.assert_close(found, expected)
        assert not found.requires_grad


@WAYS
@pytest.mark.parametrize("moment", ["average", "live"])
def test_what_follows_scores_with_its_own_weights(moment: str, lora: dict[str, Any] | None) -> None:
    """The average with those it has come to, the live policy with those of the moment; neither with a gradient."""
    trainer = own(lora=lora, guide={"self": moment})
    policy, guide = trainer.parts.policy, guide_of(trainer)
    ids = [0, 1, 2]
    before = alone(policy, ids)
    tokens = Tokens(
        torch.tensor([ids]), torch.ones(1, 3, dtype=torch.bool), torch.tensor([[1]]), torch.ones(1, 1, dtype=torch.bool)
    )  # fmt: skip
    torch.testing.assert_close(guide.log_distribution(tokens)[0, 0], before)
    move(trainer)
    after = alone(policy, ids)
    assert (after - before).abs().max() > 0.01
    said = guide.log_distribution(tokens)[0, 0]
    torch.testing.assert_close(said, before if moment == "average" else after)
    assert not said.requires_grad
    for _ in range(2000):
        guide.follow()
    torch.testing.assert_close(guide.log_distribution(tokens)[0, 0], after, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guide": {"self": "live", "decay": 0.9}}, "'decay' is that of an average"),
        ({"guide": {"self": "old"}}, "guide.self"),
        ({"guide": {"self": "average", "decay": 1}}, "guide.decay"),
        ({"guide": {"self": "live"}, "algorithm": "ppo++"}, "only says how probable texts are"),
        ({"guide": {"self": "average"}, "algorithm": "opd"}, "only says how probable texts are"),
    ],
)
def test_what_does_not_fit_a_policy_that_guides_itself(changes: dict[str, Any], message: str) -> None:
    recipe = {"task": "imdb", "policy": {"model": "gpt2"}, "reward": "sentiment", "algorithm": "opsd"}
    assert message in sentence_of(lambda: load_config(recipe, changes))


def test_the_start_is_said_as_it_was() -> None:
    """So that runs and checkpoints of recipes that say ``self: true`` go on."""
    for section in ({"self": True}, {"self": "start"}):
        found = SelfGuideConfig.model_validate(section)
        assert (found.moment, found.model_dump(mode="json")["self"]) == ("start", True)
