"""What a checkpoint holds of a reward that learns or counts."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import pytest
from counting_rewards import COUNTING
from failures import Remembering, with_reward
from resuming import checkpoints

from resume_script import toy_trainer
from rlgf.errors import UserError


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


@pytest.mark.parametrize(
    ("kept", "named"),
    [
        (deque([1]), "'kept' is a collections.deque"),
        (Remembering(), "'kept' is a failures.Remembering"),
        ([1, {"f": print}], "'kept.1.f' is a builtins.builtin_function_or_method"),
        (lambda text: text, "'kept' is a builtins.function"),
    ],
)
def test_a_state_that_could_not_be_read_again_is_refused_before_the_first_update(
    tmp_path: Path, kept: Any, named: str
) -> None:
    trainer = with_reward(tmp_path, Remembering(kept))
    with pytest.raises(UserError, match="state cannot be read again") as caught:
        trainer.train()
    assert named in str(caught.value)
    assert trainer.progress.update == 0
    assert "\n" not in str(caught.value)


def test_a_state_that_becomes_unreadable_leaves_the_checkpoint_before_it(tmp_path: Path) -> None:
    reward = Remembering()
    trainer = with_reward(tmp_path, reward)
    trainer.train()
    longer = with_reward(tmp_path, reward)
    longer.config = longer.config.model_copy(
        update={"training": longer.config.training.model_copy(update={"updates": 5})}
    )
    longer.parts.policy.model.register_forward_pre_hook(lambda *unused: setattr(reward, "kept", deque()))
    with pytest.raises(UserError, match=r"'kept' is a collections\.deque"):
        longer.train(resume=True)
    assert checkpoints(tmp_path) == ["000004"]
