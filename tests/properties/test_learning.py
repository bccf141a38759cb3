"""Every algorithm learns a trivial problem to near its best value, with the real trainer."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from rlgf.algorithms import ALGORITHMS
from rlgf.config import Config
from rlgf.models.language_model import LanguageModel
from rlgf.run.build import build_parts
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from toys import FavouringGuide, LetterTask, StopWhenLearned, letter_gpt, letter_t5, share_of_a

pytestmark = pytest.mark.long

QUIET = Display(Console(quiet=True))
# With a roll-in in every episode nothing is learned of the first token, which is all of a text's luck here.
# And with a hint in every prompt, nothing of the prompt alone: what this small model learns of one is no use to the other.
CHANGED = {
    "dr-po": {"help": {"probability": 0.6}},
    "questa": {"help": {"probability": 0.5, "shared": False}},
}


def trainer(
    tmp_path: Path,
    algorithm: str,
    policy: LanguageModel | None = None,
    guide: FavouringGuide | None = None,
    lora: dict[str, int] | None = None,
    terms: dict[str, object] | None = None,
    **options: object,
) -> Trainer:
    config = Config.model_validate(
        {
            "task": {"name": "toys:LetterTask"},
            "policy": {"model": "made by hand", "lora": lora},
            "guide": {"model": "made by hand"},
            "reward": {"name": "toys:share_of_a"},
            "algorithm": {
                "base": algorithm,
                "kl": {"coefficient": 0.0},
                **CHANGED.get(algorithm, {}),
                **({} if terms is None else {"terms": terms}),
            },
            "output": str(tmp_path / "run"),
            "rollout": {
                "episodes": 64,
                "max_prompt_tokens": 4,
                "min_response_tokens": 6,
                "max_response_tokens": 6,
                "max_hint_tokens": 14,
            },
            "update": {"minibatch": 32, "epochs": 2, "learning_rate": 5e-3},
            "training": {"updates": 40, "trackers": [], "checkpoint_every": 1000},
            "evaluation": {"every": 1000, "samples": 64, "test_samples": 64},
            **options,
        }
    )
    guide = guide or FavouringGuide("a", 0.6)
    reward = None if "reward" in options else share_of_a
    parts = build_parts(config, task=LetterTask(), reward=reward, guide=guide, policy=policy or letter_gpt())
    return Trainer(config, parts, QUIET, callbacks=[StopWhenLearned()])


# Some learn from something else than the reward: `distill` and kin (test_distillation.py), `offline-dpo`
# (test_pairs.py) and those below.
OTHERS = {"distill", "opd", "opsd", "sdft", "sdpo", "offline-dpo", "gail", "gad", "seq-kd", "dagger"}


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS.keys() - OTHERS))
def test_learns_to_write_the_rewarded_letter(tmp_path: Path, algorithm: str) -> None:
    """Reward is the share of the letter a: about 0.25 at the start, 0.6 for the guide, 1 at best."""
    learner = trainer(tmp_path, algorithm)
    start = learner.evaluate().totals["reward"]
    end = learner.train()["policy"]["reward"]
    assert start < 0.4
    assert end > 0.9


@pytest.mark.parametrize("algorithm", ["ppo", "ppo++", "aggrevated", "guided-grpo"])
def test_learns_from_dialogues(tmp_path: Path, algorithm: str) -> None:
    """An environment answers each of three turns with another letter, which is not learned."""
    learner = trainer(
        tmp_path,
        algorithm,
        environment={"name": "toys:says_d", "turns": 3},
        reward={"name": "toys:turns_of_a"},
        rollout={"episodes": 64, "max_prompt_tokens": 4, "max_response_tokens": 12},
    )
    start = learner.evaluate().totals["reward"]
    end = learner.train()["policy"]["reward"]
    assert start < 0.4
    assert end > 0.9


@pytest.mark.parametrize("options", [{}, {"length": 6}, {"ratio": "text"}])
def test_learns_by_a_mean_over_texts(tmp_path: Path, options: dict[str, object]) -> None:
    policy = {"loss": "clipped_surrogate_of_texts", "options": options}
    learner = trainer(tmp_path, "guided-grpo", terms={"policy": policy})
    assert learner.evaluate().totals["reward"] < 0.4
    assert learner.train()["policy"]["reward"] > 0.9


@pytest.mark.parametrize("algorithm", ["seq-kd", "dagger"])
def test_imitation_learns_to_write_as_the_guide_does(tmp_path: Path, algorithm: str) -> None:
    learner = trainer(
        tmp_path, algorithm, guide=FavouringGuide("a", 0.97), reward={"name": "toys:share_of_a"}
    )
    start = learner.evaluate().totals["reward"]
    end = learner.train()["policy"]["reward"]
    assert start < 0.4
    assert 0.93 < end < 0.995


@pytest.mark.parametrize("algorithm", ["ppo++", "luffy"])
def test_an_encoder_decoder_model_learns_it_too(tmp_path: Path, algorithm: str) -> None:
    learner = trainer(tmp_path, algorithm, letter_t5())
    assert learner.evaluate().totals["reward"] < 0.4
    assert learner.train()["policy"]["reward"] > 0.9


def share_of_b(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    """What nobody but the guide says is good."""
    return [text.count("b") / max(len(text), 1) for text in completions]


def test_gad_learns_to_write_as_the_guide_does(tmp_path: Path) -> None:
    """Though the references are all of another letter."""
    judge = f"{Path(__file__)}:share_of_b"
    learner = trainer(
        tmp_path,
        "gad",
        guide=FavouringGuide("b", 1.0),
        reward={"name": "discriminator", "options": {"learning_rate": 1e-3}},
        evaluation={"every": 1000, "samples": 64, "test_samples": 64, "judge": judge},
    )
    start = learner.evaluate().totals["judge"]
    end = learner.train()["policy"]["judge"]
    assert start < 0.4
    assert end > 0.9


def test_gail_learns_to_write_as_the_references_do(tmp_path: Path) -> None:
    """The references are all of the letter a; nothing else says that it is good."""
    learner = trainer(
        tmp_path,
        "gail",
        reward={"name": "discriminator", "options": {"learning_rate": 1e-3}},
        evaluation={"every": 1000, "samples": 64, "test_samples": 64, "judge": "toys:share_of_a"},
    )
    start = learner.evaluate().totals["judge"]
    end = learner.train()["policy"]["judge"]
    assert start < 0.4
    assert end > 0.9
