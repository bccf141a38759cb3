"""The examples do what they say."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from rlgf.config import load_config
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer

ROOT = Path(__file__).parents[1]


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(
    "script", [*ROOT.glob("examples/*.py"), *ROOT.glob("benchmarks/*.py")], ids=lambda p: p.name
)
def test_a_script_takes_what_the_library_has(script: Path) -> None:
    """Also one that takes too long to run here, such as the demo."""
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "rlgf":
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")


def test_an_own_loop_learns_and_ends_in_the_same_bytes_as_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = example("own_loop").main(f"output={tmp_path}/own", "training.updates=25")
    lines = capsys.readouterr().out.splitlines()
    rewards = [float(line.split()[2]) for line in lines if "reward" in line]
    assert len(rewards) == 25
    assert rewards[0] < 0.2
    assert rewards[-1] > 0.8
    config = load_config("examples/letters.yaml", f"output={tmp_path}/train", "training.updates=25")
    trained = Trainer(config, display=Display(Console(quiet=True)))
    trained.train()
    one, other = (load_file(tmp_path / run / "policy/model.safetensors") for run in ("own", "train"))
    assert one.keys() == other.keys()
    assert all(torch.equal(weight, other[name]) for name, weight in one.items())
    assert own.progress.policy_tokens == trained.progress.policy_tokens
    assert own.progress.samples == trained.progress.samples


def test_everything_can_come_from_python(tmp_path: Path) -> None:
    trainer = example("python_objects").main(str(tmp_path / "run"))
    assert trainer.progress.update < 40, "the callback stopped it"
    assert (tmp_path / "run" / "policy" / "model.safetensors").exists()


@pytest.mark.parametrize(
    "name", ["own_algorithm", "own_environment", "own_loss", "own_method", "own_reward_and_guide"]
)
def test_what_is_shown_as_an_addition_trains(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = example(name).main(f"output={tmp_path}", "training.updates=2", "evaluation.test_samples=8")
    assert trainer.progress.update == 2
    assert (tmp_path / "policy" / "model.safetensors").exists()
