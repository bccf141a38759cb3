"""Rules of what a section of a recipe names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import LEDConfig
from unfit_parts import HERE, SOUND, refusal

from rlgf import checks
from rlgf.checks.parts import too_short
from rlgf.config import Config, load_config
from rlgf.errors import UserError
from rlgf.models.language_model import LanguageModel
from rlgf.run.build import build_parts
from toys import LetterTask, letter_gpt, letter_t5


def test_a_reward_that_cannot_be_paid_is_refused_before_a_model_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*arguments: object) -> None:
        pytest.fail("a model was loaded")

    monkeypatch.setattr("rlgf.run.models.load_language_model", load)
    config = Config.model_validate(
        {
            "task": {"name": "toys:LetterTask"},
            "policy": {"scratch": {}},
            "reward": {"name": "metric", "options": {"metric": "distinct"}},
        }
    )
    with pytest.raises(UserError, match="cannot be a reward"):
        build_parts(config, task=LetterTask())


def test_every_row_has_a_prompt_for_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    rows = {"name": "own", "imitate": "bc", "explore": {"base": "grpo", "group_size": 8}, "explore_prob": 0.1}
    mixture = {"algorithm": rows, "rollout": {"episodes": 16}}
    assert "an update of algorithm 'grpo' has 2 prompts for 3 processes: raise" in refusal(mixture)
    assert list(checks.broken_parts(load_config(SOUND, mixture, {"rollout": {"episodes": 24}}))) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["algorithm=hinted-grpo"],
            "'rollout.max_hint_tokens' 64 and 'rollout.max_response_tokens' 8 make 136 tokens, and the policy's",
        ),
        (["rollout.max_response_tokens=60"], "make 68 tokens, and the policy's context holds 64"),
        ([f"reward={HERE}:Silent"], f"reward '{HERE}:Silent' cannot be called"),
        ([f"reward={HERE}:NUMBER"], f"reward '{HERE}:NUMBER' cannot be called"),
        ([f"evaluation.judge={HERE}:NUMBER"], f"reward '{HERE}:NUMBER' cannot be called"),
        (
            ["evaluation.judge=discriminator"],
            "'evaluation.judge' (it is 'discriminator') must be a reward that stands by itself",
        ),
        (["evaluation.judge={name: length, options: {aim: 4}}"], "reward 'length' has no option 'aim'"),
        (["evaluation.judge=adapter"], "'evaluation.judge' (it is 'adapter') must be a reward"),
        (["reward.options.loud=1"], "is a function, so it takes no options (given: loud)"),
        ([{"guide": {"name": f"{HERE}:Silent"}}], "has no method 'write(requests)'"),
        ([{"guide": {"name": f"{HERE}:NUMBER"}}], "is not a class or function"),
        ([{"guide": {"name": f"{HERE}:Writes", "options": {"loud": 1}}}], "has no option 'loud'"),
        (
            [{"guide": {"guides": {"own": {"name": f"{HERE}:Silent"}, "local": {"model": "gpt2"}}}}],
            "'guide.name' unfit_parts:Silent has no method 'write(requests)'",
        ),
        ([{"guide": {"file": "gone.jsonl"}}], "'guide.file' gone.jsonl cannot be read: there is no such file"),
        ([f"evaluation.metrics=[{HERE}:NUMBER]"], f"the metric '{HERE}:NUMBER' cannot be called"),
        ([f"evaluation.metrics=[{HERE}:Silent]"], f"the metric '{HERE}:Silent' cannot be called"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence_before_models_load(overrides: list[Any], message: str) -> None:
    assert message in refusal(*overrides)


@pytest.mark.parametrize(
    ("policy", "response", "fits"),
    [(letter_gpt(), 28, True), (letter_gpt(), 29, False), (letter_t5(), 100, True)],
    ids=["fits", "too long", "without a limit"],
)
def test_a_policy_given_in_python_holds_the_texts(policy: LanguageModel, response: int, fits: bool) -> None:
    rollout = {"episodes": 8, "max_prompt_tokens": 4, "max_response_tokens": response}
    sections = {
        "algorithm": "rloo",
        "task": "toys:LetterTask",
        "reward": "toys:share_of_a",
        "rollout": rollout,
    }
    config = load_config(sections, given=["policy"])
    if fits:
        build_parts(config, policy=policy)
        return
    with pytest.raises(
        UserError, match=r"make 33 tokens, and the policy's context holds 32: lower one of them"
    ):
        build_parts(config, policy=policy)


@pytest.mark.parametrize(
    ("prompt", "response", "message"),
    [
        (64, 30, None),
        (65, 8, "'rollout.max_prompt_tokens' 65 is more than the policy's encoder holds, 64 tokens: lower it."),
        (8, 31, "'rollout.max_response_tokens' 31 is more than the policy's decoder holds, 32 tokens with the 2 "),
    ],
)  # fmt: skip
def test_an_encoder_and_a_decoder_each_hold_their_part(
    prompt: int, response: int, message: str | None, tmp_path: Path
) -> None:
    config = LEDConfig(max_encoder_position_embeddings=64, max_decoder_position_embeddings=32)
    config.save_pretrained(tmp_path)
    overrides = (f"rollout.max_prompt_tokens={prompt}", f"rollout.max_response_tokens={response}")
    policy = {"policy": {"model": str(tmp_path), "scratch": None}}
    if message is None:
        assert too_short("policy", config, load_config(SOUND, policy, *overrides)) is None
        return
    assert message in refusal(policy, *overrides)
