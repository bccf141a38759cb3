"""Numbers that are not finite end a run before they are saved; where finite ones are right, they are given."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from finite_runs import trainer
from rlgf import cli
from rlgf.config import Config
from rlgf.errors import UserError
from rlgf.guides import LocalGuide
from rlgf.models.language_model import LanguageModel
from rlgf.models.loading import ModelConfig, load_language_model
from rlgf.models.sampling import Sampling
from rlgf.reward_models.train import load_reward_recipe, train_reward_model
from rlgf.run.build import build_parts
from rlgf.run.checkpoint import latest_checkpoint, save_policy
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from rlgf.types import Sample
from toys import LetterTask, letter_gpt, share_of_a


def refusal(run: Trainer) -> str:
    with pytest.raises(UserError) as caught:
        run.train()
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def spoiled(name: str = "transformer.h.0.mlp.c_fc.weight", value: float = float("nan")) -> LanguageModel:
    policy = letter_gpt()
    with torch.no_grad():
        policy.model.get_parameter(name).view(-1)[3] = value
    return policy


def finite_weights(folder: Path) -> bool:
    model = load_language_model(ModelConfig(model=str(folder))).model
    return all(bool(weight.isfinite().all()) for weight in model.parameters())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_policy_with_a_weight_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(UserError, match=r"not finite in its weight 'transformer\.h\.0\.mlp\.c_fc\.weight'"):
        trainer(tmp_path / "run", policy=spoiled(value=value))
    save_policy(spoiled(value=value), tmp_path / "model")
    with pytest.raises(
        UserError, match=r"model.*not finite in its weight 'transformer\.h\.0\.mlp\.c_fc\.weight'"
    ):
        load_language_model(ModelConfig(model=str(tmp_path / "model")))


@pytest.mark.parametrize("algorithm", ["ppo", "bc", "grpo", "dpo", "aggrevated"])
def test_a_learning_rate_out_of_all_bounds_ends_the_run(tmp_path: Path, algorithm: str) -> None:
    """In float32 this rate times a weight's own size overflows within a few steps."""
    message = refusal(trainer(tmp_path / "run", algorithm, learning_rate=1e30))
    assert "must be finite" in message
    assert "learning_rate" in message
    assert not (tmp_path / "run" / "policy").exists()
    newest = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert newest is None or finite_weights(newest / "policy")


def test_the_last_good_checkpoint_is_kept(tmp_path: Path) -> None:
    """The rate jumps after the first of three updates."""
    jump = {"start": 1e-3, "end": 1e30, "shape": "step", "over": 0.3}
    refusal(trainer(tmp_path / "run", learning_rate=jump))
    newest = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert newest is not None
    assert newest.name == "000001"
    assert finite_weights(newest / "policy")


@pytest.mark.parametrize("what", ["policy", "critic policy"])
def test_a_gradient_that_is_not_finite_is_named_and_not_stepped(tmp_path: Path, what: str) -> None:
    run = trainer(tmp_path / "run")
    updater = run.parts.updater
    chosen = updater.parameters[what][0]
    chosen.register_hook(lambda gradient: gradient * float("nan"))
    assert f"the gradient of the {what} must be finite, and one is nan" in refusal(run)
    assert all(bool(weight.isfinite().all()) for weight in run.parts.policy.model.parameters())


def test_a_model_that_stops_writing_finite_numbers_is_named(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run")
    head = run.parts.policy.model.get_output_embeddings()
    head.register_forward_hook(lambda module, given, logits: logits * float("nan"))
    assert "the policy's log-probabilities of its own texts must be finite" in refusal(run)


def test_a_value_that_is_not_finite_is_named(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run")
    with torch.no_grad():
        run.parts.updater.critics["policy"].head.weight[0, 0] = float("inf")
    assert "the critic's values must be finite" in refusal(run)


@pytest.mark.parametrize("kind", ["preference", "classifier"])
def test_a_reward_model_that_diverges_is_not_saved(tmp_path: Path, kind: str) -> None:
    save_policy(letter_gpt(), tmp_path / "model")
    row = (
        {"prompt": "ab", "chosen": "aa", "rejected": "bb"}
        if kind == "preference"
        else {"text": "ab", "label": "x"}
    )
    other = row if kind == "preference" else {"text": "bb", "label": "y"}
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in [row, other] * 8))
    data = {"train": str(tmp_path / "data.jsonl"), "validation": str(tmp_path / "data.jsonl")}
    recipe: dict[str, Any] = {
        "kind": kind,
        "model": str(tmp_path / "model"),
        "output": str(tmp_path / "reward"),
        "max_tokens": 16,
        "minibatch": 4,
        "epochs": 3,
        "learning_rate": 1e30,
        "data": data,
        **({"positive": "x"} if kind == "classifier" else {}),
    }
    with pytest.raises(UserError, match="finite"):
        train_reward_model(load_reward_recipe(recipe))
    assert not (tmp_path / "reward").exists()


def test_the_command_ends_with_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_policy(letter_gpt(), tmp_path / "model")
    sources = [
        "task=toys:LetterTask",
        f"policy.model={tmp_path / 'model'}",
        "reward=toys:share_of_a",
        "rollout={episodes: 4, max_prompt_tokens: 4, max_response_tokens: 4}",
        "update={minibatch: 2, learning_rate: 1e30}",
        "training={updates: 2, trackers: []}",
        "evaluation={samples: 2, test_samples: 2}",
        f"output={tmp_path / 'run'}",
    ]
    monkeypatch.setattr("sys.argv", ["rlgf", "train", *sources])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    # Bars of libraries that were imported before the command could silence them stand there too.
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rlgf: ")]
    assert "finite" in line
    assert not (tmp_path / "run" / "policy").exists()


def metrics(folder: Path) -> list[dict[str, Any]]:
    def refuse(word: str) -> Any:
        pytest.fail(f"{word} is no JSON")

    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def likelihood(policy: LanguageModel, samples: Sequence[Sample], limit: int) -> float:
    """Nats per token of the reference texts with their ends, by a plain forward pass."""
    nats, count = 0.0, 0
    for sample in samples:
        prompt = policy.encode_prompt(sample.prompt, 4)
        ids = [*policy.encode(sample.references[0]), policy.end_id][:limit]
        with torch.no_grad():
            logits = policy.model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        nats -= float(logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).sum())
        count += len(ids)
    return nats / count


class ShortTask(LetterTask):
    """References of three letters."""

    def load(self, split: str) -> list[Sample]:
        return [replace(sample, references=("aaa",)) for sample in super().load(split)]


@pytest.mark.parametrize(
    ("algorithm", "name", "terms"),
    [
        ("bc", "policy_loss", {}),
        ("ppo", "references_loss", {"references": {"loss": "nll", "on": "references", "weight": 0.1}}),
        ("luffy", "rollin_loss", {}),
    ],
)
def test_a_reference_may_be_shorter_than_what_the_policy_must_write(
    tmp_path: Path, algorithm: str, name: str, terms: dict[str, Any]
) -> None:
    config = Config.model_validate(
        {
            "task": {"name": "letters"},
            "policy": {"model": "made by hand"},
            "guide": {"model": "made by hand"},
            "reward": {"name": "share_of_a"},
            "algorithm": {"base": algorithm, "terms": terms},
            "output": str(tmp_path / "run"),
            "rollout": {
                "episodes": 8,
                "max_prompt_tokens": 4,
                "min_response_tokens": 6,
                "max_response_tokens": 6,
            },
            "update": {"minibatch": 8, "epochs": 1},
            "training": {"updates": 1, "trackers": []},
            "evaluation": {"samples": 4, "test_samples": 4},
        }
    )
    policy, task = letter_gpt(), ShortTask()
    guide = LocalGuide(letter_gpt(seed=7), policy.tokenizer, Sampling())
    parts = build_parts(config, task=task, reward=share_of_a, guide=guide, policy=policy)
    run = Trainer(config, parts, Display(Console(quiet=True)))
    expected = likelihood(policy, run.batch(), limit=6)
    run.train()
    found = next(line[name] for line in metrics(tmp_path / "run") if name in line)
    if name != "rollin_loss":
        assert found == pytest.approx(expected, rel=1e-4)
    assert found is not None
