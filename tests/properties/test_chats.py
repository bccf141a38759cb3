"""Whole runs of chats: every reader gets them in its own form."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from transformers import AutoTokenizer

from chat_toys import (
    ASKED,
    GOOD,
    TAGS,
    USER,
    WORDS,
    chat_sample,
    collector,
    policy_folder,
    recipe,
    trl_format_reward,
    with_template,
)
from faulty_server import FaultyServer, serving
from rlgf.algorithms.catalog import PPO_PLUS_PLUS
from rlgf.evaluation.files import read_texts
from rlgf.evaluation.winrate import by_judge
from rlgf.guides import HTTPGuide, HTTPGuideConfig
from rlgf.models.language_model import LanguageModel
from rlgf.run.build import build_parts
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from rlgf.types import Author
from tokenizer_kinds import byte_bpe, llama_legacy, speaker


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
