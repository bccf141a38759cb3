"""The discriminator of GAIL and GAD: what it learns, from what, and that it goes on."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from resume_script import toy_trainer
from rlgf.config import load_config
from rlgf.errors import UserError
from rlgf.models.language_model import LanguageModel
from rlgf.rewards import Composed, Term, build_reward
from rlgf.rewards.discriminator import Discriminator
from rlgf.rollout.config import RolloutConfig
from rlgf.run.loop import TrainingLoop
from rlgf.run.saver import Saver
from rlgf.run.trainer import Trainer
from rlgf.types import Author, Rollout, Sample
from toys import FavouringGuide, LetterTask, letter_gpt, share_of_a

SHORT = RolloutConfig(max_prompt_tokens=4, max_response_tokens=6)


@pytest.mark.long
def test_the_discriminator_of_an_adapter_is_one_too_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "algorithm": "gail",
        "policy": {"model": "made by hand", "lora": {"r": 2}},
        "reward": {"name": "discriminator", "options": {"learning_rate": 1e-2}},
    }
    whole = toy_trainer(tmp_path / "whole", **changes)
    base = {n: p.clone() for n, p in whole.parts.policy.model.named_parameters() if "lora" not in n}
    whole.train()
    for name, parameter in whole.parts.policy.model.named_parameters():
        assert name not in base or torch.equal(parameter, base[name]), "the base is the reference too"
    half = toy_trainer(tmp_path / "half", **changes)
    TrainingLoop(half, resume=False)
    for _ in range(2):
        half.step()
    Saver(half.config, half.parts, saved=0, goes_on="--resume goes on").save(half.progress)
    resumed = toy_trainer(tmp_path / "half", **changes)
    resumed.train(resume=True)
    expected, found = (t.parts.assessor.state_dict()["reward"]["classifier"] for t in (whole, resumed))
    assert len(expected) == 2 * 4 + 2, "an adapter's two matrices for each of four layers, and a head"
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert any(weight.abs().max() > 1e-3 for name, weight in expected.items() if "head" in name)


def attached(policy: LanguageModel | None = None, **options: Any) -> Discriminator:
    reward = Discriminator(**options)
    reward.attach(policy or letter_gpt(), SHORT, 0)
    return reward


def episodes(tmp_path: Path, count: int = 8) -> Rollout:
    trainer = toy_trainer(tmp_path, rollout={"episodes": count})
    return trainer.collect(trainer.batch(), trainer.row())


def moved(reward: Discriminator, scale: float = 0.5) -> Discriminator:
    with torch.no_grad():
        reward.classifier.states.head.weight += scale * torch.randn(
            1, 32, generator=torch.Generator().manual_seed(1)
        )
    return reward


def by_hand(reward: Discriminator, policy: LanguageModel, prompt: str, text: str) -> float:
    """The log-odds of one text from a plain forward pass."""
    before, ids = policy.encode(prompt)[-4:], policy.encode(text)[:6]
    with torch.no_grad():
        states = reward.classifier.states.trunk(torch.tensor([before + ids])).last_hidden_state[
            0, len(before) :
        ]
        return float(reward.classifier.states.head(states).mean())


def test_the_discriminator_starts_without_an_opinion() -> None:
    assert attached()(["a", "b"], ["abc", "d"]) == [0, 0]
    assert attached()([], []) == []


def test_each_text_has_a_reward_of_its_own() -> None:
    policy = letter_gpt()
    reward = moved(attached(policy))
    prompts = ["ab", "ab", "dcbadc", "c", "a"]
    texts = ["aaaa", "bcdabcdabcd", "aaaa", "d", "bb"]
    expected = [by_hand(reward, policy, p, t) for p, t in zip(prompts, texts, strict=True)]
    assert reward(prompts, texts) == pytest.approx(expected, abs=1e-5)
    assert len({round(value, 4) for value in expected}) == 5, "the prompt is read too"
    assert len(reward(["a", ""], ["", ""])) == 2, "an empty text is one that ends at once"


def test_texts_are_cut_as_episodes_are() -> None:
    reward = moved(attached())
    assert reward(["bcdab", "cdab"], ["abcdabcd", "abcdab"]) == pytest.approx(
        reward(["cdab"] * 2, ["abcdab"] * 2), abs=1e-6
    )


@pytest.mark.parametrize("examples", [None, "ccc"], ids=["references", "the guide's texts"])
def test_an_update_descends_the_binary_cross_entropy(tmp_path: Path, examples: str | None) -> None:
    """The loss reported is that of its definition, and the step follows its gradient's sign, as Adam's does."""
    rollout = episodes(tmp_path)
    rollout = replace(rollout, examples=None if examples is None else (examples,) * len(rollout))
    policy = letter_gpt()
    reward = moved(attached(policy, learning_rate=1e-3))
    before = copy.deepcopy(reward.classifier)
    found = reward.update(rollout)
    real = [by_hand_of(before, policy, p, examples or "aaaaaa") for p in rollout.prompts]
    written = [by_hand_of(before, policy, p, t) for p, t in zip(rollout.prompts, rollout.texts, strict=True)]
    d = [torch.stack(values).sigmoid() for values in (real, written)]
    loss = -(d[0].log().sum() + (1 - d[1]).log().sum()) / 16
    right = ((d[0] > 0.5).sum() + (d[1] <= 0.5).sum()) / 16
    assert found["discriminator_loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert found["discriminator_accuracy"] == pytest.approx(float(right))
    loss.backward()
    for old, new in zip(
        before.states.head.parameters(), reward.classifier.states.head.parameters(), strict=True
    ):
        assert old.grad is not None
        assert torch.equal((new - old).sign(), -old.grad.sign())
        torch.testing.assert_close((new - old).abs(), torch.full_like(old, 1e-3), atol=1e-5, rtol=0)


def test_an_update_descends_the_loss_of_pairs(tmp_path: Path) -> None:
    """Whatever batches the two texts of a pair are in: here most are alone."""
    rollout = episodes(tmp_path)
    policy = letter_gpt()
    reward = moved(attached(policy, learning_rate=1e-3, pairs=True))
    before = copy.deepcopy(reward.classifier)
    found = reward.update(rollout)
    real = [by_hand_of(before, policy, p, "aaaaaa") for p in rollout.prompts]
    written = [by_hand_of(before, policy, p, t) for p, t in zip(rollout.prompts, rollout.texts, strict=True)]
    margin = torch.stack(real) - torch.stack(written)
    loss = -margin.sigmoid().log().mean()
    assert found["discriminator_loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert found["discriminator_accuracy"] == pytest.approx(float((margin > 0).float().mean()))
    loss.backward()
    for name, old in before.named_parameters():
        if name.endswith("head.weight"):
            new = dict(reward.classifier.named_parameters())[name]
            assert old.grad is not None
            assert torch.equal((new - old).sign(), -old.grad.sign())


def by_hand_of(classifier: Any, policy: LanguageModel, prompt: str, text: str) -> torch.Tensor:
    before, ids = policy.encode(prompt)[-4:], policy.encode(text)[:6] or [policy.end_id]
    states = classifier.states.trunk(torch.tensor([before + ids])).last_hidden_state[0, len(before) :]
    mean: torch.Tensor = classifier.states.head(states).mean()
    return mean


def test_it_comes_to_tell_references_from_other_texts(tmp_path: Path) -> None:
    rollout = episodes(tmp_path)
    reward = attached(learning_rate=5e-3)
    losses = [reward.update(rollout)["discriminator_loss"] for _ in range(60)]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert losses[-1] < 0.1
    real = reward(rollout.prompts, ["aaaaaa"] * 8)
    written = reward(rollout.prompts, list(rollout.texts))
    assert min(real) > 0
    assert all(value < 0 for value, text in zip(written, rollout.texts, strict=True) if text != "aaaaaa")


def test_a_guide_shows_one_text_for_each_prompt_beside_the_episodes(tmp_path: Path) -> None:
    """The episodes are those of the row without examples; its group is shown the same text, and each update others."""
    guide = FavouringGuide("b", 0.7)
    reward: dict[str, Any] = {"name": "discriminator"}
    trainer = toy_trainer(tmp_path, guide=guide, algorithm="gad", reward=reward)
    row = trainer.row()
    rollout = trainer.collect()
    assert rollout.examples is not None
    asked = guide.requests[:]
    assert [request.prefix for request in asked] == [sample.prompt for sample in trainer.batch()]
    assert rollout.examples[:: row.group_size] == tuple(c.text for c in guide.write(asked))
    assert rollout.examples[:: row.group_size] == rollout.examples[3 :: row.group_size]
    assert (rollout.author != Author.GUIDE).all()
    alone = trainer.collect(trainer.batch(), row.model_copy(update={"examples": Author.REFERENCE}))
    assert alone.examples is None
    assert torch.equal(alone.response_ids, rollout.response_ids)
    trainer.learn(trainer.assess(rollout))
    assert trainer.collect().examples != rollout.examples


def test_the_guides_texts_need_no_references_of_the_data(tmp_path: Path) -> None:
    class Bare(LetterTask):
        def load(self, split: str) -> list[Sample]:
            return [replace(sample, references=()) for sample in super().load(split)]

    recipe: dict[str, Any] = {
        "task": "letters",
        "algorithm": "gad",
        "guide": {"name": "toys:FavouringGuide", "options": {"favourite": "a", "probability": 0.6}},
        "reward": "discriminator",
        "rollout": {"episodes": 8, "max_prompt_tokens": 4, "max_response_tokens": 6},
        "output": str(tmp_path / "run"),
        "training": {"updates": 2, "trackers": []},
    }
    trainer = Trainer(load_config(recipe, given=["policy", "task"]), policy=letter_gpt(), task=Bare())
    assert trainer.step()["discriminator_loss"] == pytest.approx(math.log(2), abs=1e-5)
    with pytest.raises(UserError, match="learns from reference texts"):
        Trainer(
            load_config(recipe, "algorithm=gail", given=["policy", "task"]), policy=letter_gpt(), task=Bare()
        )


def test_the_policy_is_left_alone(tmp_path: Path) -> None:
    policy = letter_gpt()
    before = copy.deepcopy(policy.model.state_dict())
    # Behind a head of zeros the trunk would have no gradient in the first update.
    reward = moved(attached(policy, learning_rate=1e-2))
    reward.update(episodes(tmp_path))
    assert all(torch.equal(weight, before[name]) for name, weight in policy.model.state_dict().items())
    assert all(parameter.grad is None for parameter in policy.model.parameters())


def test_one_of_several_references_is_drawn(tmp_path: Path) -> None:
    seen: set[str] = set()

    class Watched(Discriminator):
        def _encoded(self, prompts: Any, texts: Any) -> Any:
            seen.update(texts)
            return super()._encoded(prompts, texts)

    reward = Watched()
    reward.attach(letter_gpt(), SHORT, 0)
    rollout = episodes(tmp_path)
    samples = tuple(Sample(s.prompt, ("cccc", "dddd")) for s in rollout.samples)
    reward.update(copy.copy(rollout).__class__(**{**vars(rollout), "samples": samples}))
    assert {"cccc", "dddd"} <= seen


def test_a_later_sample_without_references_is_refused(tmp_path: Path) -> None:
    rollout = episodes(tmp_path)
    samples = (*rollout.samples[:-1], Sample("a"))
    with pytest.raises(UserError, match="needs reference texts, and a sample has none"):
        attached().update(Rollout(**{**vars(rollout), "samples": samples}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0}, r"option 'learning_rate' \(it is 0\)"),
        ({"epoch": 2}, r"no option 'epoch': did you mean 'epochs'\?"),
    ],
)
def test_options_that_do_not_fit_are_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_reward("discriminator", options)


def test_a_composed_reward_attaches_its_terms() -> None:
    reward = Composed({"real": Term(Discriminator()), "a": Term(share_of_a)})
    reward.attach(letter_gpt(), SHORT, 0)
    assert reward(["a"], ["ab"]) == [0.5]
