"""Every form of chat that data sets have is read, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from chat_toys import ASKED, BAD, FORMS, GOOD, PAIR, SYSTEM, TAGS, THINKS, USER, with_template, write
from rlgf.chat import ChatTemplate, row_options, set_defaults
from rlgf.errors import UserError
from rlgf.tasks import build_task
from rlgf.tasks.chats import PromptedTask
from rlgf.types import Message, Sample
from toys import letter_gpt


def only(path: Path, row: Any, **options: Any) -> Sample:
    (sample,) = build_task("data", {"train": write(path / "a.jsonl", row), **options}).load("train")
    return sample


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
         "has no field 'q': a pair needs a column with its prompt"),
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


def test_an_answer_begins_where_an_assistants_message_without_a_text_stands() -> None:
    template = ChatTemplate(with_template(letter_gpt().tokenizer), "it", "leave it")
    for content, prompt in (("", ""), ("Sure", "Sure")):
        messages = (USER, Message("assistant", content))
        assert template.prompt(messages, {}) == f"<user>the film?<assistant>{prompt}"


def test_a_template_that_wants_a_list_of_parts_is_given_one() -> None:
    wants = (
        "{% for m in messages %}<{{ m['role'] }}>{% for part in m['content'] %}{% if part['type'] == 'text' %}"
        "{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    template = ChatTemplate(with_template(letter_gpt().tokenizer, wants), "it", "leave it")
    assert template.prompt((USER,), {}) == f"<user>{USER.content}<assistant>"
    assert template.prompt((USER, Message("assistant", "so")), {}) == f"<user>{USER.content}<assistant>so"
    assert template.conversation((USER,), "so") == (f"<user>{USER.content}<assistant>", "so", "")
    assert template.between((USER,), "and") == "<user>and<assistant>"


def test_a_chat_template_is_told_what_the_model_or_the_row_says() -> None:
    tokenizer = with_template(letter_gpt().tokenizer, THINKS)
    template = ChatTemplate(tokenizer, "it", "leave it")
    assert template.prompt((USER,), {}) == "<user>the film?<assistant>"
    assert (
        template.prompt((USER,), {"chat_template_kwargs": {"enable_thinking": False}})
        == "<quiet><user>the film?<assistant>"
    )
    for _ in range(2):
        set_defaults(tokenizer, {"enable_thinking": False, "style": "it's"})
    assert tokenizer.chat_template.count("set style") == 1
    assert template.prompt((USER,), {}) == "<quiet><user>the film?<assistant>"
    assert (
        template.prompt((USER,), {"chat_template_kwargs": {"enable_thinking": True}})
        == "<user>the film?<assistant>"
    )


def test_each_of_several_templates_is_told_what_the_model_says() -> None:
    tokenizer = with_template(letter_gpt().tokenizer, None)
    set_defaults(tokenizer, {"enable_thinking": False})
    assert tokenizer.chat_template is None
    tokenizer.chat_template = {"default": THINKS, "tool_use": TAGS}
    set_defaults(tokenizer, {"enable_thinking": False})
    prompt = ChatTemplate(tokenizer, "it", "leave it").prompt((USER,), {})
    assert prompt == "<quiet><user>the film?<assistant>"


def test_a_row_tells_the_template_by_a_column(tmp_path: Path) -> None:
    task = build_task(
        "data", {"train": write(tmp_path / "a.jsonl", *_thinking_rows()), "reference_field": None}
    )
    template = ChatTemplate(with_template(letter_gpt().tokenizer, THINKS), "it", "leave it")
    prompts = [sample.prompt for sample in PromptedTask(task, lambda: template).load("train")]
    assert prompts == ["<quiet><user>the film?<assistant>", "<user>the film?<assistant>"]
    with pytest.raises(UserError, match=r"a\.jsonl, .*'chat_template_kwargs' must be a mapping, such as"):
        row_options({"chat_template_kwargs": "quiet"}, "a.jsonl, line 1")


@pytest.mark.parametrize("as_text", [False, True])
def test_a_row_tells_the_template_of_its_tools(tmp_path: Path, as_text: bool) -> None:
    tools = [{"type": "function", "function": {"name": "add"}}]
    shows = "{% for t in tools or [] %}<{{ t.function.name }}>{% endfor %}" + TAGS
    template = ChatTemplate(with_template(letter_gpt().tokenizer, shows), "it", "leave it")
    rows = [{"prompt": ASKED[1:], "tools": json.dumps(tools) if as_text else tools}]
    rows += [{"prompt": ASKED[1:], "tools": none} for none in (None, "" if as_text else [])]
    task = build_task("data", {"train": write(tmp_path / "a.jsonl", *rows), "reference_field": None})
    prompts = [sample.prompt for sample in PromptedTask(task, lambda: template).load("train")]
    assert prompts == ["<add><user>the film?<assistant>", *["<user>the film?<assistant>"] * 2]
    for unfit in ("a hammer", ["a hammer"], 3, "[1]", {"name": "add"}):
        with pytest.raises(UserError, match=r"a\.jsonl, line 1: 'tools' must be a list of JSON schemas"):
            row_options({"tools": unfit}, "a.jsonl, line 1")


def _thinking_rows() -> list[dict[str, Any]]:
    prompt = ASKED[1:]
    return [
        {"prompt": prompt, "chat_template_kwargs": {"enable_thinking": False}},
        {"prompt": prompt, "chat_template_kwargs": None},
    ]


def test_what_is_left_out_of_a_message_is_told_of(tmp_path: Path) -> None:
    message = {**ASKED[1], "name": "Ann", "reasoning_content": "hm", "weight": None}
    with pytest.warns(UserWarning, match="the messages of 'prompt' have 'name', 'reasoning_content' beside"):
        only(tmp_path, {"prompt": [message]}, reference_field=None)
