"""What a checkpoint holds of a reward that learns or counts."""

from __future__ import annotations

from pathlib import Path

from counting_rewards import COUNTING

from resume_script import toy_trainer


def test_terms_that_learn_are_updated_and_kept_under_their_names(tmp_path: Path) -> None:
    terms = {"a": "toys:share_of_a", "n": COUNTING}
    trainer = toy_trainer(tmp_path, reward={"terms": terms})
    assert trainer.step()["n/seen"] == 8
    state = trainer.parts.assessor.state_dict()
    assert state["reward"] == {"n": {"seen": 8}}
    again = toy_trainer(tmp_path, reward={"terms": terms})
    again.parts.assessor.load_state_dict(state)
    assert again.parts.assessor.state_dict() == state
    assert again.step()["reward/n"] == 8
