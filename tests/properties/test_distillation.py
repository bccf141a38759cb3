"""Distillation as a whole: what is compared, which guides can score, and a policy that becomes its guide."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from rlgf.algorithms import Algorithm, algorithm_from
from rlgf.algorithms.imitation_rows import DISTILL
from rlgf.config import Config, load_config
from rlgf.guides import Guide, LocalGuide, ScoringGuide
from rlgf.models.forward import Tokens
from rlgf.models.language_model import LanguageModel
from rlgf.models.sampling import Sampling
from rlgf.run.build import build_parts
from rlgf.run.checkpoint import save_policy
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from rlgf.types import Author, Rollout
from toys import FavouringGuide, LetterTask, letter_gpt, sentence_of


def slow_kl(p: list[float], q: list[float]) -> float:
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def peaked(language_model: LanguageModel) -> LanguageModel:
    """The same with weights so large that each state has its own likely letters."""
    with torch.no_grad():
        language_model.model.get_input_embeddings().weight.mul_(4)
    return language_model


def local(language_model: LanguageModel, **sampling: Any) -> LocalGuide:
    return LocalGuide(language_model, letter_gpt().tokenizer, Sampling(**sampling))


def trainer(
    guide: Guide,
    algorithm: Any = "distill",
    output: Path = Path("never written"),
    rollout: dict[str, Any] | None = None,
    updates: int = 4,
) -> Trainer:
    config = Config.model_validate(
        {
            "task": {"name": "letters"},
            "policy": {"model": "made by hand"},
            "guide": {"model": "made by hand"},
            "algorithm": algorithm,
            "output": output,
            "rollout": {
                "episodes": 64,
                "max_prompt_tokens": 4,
                "max_response_tokens": 6,
                "min_response_tokens": 3,
                **(rollout or {}),
            },
            "update": {"minibatch": 32, "epochs": 2, "learning_rate": {"start": 1e-2, "end": 0}},
            "training": {"updates": updates, "trackers": [], "checkpoint_every": 1000},
            "evaluation": {"every": 1000, "samples": 64, "test_samples": 64},
        }
    )
    parts = build_parts(config, task=LetterTask(), guide=guide, policy=letter_gpt())
    return Trainer(config, parts, Display(Console(quiet=True)))


def episodes(trainer: Trainer) -> Rollout:
    return trainer.collect(trainer.batch(), DISTILL)


def alone(language_model: LanguageModel, ids: list[int]) -> Tensor:
    """The logits of the next token, from a forward pass without any padding."""
    with torch.no_grad():
        logits: Tensor = language_model.model(input_ids=torch.tensor([ids])).logits[0, -1]
    return logits


def test_a_local_guide_scores_each_state_as_it_would_alone() -> None:
    model = peaked(letter_gpt(seed=7))
    guide = local(model, temperature=0.7, top_p=0.5, top_k=2, min_tokens=4)
    rollout = episodes(trainer(guide))
    found = guide.log_distribution(Tokens.of(rollout))
    assert not found.requires_grad
    assert found.shape == (64, 6, 5)
    for b, t in rollout.response_mask[::8].nonzero().tolist():
        prompt = rollout.prompt_ids[8 * b][rollout.prompt_mask[8 * b]].tolist()
        ids = [*prompt, *rollout.response_ids[8 * b, :t].tolist()]
        expected = (alone(model, ids) / 0.7).log_softmax(dim=-1)
        torch.testing.assert_close(found[8 * b, t], expected, atol=1e-4, rtol=1e-4)


def exact_kl(policy: LanguageModel, guide: LanguageModel, rollout: Rollout, minimum: int) -> float:
    """KL(policy || guide) in nats per token, state by state, over what the policy may draw there."""
    found = []
    for b, t in rollout.response_mask.nonzero().tolist():
        prompt = rollout.prompt_ids[b][rollout.prompt_mask[b]].tolist()
        ids = [*prompt, *rollout.response_ids[b, :t].tolist()]
        letters = 4 if t < minimum else 5
        q, p = (alone(model, ids)[:letters].double().softmax(dim=-1).tolist() for model in (policy, guide))
        found.append(slow_kl(q, p))
    return math.fsum(found) / len(found)


def test_the_loss_compares_what_is_sampled() -> None:
    """Before its minimum length the policy cannot end a text, so the guide cannot ask it to."""
    model = peaked(letter_gpt(seed=7))
    learner = trainer(local(model, top_p=0.5))
    rollout = episodes(learner)
    experience = learner.assess(rollout, DISTILL)
    metrics = learner.parts.updater.backward(experience, DISTILL)
    expected = exact_kl(learner.parts.policy, model, rollout, minimum=3)
    assert expected > 0.3
    assert metrics["distill_loss"].item() == pytest.approx(expected, rel=1e-4)
    assert "policy_loss" not in metrics


def test_a_guide_padded_to_another_width_scores_alike() -> None:
    """Models of one tokenizer may have rows after its last token."""
    narrow, wide = peaked(letter_gpt(seed=7)), peaked(letter_gpt(seed=7))
    wide.model.resize_token_embeddings(9)
    losses = []
    for model in (narrow, wide):
        learner = trainer(local(model))
        experience = learner.assess(episodes(learner), DISTILL)
        losses.append(float(learner.parts.updater.backward(experience, DISTILL)["distill_loss"]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_a_guide_is_learned_from_and_stays_as_it_was() -> None:
    model = peaked(letter_gpt(seed=7))
    before = copy.deepcopy(model.model.state_dict())
    learner = trainer(local(model))
    learner.step()
    assert all(torch.equal(value, before[name]) for name, value in model.model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.model.parameters())


def test_the_coefficient_follows_its_schedule() -> None:
    """Nothing is learned while it warms up from 0, nor once it has fallen to 0 beside another loss."""
    rising = DISTILL.changed(terms={"distill": {"weight": {"start": 1, "end": 1, "warmup": 0.5}}})
    falling = algorithm_from(
        {
            "base": "distill",
            "terms": {"nll": {}, "distill": {"weight": {"start": 1, "end": 0}}},
        }
    )
    assert isinstance(falling, Algorithm)
    learner = trainer(local(peaked(letter_gpt(seed=7))))
    experience = learner.assess(episodes(learner), rising)
    updater = learner.parts.updater
    gradients = []
    for progress in (0.0, 0.25, 0.5):
        updater.backward(experience, rising, progress)
        gradients.append(updater.policy.model.transformer.wpe.weight.grad.clone())
        updater.optimizer.zero_grad()
    assert not gradients[0].any()
    torch.testing.assert_close(2 * gradients[1], gradients[2])
    assert "distill_loss" in updater.backward(experience, falling, 0.5)
    assert "distill_loss" not in updater.backward(experience, falling, 1.0)


def test_another_vocabulary_is_refused_before_training() -> None:
    other = LocalGuide(letter_gpt("abcdefgh"), letter_gpt().tokenizer, Sampling())
    message = sentence_of(lambda: trainer(other))
    assert "'guide.model' has another vocabulary than the policy" in message
    assert "choose a guide with the policy's tokenizer" in message
    tokens = Tokens.of(episodes(trainer(local(letter_gpt(seed=7)))))
    assert sentence_of(lambda: other.log_distribution(tokens)) == message


def test_a_guide_made_by_hand_that_cannot_score_is_refused_before_training() -> None:
    guide = FavouringGuide("a", 0.5)
    assert not isinstance(guide, ScoringGuide)
    message = sentence_of(lambda: trainer(guide))
    assert "FavouringGuide has no method 'log_distribution(tokens)'" in message


def saved(language_model: LanguageModel, folder: Path) -> str:
    save_policy(language_model, folder)
    return str(folder)


def test_a_recipe_distills_models_from_folders(tmp_path: Path) -> None:
    recipe = {
        "task": "letters",
        "policy": {"model": saved(letter_gpt(), tmp_path / "policy")},
        "guide": {"model": saved(peaked(letter_gpt(seed=7)), tmp_path / "guide")},
        "rollout": {"episodes": 8, "max_prompt_tokens": 4, "max_response_tokens": 6},
        "training": {"trackers": []},
    }
    shipped = Path(__file__).parents[2] / "recipes/algorithms/distill.yaml"
    config = load_config(recipe, shipped, "algorithm.terms.distill.options.jsd_beta=0.5")
    metrics = Trainer(config, build_parts(config, task=LetterTask()), Display(Console(quiet=True))).step()
    assert float(metrics["distill_loss"]) > 0

    other = saved(letter_gpt("abcdefgh"), tmp_path / "other")
    config = load_config(recipe, shipped, f"guide.model={other}")
    assert "another vocabulary" in sentence_of(lambda: build_parts(config, task=LetterTask()))


@pytest.mark.long
@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_the_policy_becomes_its_guide(tmp_path: Path, beta: float) -> None:
    """KL(policy || guide) over the policy's own texts falls from above 0.3 nats per token to below 0.01."""
    guide = peaked(letter_gpt(seed=7))
    algorithm = {"base": "distill", "terms": {"distill": {"options": {"jsd_beta": beta}}}}
    learner = trainer(local(guide), algorithm, tmp_path / "run", updates=30)

    def distance() -> float:
        rollout = learner.parts.collector.answers(Author.POLICY, learner.parts.held_out("test"))
        return exact_kl(learner.parts.policy, guide, rollout, minimum=3)

    start = distance()
    learner.train()
    end = distance()
    print(f"beta {beta}: {start:.3f} to {end:.4f}")
    assert start > 0.3
    assert end < 0.01
