"""Rules between the parts of a run: each bad recipe ends in one sentence, and no model is loaded for it."""

from __future__ import annotations

from typing import Any

import pytest
from unfit_parts import HERE, SOUND, refusal

from rlgf import checks
from rlgf.config import Config, load_config


def test_a_sound_recipe_breaks_no_rule() -> None:
    config = load_config(SOUND, "algorithm=lols")
    assert list(checks.broken(config)) == []
    assert list(checks.broken_parts(config)) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        # The algorithm's own.
        (["algorithm.terms.policy.on=rollin"], "'script.rollin' must name who writes it"),
        (["algorithm.terms.value=null"], "needs a critic: give 'terms' one with the loss 'value'"),
        ([f"algorithm.terms.own.loss={HERE}:of_old_values"], "reads old_values and trains no critic"),
        (["algorithm=rloo", "algorithm.terms.value.weight=1"], "the advantage 'leave_one_out' estimates none"),
        ([f"algorithm.terms.policy.loss={HERE}:NUMBER"], "of the term 'policy' must be a function"),
        ([f"algorithm.terms.policy.loss={HERE}:Silent"], "of the term 'policy' must be a function"),
        (["algorithm.terms.policy.loss=torch:relu"], "does not say what it reads"),
        ([f"algorithm.advantage={HERE}:group_mean"], "must be an rlgf.algorithms.Estimator"),
        # Keys of another version.
        (["update.clip=0.1"], "'update.clip' has moved: it is now 'algorithm.terms.policy.options.clip'"),
        (["algorithm.rollin_prob=0.1"], "'algorithm.rollin_prob' has moved: it is now 'algorithm.help.probability'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence_before_models_load(overrides: list[Any], message: str) -> None:
    assert message in refusal(*overrides)


def test_a_part_made_by_hand_is_not_held_to_the_recipe() -> None:
    config = load_config(SOUND, f"reward={HERE}:Silent", "rollout.max_response_tokens=60")
    assert len(list(checks.broken_parts(config))) == 2
    assert list(checks.broken_parts(config, ["guide", "evaluation"])) == []


def test_configurations_made_in_python_keep_the_same_rules() -> None:
    config = load_config(SOUND)
    with pytest.raises(ValueError, match="needs a guide"):
        Config.model_validate(
            {**config.model_dump(mode="json"), "guide": None, "algorithm": {"base": "ppo++"}}
        )


def test_no_rule_is_left_out() -> None:
    rules = {rule.__name__ for rule in (*checks.RULES, *checks.DATA_RULES, *checks.SECTIONS.values())}
    of_some_runs = (*checks.AHEAD_RULES, *checks.DIALOGUE_RULES, *checks.SHARD_RULES)
    rules |= {rule.__name__ for rule in of_some_runs}
    rules |= {rule.__name__ for section in checks.PART_RULES.values() for rule in section}
    takes_config = {
        name
        for module in (checks.settings, checks.shards, checks.ahead, checks.dialogues, checks.engines, checks.parts, checks.data)
        for name, function in vars(module).items()
        if callable(function) and getattr(function, "__module__", "") == module.__name__ and "_" in name
        and next(iter(getattr(function, "__annotations__", {}).values()), "") == "Sections"
        and function.__annotations__["return"] == "str | None"
    }  # fmt: skip
    assert takes_config == rules
