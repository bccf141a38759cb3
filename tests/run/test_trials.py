"""What can be tried before any weights load."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pytest

from faulty_server import FaultyServer, serving
from rlgf.chat import ChatTemplate
from rlgf.config import Config, load_config
from rlgf.errors import UserError
from rlgf.guides import LocalGuideConfig
from rlgf.run.build import build_parts
from rlgf.run.trials import asked_guide, check_chats, check_dialogues, check_hints, policy_template, scorers
from rlgf.tasks.chats import Prompted, PromptedTask
from rlgf.types import Message, Sample
from toys import FavouringGuide, letter_gpt, letter_tokenizer

SAMPLES = [Sample("ab", ("cd",))]


def config(**reward: object) -> Config:
    sections = {"task": "toys:LetterTask", "policy": {"scratch": {}}, "reward": {"name": "length", **reward}}
    return load_config(sections, "algorithm=ppo")


def guided(guide: dict[str, object]) -> Config:
    sections = {"task": "toys:LetterTask", "policy": {"scratch": {}}, "reward": "length", "guide": guide}
    return load_config(sections, "algorithm=ppo++")


def prompted(samples: list[Sample]) -> Prompted:
    return Prompted(samples, lambda: pytest.fail("no chats"), "train")


def short(completions: list[str]) -> list[float]:
    return []


def good(completions: list[str], completion_ids: list[list[int]]) -> list[float]:
    return [float(len(ids)) for ids in completion_ids]


def rising(completions: list[str], trainer_state: Any) -> list[float]:
    return [trainer_state.global_step / trainer_state.max_steps for _ in completions]


def test_a_remote_guide_is_asked_once_and_another_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving(FaultyServer()) as server:
        asked = guided({"url": server.url, "model": "letters", "cache": None})
        with ExitStack() as undone:
            asked_guide(asked, SAMPLES, undone, evaluates=False)
            assert sum(server.seen.values()) == 1
    own = {"name": "toys:FavouringGuide", "options": {"favourite": "a", "probability": 1.0}}
    silent = asked_guide(guided(own), SAMPLES, ExitStack(), evaluates=False)
    assert isinstance(silent, FavouringGuide)
    assert silent.requests == []


def test_a_server_that_repeats_a_beginning_is_found_before_a_run() -> None:
    chat = {"style": "chat", "continue_message": True, "model": "letters", "cache": None}
    for reply, says in (("To begin with, it was", "repeats"), (", it was", None)):
        with serving(FaultyServer(replies=[reply])) as server, ExitStack() as undone:
            asked = guided({**chat, "url": server.url})
            with (
                pytest.raises(UserError, match=r"'guide.continue_message: false'") if says else nullcontext()
            ):
                asked_guide(asked, SAMPLES, undone, evaluates=False)
            assert server.bodies[0]["messages"][-1] == {"role": "assistant", "content": "To begin with"}


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A process that a shell began in the background ignores Ctrl-C."""
    found = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, found)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_while_a_guide_is_tried_closes_it() -> None:
    threads = set(threading.enumerate())
    with serving(FaultyServer(always=(503, {}))) as server:
        threads |= set(threading.enumerate())
        threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            build_parts(guided({"url": server.url, "model": "letters", "cache": None}), reward=good)
        left = set(threading.enumerate()) - threads
        assert not [thread for thread in left if thread.name.startswith("guide")]


def test_a_reward_and_a_judge_are_tried_on_a_sample() -> None:
    sections = config(name=f"{__name__}:good")
    for name in ("good", "rising"):
        assert scorers(config(name=f"{__name__}:{name}"), None, SAMPLES, in_turns=False)[0] is not None
    with pytest.raises(UserError, match="returned 0 values for 1 completions"):
        scorers(config(name=f"{__name__}:short"), None, SAMPLES, in_turns=False)
    judged = load_config(sections.model_dump(mode="json"), f"evaluation.judge={__name__}:short")
    with pytest.raises(UserError, match="returned 0 values for 1 completions"):
        scorers(judged, None, SAMPLES, in_turns=False)
    given = scorers(config(name=f"{__name__}:short"), good, SAMPLES, in_turns=False)[0]
    assert given is good, "what Python gives takes the recipe's place"
    with pytest.raises(UserError, match="returned 0 values for 1 completions"):
        scorers(sections, short, SAMPLES, in_turns=False)

    def asks_trainer(completions: list[str], **kwargs: Any) -> list[float]:
        return [float(trainer.progress.update) for _ in completions]

    assert scorers(sections, asks_trainer, SAMPLES, in_turns=False)[0] is asks_trainer
    trainer: Any = None
    with pytest.raises(AttributeError, match="progress"):
        scorers(sections, asks_trainer, SAMPLES, in_turns=False)


class Chats:
    def load(self, split: str) -> list[Sample]:
        return [Sample("", ("cd",), messages=(Message("user", "ab"),))]


def chats() -> Prompted:
    policy = letter_gpt()
    policy.tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    found = PromptedTask(Chats(), lambda: policy_template(config(), policy)).load("train")
    assert isinstance(found, Prompted)
    return found


def test_a_guide_of_texts_is_not_steered_before_chats() -> None:
    with pytest.raises(UserError, match=r"'guide.template' stands before texts, and the task has chats"):
        check_chats([LocalGuideConfig(model="nowhere", template="A rave: {text}")], chats())


def test_a_guides_template_that_refuses_the_messages_is_found_with_the_line(tmp_path: Path) -> None:
    tokenizer = letter_gpt().tokenizer
    tokenizer.chat_template = "{{ raise_exception('no user') }}"
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(UserError, match="no user"):
        check_chats([LocalGuideConfig(model=str(tmp_path))], chats())


def test_an_environment_is_tried_on_a_turn() -> None:
    template = policy_template(config(), None)
    heard = []

    async def polite(turns: list[str]) -> str:
        heard.extend(turns)
        return "go on"

    check_dialogues(polite, template, prompted(SAMPLES))
    assert heard == ["cd"]
    with pytest.raises(UserError, match="must answer a turn with a text, or with None"):
        check_dialogues(lambda turns: 3, template, prompted(SAMPLES))
    with pytest.raises(UserError, match="the environment takes 'colour', which is not given"):
        check_dialogues(lambda turns, colour: None, template, prompted(SAMPLES))


def test_a_template_of_hints_is_measured_by_the_tokenizer_alone() -> None:
    template = ChatTemplate(letter_tokenizer("abcd"), "the policy", "")
    hint = {"template": "{hint}aaaa{prompt}"}
    changes = {"algorithm": {"base": "hinted-grpo", "script": {"hint": hint}}}
    sections = config().model_dump(mode="json") | {"guide": {"model": "none"}, "algorithm": "ppo"}
    for most, refused in ((5, nullcontext()), (4, pytest.raises(UserError, match="takes 4 tokens, and"))):
        hinted = load_config(sections, changes, {"rollout": {"max_hint_tokens": most}})
        with refused:
            check_hints(hinted, lambda: template, prompted(SAMPLES))
