"""The page: one file with its styles, scripts and data, which asks nothing of any server."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from pydantic import TypeAdapter

from rlgf.errors import UserError
from rlgf.evaluation.files import WATCHED
from rlgf.guides import GuideConfig, GuideSettings
from rlgf.jsontext import to_json
from rlgf.report.charts import frontiers, sections
from rlgf.report.groups import Group, grouped
from rlgf.report.runs import Run, find_runs, is_number, read_run
from rlgf.report.samples import fitting, packed, sample_lines
from rlgf.report.told import told_algorithm
from rlgf.run.warnings import Found, Watch
from rlgf.terminal import number, visible

MOST_SAMPLES = 10_000
_ASSETS = Path(__file__).parent / "assets"
_STYLES = ("uPlot.min.css", "page.css")
_SCRIPTS = ("uPlot.iife.min.js", "text.js", "charts.js", "store.js", "tokens.js", "browser.js")
_FOR_SAMPLES = 0.1
"""The share of a page of limited size that is kept free for samples, where curves would take all of it."""
_STEPS = (1, 2, 5, 10, 20, 50, 100)


def render(groups: Sequence[Group], title: str, most_bytes: int | None = None) -> str:
    """The page of some runs.

    Text from models stands in blocks of base64 alone and reaches the page as text nodes; a content security policy lets
    no other script run than ours, and loads nothing.

    Args:
        most_bytes: the size that the page shall stay below: first samples are left out, and where curves alone are
            too large, points of them. What is no sample and no curve always stays. Default: any size.
    """
    model = page_model(groups, title)
    page = _page(model)
    if most_bytes is None or len(page.encode()) < most_bytes:
        return page
    total = sum(len(run.samples) for group in groups for run in group.runs)
    for step in _STEPS:
        model |= _curves(groups, step)
        # With a sample, since the controls of the samples are not there without any.
        rest = len(_page(model | _samples(["-"], ["-"], total)).encode())
        if rest < (1 - _FOR_SAMPLES) * most_bytes:
            break
    return _page(model | _samples(*fitting(groups, MOST_SAMPLES, most_bytes - rest)))


def _page(model: Mapping[str, Any]) -> str:
    styles, scripts = (
        [(_ASSETS / name).read_text(encoding="utf-8") for name in names] for names in (_STYLES, _SCRIPTS)
    )
    template = _environment().get_template("page.html.j2")
    return template.render(
        model,
        styles=styles,
        scripts=scripts,
        style_hashes=_hashes(styles),
        script_hashes=_hashes(scripts),
    )


def page_model(groups: Sequence[Group], title: str) -> dict[str, Any]:
    """Everything that the page shows, as plain values."""
    listed = [
        _listed(run, label, number)
        for number, group in enumerate(groups)
        for run, label in zip(group.runs, group.labels, strict=True)
    ]
    going = sum(run["going"] for run in listed)
    return {
        "title": title,
        "version": version("rlgf"),
        "written": f"{datetime.now():%Y-%m-%d %H:%M}",
        "going": f"{going} of {len(listed)} runs have not finished: write the page again to see more."
        if going
        else "",
        "runs": listed,
        "measured": [m for m in WATCHED if any(run["totals"][m] is not None for run in listed)],
        "warnings": [warning for group in groups for warning in _warned(group)],
        "algorithms": _algorithms(groups),
        "names": {
            "groups": [visible(group.name) for group in groups],
            "runs": [visible(run["label"]) for run in listed],
        },
        **_curves(groups),
        **_samples(*sample_lines(groups, MOST_SAMPLES)),
    }


def _curves(groups: Sequence[Group], step: int = 1) -> dict[str, Any]:
    """Titles of the charts, each with the number of its line, and the lines.

    Args:
        step: of how many points of a curve one is kept.
    """
    paths, drawn = frontiers(groups, step), sections(groups, step)
    lines = [to_json(chart) for chart in paths]
    titles = []
    for section in drawn:
        name = section["title"].lower().replace(" ", "-")
        charts = [
            {key: chart[key] for key in ("title", "metric", "says")} | {"line": len(lines) + place}
            for place, chart in enumerate(section["charts"])
        ]
        titles.append({**section, "id": name, "charts": charts})
        lines += [to_json(chart) for chart in section["charts"]]
    left_out = f"Of curves every {step}th point is drawn, and the last." if step > 1 else ""
    return {
        "frontiers": [{"title": path["title"], "line": line} for line, path in enumerate(paths)],
        "sections": titles,
        "chart_blocks": packed(lines),
        "points_left_out": left_out.replace("2th", "2nd"),
    }


def _samples(prompts: Sequence[str], samples: Sequence[str], total: int) -> dict[str, Any]:
    left_out = f"{len(samples):,} of {total:,} samples: of each run some are left out, evenly."
    return {
        "prompt_blocks": packed(prompts),
        "sample_blocks": packed(samples),
        "samples_left_out": left_out if len(samples) < total else "",
    }


def _listed(run: Run, label: str, group: int) -> dict[str, Any]:
    """A run's line in the table."""
    last = {name: series[-1][1] for name in WATCHED if (series := run.series(f"validation/{name}"))}
    totals = run.totals if run.totals is not None else last
    state = "finished" if run.totals is not None else f"{run.updates} of {run.planned} updates done"
    return {
        "label": label,
        "group": group,
        "state": state,
        "going": run.totals is None,
        "algorithm": _named(run.config.get("algorithm")),
        "task": _named(run.config.get("task")),
        "policy": _model(run.config.get("policy") or {}),
        "guide": _guide(run.config),
        "reward": _named(run.config.get("reward")),
        "totals": {name: totals.get(name) for name in WATCHED},
        "seconds": run.seconds,
    }


def _warned(group: Group) -> Iterator[tuple[str, str, str]]:
    """Who is warned, at which update, and of what: each thing once for all runs of a group, as the first of them has it."""
    found: dict[str, list[tuple[str, Found]]] = {}
    for run, label in zip(group.runs, group.labels, strict=True):
        for one in Watch(run.config).look(run.metrics):
            found.setdefault(one.name, []).append((label, one))
    for warned in found.values():
        label, first = warned[0]
        updates = [one.update for _, one in warned]
        if len(warned) > 1:
            label = f"{group.name}, {len(warned)} runs of {len(group.runs)}"
        when = f"update {min(updates)}" + (f" to {max(updates)}" if max(updates) > min(updates) else "")
        yield label, when, str(first)


def _algorithms(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """What each algorithm is, once for all groups that have it in common."""
    found: dict[str, dict[str, Any]] = {}
    for group in groups:
        config = group.runs[0].config
        raw = yaml.safe_dump(config.get("algorithm"), sort_keys=False)
        words = told_algorithm(config)
        told = found.setdefault(
            to_json([words, raw]),
            {"name": _named(config.get("algorithm")), "words": words, "raw": raw, "groups": []},
        )
        told["groups"].append(group.name)
    return [told for told in found.values() if told["name"]]


def _named(section: Any) -> str:
    if isinstance(section, Mapping):
        terms = section.get("terms")
        return str(section.get("name") or (" + ".join(terms) if isinstance(terms, Mapping) else ""))
    return str(section or "")


def _model(section: Mapping[str, Any]) -> str:
    name = section.get("model") or section.get("name")
    return str(name) if name else "from scratch" if section.get("scratch") else "given in Python"


def _guide(config: Mapping[str, Any]) -> str:
    """The guide that a run asks; "none" where its algorithm asks none, whatever its recipe names."""
    section, told = config.get("guide"), told_algorithm(config)
    if told is not None and not told["needs_guide"]:
        return "none"
    if not section:
        return "none" if told is None else "given in Python"
    try:
        return TypeAdapter[GuideSettings](GuideConfig).validate_python(section).label
    except (UserError, ValueError):  # of another version
        return _model(section)


# How the page is put together.


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"visible": lambda text: visible(str(text)), "number": _number}
    environment.policies["json.dumps_function"] = to_json
    return environment


def _number(value: Any) -> str:
    return number(value) if is_number(value) else "-"


def _hashes(texts: Sequence[str]) -> Markup:
    """As a content security policy names what may stand in the page."""
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    return Markup(" ".join(f"'sha256-{digest}'" for digest in digests))


def write_report(paths: Sequence[Path], output: Path | None = None, title: str | None = None) -> Path:
    """Write the page of the runs at or below some folders, finished or not; returns where it is.

    Args:
        output: default: ``report.html`` in the first folder.
        title: default: the name of the first folder, or of the run.

    Raises:
        UserError: a path holds no run, a file is not what a run writes, or the page cannot be written.
    """
    runs = [read_run(folder) for folder in find_runs(paths)]
    output = output or paths[0] / "report.html"
    named = runs[0].name if len(runs) == 1 else paths[0].resolve().name
    page = render(grouped(runs), title or named)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}; give another --output.") from error
    return output
