"""Whatever ends a run, what it has learned is saved, and the reason is shown as who caused it would look for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tracemalloc
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_checkpoint import checkpoints, equal, metrics, state

from resume_script import toy_trainer
from rlgf import cli, seeding
from rlgf.config import load_config
from rlgf.errors import UserError
from rlgf.run import checkpoint, whole_folder
from rlgf.run.trainer import Trainer
from rlgf.states import copied, digest, read_back
from toys import share_of_a

SELDOM = {"training": {"checkpoint_every": 4}, "evaluation": {"every": 2}}
"""So that only a failure saves anything before the end."""


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    trainer = toy_trainer(tmp_path_factory.mktemp("straight") / "run", **SELDOM)
    trainer.train()
    return trainer


def goes_on(folder: Path, straight: Trainer) -> None:
    """Make sure that a run that failed ends as one that did not."""
    resumed = toy_trainer(folder, **SELDOM)
    resumed.train(resume=True)
    assert equal(state(resumed), state(straight))
    assert metrics(folder) == metrics(straight.config.folder)


def in_third(what: Callable[[], None]) -> Callable[[int], None]:
    """Something that happens while the third update's texts are rewarded."""
    seen = []

    def during(update: int) -> None:
        # The evaluation after the second update asks the reward too.
        seen.append(update)
        if seen.count(3) == 2:
            what()

    return during


def raising(error: BaseException) -> Callable[[], None]:
    def what() -> None:
        raise error

    return what


@pytest.mark.parametrize(
    "error",
    [
        ValueError("my parser failed"),
        MemoryError(),
        SystemExit(3),
        KeyboardInterrupt(),
        UserError("it wants a number."),
        type("MyError", (BaseException,), {})("odd"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_of_any_type_saves_the_last_finished_update(
    tmp_path: Path, straight: Trainer, error: BaseException
) -> None:
    trainer = toy_trainer(tmp_path, in_third(raising(error)), **SELDOM)
    with pytest.raises(type(error)) as caught:
        trainer.train()
    assert caught.value is error
    assert error.__notes__ == ["Saved after update 2; --resume goes on."]
    assert checkpoints(tmp_path) == ["000002"]
    goes_on(tmp_path, straight)


def fail_in_pass(trainer: Trainer, number: int, error: Exception, finished: int = 2) -> None:
    """Let the policy's n-th pass with gradients fail, in the update behind so many finished ones."""
    passes = 0

    def hook(*unused: object) -> None:
        nonlocal passes
        if torch.is_grad_enabled() and trainer.progress.update == finished:
            passes += 1
            if passes == number:
                raise error

    trainer.parts.policy.model.register_forward_pre_hook(hook)


def test_a_failure_between_optimizer_steps_goes_back_to_the_last_finished_update(
    tmp_path: Path, straight: Trainer
) -> None:
    trainer = toy_trainer(tmp_path, **SELDOM)
    fail_in_pass(trainer, 3, ValueError("in the middle"))
    with pytest.raises(ValueError, match="in the middle"):
        trainer.train()
    assert checkpoints(tmp_path) == ["000002"]
    goes_on(tmp_path, straight)


def test_a_run_out_of_memory_goes_on_with_smaller_micro_batches(tmp_path: Path, straight: Trainer) -> None:
    trainer = toy_trainer(tmp_path, **SELDOM)
    fail_in_pass(trainer, 3, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    with pytest.raises(
        UserError, match=r"memory ran out in update 3 .*set 'update.max_micro_tokens'"
    ) as caught:
        trainer.train()
    assert caught.value.__notes__ == ["Saved after update 2; --resume goes on."]
    smaller = toy_trainer(
        tmp_path, **SELDOM, update={"max_micro_tokens": 20}, rollout={"max_batch_tokens": 30}
    )
    smaller.train(resume=True)
    for one, other in zip(smaller.parts.updater.trained, straight.parts.updater.trained, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_where_a_copy_would_not_fit_the_newest_checkpoint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlgf.run.undo._SHARE_OF_MEMORY", 0.0)
    trainer = toy_trainer(tmp_path)
    fail_in_pass(trainer, 3, ValueError("in the middle"), finished=3)
    with pytest.raises(ValueError, match="in the middle") as caught:
        trainer.train()
    assert checkpoints(tmp_path) == ["000002"]
    (note,) = caught.value.__notes__
    assert note.startswith(
        "Update 4 was learning, and a copy of what it changes would have crowded the memory; "
    )
    assert note.endswith("The newest checkpoint is that of update 2; --resume goes on from there.")


def test_a_metric_that_fails_saves_and_is_asked_again(tmp_path: Path, straight: Trainer) -> None:
    trainer = toy_trainer(tmp_path, **SELDOM)

    def metric(*arguments: Any, **columns: Any) -> dict[str, float]:
        if trainer.progress.update == 2:
            raise ZeroDivisionError("no words")
        return {}

    trainer.parts.evaluator.metrics = {**trainer.parts.evaluator.metrics, "mine": metric}
    with pytest.raises(ZeroDivisionError, match="no words"):
        trainer.train()
    assert checkpoints(tmp_path) == ["000002"]
    goes_on(tmp_path, straight)


def test_a_tracker_that_fails_saves_what_was_learned(
    tmp_path: Path, straight: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlgf.run.metrics_log import MetricsLog

    write = MetricsLog.write

    def failing(log: MetricsLog, update: int, numbers: dict[str, Any]) -> None:
        write(log, update, numbers)
        if update == 3:
            raise ConnectionError("the tracker is gone")

    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "write", failing)
        with pytest.raises(ConnectionError):
            toy_trainer(tmp_path, **SELDOM).train()
    assert checkpoints(tmp_path) == ["000003"]
    goes_on(tmp_path, straight)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_preempted_run_saves_at_once_and_again_after_the_update(
    tmp_path: Path, straight: Trainer, number: signal.Signals
) -> None:
    # Under nohup a hangup would be ignored.
    outside = signal.signal(number, signal.SIG_DFL)
    trainer = toy_trainer(tmp_path, in_third(lambda: os.kill(os.getpid(), number)), **SELDOM)
    try:
        with pytest.raises(SystemExit) as caught:
            trainer.train()
        assert caught.value.code == 128 + number
        assert checkpoints(tmp_path) == ["000002", "000003"]
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, outside)
    goes_on(tmp_path, straight)


def test_a_hangup_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        toy_trainer(tmp_path, in_third(lambda: os.kill(os.getpid(), signal.SIGHUP)), **SELDOM).train()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert checkpoints(tmp_path) == ["000004"]


# States of rewards.


class Remembering:
    """A reward with a state that changes with every call."""

    def __init__(self, kept: Any = 0) -> None:
        self.calls, self.kept, self.fails = 0, kept, False

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        self.calls += 1
        if self.fails and self.calls == 5:
            raise ValueError("after it has counted")
        return [share + self.calls / 100 for share in share_of_a(prompts, completions)]

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls, "kept": self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.calls, self.kept = state["calls"], state["kept"]


def with_reward(folder: Path, reward: Any) -> Trainer:
    from rlgf.run.build import build_parts
    from toys import FavouringGuide, LetterTask, letter_gpt

    config = toy_trainer(folder, **SELDOM).config
    parts = build_parts(
        config, task=LetterTask(), reward=reward, guide=FavouringGuide("a", 0.6), policy=letter_gpt()
    )
    return Trainer(config, parts)


def test_what_a_failed_update_did_to_the_reward_is_undone(tmp_path: Path) -> None:
    whole = with_reward(tmp_path / "whole", Remembering())
    whole.train()
    failing = Remembering()
    failing.fails = True
    with pytest.raises(ValueError, match="after it has counted"):
        with_reward(tmp_path / "run", failing).train()
    resumed = with_reward(tmp_path / "run", Remembering())
    resumed.train(resume=True)
    assert equal(state(resumed), state(whole))


@pytest.mark.parametrize(
    ("kept", "named"),
    [
        (deque([1]), "'kept' is a collections.deque"),
        (Remembering(), "'kept' is a test_rescue.Remembering"),
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


def test_states_are_compared_by_their_bits() -> None:
    one = {"a": torch.tensor([1.0, 2.0]), "b": [1, "text", None, (2.5,)]}
    assert digest(one) == digest(copied(one)) == digest(read_back(one))
    for other in (
        {**one, "a": torch.tensor([1.0, 2.0000002])},
        {**one, "a": torch.tensor([[1.0, 2.0]])},
        {**one, "a": torch.tensor([1.0, 2.0], dtype=torch.float64)},
        {**one, "b": [1, "text", None, (2.5, 1)]},
    ):
        assert digest(other) != digest(one)


# What belongs to a run.


def test_what_changes_no_result_may_change(tmp_path: Path, straight: Trainer) -> None:
    trainer = toy_trainer(tmp_path, in_third(raising(ValueError("stop"))), **SELDOM)
    with pytest.raises(ValueError, match="stop"):
        trainer.train()
    training = {
        "checkpoint_every": 1,
        "sample_every": 1,
        "trackers": ["tensorboard"],
        "process_timeout": 7.0,
    }
    changes = {"training": training, "evaluation": {"every": 1, "metrics": []}, "name": "other"}
    resumed = toy_trainer(tmp_path, **changes)
    resumed.train(resume=True)
    assert equal(state(resumed), state(straight))


def test_a_run_whose_schedules_do_not_move_is_extended_to_what_a_longer_one_is(tmp_path: Path) -> None:
    steady = {"update": {"learning_rate": {"start": 5e-3, "end": 5e-3}}}
    long = toy_trainer(tmp_path / "long", **steady)
    long.train()
    toy_trainer(tmp_path / "short", **steady, training={"updates": 2}).train()
    extended = toy_trainer(tmp_path / "short", **steady)
    extended.train(resume=True)
    assert equal(state(extended), state(long))


def test_a_longer_run_says_which_schedules_move(tmp_path: Path) -> None:
    toy_trainer(tmp_path, training={"updates": 2}).train()
    extended = toy_trainer(tmp_path)
    said: list[str] = []
    extended.display.note = said.append
    extended.train(resume=True)
    assert extended.progress.update == 4
    assert "The run had 2 updates and now has 4; update.learning_rate from here on as in a run of 4." in said


def test_a_run_cannot_have_fewer_updates_than_are_finished(tmp_path: Path) -> None:
    toy_trainer(tmp_path).train()
    with pytest.raises(UserError, match=r"'training.updates' is 3, and the checkpoint has finished 4"):
        toy_trainer(tmp_path, training={"updates": 3}).train(resume=True)


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


# Files.


def test_files_are_hashed_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(64 * 2**20)
    tracemalloc.start()
    found = whole_folder.digests(tmp_path)["large"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == "3b6a07d0d404fab4e23b6d34bc6696a6a312dd92821332385e5af7c01c421351"
    assert peak < 2**20


def test_names_of_files_are_on_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    fsync = os.fsync

    def noting(handle: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noting)
    trainer = toy_trainer(tmp_path)
    checkpoint.save_checkpoint(
        tmp_path / "checkpoints",
        trainer.parts.updater,
        trainer.progress,
        {},
        trainer.parts.assessor.state_dict(),
    )
    names = [path.name for path in synced]
    assert {"model.safetensors", "manifest.json", "policy", ".writing-000000"} <= set(names)
    assert names[-1] == "checkpoints", "after the rename"


def test_checkpoints_are_read_where_their_device_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `torch.load` is told, since there is no second device here."""
    toy_trainer(tmp_path, training={"updates": 1}).train()
    load, told = torch.load, []

    def noting(*arguments: Any, **options: Any) -> Any:
        told.append((options.get("weights_only"), options.get("map_location")))
        return load(*arguments, **options)

    monkeypatch.setattr(torch, "load", noting)
    toy_trainer(tmp_path, training={"updates": 1}).train(resume=True)
    assert told
    assert set(told) == {(True, "cpu")}


def test_drawing_first_weights_starts_no_other_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with several devices, of which none must be touched."""

    def touched(*unused: object) -> None:
        pytest.fail("a device was started")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("get_rng_state", "set_rng_state", "manual_seed_all"):
        monkeypatch.setattr(torch.cuda, name, touched)
    before = torch.get_rng_state()
    with seeding.seeded(3):
        first = torch.rand(3)
    with seeding.seeded(3):
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), before)
    sources = Path(seeding.__file__).parent.rglob("*.py")
    # vLLM works on the current device anyway.
    assert {path.name for path in sources if "fork_rng(" in path.read_text()} == {"seeding.py", "vllm.py"}


# What is shown.


LATE = """\
n = 0
def r(prompts, completions, **k):
    global n
    n += 1
    if n == 5: raise ValueError("my parser failed \\x1b[31m")
    return [float(len(c)) for c in completions]
"""


@pytest.fixture
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A recipe with a reward that fails in the third update."""
    (tmp_path / "raises_late.py").write_text(LATE)
    rows = [{"prompt": f"The film {i} is", "references": ["good"]} for i in range(8)]
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    return [
        "output=run",
        "task={name: data, options: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}}",
        "policy.scratch={vocabulary: 300, layers: 1, heads: 1, width: 8, context: 64}",
        "reward=raises_late.py:r",
        "rollout={episodes: 4, max_prompt_tokens: 16, max_response_tokens: 4}",
        "training={updates: 4, checkpoint_every: 20, trackers: []}",
        "evaluation={every: 9, samples: 2, test_samples: 2}",
    ]


def command(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "argv", ["rlgf", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code


def test_a_reward_that_raises_late_loses_nothing_and_is_shown_with_its_own_traceback(
    late: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["train", *late], monkeypatch) == 1
    said = capsys.readouterr().err
    assert "raises_late.py" in said
    assert 'raise ValueError("my parser failed' in said
    assert "rlgf/" not in said, "nothing of ours stands between"
    assert "\x1b" not in said, "a message can quote a generated text"
    assert "ValueError: my parser failed \\x1b[31m" in said
    assert said.rstrip().endswith("; --resume goes on.")
    (saved,) = checkpoints(tmp_path / "run")
    assert int(saved) >= 2
    (tmp_path / "raises_late.py").write_text(LATE.replace("n == 5", "False"))
    monkeypatch.setattr(sys, "argv", ["rlgf", "train", *late, "--resume"])
    cli.main()
    assert (tmp_path / "run" / "summary.json").exists()


def test_a_traceback_that_never_reaches_the_users_code_is_shown_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*unused: object, **options: object) -> None:
        json.loads("{")

    monkeypatch.setattr(cli, "app", broken)
    assert command(["train"], monkeypatch) == 1
    said = capsys.readouterr().err
    assert "json.decoder.JSONDecodeError" in said


def test_a_preempted_command_ends_with_the_code_of_its_signal(tmp_path: Path) -> None:
    script = Path(__file__).parents[1].joinpath("resume_script.py")
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path), "--pause", "3", "2"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not (tmp_path / "paused").exists():
            assert process.poll() is None
            try:
                process.wait(timeout=0.05)
            except subprocess.TimeoutExpired:
                continue
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 128 + signal.SIGTERM
    finally:
        process.kill()
    assert checkpoints(tmp_path) == ["000002", "000003"]
