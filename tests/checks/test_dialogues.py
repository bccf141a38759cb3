"""What cannot be held as a dialogue is refused before a model loads."""

from __future__ import annotations

from typing import Any

import pytest
from unfit_parts import SOUND, refusal

from rlgf import checks
from rlgf.config import load_config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["environment.turns=3"], "'environment.name' is missing: the recipe must set it."),
        (["environment.name=calculator", "environment.turns=1"], "'environment.turns'"),
        (["environment=calcualtor"], "environment 'calcualtor' is not known"),
        (["environment=math:pi"], "environment 'math:pi' cannot be called"),
        (["environment={name: calculator, options: {before: x}}"], "has no option 'before'"),
        (["environment=calculator", "algorithm=bc"], "'bc' takes texts that stand already"),
        (["environment=calculator", "algorithm=exgrpo"], "'exgrpo' takes texts that stand already"),
        (["environment=calculator", "algorithm=dr-po"], "'dr-po' takes texts that stand already"),
        (["environment=calculator", "algorithm=chord"], "'chord' takes texts that stand already"),
        (["environment=calculator", "algorithm=luffy"], "measures a roll-in in tokens ('algorithm.help.length.whole: true')"),
        (["environment=calculator", "algorithm=gail"], "has 'algorithm.learned_reward'"),
        (["environment=calculator", "algorithm=a-star-po"], "has 'algorithm.start_value'"),
        (
            ["environment=calculator", "algorithm=ppo++", "algorithm.help={success: 1, gate: {looks_at: group}, length: {by: trial}}"],
            "measures a roll-in in tokens ('algorithm.help.length.by: trial')",
        ),
        (["environment=calculator", "algorithm=seq-kd", "guide.candidates=2"], "of 2 texts ('guide.candidates')"),
        (
            ["environment=calculator", "algorithm=ppo++", {"guide": {"url": "http://localhost:1/v1", "model": "m", "stop": [".", "= "]}}],
            "'guide.stop' has '= ', and a turn ends after '='",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(overrides: list[Any], message: str) -> None:
    assert message in refusal(*overrides)


@pytest.mark.parametrize(
    "algorithm",
    ["ppo", "ppo++", "aggrevated", "lols", "guided-grpo", "seq-kd", "rebel", "hinted-grpo", "ghpo"],
)
def test_what_does_fit_breaks_no_rule(algorithm: str) -> None:
    config = load_config(
        SOUND, "environment=calculator", f"algorithm={algorithm}", "rollout.max_hint_tokens=16"
    )
    assert list(checks.broken(config)) == []
    assert list(checks.broken_parts(config)) == []
