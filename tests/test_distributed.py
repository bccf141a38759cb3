"""A failure in one process ends all, with what was learned saved."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from failing_script import CASES
from process_runs import launch
from resume_script import toy_trainer
from rlgf import distributed
from rlgf.errors import LostProcessError

FAILING = Path(__file__).with_name("failing_script.py")
LOST = Path(__file__).with_name("lost_script.py")


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes says of every case of `failing_script`."""
    root = tmp_path_factory.mktemp("failures")
    launch(2, FAILING, str(root))
    return [json.loads((root / f"{rank}.json").read_text()) for rank in range(2)]


FAILED = [name for name, (_, what, _) in CASES.items() if what not in ("", "preempted")]


@pytest.mark.long
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


@pytest.mark.parametrize(
    "said",
    [
        "Failed to recv, got 0 bytes. Connection was likely closed.",
        "Timed out after 2 seconds waiting for clients. 1/2 clients joined.",
    ],
)
def test_who_never_meets_the_others_ends_in_a_sentence(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    def meet(**options: object) -> None:
        raise dist.DistNetworkError(said)

    monkeypatch.setattr(distributed, "PartialState", meet)
    sentence = re.escape(f"the connection says: {said.rstrip('.')}")
    with pytest.raises(LostProcessError, match=sentence):
        distributed._state.__wrapped__()
    monkeypatch.setattr(distributed, "_link", distributed._Link())
    monkeypatch.setattr(distributed, "count", lambda: 2)
    monkeypatch.setattr(dist, "new_group", meet)
    with pytest.raises(LostProcessError, match=sentence):
        distributed.join(20.0)


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


@pytest.mark.long
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
    _goes_on(folder)


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_a_launcher_that_ends_all_leaves_time_to_save(tmp_path: Path, rank: int) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(LOST), str(tmp_path), str(rank), "killed"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=280,
    )
    assert done.returncode == 1
    assert (tmp_path / "ended").read_text().endswith("Saved after update 2; --resume goes on.")
    _goes_on(tmp_path)


def _goes_on(folder: Path) -> None:
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["000002"]
    goes_on = toy_trainer(folder, training={"checkpoint_every": 4}, evaluation={"every": 4})
    goes_on.train(resume=True)
    assert goes_on.progress.update == 4


LEFT = """
import os
import sys

import torch.distributed as dist

from rlgf import distributed

def threads():
    return len(os.listdir("/proc/self/task"))

dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{sys.argv[1]}", rank=0, world_size=1)
distributed.count = lambda: 2
before = threads()
distributed.join(30)
assert threads() > before
distributed._leave_group()
assert threads() == before
assert dist.is_initialized()
distributed.join(30)
distributed.part()
assert threads() < before
assert not dist.is_initialized()
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux, which lists threads in /proc")
def test_no_thread_outlives_a_group_that_is_left() -> None:
    """One that holds a tensor while the interpreter ends aborts the process."""
    subprocess.run([sys.executable, "-c", LEFT, str(free_port())], check=True, timeout=120)
