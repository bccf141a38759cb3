"""Keys by the names of earlier versions and of TRL lead to those that there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from refused_recipes import BASE, refusal
from rlgf.errors import UserError
from rlgf.recipe import validated
from rlgf.renamed import _TRL


@pytest.mark.parametrize(
    ("override", "now"),
    [
        ("training.gamma=0.9", "algorithm.gamma"),
        ("training.kl.coefficient=0.1", "algorithm.kl"),
        ("rollout.group_size=4", "algorithm.group_size"),
        ("update.clip=0.1", "algorithm.terms.policy.options.clip"),
        ("update.value_coef=0.1", "algorithm.terms.value.weight"),
        ("update.reference_coef=0.1", "algorithm.terms.references"),
        ("algorithm.rollin_prob=0.1", "algorithm.help.probability"),
        ("algorithm={base: lols, explore: {rollin_prob: 0.1}}", "algorithm.explore.help.probability"),
        ("algorithm={base: lols, rollin_prob: 0.1}", "algorithm.help.probability"),
        ("algorithm={base: distill, jsd_beta: 0.1}", "algorithm.terms.distill.options.jsd_beta"),
    ],
)
def test_a_key_of_an_earlier_version_is_told_where_it_went(override: str, now: str) -> None:
    message = refusal(BASE, override)
    assert f"has moved: it is now '{now}" in message


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("algorithm.num_generations=4", "what TRL calls 'num_generations' is here 'algorithm.group_size'."),
        ("rollout.max_completion_length=4", "is here 'rollout.max_response_tokens'."),
        ("training.learning_rate=1e-5", "is here 'update.learning_rate'."),
        ("output_dir=runs", "'output_dir' is not a known key: what TRL calls 'output_dir' is here 'output'."),
    ],
)
def test_a_name_of_trl_leads_to_ours(override: str, said: str) -> None:
    assert said in refusal(BASE, override)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"guide": {"url": "http://x/v1", "model": "m", "api_key": "k"}},
            "which 'guide.key_variable' names.",
        ),
        ({"guide": {"base_url": "http://x/v1", "model": "m"}}, "the address of a server is 'guide.url'."),
        (
            {"guide": {"url": "http://x/v1", "model": "m", "max_tokens": 5}},
            "'rollout.max_guide_tokens' limits",
        ),
        ({"include": "other.yaml"}, "laid over each other, as in `rlgf train first.yaml second.yaml`."),
        ({"defaults": ["other"]}, "'defaults' is not a known key: recipes are laid over each other"),
        ({"reward": {"weights": [1, 2]}}, "as in reward: {terms: {one: {weight: 2}}}."),
    ],
)
def test_a_key_of_other_clients_leads_to_what_does_its_work(change: dict[str, Any], said: str) -> None:
    assert said in refusal(BASE, change)


def test_names_of_trl_are_those_of_the_page_for_its_users() -> None:
    page = (Path(__file__).parents[1] / "docs" / "from-trl.md").read_text()
    others = {"max_new_tokens", "max_prompt_length"}
    assert {name for name in _TRL if f"`{name}" not in page} == others


def test_a_reward_models_recipe_is_not_told_of_a_runs_sections() -> None:
    class OfReward(BaseModel):
        model_config = ConfigDict(extra="forbid")
        epochs: int = 1

    with pytest.raises(UserError, match=r"'max_steps' is not a known key: choose from epochs\."):
        validated(OfReward, {"max_steps": 3})
