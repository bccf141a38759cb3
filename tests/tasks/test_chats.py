"""Chats of a task become prompts through the policy's own template."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from chat_toys import (
    ASKED,
    GOOD,
    NO_SYSTEM,
    QUIET,
    SYSTEM,
    TAGS,
    THINKS,
    USER,
    WORDS,
    policy_folder,
    recipe,
    with_template,
)
from rlgf.chat import ChatTemplate
from rlgf.errors import UserError
from rlgf.models.language_model import LanguageModel
from rlgf.run.build import build_parts
from rlgf.tasks import build_task
from rlgf.tasks.chats import PromptedTask
from rlgf.types import Author, Sample


def test_the_policys_own_template_makes_its_prompts(tmp_path: Path, language_model: LanguageModel) -> None:
    policy = policy_folder(tmp_path / "policy", language_model, TAGS)
    rows = [{"prompt": ASKED}, {"prompt": "a text"}, {"prompt": [*ASKED, GOOD]}]
    parts = build_parts(recipe(tmp_path, policy, rows))
    prompts = ["<system>be kind<user>the film?<assistant>", "a text"]
    assert [sample.prompt for sample in parts.train][:2] == prompts
    assert parts.train[2].prompt == "<system>be kind<user>the film?<assistant> a joy", "goes on"
    assert parts.held_out("test")[:2][0].prompt == prompts[0]
    rollout = parts.collector.answers(Author.POLICY, parts.train[:2])
    assert rollout.prompt_ids[0].tolist() == parts.policy.encode_prompt(prompts[0], 40)
    other = policy_folder(tmp_path / "other", language_model, WORDS)
    over = build_parts(recipe(tmp_path, policy, rows[:1], options={"chat_model": other}))
    assert over.train[0].prompt == "system says be kind.user says the film?.assistant says "
    assert over.train[0].messages == (SYSTEM, USER)
    thinks = policy_folder(tmp_path / "thinks", language_model, THINKS)
    told = build_parts(
        recipe(tmp_path, policy, [{"prompt": ASKED[1:], **QUIET}], options={"chat_model": thinks})
    )
    assert told.train[0].prompt == "<quiet><user>the film?<assistant>"


def test_a_policy_that_cannot_read_chats_is_one_sentence_with_the_line(
    tmp_path: Path, language_model: LanguageModel
) -> None:
    rows = [{"prompt": ASKED[1:]}, {"prompt": ASKED}]
    bare = policy_folder(tmp_path / "bare", language_model, None)
    strict = policy_folder(tmp_path / "strict", language_model, NO_SYSTEM)
    with pytest.raises(UserError, match=r"line 1: .*has no chat template: set the option 'chat_model'"):
        build_parts(recipe(tmp_path, bare, rows))
    with pytest.raises(
        UserError, match=r"line 2: the chat template of .* refuses the messages of system, user"
    ):
        build_parts(recipe(tmp_path, strict, rows))
    guided = {"guide": {"model": strict}, "algorithm": "ppo++"}
    fine = policy_folder(tmp_path / "fine", language_model, TAGS)
    with pytest.raises(
        UserError, match=r"line 2: the chat template of the guide .* refuses .*'guide\.model'"
    ):
        build_parts(recipe(tmp_path, fine, rows, **guided))
    steered = {"guide": {"model": fine, "template": "A rave: {text}"}, "algorithm": "ppo++"}
    with pytest.raises(UserError, match=r"'guide\.template' stands before texts, and the task has chats"):
        build_parts(recipe(tmp_path, fine, rows, **steered))


def test_an_own_task_may_leave_its_prompts_to_the_run(language_model: LanguageModel) -> None:
    class Own:
        def load(self, split: str) -> list[Sample]:
            return [Sample("", messages=(USER,)), Sample("own", messages=(USER,)), Sample("")]

    tokenizer = with_template(copy.deepcopy(language_model.tokenizer))
    samples = PromptedTask(Own(), lambda: ChatTemplate(tokenizer, "it", "")).load("train")
    assert [sample.prompt for sample in samples] == ["<user>the film?<assistant>", "own", ""]
    strict = ChatTemplate(with_template(copy.deepcopy(tokenizer), "{{ raise_exception('no') }}"), "it", "x")
    with pytest.raises(
        UserError, match="sample 0 of the task's split 'test': the chat template of it refuses"
    ):
        PromptedTask(Own(), lambda: strict).load("test")


def write(path: Path, *lines: Any) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def test_chats_that_cannot_be_rendered_are_one_sentence(
    tmp_path: Path, language_model: LanguageModel
) -> None:
    tokenizer = copy.deepcopy(language_model.tokenizer)
    language_model.model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    user, system = {"role": "user", "content": "hi"}, {"role": "system", "content": "be nice"}

    def refused(*messages: Any, what: str) -> None:
        file = str(write(tmp_path / "a", {"prompt": list(messages)}))
        options = {"train": file, "reference_field": None, "chat_model": str(tmp_path / "model")}
        with pytest.raises(UserError, match=what) as caught:
            build_task("data", options).load("train")
        assert "\n" not in str(caught.value)

    refused(user, what="option 'chat_model'.*has no chat template")
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{{ messages[0].content + '' }}"
    )
    tokenizer.save_pretrained(tmp_path / "model")
    refused(
        system, user, what=r"line 1: the chat template .* refuses the messages of system, user \(System role"
    )
    refused({"role": "user", "content": None}, what="line 1: message 1 of 'prompt' must have a text")
    refused(what="line 1: 'prompt' must hold one message or more")
    refused({"text": "hi"}, what="line 1: 'prompt' must hold one message or more, each with 'role'")


def test_a_sample_has_all_columns_that_the_first_of_its_split_have() -> None:
    """Of an update in which no row has it, a reward is given a column of None, as of one in which another row has it."""

    class Rows:
        def load(self, split: str) -> list[Sample]:
            return [Sample("a"), Sample("b", columns={"n": 1}), Sample("c", columns={"m": None, "n": 2})]

    samples = PromptedTask(Rows(), lambda: pytest.fail("there is no chat")).load("train")
    assert [sample.columns for sample in samples] == [
        {"n": None, "m": None},
        {"n": 1, "m": None},
        {"n": 2, "m": None},
    ]
    assert samples.samples[0].columns == {}, "as the task has it"
