"""One run in two processes learns what it learns in one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import CASES
from safetensors.torch import load_file

from process_runs import launch, metrics, run
from resume_script import LOLS
from rlgf.rollout.record import PromptHistory
from rlgf.run.progress import Progress


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The same run, with both parts of a mixture and a search in its evaluations, in one process and in two."""
    root = tmp_path_factory.mktemp("processes")
    for count in (1, 2):
        run(root / str(count), count, "--changes", json.dumps(LOLS | {"evaluation": {"beams": 2}}))
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
    assert any("validation/beam/reward" in line for line in one)
    for mine, other in zip(one, two, strict=True):
        assert mine.keys() == other.keys()
        for name, value in mine.items():
            if not name.startswith(("seconds", "tokens_per_second")):
                assert other[name] == (
                    pytest.approx(value, abs=1e-3) if isinstance(value, float) else value
                ), name


@pytest.mark.long
def test_a_run_of_one_process_goes_on_in_two(folders: dict[int, Path], tmp_path: Path) -> None:
    import shutil

    half = shutil.copytree(folders[1], tmp_path / "half")
    shutil.rmtree(half / "checkpoints" / "000004")
    (half / "summary.json").unlink()
    with (half / "metrics.jsonl").open("a") as file:
        file.write('{"update": 5, "rew')  # as a kill leaves it
    run(half, 2, "--resume")
    one, resumed = (load_file(f / "policy" / "model.safetensors") for f in (folders[1], half))
    for name, weight in one.items():
        if not name.endswith("c_attn.bias"):
            torch.testing.assert_close(resumed[name], weight, atol=1e-4, rtol=1e-3)


@pytest.mark.long
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


ITSELF = {"algorithm": "opsd", "guide": {"self": True}, "rollout": {"max_hint_tokens": 16}}
DIALOGUES = {
    "algorithm": "lols",
    "environment": {"name": "toys:says_d", "turns": 3},
    "rollout": {"max_response_tokens": 9},
}


@pytest.mark.long
@pytest.mark.parametrize(
    "changes",
    [ITSELF, {**ITSELF, "policy": {"lora": {"r": 2}}}, DIALOGUES],
    ids=["a policy that guides itself", "by an adapter", "dialogues"],
)
def test_two_processes_learn_what_one_does(tmp_path: Path, changes: dict[str, Any]) -> None:
    for count in (1, 2):
        run(tmp_path / str(count), count, "--changes", json.dumps(changes))
    one, two = (load_file(*(tmp_path / str(n) / "policy").glob("*.safetensors")) for n in (1, 2))
    for name, weight in one.items():
        if not name.endswith("c_attn.bias"):  # the bias of attention keys has no true gradient
            torch.testing.assert_close(two[name], weight, atol=1e-4, rtol=1e-3)
    lines = [metrics(tmp_path / str(n)) for n in (1, 2)]
    for name in ("distill_loss", "policy_loss"):
        losses = [[line.get(name) for line in each] for each in lines]
        assert losses[1] == pytest.approx(losses[0], abs=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("name", ["start values", "successes of its own"])
def test_what_is_kept_of_each_prompt_is_the_same_in_two_processes(tmp_path: Path, name: str) -> None:
    """Each prompt comes again after its value, or a success, was kept."""
    for count in (1, 2):
        run(tmp_path / str(count), count, "--changes", json.dumps(CASES[name]))
    one, two = (load_file(tmp_path / str(n) / "policy" / "model.safetensors") for n in (1, 2))
    for key, weight in one.items():
        if not key.endswith("c_attn.bias"):  # the bias of attention keys has no true gradient
            torch.testing.assert_close(two[key], weight, atol=1e-4, rtol=1e-3)
    one, two = (prompts(tmp_path / str(n)) for n in (1, 2))
    assert one.keys() == two.keys()
    assert len(one) == 64
    for place, mine in one.items():
        other = two[place]
        assert (mine.start_value is None) == (name != "start values")
        assert other.start_value == pytest.approx(mine.start_value)
        assert (other.visits, other.rate) == (mine.visits, mine.rate)
        assert (other.past and other.past.ids) == (mine.past and mine.past.ids)
        if mine.past is not None and other.past is not None:
            assert other.past.logprobs == pytest.approx(mine.past.logprobs, abs=1e-3)
    if name != "start values":
        assert sum(mine.past is not None for mine in one.values()) > 10
        assert [line.get("helped") for line in metrics(tmp_path / "2")][-3:] != [None] * 3


def prompts(folder: Path) -> dict[int, PromptHistory]:
    told = json.loads((folder / "checkpoints" / "000004" / "progress.json").read_text())
    return dict(Progress.of(told).prompts.rows)


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
