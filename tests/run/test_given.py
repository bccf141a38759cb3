"""Objects given in Python take the place of what a recipe names, and none is passed over."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from rich.console import Console
from transformers import TextGenerationPipeline

from rlgf.algorithms import ALGORITHMS
from rlgf.config import Config, load_config
from rlgf.errors import UserError
from rlgf.run.build import build_parts
from rlgf.run.checkpoint import save_policy
from rlgf.run.display import Display
from rlgf.run.given import Given, _language_model, adapter_settings, configured
from rlgf.run.trainer import Trainer
from toys import (
    FavouringGuide,
    LetterTask,
    StopWhenLearned,
    letter_gpt,
    letter_tokenizer,
    says_d,
    sentence_of,
    share_of_a,
)

QUIET = Display(Console(quiet=True))
ADAPTER = LoraConfig(r=3, lora_alpha=6)


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "algorithm": "rloo",
        "output": str(folder / "run"),
        "task": "toys:LetterTask",
        "reward": "toys:share_of_a",
        "rollout": {"episodes": 8, "max_prompt_tokens": 4, "max_response_tokens": 6},
        "update": {"minibatch": 4},
        "training": {"updates": 1, "trackers": []},
        "evaluation": {"samples": 8, "test_samples": 8},
        **changes,
    }


@pytest.mark.parametrize("loaded", [False, True])
def test_an_adapter_given_in_python_is_the_runs(loaded: bool) -> None:
    sources: Any = load_config("imdb") if loaded else "imdb"
    config = configured(sources, Given(), ADAPTER)
    assert config.policy.lora is not None
    assert (config.policy.lora.r, config.policy.lora.alpha) == (3, 6.0)
    rest = config.policy.model_copy(update={"lora": None})
    assert config.model_copy(update={"policy": rest}) == load_config("imdb")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"use_rslora": True}, "use_rslora True"),
        ({"rank_pattern": {"c_attn": 1}}, "rank_pattern {'c_attn': 1}"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save ['lm_head']"),
        ({"layers_to_transform": [0], "target_modules": ["c_attn"]}, "layers_to_transform [0]"),
        ({"init_lora_weights": "gaussian"}, "init_lora_weights 'gaussian'"),
    ],
)
def test_what_a_run_does_not_take_of_an_adapters_settings_is_refused(
    changed: dict[str, Any], said: str
) -> None:
    sentence = sentence_of(lambda: adapter_settings(LoraConfig(r=3, **changed)))
    assert sentence == (
        f"'peft_config' has {said}, and of it a run takes r, lora_alpha and target_modules alone: leave it out."
    )


def test_what_changes_no_adapter_is_taken_in_its_settings() -> None:
    given = LoraConfig(
        r=3,
        lora_alpha=6,
        target_modules=["b", "a"],
        task_type="CAUSAL_LM",
        fan_in_fan_out=True,
        inference_mode=True,
    )
    assert adapter_settings(given) == {"r": 3, "alpha": 6, "targets": ["a", "b"]}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_configuration_is_the_same_when_it_is_read_again(name: str) -> None:
    own = {"algorithm": name, "rollout": {"min_response_tokens": 0}, "policy": {"critic": "head"}}
    config = load_config("imdb", own)
    assert load_config(config.model_dump(mode="json")) == config


def test_a_model_given_in_python_is_not_the_recipes(tmp_path: Path) -> None:
    save_policy(letter_gpt(), tmp_path / "start")
    named = recipe(tmp_path, policy={"model": str(tmp_path / "start")})
    trainer = Trainer(load_config(named), display=QUIET, policy=letter_gpt(seed=1))
    assert trainer.config.policy.model is None
    trainer.train()
    policy = tmp_path / "run" / "policy"
    assert "| from | `a model given in Python` |" in (policy / "README.md").read_text()
    trained: dict[str, Any] = {"policy": {"model": str(policy)}}
    with pytest.raises(UserError, match=r"given in Python: name .* 'evaluation\.reference\.model'\.$"):
        Trainer([named, trained], display=QUIET, evaluates=True)
    reference: dict[str, Any] = {"evaluation": {"reference": {"model": str(tmp_path / "start")}}}
    assert Trainer([named, trained, reference], display=QUIET, evaluates=True).evaluate().totals["kl"] > 0


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("turns", [None, 3])
def test_an_environment_given_in_python_is_held_to_the_rules(
    tmp_path: Path, loaded: bool, turns: int | None
) -> None:
    section = {} if turns is None else {"environment": {"turns": turns}}
    policy = {"policy": {"scratch": {"vocabulary": 257, "layers": 1, "heads": 1, "width": 8, "context": 32}}}
    fits, unfit = (recipe(tmp_path, algorithm=name, **section, **policy) for name in ("rloo", "a-star-po"))
    given = Given(environment=says_d)
    whole = configured(load_config(fits, given=["environment"]) if loaded else fits, given)
    assert whole.environment is not None
    assert whole.environment.turns == (turns or 8)
    with pytest.raises(UserError, match="which is of single texts and not of dialogues"):
        configured(unfit, given)


def test_what_would_not_be_used_is_refused(tmp_path: Path) -> None:
    config: Config = load_config(recipe(tmp_path), given=["policy"])
    data = [{"prompt": "a"}]
    with pytest.raises(UserError, match="'task' and 'train' are both the run's data"):
        Trainer(config, policy=letter_gpt(), task=LetterTask(), train=data)
    with pytest.raises(UserError, match="'tokenizer' belongs to a model given as 'policy'"):
        Trainer(config, tokenizer=letter_tokenizer("abcd"))
    with pytest.raises(UserError, match=r"is a str\): a model by name is the recipe's 'policy.model'"):
        _language_model("gpt2", letter_tokenizer("abcd"))
    parts = build_parts(config, policy=letter_gpt())
    for given in (
        {"reward": share_of_a},
        {"train": data},
        {"peft_config": ADAPTER},
        {"policy": letter_gpt()},
    ):
        with pytest.raises(UserError, match="'parts' are already built"):
            Trainer(config, parts, QUIET, **given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"tokenizer": letter_tokenizer("abcdefgh")},
            "'policy': its tokenizer's largest token id is 8, and the",
        ),
        (
            {"policy": letter_gpt().model.to("meta")},
            "'policy' has no weights, since it was made on the device 'meta'",
        ),
        ({"reward": []}, "'reward' is an empty list"),
        ({"reward": letter_gpt().model}, "give a function that asks it, or name its folder or its place on"),
        ({"peft_config": {"r": 2}}, "'peft_config' must be a peft.LoraConfig (it is a dict)"),
        ({"guide": FavouringGuide}, "'guide' is the class FavouringGuide: give an object of it"),
        ({"reward": object.__new__(TextGenerationPipeline)}, "'reward' is a model: give a function"),
        ({"reward": FavouringGuide}, "'reward' is the class FavouringGuide: give an object of it"),
        ({"task": LetterTask}, "'task' is the class LetterTask: give an object of it"),
        (
            {"optimizer": lambda groups: None},
            "'optimizer' returned None: it must return a torch.optim.Optimizer",
        ),
        ({"scheduler": lambda optimizer: None}, "'scheduler' returned None: it must return a scheduler"),
    ],
)
def test_an_object_that_does_not_fit_is_named(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    whole = {"policy": letter_gpt().model, "tokenizer": letter_tokenizer("abcd"), **given}
    assert said in sentence_of(lambda: Trainer(recipe(tmp_path), display=QUIET, **whole))


@pytest.mark.long
def test_an_object_of_another_type_is_named() -> None:
    """In a process of its own, since here the types of all calls are checked."""
    script = Path(__file__).parents[1] / "unfit_objects_script.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "'policy' must be a model of transformers (it is a str): a model by name is the recipe's 'policy.model'.",
        "'policy' must be a model of transformers (it is a type): make an object of GPT2LMHeadModel, such as by its "
        "from_pretrained.",
        "'policy' must be a model of transformers (it is a DataParallel): give the model that it is wrapped around.",
        "'tokenizer' must be one of transformers (it is a str).",
        "'tokenizer' must be one of transformers (it is a SimpleNamespace): give its 'tokenizer'.",
        "'task' is a int, which has no method load(split) ('int' object has no attribute 'load').",
        "'reward' is the text 'owner/name': a reward by name is the recipe's section 'reward', which for a reward model "
        "is {name: model, options: {model: FOLDER or hub name}}.",
        "'reward' must be a function such as f(completions, **kwargs), or a list of them (it is a NoneType).",
        "'guide' must have a method write(requests), and builtin_function_or_method has none: make it the method of a "
        "class, as def write(self, requests): return f(requests).",
        "'optimizer' must be a function that makes one of groups of parameters, such as a functools.partial (it is a str).",
        "'scheduler' must be a function that makes one of an optimizer, such as a functools.partial (it is a str).",
        "'callbacks' must be a list of objects of transformers.TrainerCallback (it is a StopWhenLearned).",
        "'callbacks' must hold objects of transformers.TrainerCallback (one is a int).",
        "'trackers' must hold objects of accelerate.tracking.GeneralTracker (one is the class GeneralTracker).",
        "a recipe must be a path, a name, an override such as seed=1 or a mapping (it is a NoneType); objects have names of "
        "their own, such as Trainer(policy=model, reward=function).",
        "a recipe must be a path, a name, an override such as seed=1 or a mapping (it is a int); objects have names of "
        "their own, such as Trainer(policy=model, reward=function).",
    ]


def test_a_callback_may_be_its_class(tmp_path: Path) -> None:
    """As with the trainer of transformers."""
    fits: Any = {"policy": letter_gpt().model, "tokenizer": letter_tokenizer("abcd")}
    trainer = Trainer(recipe(tmp_path), display=QUIET, callbacks=[StopWhenLearned], **fits)
    assert [type(callback) for callback in trainer.callbacks] == [StopWhenLearned]


def test_a_model_in_half_precision_is_measured_and_not_trained(tmp_path: Path) -> None:
    """The updates of a run are smaller than what half precision rounds off."""
    whole: dict[str, Any] = {"policy": letter_gpt().model.bfloat16(), "tokenizer": letter_tokenizer("abcd")}
    said = sentence_of(lambda: Trainer(recipe(tmp_path), display=QUIET, **whole))
    assert said.startswith(
        "'policy' has weights in bfloat16, whose rounding swallows small updates: give policy.float()"
    )
    assert Trainer(recipe(tmp_path), display=QUIET, evaluates=True, **whole).evaluate().totals["reward"] >= 0
    adapted = Trainer(recipe(tmp_path), display=QUIET, peft_config=ADAPTER, **whole)
    assert {weight.dtype for weight in adapted.parts.policy.trained} == {torch.float32}
    adapted.step()


def test_a_frozen_model_is_measured_and_not_trained(tmp_path: Path) -> None:
    frozen = letter_gpt().model.requires_grad_(False)
    whole: dict[str, Any] = {"policy": frozen, "tokenizer": letter_tokenizer("abcd")}
    said = sentence_of(lambda: Trainer(recipe(tmp_path), display=QUIET, **whole))
    assert said.startswith(
        "'policy' has no weights that learn, since all are frozen: call policy.requires_grad"
    )
    assert Trainer(recipe(tmp_path), display=QUIET, evaluates=True, **whole).evaluate().totals["reward"] >= 0


def test_a_model_with_an_adapter_in_it_is_refused(tmp_path: Path) -> None:
    loaded, trained = letter_gpt().model, letter_gpt().model
    # As `add_adapter` leaves it, and `from_pretrained` of an adapter's folder.
    loaded._hf_peft_config_loaded = True
    # As a cell of a notebook that is run twice finds it.
    given: dict[str, Any] = {"tokenizer": letter_tokenizer("abcd"), "peft_config": LoraConfig(r=2)}
    Trainer(recipe(tmp_path), display=QUIET, policy=trained, **given)
    for model in (loaded, trained):
        with pytest.raises(UserError, match=r"'policy' has an adapter in it.*load the base model anew"):
            Trainer(recipe(tmp_path), display=QUIET, policy=model, **given)


def test_rewards_given_in_python_have_the_weights_of_the_recipe(tmp_path: Path) -> None:
    def none(completions: list[str], **columns: Any) -> list[float]:
        return [0.5] * len(completions)

    terms = {"terms": {"none": 2, "share_of_a": {"weight": 0}}, "clip": [0, 3]}
    for given, total in (([none, share_of_a], 1.0), (none, 1.0), (partial(none, unused=1), 1.0)):
        section = terms if isinstance(given, list) else {"terms": {"none": 2}}
        trainer = Trainer(recipe(tmp_path, reward=section), display=QUIET, policy=letter_gpt(), reward=given)
        assert trainer.evaluate(split="validation").totals["reward"] == total
    wrong = recipe(tmp_path, reward={"terms": {"nun": 2}})
    with pytest.raises(
        UserError, match=r"'reward.terms' names 'nun', and the rewards given in Python are none, share_of_a"
    ):
        Trainer(wrong, display=QUIET, policy=letter_gpt(), reward=[none, share_of_a])


def test_a_reward_given_in_python_is_scaled_as_the_recipe_says(tmp_path: Path) -> None:
    alone = recipe(tmp_path, reward={"clip": [0, 0.25]})
    trainer = Trainer(alone, display=QUIET, policy=letter_gpt(), reward=share_of_a)
    assert trainer.parts.assessor.scale.clip == (0, 0.25)
    with pytest.raises(UserError, match="'reward': give exactly one of 'name' and 'terms'"):
        load_config(alone, given=["policy"])


def test_rows_given_in_python_are_read_as_the_recipe_says(tmp_path: Path) -> None:
    options = {"prompt_field": "question", "train": "another.jsonl"}
    named = recipe(tmp_path, task={"name": "data", "options": options})
    trainer = Trainer(named, display=QUIET, policy=letter_gpt(), train=[{"question": "a"}])
    assert trainer.batch()[0].prompt == "a"
    assert trainer.config.task is not None
    assert trainer.config.task.options == {"prompt_field": "question"}, "a resumed run must read alike"


def test_the_chat_template_of_a_policy_is_told_what_the_recipe_says(tmp_path: Path) -> None:
    policy = letter_gpt()
    policy.tokenizer.chat_template = "{% if quiet %}a{% endif %}{{ messages[0].content }}"
    rows = [{"prompt": [{"role": "user", "content": "b"}]}]
    save_policy(policy, tmp_path / "start")
    told = {"chat_template_kwargs": {"quiet": True}}
    for given, section in (({"policy": policy}, {}), ({}, {"model": str(tmp_path / "start")})):
        named = recipe(tmp_path, policy={**section, **told})
        assert Trainer(named, display=QUIET, train=rows, **given).batch()[0].prompt == "ab"
    assert "quiet is not defined" not in policy.tokenizer.chat_template, "the caller's own stays"


def test_an_argument_that_trl_calls_otherwise_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="no argument 'reward_funcs': what TRL calls so is 'reward' here"):
        Trainer(recipe(tmp_path), reward_funcs=share_of_a)
    with pytest.raises(TypeError, match=r"^Trainer has no argument 'polcy'\.$"):
        Trainer(recipe(tmp_path), polcy=letter_gpt())
