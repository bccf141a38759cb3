"""The card beside a saved policy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import equal
from rich.console import Console
from scipy import stats

from architectures import small_model, small_tokenizer
from rlgf.cli.models import merge
from rlgf.config import load_config
from rlgf.evaluation.files import Evaluation
from rlgf.models.language_model import LanguageModel
from rlgf.models.lora import Adapters, LoRAConfig
from rlgf.run.checkpoint import save_policy
from rlgf.run.display import Display
from rlgf.run.hub import write_model_card
from rlgf.run.progress import Progress
from rlgf.run.trainer import Trainer
from toys import FavouringGuide, letter_gpt, share_of_a


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"model": "owner/name"}, "base_model: owner/name"),
        ({"model": "owner/name", "lora": {}}, "AutoPeftModelForCausalLM"),
        ({"scratch": {}}, "| from | `a small model from random weights` |"),
    ],
)
def test_a_model_card_names_its_base(tmp_path: Path, policy: dict[str, Any], said: str) -> None:
    recipe = {
        "name": "a|b\u202e",
        "task": "imdb",
        "policy": policy,
        "reward": "sentiment",
        "algorithm": "ppo",
    }
    evaluation = Evaluation({"reward": 0.5}, [{"reward": 0.5}])
    usage = {"calls": 1200.0, "prompt_tokens": 5.0, "completion_tokens": 6.0, "cost": 0.25}
    config = load_config(recipe)
    write_model_card(tmp_path, config, evaluation, Progress(), usage, model=letter_gpt().model)
    card = (tmp_path / "README.md").read_text()
    assert said in card
    assert "| asked of the guide | 1,200 answers, 11 tokens, cost 0.25 |" in card
    assert "| reward | 0.5000 |  |" in card, "one text has no interval"
    assert "# a/b\\u202e" in card  # spelled out


@pytest.mark.filterwarnings("ignore")  # of the architecture's own
def test_the_card_of_an_adapter_of_a_model_that_sees_loads_it(tmp_path: Path) -> None:
    model = small_model("Qwen3VLForConditionalGeneration", "qwen3_vl")
    model.save_pretrained(tmp_path / "base")
    model.name_or_path = str(tmp_path / "base")
    policy = {"model": model.name_or_path, "lora": {"r": 2}}
    recipe = {"task": "imdb", "policy": policy, "reward": "sentiment", "algorithm": "ppo"}
    start = LanguageModel(model, small_tokenizer())
    save_policy(replace(start, adapters=Adapters(model, LoRAConfig(r=2))), tmp_path / "policy")
    evaluation = Evaluation({"reward": 0.5}, [{"reward": 0.5}])
    write_model_card(tmp_path / "policy", load_config(recipe), evaluation, Progress(), {}, model=model)
    code = (tmp_path / "policy" / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    done: dict[str, Any] = {}
    exec(code.replace('name = "."', f"name = {str(tmp_path / 'policy')!r}"), done)
    ids = torch.arange(3, 12)[None]
    with torch.no_grad():
        torch.testing.assert_close(done["model"].eval()(input_ids=ids).logits, model(input_ids=ids).logits)


def test_the_model_card_says_what_was_trained_and_measured(finished: Trainer) -> None:
    folder = finished.config.folder
    card = (folder / "policy" / "README.md").read_text()
    summary = json.loads((folder / "summary.json").read_text())
    assert "library_name: transformers" in card
    assert "base_model" not in card, "a folder or a name that is not the hub's"
    for row in (
        "| from | `made by hand` |",
        "| task | given in Python: `LetterTask` |",
        "| algorithm | `ppo`: proximal",
    ):
        assert row in card
    assert f"4 updates, {finished.progress.policy_tokens} tokens by the policy" in card
    records = [json.loads(line) for line in (folder / "evaluation/policy.jsonl").read_text().splitlines()]
    rewards = [record["reward"] for record in records[1:]]
    half = float(stats.t.interval(0.95, len(rewards) - 1, scale=stats.sem(rewards))[1])
    assert f"| reward | {summary['totals']['policy']['reward']:.4f} | ± {half:.4f} |" in card
    assert f"| output perplexity | {summary['totals']['policy']['output_perplexity']:.4f} |  |" in card
    assert f"Of {len(rewards)} prompts" in card
    for line in finished.config.to_yaml().splitlines():
        assert f"    {line}\n" in card


def test_a_model_card_loads_what_it_lies_beside(finished: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = finished.config.folder / "policy"
    monkeypatch.chdir(folder)
    code = (folder / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(code, names)
    assert equal(names["model"].state_dict(), finished.parts.policy.model.state_dict())


def test_a_model_card_loads_an_adapter_over_an_adapter(tmp_path: Path) -> None:
    """By itself `peft` would leave out the first, without a word."""
    save_policy(letter_gpt(), tmp_path / "base")
    source = tmp_path / "base"
    for number in (1, 2):
        recipe = {
            "output": str(tmp_path / str(number)),
            "task": "toys:LetterTask",
            "policy": {"model": str(source), "lora": {}},
            "reward": "toys:share_of_a",
            "algorithm": "rloo",
            "rollout": {"episodes": 8, "max_prompt_tokens": 4, "max_response_tokens": 6},
            "update": {"minibatch": 4, "learning_rate": 0.1},
            "training": {"updates": 1, "trackers": []},
            "evaluation": {"samples": 4, "test_samples": 4},
        }
        trainer = Trainer(recipe, display=Display(Console(quiet=True)))
        trainer.train()
        source = tmp_path / str(number) / "policy"
    code = (source / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(code.replace('"."', repr(str(source))), names)
    ids = torch.tensor([[0, 1, 2]])
    with torch.no_grad():
        torch.testing.assert_close(names["model"](ids).logits, trainer.parts.policy.model(ids).logits)
    merge(str(source), tmp_path / "whole")
    card, whole = ((folder / "README.md").read_text() for folder in (source, tmp_path / "whole"))
    assert "library_name: transformers" in whole
    code = whole.partition("```python\n")[2].partition("```")[0]
    assert whole.partition("## Measured")[2] == card.partition("## Measured")[2]
    exec(code.replace('"."', repr(str(tmp_path / "whole"))), names)
    with torch.no_grad():
        torch.testing.assert_close(names["model"](ids).logits, trainer.parts.policy.model(ids).logits)


def test_what_was_given_in_python_is_not_named_after_the_recipe_that_it_replaces(tmp_path: Path) -> None:
    recipe: dict[str, Any] = {
        "algorithm": "rloo",
        "output": str(tmp_path / "run"),
        "task": "imdb",
        "reward": {"name": "sentiment", "normalize": True},
        "guide": {"url": "http://localhost:1/v1", "model": "unasked"},
        "rollout": {"episodes": 8, "max_prompt_tokens": 4, "max_response_tokens": 6},
        "update": {"minibatch": 4},
        "training": {"updates": 1, "trackers": []},
        "evaluation": {"samples": 2, "test_samples": 2},
    }
    rows = [{"prompt": letter} for letter in "abcd"]
    whole = Trainer(
        recipe,
        display=Display(Console(quiet=True)),
        policy=letter_gpt(),
        train=rows,
        reward=share_of_a,
        guide=FavouringGuide("a", 0.5),
    )
    whole.train()
    card = (tmp_path / "run/policy/README.md").read_text()
    for section, name in (("task", "train"), ("reward", "share_of_a"), ("guide", "FavouringGuide")):
        assert f"| {section} | given in Python: `{name}` |" in card
    assert "## Measured on 'train', since no test split was given" in card
    written = (tmp_path / "run/config.yaml").read_text()
    assert "normalize: true" in written, "it still counts"
    for unused in ("imdb", "sentiment", "unasked"):
        assert unused not in card + written
