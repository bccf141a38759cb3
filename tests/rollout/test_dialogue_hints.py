"""Hints in dialogues: they stand before all turns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from dialogues import CHAT, SAMPLES, Echo, Says, collector

from rlgf.algorithms import algorithm_from
from rlgf.algorithms.catalog import GRPO
from rlgf.models.language_model import LanguageModel
from rlgf.models.response_scores import score_logprobs
from rlgf.models.sampling import Sampling
from rlgf.types import Author, Message, Sample
from toys import FavouringGuide, letter_gpt


@pytest.mark.parametrize(("hint", "text"), [({"column": "told"}, "dacb"), ({"author": "guide"}, "cccccc")])
def test_a_hint_stands_before_all_turns_and_their_author_alone_reads_it(
    policy: LanguageModel, hint: dict[str, str], text: str
) -> None:
    samples = [replace(one, columns={**one.columns, "told": "dacb"}) for one in SAMPLES]
    help = {"probability": 0.5, "length": {"whole": True}}
    row = GRPO.changed(script={"hint": {"template": "{hint}{prompt}", **hint}}, help=help)
    maker = collector(policy, Echo(stop="c"), FavouringGuide("c", 1.0), max_hint_tokens=6)
    rollout = maker.collect(samples, row)
    assert max(len(dialogue) for dialogue in rollout.dialogues or ()) > 1
    assert set(rollout.hints or ()) == {None, text}, (
        "a hint is not a turn, and is not cut where a turn would end"
    )
    for number, said in enumerate(rollout.hints or ()):
        read = rollout.prompt_ids[number][rollout.prompt_mask[number]].tolist()
        assert policy.decode(read) == (said or "") + rollout.samples[number].prompt
    again = score_logprobs(policy.model, rollout, Sampling(), policy.end_ids, 10_000)
    mine = rollout.written_by(Author.POLICY)
    torch.testing.assert_close(rollout.sampled_logprobs[mine], again[mine])


def test_a_guide_that_writes_turns_reads_the_hint_before_each() -> None:
    policy = letter_gpt(context=64)
    policy.tokenizer.chat_template = CHAT
    samples = [Sample("adc<end>b", columns={"hint": "aa"}, messages=(Message("user", "dc"),))] * 12
    guide = FavouringGuide("b", 1.0)
    changes = {"template": "{prompt}{hint}", "column": "hint"}
    row = algorithm_from(
        {
            "base": "seq-kd",
            "script": {"hint": changes},
            "help": {"probability": 1, "length": {"whole": True}},
        }
    )
    rollout = collector(policy, Says("dd", "b"), guide, max_hint_tokens=6).collect(samples, row)
    assert {request.messages[0].content for request in guide.requests} == {"dcaa"}
    assert {len(request.messages) for request in guide.requests} >= {1, 3}
    assert {sample.messages[0].content for sample in rollout.samples} == {"dc"}
