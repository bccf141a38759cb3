"""Which episodes are kept, and their texts token by token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from resume_script import toy_trainer
from rlgf.models.language_model import LanguageModel
from rlgf.rollout.assembly import assemble
from rlgf.rollout.writers import Draft
from rlgf.run.episodes import evaluated_record, picked, pieces
from rlgf.types import Author, Sample
from tokenizer_kinds import byte_bpe, llama_legacy, speaker


def test_whole_groups_are_kept_and_the_same_prompts_again(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, algorithm={"base": "grpo", "group_size": 2})
    row = trainer.row()
    rollout = trainer.collect()
    four = picked(rollout, row, 4).tolist()
    assert [rollout.group[i] for i in four[::2]] == [rollout.group[i] for i in four[1::2]]
    assert picked(rollout, row, 1).tolist() == four[:1]
    assert len(picked(rollout, row, 100)) == len(rollout)
    turned = torch.arange(len(rollout)).flip(0)
    again = picked(rollout[turned], row, 4)
    assert {rollout[turned].prompts[i] for i in again.tolist()} == {rollout.prompts[i] for i in four}


@pytest.mark.parametrize("kind", [byte_bpe, llama_legacy], ids=["byte-level", "byte fallback"])
def test_pieces_join_to_the_text(kind: Any) -> None:
    policy: LanguageModel = speaker(kind())
    text = " a naïve 🙂, 日本 and \ufffd too"
    ids, _ = policy.continuation(text, policy.encode("It is"))
    draft = Draft(Sample("It is"), policy.encode("It is"), 0)
    draft.ids, draft.authors, draft.logprobs = ids, [Author.POLICY] * len(ids), [0.0] * len(ids)
    rollout = assemble([draft], [0], policy)
    assert len(pieces(rollout, 0, policy)) == len(ids)
    assert "".join(pieces(rollout, 0, policy)) == rollout.texts[0]


def test_an_evaluated_text_keeps_its_numbers() -> None:
    given = {"prompt": "x" * 5000, "completion": "y", "references": ["z"], "columns": {"a": 1}, "reward": 0.5}
    record = evaluated_record(3, {**given, "judge": 0.25, "said": "text"})
    assert record["reward"] == 0.5
    assert record["metrics"] == {"judge": 0.25}
    assert record["tokens"] == ["y"]
    assert len(record["prompt"]) == 4001
