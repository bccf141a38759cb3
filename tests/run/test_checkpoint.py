"""A run that is killed, interrupted or out of disk goes on as if nothing had happened."""

from __future__ import annotations

import copy
import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from transformers import AutoModelForCausalLM, AutoTokenizer

from resume_script import LOLS, toy_trainer
from rlgf.errors import UserError
from rlgf.run.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from rlgf.run.progress import Progress
from rlgf.run.trainer import Trainer

SCRIPT = Path(__file__).parents[1].joinpath("resume_script.py")
CHANGED = {"update": {"epochs": 3}}
HEAD = {"policy": {"critic": "head"}}
ITSELF: dict[str, Any] = {
    "algorithm": "opsd",
    "guide": {"self": True},
    "policy": {"lora": {"r": 2}},
    "rollout": {"max_hint_tokens": 16},
}
CASES: dict[str, dict[str, Any]] = {
    "ppo": {},
    "ppo, critic as a head": HEAD,
    "lols": LOLS,
    "lols, critics as heads": LOLS | HEAD,
    "guided-grpo": {"algorithm": "guided-grpo"},
    "a reward with a state": {
        "algorithm": "gail",
        "reward": {
            "terms": {
                "a": "toys:share_of_a",
                "real": {"name": "discriminator", "weight": 0.1, "options": {"learning_rate": 1e-2}},
            },
            "normalize": True,
        },
    },
    "guided-rebel": {"algorithm": "guided-rebel"},
    "dagger": {"algorithm": "dagger"},
    "gad": {"algorithm": "gad", "reward": {"name": "discriminator", "options": {"learning_rate": 1e-2}}},
    # Every prompt comes three times, and how much help it has depends on the times before.
    "a record of each prompt": {
        "algorithm": {"base": "adaback", "group_size": 2, "help": {"success": 0.3}},
        "rollout": {"episodes": 96},
        "update": {"minibatch": 48, "epochs": 1},
    },
    "offline-dpo": {"algorithm": "offline-dpo"},
    "its own guide": {**ITSELF, "policy": {}},
    "its own guide, with an adapter": ITSELF,
    "adaptive KL": {
        "algorithm": {"base": "ppo++", "kl": {"coefficient": 0.1, "target": 0.01, "horizon": 2.0}}
    },
}


def equal(one: Any, other: Any) -> bool:
    """Whether nested states are the same, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def state(trainer: Trainer) -> dict[str, Any]:
    """A copy of everything that training changes."""
    updater = trainer.parts.updater
    modules = {"policy": updater.policy.model.state_dict()}
    modules |= {name: critic.state_dict() for name, critic in updater.critics.items()}
    progress = {key: value for key, value in vars(trainer.progress).items() if key != "seconds"}
    return copy.deepcopy(
        {
            **modules,
            "optimizer": updater.optimizer.state_dict(),
            "progress": progress,
            "reward": trainer.parts.assessor.state_dict(),
        }
    )


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log without what the clock says."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    clock = ("seconds", "tokens_per_second")
    return [{key: value for key, value in line.items() if not key.startswith(clock)} for line in lines]


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def digests(folder: Path) -> dict[Path, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def refusal(trainer: Trainer, *, resume: bool = True) -> str:
    """What a user is told, made sure to be one sentence on one line."""
    with pytest.raises(UserError) as caught:
        trainer.train(resume=resume)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A finished run of four updates; tests work on copies of its folder."""
    trainer = toy_trainer(tmp_path_factory.mktemp("finished") / "run")
    trainer.train()
    return trainer


@pytest.fixture
def run(finished: Trainer, tmp_path: Path) -> Path:
    return shutil.copytree(finished.config.folder, tmp_path / "run")


# A resumed run equals the uninterrupted one.


@pytest.mark.parametrize("name", CASES)
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path: Path, name: str) -> None:
    straight = toy_trainer(tmp_path / "straight", **CASES[name])
    totals = straight.train()
    killed = shutil.copytree(tmp_path / "straight", tmp_path / "killed")
    for left in ("checkpoints/000004", "policy", "evaluation"):
        shutil.rmtree(killed / left)

    resumed = toy_trainer(killed, **CASES[name])
    untrained = state(resumed)
    assert resumed.train(resume=True) == totals
    assert equal(state(resumed), state(straight))
    assert not equal(state(resumed)["policy"], untrained["policy"])
    assert metrics(killed) == metrics(tmp_path / "straight")
    assert [line["update"] for line in metrics(killed)] == [0, 1, 2, 3, 3, 4, 4], "validations included"
    evaluations = [folder / "evaluation" / "policy.jsonl" for folder in (killed, tmp_path / "straight")]
    assert evaluations[0].read_bytes() == evaluations[1].read_bytes()


def test_the_rows_of_the_mixture_take_turns(tmp_path: Path) -> None:
    mixture, seed = toy_trainer(tmp_path, **LOLS).config.algorithm, LOLS["seed"]
    rows = [mixture.at(update, update / 4, seed).name for update in range(4)]
    assert rows == ["aggrevated", "ppo++", "aggrevated", "ppo++"], "what these tests rely on"


def test_a_resume_without_a_checkpoint_starts_from_the_beginning(finished: Trainer, run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    (run / "summary.json").unlink()
    again = toy_trainer(run)
    again.train(resume=True)
    assert equal(state(again), state(finished))
    assert metrics(run) == metrics(finished.config.folder)


def test_a_half_written_line_of_the_log_is_dropped(finished: Trainer, run: Path) -> None:
    shutil.rmtree(run / "checkpoints" / "000004")
    log = run / "metrics.jsonl"
    log.write_text(log.read_text() + '{"update": 1, "rew')
    toy_trainer(run).train(resume=True)
    assert metrics(run) == metrics(finished.config.folder)


def test_the_newest_two_checkpoints_are_kept(tmp_path: Path) -> None:
    toy_trainer(tmp_path / "run", training={"checkpoint_every": 1}).train()
    assert checkpoints(tmp_path / "run") == ["000003", "000004"]


# Killed and interrupted processes.


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> None:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == code, output


def stop_in_third_update(folder: Path, seconds: int, number: signal.Signals, code: int) -> None:
    """Send a signal while the third of four updates is under way."""
    process = start(folder, "--pause", "3", str(seconds))
    deadline = time.monotonic() + 120
    while not (folder / "paused").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert [line["update"] for line in metrics(folder)] == [0, 1, 2]
    process.send_signal(number)
    finish(process, code)


def weights_digest(folder: Path) -> str:
    return hashlib.sha256((folder / "policy" / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in this process: what other processes write must be the same bytes."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    toy_trainer(folder, **LOLS).train()
    return folder


def test_a_killed_process_goes_on_to_the_same_bytes(uninterrupted: Path, tmp_path: Path) -> None:
    stop_in_third_update(tmp_path, 100, signal.SIGKILL, -signal.SIGKILL)
    assert checkpoints(tmp_path) == ["000002"]
    finish(start(tmp_path, "--resume"))
    assert weights_digest(tmp_path) == weights_digest(uninterrupted)
    assert metrics(tmp_path) == metrics(uninterrupted)


def test_ctrl_c_saves_after_the_update_under_way(uninterrupted: Path, tmp_path: Path) -> None:
    stop_in_third_update(tmp_path, 1, signal.SIGINT, 130)
    assert checkpoints(tmp_path) == ["000002", "000003"]
    toy_trainer(tmp_path, **LOLS).train(resume=True)
    assert weights_digest(tmp_path) == weights_digest(uninterrupted)
    assert metrics(tmp_path) == metrics(uninterrupted)


def interrupt(times: int) -> Callable[[int], None]:
    def during(update: int) -> None:
        if update == 2:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)

    return during


def test_a_trainer_that_was_interrupted_can_go_on(finished: Trainer, tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)
    trainer = toy_trainer(tmp_path, interrupt(1))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert checkpoints(tmp_path) == ["000002"]
    assert signal.getsignal(signal.SIGINT) is handler
    try:
        trainer.train(resume=True)
    except KeyboardInterrupt:
        pytest.fail("stopped again")
    assert equal(state(trainer), state(finished))


@pytest.mark.parametrize("before", [signal.default_int_handler, signal.SIG_IGN])
def test_a_second_ctrl_c_stops_at_once(tmp_path: Path, before: Any) -> None:
    """Also where the shell has the signal ignored, as for its background jobs."""
    trainer = toy_trainer(tmp_path, interrupt(2))
    found = signal.signal(signal.SIGINT, before)
    try:
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        assert signal.getsignal(signal.SIGINT) is before
    finally:
        signal.signal(signal.SIGINT, found)
    assert trainer.progress.update == 1
    assert checkpoints(tmp_path) == ["000001"], "without the update under way, but nothing finished is lost"


# Folders and checkpoints that do not fit.


def test_a_folder_that_holds_a_run_is_left_alone(run: Path) -> None:
    before = digests(run)
    message = refusal(toy_trainer(run, **CHANGED), resume=False)
    assert str(run) in message
    assert "already holds a run: --resume" in message
    assert digests(run) == before


@pytest.mark.parametrize("resume", [False, True])
def test_a_finished_run_without_its_checkpoints_is_left_alone(run: Path, resume: bool) -> None:
    shutil.rmtree(run / "checkpoints")
    before = digests(run)
    assert "holds a finished run without checkpoints" in refusal(toy_trainer(run), resume=resume)
    assert digests(run) == before


def test_a_checkpoint_that_was_being_written_is_ignored(finished: Trainer, run: Path) -> None:
    folder = run / "checkpoints"
    for update in ("000004", "000006"):
        shutil.copytree(folder / "000004", folder / f".writing-{update}")
        (folder / f".writing-{update}" / "junk").write_text("half")
    shutil.rmtree(folder / "000004")
    resumed = toy_trainer(run)
    resumed.train(resume=True)
    assert equal(state(resumed), state(finished))
    assert not (folder / "000004" / "junk").exists()


def test_a_copy_kept_under_another_name_is_neither_loaded_nor_dropped(finished: Trainer, run: Path) -> None:
    folder = run / "checkpoints"
    for name in ("000001-mine", "000004-mine"):
        shutil.copytree(folder / "000002", folder / name)
    resumed = toy_trainer(run)
    resumed.train(resume=True)
    assert equal(state(resumed), state(finished))
    save_checkpoint(folder, resumed.parts.updater, Progress(update=5), {})
    assert checkpoints(run) == ["000001-mine", "000004", "000004-mine", "000005"]


@pytest.mark.parametrize("harm", ["flip a byte", "remove"])
def test_a_file_that_has_changed_is_named(run: Path, harm: str) -> None:
    folder = run / "checkpoints" / "000004"
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    assert {"model.safetensors", "optimizer.pt", "shard-00001-model-00001-of-00001.safetensors"} < {
        path.name for path in files
    }
    trainer = toy_trainer(run)
    untrained = state(trainer)
    for path in files:
        whole = path.read_bytes()
        if harm == "remove":
            path.unlink()
        else:
            middle = len(whole) // 2
            path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        message = refusal(trainer)
        assert f"the checkpoint {folder} is corrupt: its file {path.relative_to(folder)}" in message
        assert f"delete {folder} to go back to the checkpoint before it" in message
        path.write_bytes(whole)
    assert equal(state(trainer), untrained), "nothing of a corrupt checkpoint is used"
    shutil.rmtree(folder)
    trainer.train(resume=True)


@pytest.mark.parametrize(
    "manifest",
    [
        None,
        "",
        "{",
        "[]",
        '{"format": "other"}',
        '{"format": "rlgf-checkpoint-2", "fibes": {}}',
    ],
)
def test_a_foreign_folder_is_no_checkpoint(run: Path, manifest: str | None) -> None:
    folder = run / "checkpoints" / "000009"
    folder.mkdir()
    if manifest is not None:
        (folder / "manifest.json").write_text(manifest)
    message = refusal(toy_trainer(run))
    assert f"{folder} is not a checkpoint" in message
    assert f"delete {folder}" in message


def test_a_checkpoint_of_another_configuration_is_refused(run: Path) -> None:
    message = refusal(toy_trainer(run, **CHANGED))
    assert "belongs to a run with another 'update" in message
    assert "resume with the old value or choose another output folder" in message


def test_the_setting_that_differs_is_named(run: Path) -> None:
    message = refusal(toy_trainer(run, **CHANGED))
    assert "another 'update.epochs': it was 2 and now is 3" in message


def test_a_refused_resume_changes_nothing(run: Path) -> None:
    before = digests(run)
    refusal(toy_trainer(run, **CHANGED))
    assert digests(run) == before


def test_what_is_measured_may_change_between_runs(finished: Trainer, run: Path) -> None:
    shutil.rmtree(run / "checkpoints" / "000004")
    resumed = toy_trainer(run, evaluation={"samples": 4}, name="other")
    resumed.train(resume=True)
    assert equal(state(resumed), state(finished))


# A full disk.


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """2 MB of memory, mounted where pytest does not clean up: a killed session leaves it mounted."""
    disk = Path(tempfile.mkdtemp(prefix="rlgf-small-disk-"))
    try:
        mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        disk.rmdir()
        pytest.skip(f"a small disk cannot be mounted here: {error}")
    yield disk
    # Lazily, since a failed write may hold its file open.
    subprocess.run(["umount", "--lazy", str(disk)], check=True)
    disk.rmdir()


@pytest.mark.parametrize(
    "room",
    [
        0,
        30,
        200,
    ],
    ids=["nothing fits", "weights do not fit", "optimizer does not fit"],
)
def test_a_full_disk_leaves_the_previous_checkpoint(small_disk: Path, room: int) -> None:
    trainer = toy_trainer(small_disk)
    trainer.step()
    updater = trainer.parts.updater
    root = small_disk / "checkpoints"
    first = save_checkpoint(root, updater, Progress(update=1), {})
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - room * 1024))
    with pytest.raises(UserError, match="the disk is full") as caught:
        save_checkpoint(root, updater, Progress(update=2), {})
    assert "earlier checkpoints are untouched: free some space and run with --resume." in str(caught.value)
    assert checkpoints(small_disk) == ["000001"], "what was half written makes room again"
    assert load_checkpoint(first, updater, {}).update == 1
    ballast.unlink()
    assert load_checkpoint(save_checkpoint(root, updater, Progress(update=2), {}), updater, {}).update == 2


def test_a_run_on_a_full_disk_ends_in_one_sentence(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*unused: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    shutil.rmtree(run / "checkpoints" / "000004")
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        message = refusal(toy_trainer(run))
    assert f"the checkpoint of update 4 could not be written to {run / 'checkpoints'}" in message
    assert checkpoints(run) == ["000002"]
    toy_trainer(run).train(resume=True)


# What a finished run leaves after.


def test_the_saved_policy_is_a_plain_model_that_writes_the_same(finished: Trainer) -> None:
    folder = finished.config.folder / "policy"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    policy = finished.parts.policy
    for prompt in ("a", "cab", "dd"):
        inputs = tokenizer(prompt, return_tensors="pt")
        assert inputs["input_ids"][0].tolist() == policy.encode(prompt)
        options = {"max_new_tokens": 12, "do_sample": False, "attention_mask": inputs["attention_mask"]}
        loaded = model.generate(inputs["input_ids"], **options)
        assert loaded.tolist() == policy.model.generate(inputs["input_ids"], **options).tolist()
        assert tokenizer.decode(loaded[0], skip_special_tokens=True) == policy.decode(loaded[0].tolist())
    assert equal(model.state_dict(), policy.model.state_dict())


def test_the_model_card_says_what_was_trained_and_measured(finished: Trainer) -> None:
    folder = finished.config.folder
    card = (folder / "policy" / "README.md").read_text()
    summary = json.loads((folder / "summary.json").read_text())
    assert "library_name: transformers" in card
    assert "base_model" not in card, "a folder or a name that is not the hub's"
    for row in ("| from | `made by hand` |", "| task | `letters` |", "| algorithm | `ppo`: proximal"):
        assert row in card
    assert f"4 updates, {finished.progress.policy_tokens} tokens by the policy" in card
    records = [json.loads(line) for line in (folder / "evaluation/policy.jsonl").read_text().splitlines()]
    rewards = [record["reward"] for record in records[1:]]
    half = float(stats.t.interval(0.95, len(rewards) - 1, scale=stats.sem(rewards))[1])
    assert f"| reward | {summary['totals']['policy']['reward']:.4f} | ± {half:.4f} |" in card
    assert f"| output perplexity | {summary['totals']['policy']['output_perplexity']:.4f} |  |" in card
    assert f"Of {len(rewards)} prompts" in card
    for line in finished.config.to_yaml().splitlines():
        assert f"    {line}\n" in card


def test_a_model_card_loads_what_it_lies_beside(finished: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = finished.config.folder / "policy"
    monkeypatch.chdir(folder)
    code = (folder / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(code, names)
    assert equal(names["model"].state_dict(), finished.parts.policy.model.state_dict())


def test_what_was_being_written_alone_is_no_checkpoint(run: Path) -> None:
    folder = run / "checkpoints"
    shutil.rmtree(folder / "000002")
    (folder / "000004").rename(folder / ".writing-000004")
    assert latest_checkpoint(folder) is None


def test_an_output_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refusal(toy_trainer(tmp_path / "file" / "run"))


def test_a_foreign_line_among_the_metrics_is_named(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write("nonsense\n")
    assert "metrics.jsonl has a line that rlgf did not write" in refusal(toy_trainer(run))
