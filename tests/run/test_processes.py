"""One run in two processes learns what it learns in one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from failing_script import CASES
from resume_script import toy_trainer
from rlgf.types import concatenate
from training_toys import ROWS, build, experience_of

SCRIPT = Path(__file__).parents[1].joinpath("resume_script.py")
FAILING = Path(__file__).parents[1].joinpath("failing_script.py")
LOST = Path(__file__).parents[1].joinpath("lost_script.py")


def launch(processes: int, script: Path, *arguments: str) -> str:
    """What a script prints, run in several processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(launcher if processes > 1 else []), str(script), *arguments]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def run(folder: Path, processes: int, *arguments: str) -> None:
    launch(processes, SCRIPT, str(folder), *arguments)


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The same run, with both parts of a mixture, in one process and in two."""
    root = tmp_path_factory.mktemp("processes")
    for count in (1, 2):
        run(root / str(count), count)
    return {count: root / str(count) for count in (1, 2)}


def test_two_processes_end_in_the_weights_of_one(folders: dict[int, Path]) -> None:
    one, two = (load_file(folders[count] / "policy" / "model.safetensors") for count in (1, 2))
    moved = 0.0
    for name, weight in one.items():
        if not name.endswith("c_attn.bias"):  # the bias of attention keys has no effect, and no true gradient
            torch.testing.assert_close(two[name], weight, atol=1e-4, rtol=1e-3)
        moved = max(moved, float(weight.abs().max()))
    assert moved > 0.01
    states = [folders[count] / "checkpoints" / "000004" / "state" for count in (1, 2)]
    one, two = (load_file(*state.glob("*.safetensors")) for state in states)
    assert one.keys() == two.keys()
    steps = {key: value for key, value in one.items() if key.endswith(".step")}
    assert steps
    for key, value in steps.items():
        assert two[key] == value


def test_two_processes_log_what_one_does_and_once(folders: dict[int, Path]) -> None:
    one, two = (metrics(folders[count]) for count in (1, 2))
    assert [line["update"] for line in one] == [line["update"] for line in two]
    for mine, other in zip(one, two, strict=True):
        assert mine.keys() == other.keys()
        for name, value in mine.items():
            if not name.startswith(("seconds", "tokens_per_second")):
                assert other[name] == (
                    pytest.approx(value, abs=1e-3) if isinstance(value, float) else value
                ), name


def test_a_run_of_one_process_goes_on_in_two(folders: dict[int, Path], tmp_path: Path) -> None:
    import shutil

    half = shutil.copytree(folders[1], tmp_path / "half")
    shutil.rmtree(half / "checkpoints" / "000004")
    (half / "summary.json").unlink()
    run(half, 2, "--resume")
    one, resumed = (load_file(f / "policy" / "model.safetensors") for f in (folders[1], half))
    for name, weight in one.items():
        if not name.endswith("c_attn.bias"):
            torch.testing.assert_close(resumed[name], weight, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["guided-grpo", "guided-rebel", "hinted-grpo"])
def test_concatenated_shares_are_the_whole(name: str) -> None:
    trainer = build(name)
    whole = experience_of(trainer, ROWS[name]).scored
    rows = torch.arange(len(whole))
    again = concatenate([whole[rows[:4]], whole[rows[4:]]])
    assert torch.equal(again.rollout.response_ids, whole.rollout.response_ids)
    for tensor, joined in (
        (whole.reference_logprobs, again.reference_logprobs),
        (whole.old_logprobs, again.old_logprobs),
        (whole.unhinted_reference_logprobs, again.unhinted_reference_logprobs),
        (whole.rollout.bare_ids, again.rollout.bare_ids),
    ):
        assert (tensor is None and joined is None) or torch.equal(joined, tensor)
    assert again.rollout.texts == whole.rollout.texts
    assert torch.equal(again.rollout.group, whole.rollout.group)


def test_a_reward_with_a_state_sees_the_episodes_of_all_processes(tmp_path: Path) -> None:
    """Running moments and a discriminator are the same in two processes as in one."""
    changes = {
        "algorithm": "gail",
        "reward": {
            "terms": {
                "a": "toys:share_of_a",
                "real": {"name": "discriminator", "options": {"learning_rate": 1e-2}},
            },
            "normalize": True,
        },
    }
    for count in (1, 2):
        run(tmp_path / str(count), count, "--changes", json.dumps(changes))
    one, two = (metrics(tmp_path / str(count)) for count in (1, 2))
    for mine, other in zip(one, two, strict=True):
        for name in ("reward", "running_reward_mean", "running_reward_std", "real/discriminator_loss"):
            assert (name in mine) == ("seconds" in mine)
            assert other.get(name) == pytest.approx(mine.get(name), abs=1e-3), name


@pytest.mark.long
@pytest.mark.parametrize("lora", [None, {"r": 2}], ids=["full", "lora"])
def test_a_policy_that_guides_itself_ends_where_one_process_does(
    tmp_path: Path, lora: dict[str, Any] | None
) -> None:
    changes = {
        "algorithm": "opsd",
        "guide": {"self": True},
        "policy": {"lora": lora},
        "rollout": {"max_hint_tokens": 16},
    }
    for count in (1, 2):
        run(tmp_path / str(count), count, "--changes", json.dumps(changes))
    one, two = (load_file(*(tmp_path / str(n) / "policy").glob("*.safetensors")) for n in (1, 2))
    for name, weight in one.items():
        if not name.endswith("c_attn.bias"):  # the bias of attention keys has no true gradient
            torch.testing.assert_close(two[name], weight, atol=1e-4, rtol=1e-3)
    losses = [[line.get("distill_loss") for line in metrics(tmp_path / str(n))] for n in (1, 2)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


def test_the_processes_part_before_the_interpreter_ends(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import atexit, sys, torch\n"
        "from rlgf import distributed\n"
        "def tell(when):\n"
        "    sys.stdout.write(f'{when}: {torch.distributed.is_initialized()}\\n')\n"
        "atexit.register(tell, 'at the end')\n"
        "assert distributed.gathered(1) == [1, 1]\n"
        "tell('while it runs')\n"
    )
    said = launch(2, script).splitlines()
    assert sorted(said) == 2 * ["at the end: False"] + 2 * ["while it runs: True"]


# Failures in one of two processes.


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes says of every case of `failing_script`."""
    root = tmp_path_factory.mktemp("failures")
    launch(2, FAILING, str(root))
    return [json.loads((root / f"{rank}.json").read_text()) for rank in range(2)]


FAILED = [name for name, (_, what, _) in CASES.items() if what not in ("", "preempted")]


@pytest.mark.parametrize("name", FAILED)
def test_a_failure_in_one_process_ends_both_with_the_last_finished_update_saved(
    failures: list[dict[str, Any]], name: str
) -> None:
    rank = CASES[name][2]
    failed, other = failures[rank][name], failures[1 - rank][name]
    assert not failed["ended"].startswith(("finished", "FailedElsewhereError", "LostProcessError"))
    reason = failed["ended"].partition(": ")[2]
    assert other["ended"].startswith(f"FailedElsewhereError: process {rank} of 2 failed: ")
    assert name == "memory" or reason in other["ended"]
    assert failed["notes"] == other["notes"] == ["Saved after update 2; --resume goes on."]
    if rank != 0:
        said = f"{other['ended'].partition(': ')[2].rstrip('.')}. Saved after update 2; --resume goes on."
        assert other["shown"][-1] == said, "the main process, whose output is looked at, says it too"
    assert failures[0][name]["saved"] == ["000002"]
    assert failures[1][name]["saved"] == [], "its disk is its own, and it writes nothing there"


@pytest.mark.parametrize("name", [*FAILED, "signal"])
def test_a_run_that_failed_in_one_process_goes_on_to_the_same_end(
    failures: list[dict[str, Any]], name: str
) -> None:
    """Though the processes share no disk: the main one's checkpoint is everybody's."""
    clock = ("seconds", "tokens_per_second")
    for of_process in failures:
        whole, resumed = of_process["nothing fails"], of_process[name]
        assert resumed["weights"] == whole["weights"] == failures[0]["nothing fails"]["weights"]
        if name != "state":  # of the process that could not give it
            assert resumed["seen"] == whole["seen"], "each process has its own state of the reward again"
        assert [
            {key: value for key, value in line.items() if not key.startswith(clock)}
            for line in resumed["metrics"]
        ] == [
            {key: value for key, value in line.items() if not key.startswith(clock)}
            for line in whole["metrics"]
        ]


def test_a_signal_to_one_process_ends_both_after_the_update(failures: list[dict[str, Any]]) -> None:
    assert [of_process["signal"]["ended"] for of_process in failures] == 2 * ["SystemExit: 143"]
    assert failures[0]["signal"]["saved"] == ["000003"]


def test_the_reason_for_an_end_without_memory_names_what_to_lower(failures: list[dict[str, Any]]) -> None:
    said = failures[1]["memory"]["ended"]
    assert said.startswith("UserError: memory ran out in update 3")
    assert "set 'update.max_micro_tokens' (it is 16384) or 'rollout.max_batch_tokens'" in said


def test_a_limit_of_the_guide_holds_for_both_processes_together(failures: list[dict[str, Any]]) -> None:
    """12 calls are allowed, one is made by one process before the run, and each update needs some."""
    stop, unguided = (failures[0]["budgets"][name] for name in ("stop", "unguided"))
    assert stop["ended"].startswith(("BudgetSpentError: the guide's budget is spent", "FailedElsewhereError"))
    assert 6 < stop["answered"] <= 12
    assert stop["accounts"][0] == stop["accounts"][1] > 4, "each process has the run's account"
    assert unguided["ended"] == "finished"
    assert 6 < unguided["answered"] <= 12
    assert failures[0]["budgets"]["unguided"]["unguided"] == failures[1]["budgets"]["unguided"]["unguided"]
    assert failures[0]["budgets"]["unguided"]["unguided"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("settings", "the processes have different recipes: 'seed' is"),
        ("length", "the processes have different recipes: 'training.updates' is"),
        ("weights", "the processes do not have the same weights: process 0 has"),
        ("data", "the processes do not have the same training data: process 0 has 64 samples"),
    ],
)
def test_processes_that_do_not_fit_together_are_refused(
    failures: list[dict[str, Any]], name: str, said: str
) -> None:
    ended = [of_process["misfits"][name] for of_process in failures]
    assert said in ended[0]
    assert said in ended[1]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def start_two(folder: Path, rank: int, how: str) -> list[subprocess.Popen[bytes]]:
    """Both processes of a run without a launcher, which would end one with the other."""
    folder.mkdir()
    joined = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [
        subprocess.Popen(
            [sys.executable, str(LOST), str(folder), str(rank), how],
            env={**os.environ, **joined, "RANK": str(i), "LOCAL_RANK": str(i), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.DEVNULL,
        )
        for i in range(2)
    ]


@pytest.mark.parametrize(
    ("rank", "how", "reason"),
    [
        pytest.param(0, "killed", "ended without a word", id="the main process is killed"),
        pytest.param(1, "asleep", "was silent for 20 s ('training.process_timeout')", id="never comes back"),
    ],
)
def test_who_is_left_saves_the_last_finished_update_and_ends(
    tmp_path: Path, rank: int, how: str, reason: str
) -> None:
    folder = tmp_path / "run"
    both = start_two(folder, rank, how)
    try:
        assert both[1 - rank].wait(timeout=250) == 1
    finally:
        for process in both:
            process.kill()
            process.wait()
    ended, note = (folder / "ended").read_text().splitlines()
    assert ended.startswith("LostProcessError: another process of the run has")
    assert reason in ended
    assert note == "Saved after update 2; --resume goes on."
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["000002"]
    goes_on = toy_trainer(folder, training={"checkpoint_every": 4}, evaluation={"every": 4})
    goes_on.train(resume=True)
    assert goes_on.progress.update == 4
