"""Sampling that works ahead: which weights write which update, and that nothing else changes."""

from __future__ import annotations

import copy
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import checkpoints, equal, metrics, state

from faulty_server import FaultyServer, serving
from resume_script import toy_trainer
from rlgf.errors import UserError
from rlgf.guides import Request
from rlgf.models.language_model import LanguageModel
from rlgf.models.response_scores import score_logprobs
from rlgf.run.trainer import Trainer
from rlgf.types import Author, Completion, Rollout
from toys import FavouringGuide

SELDOM = {"checkpoint_every": 100, "samples_kept": 0}


def ahead(folder: Path, steps: int, updates: int = 5, **changes: Any) -> Trainer:
    during = changes.pop("during", lambda update: None)
    training = {"updates": updates, "async_steps": steps, **SELDOM}
    return toy_trainer(folder, during, training=training, **changes)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ahead"]


def settled(folder: Path) -> list[dict[str, Any]]:
    """The log without what depends on time."""
    return [{key: value for key, value in row.items() if key != "seconds_ahead"} for row in metrics(folder)]


def frozen(trainer: Trainer) -> LanguageModel:
    """A copy of the policy as it is now, made apart from what is tested."""
    policy = trainer.parts.policy
    return LanguageModel(copy.deepcopy(policy.model), policy.tokenizer)


def logprobs(model: LanguageModel, rollout: Rollout, trainer: Trainer) -> torch.Tensor:
    sampling = trainer.config.rollout.sampling
    found = score_logprobs(model.model, rollout, sampling, model.end_ids, 4096)
    return found[rollout.written_by(Author.POLICY)]


CASES: dict[str, dict[str, Any]] = {
    "ppo": {},
    "guided-grpo": {"algorithm": "guided-grpo"},
    "lols": {"algorithm": {"base": "lols", "explore_prob": 0.5}, "seed": 125},
    "an adapter": {"policy": {"lora": {"r": 2}}},
    "top-k": {"rollout": {"top_k": 3}},
    "dialogues": {
        "algorithm": {"base": "aggrevated", "help": {"probability": 0.5}},
        "environment": {"name": "toys:says_d", "turns": 3},
        "rollout": {"max_response_tokens": 9},
    },
}


@pytest.mark.long
@pytest.mark.parametrize(("case", "steps"), [("ppo", 1), *((case, 2) for case in CASES)])
def test_each_update_is_written_with_the_weights_that_it_is_due(
    case: str, steps: int, tmp_path: Path
) -> None:
    trainer, exact = (
        ahead(tmp_path / "run", steps, **CASES[case]),
        ahead(tmp_path / "exact", 0, **CASES[case]),
    )
    policies: list[LanguageModel] = []
    for update in range(5):
        policies.append(frozen(trainer))
        rollout = trainer.collect()
        written_after = max(0, update - steps)
        by_policy = rollout.written_by(Author.POLICY)
        for found, model in (
            (rollout.engine_logprobs, policies[written_after]),
            (rollout.sampled_logprobs, policies[update]),
        ):
            assert found is not None
            expected = logprobs(model, rollout, trainer)
            torch.testing.assert_close(found[by_policy], expected, atol=1e-5, rtol=1e-4)
        if update:
            stale = rollout.engine_logprobs[by_policy]
            assert (stale - logprobs(policies[written_after + 1], rollout, trainer)).abs().max() > 1e-3
        assert rollout.index is not None
        assert torch.equal(rollout.index, exact.collect().index)
        experience = trainer.assess(rollout)
        assert torch.equal(experience.old_logprobs, rollout.sampled_logprobs), (
            "a ratio of 1 before the first step"
        )
        said = trainer.learn(experience)
        assert said["staleness"] == update - written_after
        exact.step()
    assert not trainer.ahead._worker.jobs.keys() - {4}, "nothing is written that no update is for"
    trainer.close()
    assert not threads()


def test_without_it_nothing_changes(tmp_path: Path) -> None:
    plain, zero = toy_trainer(tmp_path / "plain"), toy_trainer(tmp_path / "zero", training={"async_steps": 0})
    for trainer in (plain, zero):
        trainer.train()
    assert equal(state(plain), state(zero))
    assert metrics(tmp_path / "plain") == metrics(tmp_path / "zero")
    assert not any("staleness" in row for row in metrics(tmp_path / "zero"))
    assert plain.config.identity == zero.config.identity
    assert "async_steps" not in zero.config.identity["training"]
    assert ahead(tmp_path / "one", 1).config.identity["training"] == {"async_steps": 1}


@pytest.mark.long
def test_how_fast_anybody_is_changes_nothing(tmp_path: Path) -> None:
    slow_guide = ahead(tmp_path / "guide", 2, algorithm="ppo++", guide=SlowGuide(0.1))
    slow_policy = ahead(tmp_path / "policy", 2, algorithm="ppo++", during=lambda update: time.sleep(0.1))
    for trainer in (slow_guide, slow_policy):
        trainer.train()
    assert equal(state(slow_guide), state(slow_policy))
    assert settled(tmp_path / "guide") == settled(tmp_path / "policy")
    assert not threads()


def test_a_loop_of_ones_own_ends_in_the_same_bytes(tmp_path: Path) -> None:
    trained, own = ahead(tmp_path / "trained", 2), ahead(tmp_path / "own", 2)
    trained.train()
    while own.done_share < 1:
        rollout = own.collect()
        assert torch.equal(own.collect().response_ids, rollout.response_ids), "asked twice, written once"
        own.collect(samples=own.batch()[:2])
        own.learn(own.assess(rollout))
    assert equal(state(trained)["policy"], state(own)["policy"])
    assert not threads(), "it ends with the last update"


@pytest.mark.long
@pytest.mark.parametrize(("algorithm", "steps"), [("grpo", 1), ("ppo", 2)])
def test_a_trivial_problem_is_learned(algorithm: str, steps: int, tmp_path: Path) -> None:
    trainer = ahead(
        tmp_path / "run",
        steps,
        updates=14,
        algorithm={"base": algorithm, "kl": {"coefficient": 0.0}},
        rollout={"episodes": 32},
        update={"minibatch": 16, "learning_rate": 1e-2},
    )
    rewards = [float(trainer.step()["reward"]) for _ in range(14)]
    trainer.close()
    assert rewards[0] < 0.4
    assert max(rewards[-5:]) > 0.95


@pytest.mark.long
def test_a_run_that_goes_on_neither_loses_nor_repeats_a_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = ahead(tmp_path / "straight", 0)
    expected = []
    for _ in range(5):
        expected.append(straight.collect().index.tolist())
        straight.step()

    def stop(update: int) -> None:
        if update == 3:
            signal.raise_signal(signal.SIGINT)

    learned: list[list[int]] = []
    learn = Trainer.learn

    def noted(self: Trainer, experience: Any, row: Any = None) -> Any:
        learned.append(experience.rollout.index.tolist())
        return learn(self, experience, row)

    monkeypatch.setattr(Trainer, "learn", noted)
    ends = []
    for name in ("one", "other"):
        learned.clear()
        with pytest.raises(KeyboardInterrupt):
            ahead(tmp_path / name, 2, during=stop).train()
        assert checkpoints(tmp_path / name) == ["000003"]
        assert not threads()
        resumed = ahead(tmp_path / name, 2)
        resumed.train(resume=True)
        assert learned == expected
        ends.append(state(resumed))
    assert equal(ends[0], ends[1])
    stale = [row["staleness"] for row in metrics(tmp_path / "one") if "staleness" in row]
    assert stale == [0, 1, 2, 0, 1]


class SlowGuide(FavouringGuide):
    """Takes its time, and fails when it is asked for the n-th time."""

    def __init__(self, seconds: float, fails_at: int = 1_000) -> None:
        super().__init__("a", 0.6)
        self.seconds, self.left = seconds, fails_at

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        self.left -= 1
        if not self.left:
            raise UserError("the guide has gone home.")
        time.sleep(self.seconds)
        return super().write(requests)


@pytest.mark.parametrize("steps", [0, 2])
def test_an_error_of_the_guide_is_the_same_sentence(steps: int, tmp_path: Path) -> None:
    guide = SlowGuide(0.0, fails_at=4)
    trainer = ahead(tmp_path / "run", steps, algorithm="ppo++", guide=guide)
    with pytest.raises(UserError, match="the guide has gone home") as caught:
        trainer.train()
    assert caught.value.__notes__ == ["Saved after update 3; --resume goes on."]
    assert checkpoints(tmp_path / "run") == ["000003"]
    assert guide.left == 0, "not asked again"
    assert not threads()


def test_a_failure_while_it_learns_ends_the_thread(tmp_path: Path) -> None:
    def fail(update: int) -> None:
        if update == 3:
            raise ValueError("my parser failed")

    trainer = ahead(tmp_path / "run", 2, updates=9, during=fail)
    with pytest.raises(ValueError, match="my parser failed"):
        trainer.train()
    assert checkpoints(tmp_path / "run") == ["000002"]
    assert not threads()


def test_what_is_being_written_is_given_up_at_the_next_token(tmp_path: Path) -> None:
    trainer = ahead(tmp_path / "run", 1, rollout={"max_response_tokens": 24, "min_response_tokens": 24})
    policy, began = trainer.parts.policy.model, threading.Event()
    # Copies inherit them.
    policy.register_forward_pre_hook(lambda *unused: began.set())
    policy.register_forward_hook(lambda *unused: time.sleep(0.2))
    with futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(trainer.collect)
        assert began.wait(20)
        started = time.perf_counter()
        trainer.ahead.close()
        assert time.perf_counter() - started < 2
        assert isinstance(waiting.exception(), Exception)
    assert not threads()


def eventually(holds: Callable[[], bool]) -> bool:
    ends = time.monotonic() + 10
    while not (found := holds()) and time.monotonic() < ends:
        time.sleep(0.01)
    return found


@pytest.mark.parametrize("algorithm", ["ppo++", "aggrevated"])
def test_a_server_is_asked_the_same_and_once(algorithm: str, tmp_path: Path) -> None:
    first, asked = [], []
    for steps in (0, 1):
        with serving(FaultyServer(latency=0.02)) as server:
            guide = {"url": server.url, "model": "letters", "cache": None}
            trainer = ahead(tmp_path / str(steps), steps, updates=3, algorithm=algorithm, guide=guide)
            rollouts = []
            for _ in range(3):
                rollouts.append(trainer.collect())
                if algorithm == "ppo++" and steps and len(rollouts) == 1:
                    # The third update's too, which has yet to be begun.
                    assert eventually(lambda: set(server.seen) == asked[0])
                trainer.learn(trainer.assess(rollouts[-1]))
            trainer.close()
            assert set(server.seen.values()) == {1}
            assert trainer.guide_usage.total.calls == len(server.seen)
            first.append(rollouts[0].texts)
            asked.append(set(server.seen))
    assert first[0] == first[1], "written with the weights of the start"
    # What it begins depends on prompts alone, and what it finishes on what the policy began.
    assert (asked[0] == asked[1]) == (algorithm == "ppo++")
    assert not threads()
