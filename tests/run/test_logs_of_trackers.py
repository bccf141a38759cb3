"""What trackers are given of a run; the services that are not installed are tested where they are."""

from __future__ import annotations

import html
import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate.tracking import GeneralTracker
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlgf.config import load_config
from rlgf.errors import UserError
from rlgf.run.display import Display
from rlgf.run.logs import _service, write_table
from rlgf.run.trainer import Trainer

ROOT = Path(__file__).parents[2]
# Each is large, and training needs none of them.
ELSEWHERE = "a tracker of the extra `tracking`, which the tests do not install"
HOSTILE = 'a | b\n<script>alert("x")</script> `code` &amp;\r![x](http://evil/p.png)\r\n*a* _b_ ~~c~~ # \\['


class Noting(GeneralTracker):
    """A tracker of one's own, as accelerate has them."""

    name = "noting"
    requires_logging_directory = False

    def __init__(self) -> None:
        super().__init__()
        self.config: dict[str, Any] = {}
        self.numbers: dict[str, Any] = {}
        self.tables: dict[str, Any] = {}

    @property
    def tracker(self) -> None:
        return None

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.config = values

    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        self.numbers |= values

    def log_table(self, name: str, columns: list[str], data: list[Any], step: int | None = None) -> None:
        self.tables[name, step] = (columns, data)


def trained(folder: Path, trackers: list[str], own: list[GeneralTracker] | None = None) -> None:
    changes = {"output": str(folder), "training": {"updates": 1, "trackers": trackers, "samples_kept": 3}}
    quiet = Display(Console(quiet=True))
    Trainer(["examples/letters.yaml", changes], display=quiet, trackers=own or []).train()


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_a_tracker_is_given_recipe_numbers_tables_and_the_test(tmp_path: Path) -> None:
    own = Noting()
    trained(tmp_path / "run", ["tensorboard"], [own])
    assert own.config["algorithm.name"] == "rloo"
    assert own.config["rollout.episodes"] == 64
    assert all(isinstance(value, str | int | float) for value in own.config.values())
    totals = json.loads((tmp_path / "run/summary.json").read_text())["totals"]["policy"]
    assert own.numbers["test/reward"] == totals["reward"]
    assert {"reward", "validation/reward"} <= own.numbers.keys()
    columns, rows = own.tables["texts_validation", 0]
    assert columns == ["update", "prompt", "completion", "reward"]
    assert [row[0] for row in rows] == [0, 0, 0]
    assert ("texts_test", 1) in own.tables
    (events,) = (tmp_path / "run").rglob("events.out.tfevents.*")
    found = EventAccumulator(str(events.parent))
    found.Reload()
    assert {"reward", "test/reward"} <= set(found.Tags()["scalars"])
    said = {tag: found.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in found.Tags()["tensors"]}
    assert "    name: letters\n" in said["recipe/text_summary"]
    assert "| update | prompt | completion | reward |" in said["texts_validation/text_summary"]


class Failing(Noting):
    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        raise ConnectionError("gone")


def test_a_tracker_that_fails_is_left_out_and_the_run_goes_on(tmp_path: Path) -> None:
    other = Noting()
    with pytest.warns(UserWarning, match=r"tracker 'noting' failed \(gone\): the run goes on") as told:
        trained(tmp_path, [], [Failing(), other])
    assert len([one for one in told if "tracker" in str(one.message)]) == 1
    assert "test/reward" in other.numbers
    assert (tmp_path / "summary.json").exists()


def test_a_text_cannot_leave_its_cell() -> None:
    said = []

    class Writer:
        def add_text(self, name: str, text: str, global_step: int) -> None:
            said.append(text)

        def flush(self) -> None: ...

    own: Any = Noting()
    own.name, own.writer = "tensorboard", Writer()
    write_table(own, "texts", ["text", "reward"], [[HOSTILE, 0.25]], 0)
    header, line, row = said[0].split("\n")
    assert header.count("|") == line.count("|") == row.count("|") == 3
    assert "<script" not in row
    text = row.split(" | ")[0].removeprefix("| ")
    assert not set("![]()*_\\~`\r") & set(text)
    assert html.unescape(text.replace("<br>", "\n")) == HOSTILE.replace("\r\n", "\n").replace("\r", "\n")
    assert "`" not in row
    assert row.endswith(" | 0.25 |")


def test_a_service_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mlflow" else find(name))
    with pytest.raises(
        UserError, match=r"names 'mlflow', which is not installed: pip install 'rlgf\[tracking\]'\.$"
    ):
        load_config("examples/letters.yaml", "training.trackers=[tensorboard, mlflow]")


@pytest.mark.filterwarnings("default")  # mlflow asks pandas in an old way
def test_mlflow_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason=ELSEWHERE)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    trained(tmp_path / "run", ["mlflow"])
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert run.data.params["algorithm.name"] == "rloo"
    assert {"reward", "test/reward"} <= run.data.metrics.keys()
    assert run.info.run_name == "letters"
    assert mlflow.get_experiment(run.info.experiment_id).name == "rlgf"
    (table,) = tmp_path.rglob("texts_validation.json")
    written = json.loads(table.read_text())
    assert written["columns"] == ["update", "prompt", "completion", "reward"]
    assert len(written["data"]) >= 3


def test_wandb_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason=ELSEWHERE)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    trained(tmp_path / "run", ["wandb"])
    assert list(tmp_path.rglob("*.wandb"))
    assert list(tmp_path.rglob("texts_validation*.table.json"))


def test_trackio_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip("trackio", reason=ELSEWHERE)
    trained(tmp_path / "run", ["trackio"])
    assert list((tmp_path / "trackio").rglob("*rlgf*"))


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_service_gets_runs_of_one_project(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    service = SimpleNamespace(init=lambda **given: asked.append(given))
    monkeypatch.setitem(sys.modules, name, service)
    for project in (None, "films"):
        if project:
            monkeypatch.setenv(f"{name.upper()}_PROJECT", project)
        _service(name, "letters").start()
    assert asked == [{"project": "rlgf", "name": "letters"}, {"project": "films", "name": "letters"}]
    assert _service("tensorboard", "letters") == "tensorboard"
