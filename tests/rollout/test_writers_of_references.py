"""Every reference is written in its turn; a prompt that is too long loses its end, not its header or its cue."""

from __future__ import annotations

import pytest

from rlgf.models.language_model import LanguageModel
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.writers import Draft, ReferenceWriter, prompt_tokens
from rlgf.types import Author, Sample


def test_behaviour_cloning_sees_every_reference(language_model: LanguageModel) -> None:
    sample = Sample("He", (" leaves", " walks", " sings"))
    collector = Collector(language_model, None, RolloutConfig(max_response_tokens=12), seed=0)
    texts = {collector.answers(Author.REFERENCE, [sample], update).texts[0] for update in range(30)}
    assert texts == set(sample.references)
    assert isinstance(collector.writers[Author.REFERENCE], ReferenceWriter)


HEADER = "SUBREDDIT: r/a\n\nTITLE: t\n\nPOST: "
POST = HEADER + "word " * 40 + "end"


@pytest.mark.parametrize("limit", [200, 60, 45, 12])
def test_a_long_post_loses_its_end_and_keeps_header_and_cue(
    language_model: LanguageModel, limit: int
) -> None:
    cue = "\n\nTL;DR:"
    sample = Sample(POST + cue, cue=cue)
    ids = prompt_tokens(language_model, sample, limit)
    whole = language_model.encode(sample.prompt)
    assert len(ids) == min(limit, len(whole))
    text = language_model.decode(ids)
    assert text.endswith(cue)
    assert POST.startswith(text.removesuffix(cue))
    if len(whole) <= limit:
        assert ids == whole


def test_a_limit_below_the_cue_keeps_the_end_of_the_cue(language_model: LanguageModel) -> None:
    sample = Sample(POST + "\n\nTL;DR:", cue="\n\nTL;DR:")
    assert prompt_tokens(language_model, sample, 2) == language_model.encode("\n\nTL;DR:")[-2:]


def test_a_prompt_without_a_cue_loses_its_beginning(language_model: LanguageModel) -> None:
    assert prompt_tokens(language_model, Sample(POST), 9) == language_model.encode(POST)[-9:]


def test_the_collector_cuts_prompts_before_their_cue(language_model: LanguageModel) -> None:
    sample = Sample(POST + "\n\nTL;DR:", (" x",), cue="\n\nTL;DR:")
    collector = Collector(language_model, None, RolloutConfig(max_prompt_tokens=40, max_response_tokens=4), 0)
    rollout = collector.answers(Author.REFERENCE, [sample])
    text = language_model.decode(rollout.prompt_ids[0].tolist())
    assert text.startswith("SUBREDDIT: r/a\n\nTITLE")
    assert text.endswith("\n\nTL;DR:")


def test_what_is_longer_than_the_reference_does_not_end_with_it(language_model: LanguageModel) -> None:
    ids = language_model.encode(" leaves early")
    draft = Draft(Sample("He", (" leaves",)), language_model.encode("He"), seed=0, ids=ids)
    (part,) = ReferenceWriter(language_model).write([draft], [8])
    assert (part.ids, part.finished) == ([], False)
