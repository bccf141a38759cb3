"""Chats, templates that read them, and who reads chats."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faulty_server import FaultyServer
from rlgf.chat import ChatTemplate
from rlgf.config import Config
from rlgf.guides import HTTPGuide, HTTPGuideConfig, Request
from rlgf.models.language_model import LanguageModel
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.types import Message, Sample

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
THINKS = "{% if enable_thinking is defined and not enable_thinking %}<quiet>{% endif %}" + TAGS
QUIET = {"chat_template_kwargs": {"enable_thinking": False}}
"""A row's column for such a template."""
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TAGS


def with_template(tokenizer: Any, template: str | None = TAGS) -> Any:
    tokenizer.chat_template = template
    return tokenizer


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


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


def chat_sample(policy: LanguageModel, *messages: Message) -> Sample:
    asked = messages or (SYSTEM, USER)
    template = ChatTemplate(policy.tokenizer, "the policy", "")
    return Sample(template.prompt(asked, {}), messages=asked)


def collector(policy: LanguageModel, guide: Any) -> Collector:
    config = RolloutConfig.model_validate({"max_prompt_tokens": 50, "max_response_tokens": 10})
    return Collector(policy, guide, config, seed=0)


def asked_over_http(server: FaultyServer, request: Request, **settings: Any) -> tuple[Any, str]:
    config = HTTPGuideConfig(url=server.url, model="letters", **{"cache": None, "timeout": 5.0} | settings)
    guide = HTTPGuide(config)
    (completion,) = guide.write([request])
    guide.close()
    return server.bodies[-1], completion.text


BEGUN = Request("<user>the film?<assistant> a jo", 4, 0, prompt_length=26, messages=(SYSTEM, USER))


def trl_format_reward(completions, **kwargs):
    """As in TRL's documentation."""
    return [float(len(completion[0]["content"])) for completion in completions]
