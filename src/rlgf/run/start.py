"""What a saved policy was trained from: KL is measured against it, long after the run too."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlgf.config import Config
from rlgf.errors import UserError
from rlgf.models.language_model import LanguageModel
from rlgf.models.loading import ModelConfig, load_language_model
from rlgf.models.scratch import ScratchConfig
from rlgf.types import Sample

_FILE = "rlgf.json"
_REMEDY = "name the model that KL is to be measured against as 'evaluation.reference.model'"


def write_start(folder: Path, policy: Mapping[str, Any]) -> None:
    """Write beside a policy what its run started from, as the section ``policy`` of its recipe says it."""
    start = {key: policy.get(key) for key in ("model", "scratch", "revision", "quantization")}
    model = start["model"]
    # Where a whole tree of runs is moved, the way from one to the other stays.
    near = os.path.relpath(model, folder) if model is not None and Path(model).is_dir() else None
    (folder / _FILE).write_text(json.dumps({"start": start, "relative": near}, indent=1))


def carry_start(source: str, folder: Path) -> None:
    """Copy what `write_start` wrote, where there is such a file."""
    if (Path(source) / _FILE).is_file():
        shutil.copyfile(Path(source) / _FILE, folder / _FILE)


def load_start(config: Config, train: Sequence[Sample]) -> LanguageModel | None:
    """The model that the run of the recipe's policy started from; None where no run is known.

    One from scratch trained its tokenizer on ``train``.

    Raises:
        UserError: it is not where it was, or its note cannot be read.
    """
    model = config.policy.model
    if model is None or not (Path(model) / _FILE).is_file():
        return None
    start, near = _read(Path(model) / _FILE)
    if start["scratch"] is not None:
        return load_language_model(ScratchConfig.model_validate(start["scratch"]), scratch_texts(train))
    if start["model"] is None:
        raise UserError(f"the policy {model} was trained from a model that was given in Python: {_REMEDY}.")
    name = str(start["model"])
    if near is not None:
        places = [Path(model) / near, Path(name)]
        name = next((os.path.normpath(place) for place in places if place.is_dir()), "")
        if not name:
            raise UserError(
                f"the policy {model} was trained from '{start['model']}', which is there no more, and its KL is "
                f"measured against that: put it back, or {_REMEDY}."
            )
    found = ModelConfig(
        model=name,
        revision=start["revision"],
        quantization=start["quantization"],
        # A file beside weights from elsewhere may not say whose code is run.
        trust_remote_code=config.policy.trust_remote_code,
        dtype="float32",
    )
    try:
        return load_language_model(found)
    except UserError as error:
        reason = str(error).rstrip(".")
        raise UserError(
            f"the start of the policy {model} is to be compared with: {reason}; or {_REMEDY}."
        ) from error


def trained_policy(config: Config) -> Path | None:
    """The policy that the recipe's own run has saved, where the recipe still names what that run began with."""
    saved, model = config.folder / "policy", config.policy.model
    names_a_saved_one = model is not None and (Path(model) / _FILE).is_file()
    return saved if (saved / _FILE).is_file() and not names_a_saved_one else None


def check_comparable(policy: LanguageModel, reference: LanguageModel) -> None:
    """
    Raises:
        UserError: the two do not write with the same tokens.
    """
    if policy.tokenizer.get_vocab() != reference.tokenizer.get_vocab():
        raise UserError(
            "the policy's KL cannot be measured against its start "
            f"'{reference.model.name_or_path or 'from scratch'}': their tokenizers differ; {_REMEDY}."
        )


def scratch_texts(train: Sequence[Sample]) -> list[str]:
    """What a model from scratch trains its tokenizer on."""
    return [sample.prompt + "".join(sample.references[:1]) for sample in train]


def _read(file: Path) -> tuple[dict[str, Any], str | None]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        start, near = found["start"], found["relative"]
        ScratchConfig.model_validate(start["scratch"] or {})
        ModelConfig(
            model=start["model"] or "", revision=start["revision"], quantization=start["quantization"]
        )
        return start, near
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file} does not say what the policy beside it was trained from ({type(error).__name__}): {_REMEDY}, or "
            "delete the file to measure against the policy itself."
        ) from error
