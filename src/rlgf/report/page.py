"""The page: one file with its styles, scripts and data, which asks nothing of any server."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from rlgf.evaluation.files import WATCHED
from rlgf.jsontext import to_json
from rlgf.report.charts import frontiers, sections
from rlgf.report.groups import Group, grouped
from rlgf.report.runs import Run, is_number
from rlgf.report.samples import packed, sample_lines
from rlgf.report.told import told_algorithm
from rlgf.run.display import visible
from rlgf.run.warnings import Watch

MOST_SAMPLES = 10_000
_ASSETS = Path(__file__).parent / "assets"
_STYLES = ("uPlot.min.css", "page.css")
_SCRIPTS = ("uPlot.iife.min.js", "text.js", "charts.js", "store.js", "tokens.js", "browser.js")


def render(runs: Sequence[Run], tables: Mapping[str, Sequence[Mapping[str, Any]]], title: str) -> str:
    """The page of some runs, and of the summaries of comparisons whose runs are gone.

    Text from models stands in blocks of base64 alone and reaches the page as text nodes; a content security policy lets
    no other script run than ours, and loads nothing.
    """
    groups = grouped(runs)
    styles, scripts = (
        [(_ASSETS / name).read_text(encoding="utf-8") for name in names] for names in (_STYLES, _SCRIPTS)
    )
    template = _environment().get_template("page.html.j2")
    return template.render(
        page_model(groups, tables, title),
        styles=styles,
        scripts=scripts,
        style_hashes=_hashes(styles),
        script_hashes=_hashes(scripts),
    )


def page_model(
    groups: Sequence[Group], tables: Mapping[str, Sequence[Mapping[str, Any]]], title: str
) -> dict[str, Any]:
    """Everything that the page shows, as plain values."""
    prompts, samples, total = sample_lines(groups, MOST_SAMPLES)
    drawn, paths = sections(groups), frontiers(groups)
    for number, section in enumerate(drawn):
        section |= {"number": number, "id": section["title"].lower().replace(" ", "-")}
    listed = [
        _listed(run, label, number)
        for number, group in enumerate(groups)
        for run, label in zip(group.runs, group.labels, strict=True)
    ]
    going = sum(run["going"] for run in listed)
    names = [visible(group.name) for group in groups]
    return {
        "title": title,
        "version": version("rlgf"),
        "written": f"{datetime.now():%Y-%m-%d %H:%M}",
        "going": f"{going} of {len(listed)} runs have not finished: write the page again to see more."
        if going
        else "",
        "runs": listed,
        "measured": [m for m in WATCHED if any(run["totals"][m] is not None for run in listed)],
        "warnings": [
            (label, found.update, str(found))
            for group in groups
            for run, label in zip(group.runs, group.labels, strict=True)
            for found in Watch((run.config.get("guide") or {}).get("budget") or {}).look(run.metrics)
        ],
        "tables": {name: {"columns": _columns(rows), "rows": rows} for name, rows in tables.items()},
        "algorithms": _algorithms(groups),
        "groups": names,
        "frontiers": paths,
        "sections": drawn,
        "charts": {
            "groups": names,
            "runs": [visible(run["label"]) for run in listed],
            "sections": drawn,
            "frontiers": paths,
        },
        "prompt_blocks": packed(prompts),
        "sample_blocks": packed(samples),
        "samples_left_out": f"{len(samples):,} of {total:,} samples: of each run some updates are left out, evenly."
        if len(samples) < total
        else "",
        "no_samples": "There are no samples: these runs have no samples.jsonl, as runs of an earlier version, or with "
        "training.samples_kept at 0, have none."
        if listed
        else "There are no samples: summaries have none.",
    }


def _listed(run: Run, label: str, group: int) -> dict[str, Any]:
    """A run's line in the table."""
    last = {name: series[-1][1] for name in WATCHED if (series := run.series(f"validation/{name}"))}
    totals = run.totals if run.totals is not None else last
    guide = run.config.get("guide") or {}
    state = "finished" if run.totals is not None else f"{run.updates} of {run.planned} updates done"
    return {
        "label": label,
        "group": group,
        "state": state,
        "going": run.totals is None,
        "algorithm": _named(run.config.get("algorithm")),
        "task": _named(run.config.get("task")),
        "policy": _model(run.config.get("policy") or {}),
        "guide": _model(guide) if guide else "none",
        "reward": _named(run.config.get("reward")),
        "totals": {name: totals.get(name) for name in WATCHED},
        "seconds": run.seconds,
    }


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


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


# How the page is put together.


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "visible": lambda text: visible(str(text)),
        "number": _number,
        "cell": lambda value: _number(value) if is_number(value) else visible(str(value)),
        "embedded": lambda value: embedded(to_json(value)),
    }
    return environment


def embedded(json_text: str) -> Markup:
    """JSON for the inside of a script element: no text in it can end the element or begin a comment.

    The three characters stand in JSON within strings alone, where an escape means the same.
    """
    for sign in "<>&":
        json_text = json_text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(json_text)


def _number(value: Any) -> str:
    if not is_number(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _hashes(texts: Sequence[str]) -> Markup:
    """As a content security policy names what may stand in the page."""
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    return Markup(" ".join(f"'sha256-{digest}'" for digest in digests))
