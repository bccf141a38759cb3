"""How a dialogue comes to its end, and whether that cut it off."""

from __future__ import annotations

from dialogues import SAMPLES, TURNS, Echo, collector

from rlgf.algorithms.catalog import PPO
from toys import letter_gpt


def test_a_dialogue_that_its_environment_ends_is_finished() -> None:
    """Also where its last turn ends in what stops it, and so in no token that ends a text."""
    rollout = collector(letter_gpt(), Echo(stop="c", last="a")).collect(SAMPLES, PPO)
    assert rollout.dialogues is not None
    ended, beyond = [], []
    for dialogue, text, finished in zip(
        rollout.dialogues, rollout.texts, rollout.finished.tolist(), strict=True
    ):
        if text.endswith("c"):
            last = len(dialogue) == 2 * TURNS - 1
            (beyond if last else ended).append(finished)
            assert last or "a" in dialogue[-1].content
    assert ended
    assert all(ended)
    assert beyond
    assert not any(beyond), "what a further turn would have been is not known"
