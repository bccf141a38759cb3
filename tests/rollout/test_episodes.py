"""Who writes what: switch times, who goes on from there, and whose end is the end of the text."""

from __future__ import annotations

from collecting import LENGTH, SAMPLES, authors, collector, sure

from rlgf.algorithms.catalog import AGGREVATED, PPO_PLUS_PLUS
from rlgf.models.language_model import LanguageModel
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.episodes import EpisodeWriter
from rlgf.rollout.help import members
from rlgf.rollout.writers import Draft
from rlgf.types import Author, Completion, Sample
from toys import FavouringGuide


def test_ppo_plus_plus_puts_the_guides_text_first(policy: LanguageModel) -> None:
    guide = FavouringGuide("a", 1.0)
    rollout = collector(policy, guide, min_response_tokens=LENGTH).collect(SAMPLES, sure(PPO_PLUS_PLUS))
    for i in range(len(rollout)):
        written = authors(rollout, i)
        switch = written.count(Author.GUIDE)
        assert 1 <= switch <= LENGTH - 1
        assert written == [Author.GUIDE] * switch + [Author.POLICY] * (LENGTH - switch)
        assert rollout.response_ids[i, :switch].tolist() == [0] * switch


def test_aggrevated_lets_the_guide_finish(policy: LanguageModel) -> None:
    guide = FavouringGuide("a", 1.0)
    rollout = collector(policy, guide, min_response_tokens=LENGTH).collect(SAMPLES, sure(AGGREVATED))
    for i, request in enumerate(guide.requests):
        switch = authors(rollout, i).count(Author.POLICY)
        assert authors(rollout, i) == [Author.POLICY] * switch + [Author.GUIDE] * (LENGTH - switch)
        assert request.max_new_tokens == LENGTH - switch, "the guide is asked for its own part alone"
        assert request.prefix == SAMPLES[i].prompt + rollout.texts[i][:switch]


def test_without_a_rollin_the_guide_is_not_asked(policy: LanguageModel) -> None:
    guide = FavouringGuide("a", 1.0)
    row = PPO_PLUS_PLUS.changed(help={"probability": 0.0})
    rollout = collector(policy, guide).collect(SAMPLES, row)
    assert guide.requests == []
    assert not rollout.written_by(Author.GUIDE).any()


def test_a_guide_that_ends_before_the_switch_leaves_the_last_word_to_the_policy(
    policy: LanguageModel,
) -> None:
    class Brief:
        def write(self, requests: list[object]) -> list[Completion]:
            return [Completion("ab", finished=True) for _ in requests]

    row = sure(PPO_PLUS_PLUS).changed(help={"length": {"low": 0.9}})
    rollout = collector(policy, Brief()).collect(SAMPLES, row)
    for i in range(len(rollout)):
        assert authors(rollout, i)[:3] == [Author.GUIDE, Author.GUIDE, Author.POLICY]
        assert rollout.response_ids[i, :2].tolist() == [0, 1]


def test_a_policy_that_ends_its_rollin_has_ended_the_episode(policy: LanguageModel) -> None:
    guide = FavouringGuide("a", 1.0)
    rollout = collector(policy, guide).collect(SAMPLES * 8, sure(AGGREVATED))
    ended = [i for i in range(len(rollout)) if set(authors(rollout, i)) == {Author.POLICY}]
    assert ended
    assert all(rollout.finished[i] for i in ended)


def test_what_is_written_is_booked_and_a_beginning_stays_as_it_was(policy: LanguageModel) -> None:
    guide = FavouringGuide("a", 1.0)
    config = RolloutConfig(max_prompt_tokens=6, max_response_tokens=LENGTH, min_response_tokens=LENGTH)
    writer = EpisodeWriter(policy, guide, config)
    row = sure(PPO_PLUS_PLUS).changed(group_size=3)
    drafts = members([Draft(Sample("ab"), [0, 1], seed=5)], 2)
    begun = writer.begun(drafts, row, progress=0.0)
    lengths = [len(draft.ids) for draft in begun]
    episodes = writer.finished(begun, row)
    assert [len(draft.ids) for draft in begun] == lengths
    assert [len(episode.ids) for episode in episodes] == [LENGTH] * 6
    assert writer.sampled == {Author.GUIDE: sum(lengths), Author.POLICY: 6 * LENGTH - 3 * sum(lengths)}
