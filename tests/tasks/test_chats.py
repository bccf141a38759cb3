"""Chats stay messages until each reader's own template makes a text of them."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
from foreign_guides import Foreign, reading
from rich.console import Console
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from faulty_server import FaultyServer, answer_to, serving
from rlgf.algorithms.catalog import AGGREVATED, PPO_PLUS_PLUS
from rlgf.chat import ChatTemplate, transcript
from rlgf.config import Config
from rlgf.errors import UserError
from rlgf.evaluation.files import read_texts
from rlgf.evaluation.winrate import by_judge
from rlgf.guides import HTTPGuide, HTTPGuideConfig, LocalGuide, ReplayGuide, ReplayGuideConfig, Request
from rlgf.guides.answer_cache import GuideCache
from rlgf.models.language_model import LanguageModel
from rlgf.models.sampling import Sampling
from rlgf.registry import resolve
from rlgf.reward_models.data import ExamplesConfig
from rlgf.reward_models.scorer import Scorer
from rlgf.reward_models.train import load_reward_recipe, train_reward_model
from rlgf.rewards import REWARDS, Logged, RewardInput, build_reward, checked_rewards
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.run.build import build_parts
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from rlgf.tasks import build_task
from rlgf.tasks.chats import PromptedTask
from rlgf.types import Author, Message, Sample
from tokenizer_kinds import byte_bpe, encoder_pieces, llama_legacy, sentence_pieces, speaker, word_pieces

SYSTEM, USER = Message("system", "be kind"), Message("user", "the film?")
ASKED = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "the film?"}]
GOOD, BAD = {"role": "assistant", "content": " a joy"}, {"role": "assistant", "content": " a bore"}
TAGS = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token if m.role == 'assistant' }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
WORDS = (
    "{% for m in messages %}{{ m.role }} says {{ m.content | trim }}.{% endfor %}"
    "{% if add_generation_prompt %}assistant says {% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TAGS


def with_template(tokenizer: Any, template: str | None = TAGS) -> Any:
    tokenizer.chat_template = template
    return tokenizer


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def only(path: Path, row: Any, **options: Any) -> Sample:
    (sample,) = build_task("data", {"train": write(path / "a.jsonl", row), **options}).load("train")
    return sample


# The forms of data sets.

PAIR = {"reference_field": "chosen", "rejected_field": "rejected"}
FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "explicit prompt": ({"prompt": ASKED, "chosen": [GOOD], "rejected": [BAD]}, PAIR),
    "implicit prompt": ({"chosen": [*ASKED, GOOD], "rejected": [*ASKED, BAD]}, PAIR),
    "text of the prompt beside": (
        {"prompt": "the film?", "chosen": [*ASKED, GOOD], "rejected": [*ASKED, BAD]},
        PAIR,
    ),
    "prompt without its system's message": (
        {"prompt": ASKED[1:], "chosen": [*ASKED, GOOD], "rejected": [*ASKED, BAD]},
        PAIR,
    ),
    "all three whole": ({"prompt": ASKED, "chosen": [*ASKED, GOOD], "rejected": [*ASKED, BAD]}, PAIR),
    "rejected as a text": ({"prompt": ASKED, "chosen": GOOD, "rejected": " a bore"}, PAIR),
    "texts after messages": ({"prompt": ASKED, "chosen": " a joy", "rejected": " a bore"}, PAIR),
    "one conversation": ({"messages": [*ASKED, GOOD]}, {"reference_field": "messages"}),
    "one conversation, named twice": (
        {"messages": [*ASKED, GOOD]},
        {"prompt_field": "messages", "reference_field": "messages"},
    ),
    "prompt and completion": (
        {"prompt": ASKED, "completion": [GOOD], "n": 3},
        {"reference_field": "completion"},
    ),
    "several references": ({"prompt": ASKED, "references": [[GOOD], [*ASKED, BAD]]}, {}),
    "texts as references": ({"prompt": ASKED, "references": [" a joy", " a bore"]}, {}),
    "parts": (
        {"prompt": [ASKED[0], {"role": "user", "content": [{"type": "text", "text": "the "}, "film?"]}]},
        {"reference_field": None},
    ),
    "ShareGPT": (
        {
            "conversations": [
                {"from": "system", "value": "be kind"},
                {"from": "human", "value": "the film?"},
                {"from": "gpt", "value": " a joy"},
            ]
        },
        {"reference_field": "conversations"},
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_chat_is_read(form: str, tmp_path: Path) -> None:
    row, options = FORMS[form]
    sample = only(tmp_path, row, **options)
    assert sample.messages == (SYSTEM, USER)
    assert sample.prompt == "", "left to the run"
    several = form in ("several references", "texts as references")
    assert sample.references == (() if form == "parts" else (" a joy", " a bore") if several else (" a joy",))
    assert sample.rejected == (" a bore" if "rejected" in row else None)
    assert hash(sample.messages)
    if "n" in row:
        assert sample.columns["n"] == 3


def test_a_prompt_that_is_a_text_is_the_users_message_of_an_answer_in_messages(tmp_path: Path) -> None:
    sample = only(tmp_path, {"prompt": "the film?", "chosen": [GOOD], "rejected": [BAD]}, **PAIR)
    assert sample.messages == (USER,)
    plain = only(
        tmp_path,
        {"q": "the film?", "completion": [*ASKED, GOOD]},
        template="{q}",
        reference_field="completion",
    )
    assert (plain.prompt, plain.messages, plain.references) == ("the film?", (), (" a joy",))


def test_turns_before_the_answer_belong_to_the_prompt(tmp_path: Path) -> None:
    more = {"role": "user", "content": "why?"}
    row = {"prompt": ASKED, "chosen": [GOOD, more, GOOD], "rejected": [GOOD, more, BAD]}
    sample = only(tmp_path, row, **PAIR)
    assert sample.messages == (SYSTEM, USER, Message("assistant", " a joy"), Message("user", "why?"))
    assert (sample.references, sample.rejected) == ((" a joy",), " a bore")


def test_messages_of_a_parquet_file_are_read(tmp_path: Path) -> None:
    """There every message has every key, null where it has none."""
    row = {"prompt": [{**message, "tool_calls": None, "name": None} for message in ASKED], "chosen": [GOOD]}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "a.parquet")
    options = {"train": str(tmp_path / "a.parquet"), "reference_field": "chosen"}
    (sample,) = build_task("data", options).load("train")
    assert (sample.messages, sample.references) == ((SYSTEM, USER), (" a joy",))


CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]}
PICTURE = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}]}


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ({"prompt": []}, {}, "'prompt' must hold one message or more, each with 'role' and 'content'"),
        ({"prompt": [{"role": "user"}]}, {}, "'prompt' must hold one message or more"),
        ({"prompt": ["hi"]}, {}, "'prompt' must hold one message or more"),
        ({"prompt": [{"role": 3, "content": "hi"}]}, {}, "'prompt' must hold one message or more"),
        ({"prompt": [{"role": "user", "content": None}]}, {}, "message 1 of 'prompt' must have a text"),
        ({"prompt": [*ASKED, {"role": "user", "content": []}]}, {}, "message 3 of 'prompt' must have a text"),
        ({"prompt": [PICTURE]}, {}, "message 1 of 'prompt' holds a part of the type 'image', and only texts"),
        ({"prompt": [*ASKED, CALL]}, {}, "message 3 of 'prompt' belongs to the call of a tool"),
        ({"prompt": [{"role": "tool", "content": "4"}]}, {}, "belongs to the call of a tool"),
        ({"prompt": ASKED, "chosen": ASKED, "rejected": [BAD]}, PAIR, "'chosen' must end in a message of the ass"),
        ({"prompt": ASKED, "chosen": [GOOD], "rejected": [GOOD]}, PAIR, "identical: a pair must have two sides"),
        ({"prompt": ASKED, "chosen": [{**GOOD, "content": " "}], "rejected": [BAD]}, PAIR, "an empty reference"),
        ({"prompt": ASKED, "chosen": [GOOD], "rejected": 3}, PAIR, "'rejected' must be a text or the messages"),
        ({"chosen": [GOOD], "rejected": [BAD]}, PAIR, "'chosen' holds nothing before the assistant's message"),
        ({"chosen": [*ASKED, GOOD], "rejected": [ASKED[1], BAD]}, PAIR, "'chosen' and 'rejected' must be the same but"),
        ({"prompt": [{"role": "user", "content": "no"}], "chosen": [*ASKED, GOOD], "rejected": [*ASKED, BAD]}, PAIR,
         "'chosen' answers other messages than those of the prompt"),
        ({"question": ASKED, "chosen": [*ASKED, GOOD], "rejected": [*ASKED, BAD]}, {**PAIR, "prompt_field": "q"},
         "has no field 'q': set the option 'prompt_field'"),
    ],
)  # fmt: skip
def test_what_is_no_chat_is_one_sentence_with_its_line(
    row: dict[str, Any], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    good = {"prompt": ASKED, "q": "x", "chosen": [GOOD], "rejected": [BAD]}
    file = write(tmp_path / "a.jsonl", good if "prompt_field" not in options else row, row)
    given = {"train": file, "reference_field": None} | options
    with pytest.raises(UserError, match=message) as caught:
        build_task("data", given).load("train")
    assert f"a.jsonl, line {1 if 'prompt_field' in options else 2}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", [name for name, (row, _) in FORMS.items() if "rejected" in row])
def test_pairs_of_reward_models_have_every_form(form: str, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", FORMS[form][0])
    config = ExamplesConfig(train=Path(file), validation=Path(file))
    (pair,) = config.pairs("train")
    assert pair.chosen == ((SYSTEM, USER), " a joy")
    assert pair.rejected == ((SYSTEM, USER), " a bore")


# The policy's prompt.


def policy_folder(path: Path, model: LanguageModel, template: str | None) -> str:
    model.model.save_pretrained(path)
    with_template(copy.deepcopy(model.tokenizer), template).save_pretrained(path)
    return str(path)


def recipe(tmp_path: Path, policy: str, rows: Sequence[Any], **changes: Any) -> Config:
    file = write(tmp_path / "rows.jsonl", *rows)
    options = {"train": file, "validation": file, "test": file, "reference_field": None}
    return Config.model_validate(
        {
            "task": {"name": "data", "options": options | changes.pop("options", {})},
            "policy": {"model": policy},
            "reward": {"name": "length", "options": {"target": 3}},
            "rollout": {"episodes": 4, "max_prompt_tokens": 40, "max_response_tokens": 8},
            "output": str(tmp_path / "run"),
            **changes,
        }
    )


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


# Guides in this process.


def chat_sample(policy: LanguageModel, *messages: Message) -> Sample:
    asked = messages or (SYSTEM, USER)
    template = ChatTemplate(policy.tokenizer, "the policy", "")
    return Sample(template.prompt(asked), messages=asked)


def collector(policy: LanguageModel, guide: Any) -> Collector:
    config = RolloutConfig.model_validate({"max_prompt_tokens": 50, "max_response_tokens": 10})
    return Collector(policy, guide, config, seed=0)


@pytest.mark.parametrize("messages", [(SYSTEM, USER), (USER, Message("assistant", "a j"))])
def test_a_guide_of_another_family_reads_what_its_own_template_makes(messages: tuple[Message, ...]) -> None:
    policy, guide = speaker(with_template(byte_bpe())), speaker(with_template(llama_legacy(), WORDS), seed=1)
    maker = collector(policy, LocalGuide(guide, policy.tokenizer, Sampling()))
    with reading(guide) as seen:
        maker.answers(Author.GUIDE, [chat_sample(policy, *messages)])
    ends = "assistant says a j" if len(messages) == 2 and messages[1].role == "assistant" else None
    told = "user says the film?." + (ends or "assistant says ")
    told = told if messages[0] == USER else "system says be kind." + told
    assert seen == [guide.encode_prompt(told, 999)]
    assert "<user>" not in guide.decode(seen[0])


def test_what_the_policy_has_begun_stands_in_the_assistants_turn_of_a_guide() -> None:
    policy, guide = speaker(with_template(byte_bpe())), speaker(with_template(llama_legacy(), WORDS), seed=1)
    always = AGGREVATED.changed(help={"probability": 1.0})
    asked = Foreign()
    collector(policy, asked).collect([chat_sample(policy)], always)
    (request,) = [one for one in asked.requests if one.written][:1]
    assert request.messages == (SYSTEM, USER)
    with reading(guide) as seen:
        LocalGuide(guide, policy.tokenizer, Sampling()).write([request])
    told = "system says be kind.user says the film?.assistant says "
    assert seen == [guide.encode_prompt(told + request.written, 999)]


def test_a_guide_with_the_policys_tokens_reads_its_own_template_where_that_differs() -> None:
    policy = speaker(with_template(byte_bpe()))
    sample = chat_sample(policy)
    prompt = tuple(policy.encode_prompt(sample.prompt, 20))
    request = Request(
        sample.prompt + " a", 4, 0, prompt, tuple(policy.encode(" a")), len(sample.prompt), sample.messages
    )
    for template, expected in [
        (TAGS, list(prompt)),
        (None, list(prompt)),
        (WORDS, policy.encode("system says be kind.user says the film?.assistant says ")),
    ]:
        guide = speaker(with_template(byte_bpe(), template), seed=1)
        with reading(guide) as seen:
            LocalGuide(guide, policy.tokenizer, Sampling()).write([request])
        assert seen == [[*expected, *policy.encode(" a")]]


def test_a_guide_without_a_template_reads_the_policys_text_and_says_so() -> None:
    policy, guide = speaker(with_template(byte_bpe())), speaker(sentence_pieces(), seed=1)
    sample = chat_sample(policy)
    maker = collector(policy, LocalGuide(guide, policy.tokenizer, Sampling()))
    with (
        reading(guide) as seen,
        pytest.warns(UserWarning, match="has no chat template, so it reads chats as"),
    ):
        maker.answers(Author.GUIDE, [sample])
    assert seen == [guide.encode_prompt(sample.prompt, 999)]


# Guides elsewhere.


def asked_over_http(server: FaultyServer, request: Request, **settings: Any) -> tuple[Any, str]:
    config = HTTPGuideConfig(url=server.url, model="letters", **{"cache": None, "timeout": 5.0} | settings)
    guide = HTTPGuide(config)
    (completion,) = guide.write([request])
    guide.close()
    return server.bodies[-1], completion.text


BEGUN = Request("<user>the film?<assistant> a jo", 4, 0, prompt_length=26, messages=(SYSTEM, USER))


def test_a_chat_api_is_sent_the_messages_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    fresh = Request("<user>the film?<assistant>", 4, 0, messages=(SYSTEM, USER))
    assert BEGUN.written == " a jo"
    with serving(FaultyServer()) as server:
        body, _ = asked_over_http(server, fresh, style="chat")
        assert body["messages"] == ASKED
        body, _ = asked_over_http(server, BEGUN, style="chat", continue_message=True)
        assert body["messages"] == [*ASKED, {"role": "assistant", "content": " a jo"}]
        body, text = asked_over_http(server, BEGUN, style="chat", template="Go on: {text}")
        begun = [{"role": "assistant", "content": " a jo"}, {"role": "user", "content": "Go on:  a jo"}]
        assert body["messages"] == [*ASKED, *begun]
        assert text.startswith(" "), "two words that meet are parted, as in a plain text"
        body, _ = asked_over_http(server, fresh, style="chat", system="In English.")
        assert body["messages"] == [{"role": "system", "content": "In English.\n\nbe kind"}, ASKED[1]]
        prefilled = Request(
            "<user>the film?<assistant>a j", 4, 0, messages=(USER, Message("assistant", "a j"))
        )
        body, _ = asked_over_http(server, prefilled, style="chat", continue_message=True)
        assert body["messages"] == [ASKED[1], {"role": "assistant", "content": "a j"}]
        body, text = asked_over_http(server, prefilled, style="chat")
        assert body["messages"][:2] == [ASKED[1], {"role": "assistant", "content": "a j"}]
        assert text.startswith(" "), "parted from the beginning that the data gives"
        body, text = asked_over_http(server, BEGUN, style="completions")
        assert body["prompt"] == BEGUN.prefix
        assert text == answer_to(BEGUN.prefix, 0, "abcd", 6)


def test_answers_are_kept_by_the_messages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another policy's template asks a chat API for the same, another conversation for something else."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    other = Request("assistant says  a jo", 4, 0, prompt_length=15, messages=BEGUN.messages)
    changed = Request(BEGUN.prefix, 4, 0, prompt_length=26, messages=(USER,))
    settings: dict[str, Any] = {"style": "chat", "cache": str(tmp_path / "cache")}
    with serving(FaultyServer()) as server:
        texts = [asked_over_http(server, one, **settings)[1] for one in (BEGUN, other, changed)]
        assert texts[0] == texts[1]
        assert [body["messages"][:-2] for body in server.bodies] == [ASKED, ASKED[1:]]
    GuideCache(settings["cache"]).export(tmp_path / "export.jsonl")
    replay = ReplayGuide(ReplayGuideConfig(file=tmp_path / "export.jsonl"))
    assert [c.text.strip() for c in replay.write([BEGUN, other, changed])] == [t.strip() for t in texts]
    with pytest.raises(UserError, match="has no completion of"):
        replay.write([Request("the film?", 4, 0, messages=(SYSTEM,))])


def test_a_limited_budget_counts_every_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    long = Request("short", 4, 0, messages=(Message("user", "x" * 400),))
    with serving(FaultyServer()) as server, pytest.raises(UserError, match="budget is spent"):
        asked_over_http(server, long, style="chat", budget={"tokens": 100})
    assert not server.bodies


def test_recordings_of_chats_serve_any_policy(tmp_path: Path) -> None:
    rows = [
        {"prompt": ASKED, "completion": [GOOD], "finished": True},
        {"prompt": "<user>why?", "messages": [{"role": "user", "content": "why?"}], "completion": " so"},
    ]
    replay = ReplayGuide(ReplayGuideConfig(file=Path(write(tmp_path / "a.jsonl", *rows))))
    asked = [
        Request("any text", 4, 0, messages=(SYSTEM, USER)),
        Request("another", 4, 0, messages=(Message("user", "why?"),)),
        Request("<user>why?", 4, 0),
    ]
    assert [c.text for c in replay.write(asked)] == [" a joy", " so", " so"]


# Rewards.


def trl_format_reward(completions, **kwargs):
    """As in TRL's documentation."""
    return [float(len(completion[0]["content"])) for completion in completions]


def test_rewards_are_given_chats_as_trl_gives_them() -> None:
    seen: dict[str, Any] = {}

    def look(prompts: Any, completions: Any, **kwargs: Any) -> list[float]:
        seen.update(prompts=prompts, completions=completions)
        return [1.0, 2.0, 3.0]

    prefilled = (USER, Message("assistant", "a j"))
    given = RewardInput(
        ["<user>the film?", "plain", "<p>"],
        [" a joy", " text", "oy"],
        messages=[(SYSTEM, USER), (), prefilled],
    )
    checked_rewards(look, given)
    assert seen["prompts"] == [ASKED, "plain", [ASKED[1]]]
    assert seen["completions"][:2] == [[GOOD], " text"]
    assert seen["completions"][2] == [{"role": "assistant", "content": "a joy"}], "all of the turn"
    chat = RewardInput(["p"], [" a joy"], messages=[(USER,)])
    assert checked_rewards(trl_format_reward, chat).tolist() == [6.0]


def test_a_run_gives_rewards_messages_and_keeps_them_in_its_evaluations(
    tmp_path: Path, language_model: LanguageModel
) -> None:
    policy = policy_folder(tmp_path / "policy", language_model, TAGS)
    rows = [{"prompt": ASKED[1:], "completion": [GOOD], "id": 1}] * 4
    config = recipe(tmp_path, policy, rows, options={"reference_field": "completion"})
    parts = build_parts(config, reward=trl_format_reward)
    evaluation = parts.evaluator.evaluate(Author.REFERENCE, parts.train[:2])
    assert evaluation.totals["reward"] == 6.0
    assert evaluation.records[0]["messages"] == ASKED[1:]
    evaluation.save(tmp_path / "out.jsonl")
    assert read_texts(tmp_path / "out.jsonl").samples[0].messages == (USER,)
    questions: list[str] = []

    def ask(asked: list[str]) -> list[str]:
        questions.extend(asked)
        return ["1"] * len(asked)

    by_judge(ask, read_texts(tmp_path / "out.jsonl"), ["a", "b"])
    assert "Prompt:\nthe film?\n" in questions[0]


def test_built_in_rewards_read_texts() -> None:
    chat = RewardInput(["<user>the film?"], ["one two three four"], references=[("a",)], messages=[(USER,)])
    length = resolve("length", REWARDS, "reward")(target=3)
    assert checked_rewards(length, chat).tolist() == [-1.0]
    assert chat.arguments(Logged(), as_text=True)["prompts"] == ["<user>the film?"]
    assert checked_rewards(resolve("metric", REWARDS, "reward")(metric="words"), chat).tolist() == [4.0]
    for name in ("sentiment", "judge", "discriminator", "metric", "length"):
        assert resolve(name, REWARDS, "reward").reads_text, name
    passed_on = RewardInput([ASKED], [[GOOD]])
    assert checked_rewards(resolve("length", REWARDS, "reward")(target=0), passed_on).tolist() == [-2.0]


@pytest.mark.parametrize("kind", [byte_bpe, word_pieces, llama_legacy, encoder_pieces])
def test_a_reward_model_reads_the_whole_conversation_through_its_own_template(kind: Any) -> None:
    tokenizer = with_template(kind())
    if kind is word_pieces:
        tokenizer.eos_token = "[SEP]"
    scorer = Scorer(None, tokenizer, 99)
    (ids,) = scorer.encode([(SYSTEM, USER)], ["a joy"])
    told = tokenizer.apply_chat_template([*ASKED, {"role": "assistant", "content": "a joy"}], tokenize=False)
    whole = scorer.codec.encode_prompt(told)
    assert ids == scorer.codec.surround(whole, 99, ends=True)
    assert "assistant" in tokenizer.decode(ids).replace(" ", "")
    (trimmed,) = Scorer(None, with_template(copy.deepcopy(tokenizer), WORDS), 99).encode(
        [(USER,)], ["  a joy  "]
    )
    assert trimmed == scorer.encode(["user says the film?.assistant says a joy."], [""])[0]


def test_a_completion_cannot_end_its_turn_in_a_reward_models_template() -> None:
    scorer = Scorer(None, with_template(byte_bpe(), TAGS.replace("<user>", "<u>")), 99)
    tokenizer = copy.deepcopy(scorer.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    scorer = Scorer(None, tokenizer, 99)
    (ids,) = scorer.encode([(USER,)], ["a<turn><user>joy"])
    assert tokenizer.convert_tokens_to_ids("<turn>") not in ids
    assert ids.count(tokenizer.eos_token_id) == 1, "the template's own"


def test_a_reward_model_without_a_template_reads_the_names_of_the_roles() -> None:
    scorer = Scorer(None, byte_bpe(), 99)
    told = "system: be kind\n\nuser: the film?\n\nassistant: "
    assert scorer.encode([(SYSTEM, USER)], ["a joy"]) == scorer.encode([told], ["a joy"])
    assert transcript((USER,)) == "the film?"


def test_a_reward_model_of_chats_pays_what_transformers_users_expect(
    tmp_path: Path, language_model: LanguageModel
) -> None:
    folder = policy_folder(tmp_path / "base", language_model, TAGS)
    rows = [{"chosen": [*ASKED, GOOD], "rejected": [*ASKED, BAD]}] * 4
    file = write(tmp_path / "pairs.jsonl", *rows)
    told = {"kind": "preference", "model": folder, "output": str(tmp_path / "model"), "max_tokens": 60}
    train_reward_model(load_reward_recipe(told | {"data": {"train": file, "validation": file}}))
    reward = build_reward("model", {"folder": str(tmp_path / "model")})
    chat = RewardInput(["not read"], [" a joy"], messages=[(SYSTEM, USER)])
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    text = tokenizer.apply_chat_template([*ASKED, GOOD], tokenize=False)
    with torch.no_grad():
        logit = model(**tokenizer(text, return_tensors="pt", add_special_tokens=False)).logits.item()
    centre = json.loads((tmp_path / "model" / "reward.json").read_text())["centre"]
    assert checked_rewards(reward, chat).tolist() == pytest.approx([logit - centre], abs=1e-5)


# Runs.


def test_a_run_of_chats_with_a_guide_of_another_family_goes_on_where_it_was(
    tmp_path: Path, language_model: LanguageModel
) -> None:
    policy = policy_folder(tmp_path / "policy", language_model, TAGS)
    guide = policy_folder(tmp_path / "guide", speaker(llama_legacy()), WORDS)
    rows = [{"prompt": [{"role": "user", "content": f"the film {i}?"}]} for i in range(4)]

    def trainer(name: str, updates: int) -> Trainer:
        config = recipe(
            tmp_path,
            policy,
            rows,
            guide={"model": guide},
            algorithm={"base": "ppo++", "help": {"probability": 1.0}},
            training={"updates": updates, "checkpoint_every": 1, "trackers": []},
            evaluation={"every": 1, "samples": 2, "test_samples": 2},
            output=str(tmp_path / name),
            update={"minibatch": 2, "epochs": 1},
        )
        return Trainer(config, build_parts(config, reward=trl_format_reward), Display(Console(quiet=True)))

    whole = trainer("whole", 2)
    whole.train()
    trainer("parted", 1).train()
    shutil.rmtree(tmp_path / "parted" / "policy", ignore_errors=True)
    (tmp_path / "parted" / "summary.json").unlink(missing_ok=True)
    resumed = trainer("parted", 2)
    resumed.train(resume=True)
    texts = [(tmp_path / name / "evaluation" / "policy.jsonl").read_text() for name in ("whole", "parted")]
    assert texts[0] == texts[1]
    assert json.loads(texts[0].splitlines()[1])["messages"] == rows[0]["prompt"]
    saved = AutoTokenizer.from_pretrained(tmp_path / "whole" / "policy")
    assert saved.chat_template == TAGS


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


def test_prefetched_requests_of_chats_are_those_that_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    policy = speaker(with_template(byte_bpe()))
    row = PPO_PLUS_PLUS.changed(help={"probability": 1.0})
    with serving(FaultyServer(letters="te ")) as server:
        guide = HTTPGuide(HTTPGuideConfig(url=server.url, model="letters", style="chat", cache=None))
        maker = collector(policy, guide)
        maker.prefetch([chat_sample(policy)] * 2, row, 0, 0.0)
        maker.collect([chat_sample(policy)] * 2, row)
        guide.close()
        assert len(server.bodies) == guide.usage.calls
        assert all(body["messages"] == ASKED for body in server.bodies)
