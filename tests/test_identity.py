"""Which settings a run is known by."""

from __future__ import annotations

import pytest

from rlgf.config import load_config

RECIPE = {
    "task": "imdb",
    "policy": {"model": "some"},
    "guide": {"url": "http://127.0.0.1:1/v1", "model": "other"},
    "reward": "length",
    "algorithm": "ppo++",
}


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("update.max_micro_tokens=3", True),
        ("rollout.max_batch_tokens=3", True),
        ("training.updates=3", True),
        ("training.trackers=[]", True),
        ("training.checkpoint_every=3", True),
        ("training.process_timeout=3", True),
        ("evaluation.every=3", True),
        ("evaluation.judge=length", True),
        ("name=other", True),
        ("output=elsewhere", True),
        ("policy.trust_remote_code=true", True),
        ("guide.url=http://127.0.0.1:2/v1", True),
        ("guide.concurrency=3", True),
        ("guide.timeout=3", True),
        ("guide.patience=3", True),
        ("guide.budget.calls=3", True),
        ("guide.prices.prompt=3", True),
        ("algorithm.paper=another", True),
        ("seed=3", False),
        ("guide.model=third", False),
        ("guide.temperature=0.3", False),
        ("rollout.episodes=3", False),
        ("update.epochs=3", False),
        ("algorithm.gamma=0.3", False),
        ("algorithm.kl.coefficient=0.3", False),
        ("reward.options.low=3", False),
        ("algorithm.help.probability=0.3", False),
    ],
)
def test_only_what_changes_results_belongs_to_the_identity(override: str, same: bool) -> None:
    assert (load_config(RECIPE, override).identity == load_config(RECIPE).identity) is same


def test_what_a_local_guide_takes_of_memory_is_free_in_an_ensemble_too() -> None:
    recipes = [
        {
            **RECIPE,
            "guide": {"guides": {"a": {"model": "x", "max_batch_tokens": tokens}, "b": {"model": "y"}}},
        }
        for tokens in (10, 20)
    ]
    assert load_config(recipes[0]).identity == load_config(recipes[1]).identity
