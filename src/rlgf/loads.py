"""Loading what a user names: whatever goes wrong becomes one sentence with its true cause."""

from __future__ import annotations

import json
import logging
import os
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open

from rlgf.errors import UserError, not_expanded
from rlgf.packaged import recipe_that_writes

_WEIGHTS = (".safetensors", ".bin", ".gguf", ".h5", ".msgpack")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json")
_MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "adapter_config.json",
    "model.safetensors",
    "adapter_model.safetensors",
)


@contextmanager
def loading(what: str, where: str | Path, remedy: str = "") -> Iterator[None]:
    """Let a library load files of the user's; its failure is looked into and told in one sentence.

    What libraries say of damaged files hides the cause more often than not, so a folder's files are looked at
    one by one before the library's own words are given. Its warnings on the way are left out.

    Args:
        what: how a message calls it, such as "model 'gpt2'".
        where: the folder, file or hub name that is read.
        remedy: what a message ends in where there is nothing of that name, such as "give a folder".

    Raises:
        UserError: the block failed.
    """
    try:
        with _quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # libraries raise whatever their parsers and their readers do
        cause = _cause(str(where), error, f"; {remedy}" if remedy else "").rstrip(".")
        raise UserError(f"{what} cannot be loaded: {cause}.") from error


def damage(folder: Path) -> str | None:
    """The faults of the files of a folder that a model, tokenizer or adapter is read from."""
    for file in sorted(folder.iterdir()):
        found = file_damage(file)
        if found is not None:
            return found
    return None


def lacks_tokenizer(where: Path) -> bool:
    """Whether it is a folder with a model's files and none of a tokenizer's, for which the library makes one up."""
    if not (where / "config.json").is_file():
        return False
    names = [file.name for file in where.iterdir()]
    return not any("token" in name or "vocab" in name or name.endswith(".model") for name in names)


def plain(error: BaseException) -> str:
    """A library's own words on one line, not more than a few of them."""
    words = " ".join(str(error).split())
    name = type(error).__name__
    return f"{name}: {words[:300]}" if words else name


def _cause(where: str, error: Exception, remedy: str) -> str:
    path = Path(where)
    if path.is_dir():
        return damage(path) or _missing(path) or _told(path, error)
    if path.exists():
        return file_damage(path) or f"{path} is a file, and a folder is needed"
    if where.startswith((".", "/", "~")) or where.count("/") > 1:
        maker = recipe_that_writes(where)
        return f"there is no folder {where}{f'; `rlgf train {maker}` makes it' if maker else not_expanded(where) or remedy}"
    told = _told(path, error)
    if not isinstance(error, OSError) or "trust_remote_code" in str(error):
        return told
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return f"there is no folder {where}, and the hub was not asked, since HF_HUB_OFFLINE is set{remedy}"
    return f"there is no folder {where}, and the hub did not give it ({told}){remedy}"


def file_damage(file: Path) -> str | None:
    """The fault of a file by itself; None where there is none, or where there is no such file."""
    if file.is_dir():
        return (
            f"{file} is a folder, and a file is needed"
            if file.name in (*_MODEL_FILES, *_TOKENIZERS)
            else None
        )
    if file.suffix not in (".json", ".model", *_WEIGHTS):
        return None
    if not file.exists() and not file.is_symlink():
        return None
    if not file.exists():
        return f"{file} is a link to nothing: the file itself was not downloaded"
    try:
        with file.open("rb") as opened:
            head = opened.read(64)
    except OSError as error:
        return f"{file} cannot be read: {error.strerror}"
    if not head:
        return f"{file} is empty"
    if head.startswith(b"version https://git-lfs"):
        return f"{file} is a pointer of Git LFS, and the file itself was not downloaded: run `git lfs pull`"
    if file.suffix == ".json":
        return _json_damage(file)
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt"):
                pass
        elif file.suffix == ".bin" and head.startswith(b"PK") and not zipfile.is_zipfile(file):
            return f"{file} is torn: it ends before its last part"
    except (SafetensorError, OSError) as error:
        return f"{file} is torn or no safetensors file ({plain(error)})"
    return None


def _json_damage(file: Path) -> str | None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        return f"{file} is not valid JSON ({plain(error)})"
    if not isinstance(found, dict) and file.name not in ("vocab.json", "report.json"):
        return f"{file} must hold a JSON object, and it holds a {type(found).__name__}"
    if file.name.endswith(".index.json") and isinstance(found.get("weight_map"), Mapping):
        for shard in sorted(set(map(str, found["weight_map"].values()))):
            if not (file.parent / shard).is_file():
                return f"{file} names {shard}, which is missing"
    return None


def _missing(folder: Path) -> str | None:
    there = {file.name for file in folder.iterdir()}
    inside = folder / "policy"
    if not there & {"config.json", "adapter_config.json"}:
        hint = f": the policy of a run is {inside}" if inside.is_dir() else ""
        return f"{folder} has no config.json{hint}"
    if not any(name.endswith(_WEIGHTS) for name in there):
        return f"{folder} has no weights, such as model.safetensors"
    return None


def _told(where: Path, error: Exception) -> str:
    """What the library's error means, where that is known; else its own words."""
    text = str(error)
    config = _config(where)
    if "trust_remote_code" in text:
        return (
            "it needs code of its own, which is run where 'trust_remote_code: true' is set and nowhere else"
        )
    unknown = "model type" in text or "Unrecognized model" in text or "Unrecognized configuration" in text
    if unknown:
        kind = config.get("model_type")
        version = f"this version of transformers ({transformers.__version__})"
        return (
            f"its config.json names no architecture ('model_type') that {version} knows"
            if kind is None
            else f"its architecture '{kind}' is none that {version} knows, or none that is asked for here"
        )
    if "ignore_mismatched_sizes" in text:
        return f"its weights have other shapes than {where / 'config.json'} says: the files do not belong together"
    if "size mismatch" in text:
        return f"its weights have other shapes than what they are loaded into ({plain(error)})"
    if where.is_dir() and "tokenizer" in text.lower() and not any((where / n).is_file() for n in _TOKENIZERS):
        return f"{where} has no tokenizer, such as tokenizer.json"
    if config and not isinstance(error, OSError):
        return f"{where / 'config.json'} or another file there does not fit ({plain(error)})"
    return plain(error)


def _config(where: Path) -> dict[str, Any]:
    try:
        found = json.loads((where / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what libraries log while they load: reports of heads that are new, advice for other programs."""
    names = ("transformers", "peft", "huggingface_hub")
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
