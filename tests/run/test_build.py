"""What a run is made of, from its configuration, and what is refused before a model loads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from chat_toys import with_template
from rlgf.config import Config, load_config
from rlgf.errors import UserError
from rlgf.run import models
from rlgf.run.build import Parts, build_parts
from rlgf.tasks.memory import MemoryTask
from toys import FavouringGuide, LetterTask, letter_gpt, share_of_a

LENGTHS = ("rollout.episodes=8", "rollout.max_prompt_tokens=8", "rollout.max_response_tokens=8")


def test_offline_dpo_without_pairs_is_refused_before_a_model_loads(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "a", "references": "b"}\n')
    config = {
        "task": {"name": "data", "options": {"train": str(path)}},
        "policy": {"scratch": {}},
        "algorithm": "offline-dpo",
    }
    with pytest.raises(UserError, match=r"learns from pairs, .* 'rejected_field: rejected'"):
        build_parts(Config.model_validate(config))


def test_parts_are_made_of_what_is_given_and_measure_the_policy_against_a_copy() -> None:
    sections = {
        "task": "imdb",
        "policy": {"model": "nowhere"},
        "guide": {"model": "nowhere"},
        "reward": "sentiment",
    }
    policy, guide = letter_gpt(), FavouringGuide("a", 0.5)
    given = {"task": LetterTask(), "reward": share_of_a, "guide": guide, "policy": policy}
    parts = build_parts(load_config(sections, "algorithm=ppo++", *LENGTHS), **given)
    assert isinstance(parts, Parts)
    assert parts.policy is parts.collector.policy is parts.updater.policy is policy
    assert parts.assessor.reference.model is not policy.model
    assert set(parts.updater.critics) == {"policy"}
    assert list(parts.train) == LetterTask().load("train")
    assert list(parts.held_out("test")) == LetterTask().load("test")


def test_rewards_are_told_how_far_the_run_is() -> None:
    sections = {"task": "imdb", "policy": {"model": "nowhere"}, "reward": "sentiment"}
    config = load_config(sections, "algorithm=grpo", *LENGTHS)
    parts = build_parts(config, task=LetterTask(), reward=share_of_a, policy=letter_gpt())
    parts.tell_rewards(3, 96)
    for state in (parts.assessor.trainer_state, parts.evaluator.trainer_state):
        assert (state.global_step, state.epoch) == (3, 1.5), "64 samples are an epoch"


def test_training_data_of_chats_are_the_same_on_a_day_that_the_template_writes_otherwise() -> None:
    sections = {"task": "imdb", "policy": {"model": "nowhere"}, "reward": "sentiment"}
    config = load_config(sections, "algorithm=grpo", *LENGTHS)

    def parts(day: str, asked: str) -> Parts:
        policy = letter_gpt()
        with_template(policy.tokenizer, day + "{{ messages[0].content }}")
        task = MemoryTask(train=[{"prompt": [{"role": "user", "content": asked}]}])
        return build_parts(config, task=task, reward=share_of_a, policy=policy)

    today, tomorrow = parts("c", "ab"), parts("d", "ab")
    assert (today.train[0].prompt, tomorrow.train[0].prompt) == ("cab", "dab")
    assert today.data == tomorrow.data != parts("c", "ba").data


def test_a_policy_that_is_given_is_put_where_the_run_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "device", lambda: torch.device("meta"))
    model = letter_gpt().model
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.to("meta"))
    with pytest.raises(UserError, match=r"'policy' lies on several devices \(cpu, meta\)"):
        models._put_on_device(model)
    model = letter_gpt().model
    model.hf_quantizer = object()
    models._put_on_device(model)
    assert model.device.type == "cpu"
    del model.hf_quantizer
    models._put_on_device(model)
    assert model.device.type == "meta"


def test_a_generation_configuration_that_cannot_be_saved_is_refused_before_training() -> None:
    """Not at the first checkpoint: transformers saves none that it warns of, once it was changed in Python."""
    policy = letter_gpt()
    policy.model.generation_config.temperature = 0.7
    with pytest.raises(
        UserError, match=r"'policy' has a generation_config that transformers does not save \(Gen"
    ):
        models._require_savable(policy)
    policy.model.generation_config.do_sample = True
    models._require_savable(policy)
