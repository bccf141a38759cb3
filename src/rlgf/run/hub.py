"""A trained policy on the Hugging Face hub, and the card beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, ModelCardData, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from transformers import PreTrainedModel

from rlgf.config import Config
from rlgf.errors import UserError
from rlgf.evaluation.files import Evaluation
from rlgf.evaluation.statistics import interval
from rlgf.models.loading import auto_class
from rlgf.models.lora import layers
from rlgf.run.progress import Progress
from rlgf.terminal import number, printable

NAME = re.compile(r"[\w.-]+/[\w.-]+")
"""Of a repository of the hub."""
_MARKS = ("config.json", "adapter_config.json")
"""Of a folder with a model or an adapter in it."""
# The HTTP client of huggingface_hub is another package from version to version; all its errors have one ancestor.
_NOT_REACHED: tuple[type[Exception], ...] = (
    OSError,
    *(
        kind
        for kind in HfHubHTTPError.__mro__
        if issubclass(kind, Exception) and kind.__name__ == "HTTPError"
    ),
)


def push_to_hub(run: str | Path, to: str, *, private: bool = True) -> str:
    """Upload the policy of a finished run, with its model card, as a repository of the Hugging Face hub.

    Args:
        run: the output folder of a run, or a folder with a policy in it.
        to: the repository, ``owner/name``; it is made where it is not there yet.
        private: whether it is for its owner alone. A repository that is public already is then refused, and nothing
            is uploaded; one that is private stays so whatever is said here.

    Returns:
        The address of the repository.

    Raises:
        UserError: there is no trained policy, no token or no network, or the hub refuses.
    """
    folder = _policy_of(Path(run))
    if not NAME.fullmatch(to):
        raise UserError(f"'{to}' is no name of a repository: give owner/name.")
    if get_token() is None:
        raise UserError(
            "there is no token for the Hugging Face hub: run `hf auth login`, or set HF_TOKEN to a token that may write."
        )
    with _told(to):
        api = HfApi(library_name="rlgf")
        address = str(api.create_repo(to, private=private, exist_ok=True))
        if private and not api.repo_info(to).private:
            raise UserError(
                f"{to} is public already, and anybody can read an upload there: say --public, or name another."
            )
        api.upload_folder(repo_id=to, folder_path=folder, commit_message="Upload the policy of a run of rlgf")
    return address


def _policy_of(run: Path) -> Path:
    if (run / "policy").is_dir() and (run / "checkpoints").is_dir() and not (run / "summary.json").is_file():
        raise UserError(
            f"{run} goes on from an earlier end, and its policy is still the one of then: finish it with --resume, or "
            f"give {run / 'policy'} to push that one."
        )
    for folder in (run / "policy", run):
        if any((folder / mark).is_file() for mark in _MARKS):
            return folder
    raise UserError(
        f"{run} holds no trained policy: give the output folder of a run that has finished, such as runs/NAME, or a "
        "folder that a policy was saved in."
    )


@contextmanager
def _told(to: str) -> Iterator[None]:
    """What the hub or the way to it refuses, as one sentence."""
    try:
        yield
    except HFValidationError as error:
        raise UserError(f"'{to}' is no name that the hub takes: {error}") from error
    except OfflineModeIsEnabled as error:
        raise UserError("HF_HUB_OFFLINE is set, so nothing can be uploaded: unset it.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        said = (error.server_message or error.response.reason_phrase).rstrip(".")
        remedy = (
            f"use a token that may write to {to.split('/')[0]}"
            if status in (401, 403, 404)
            else "try again later"
        )
        raise UserError(f"the Hugging Face hub refuses {to} ({status}: {said}): {remedy}.") from error
    except _NOT_REACHED as error:
        raise UserError(
            f"{constants.ENDPOINT} cannot be reached ({type(error).__name__}: {error}): is there a network? To use "
            "a mirror, set HF_ENDPOINT."
        ) from error


_PAPER = "2306.11816"


def write_model_card(
    folder: Path,
    config: Config,
    evaluation: Evaluation,
    progress: Progress,
    guide: Mapping[str, float],
    *,
    model: PreTrainedModel,
    given: Mapping[str, str] | None = None,
) -> None:
    """Write ``README.md``, of a test evaluation, what Python gave (`Parts.given`), what a remote guide was asked in all
    (`GuideUsage.summary`; empty for any other), beside the files of a policy."""
    kind = _class_name(model)
    task = "text2text-generation" if "Seq2Seq" in kind else "text-generation"
    tags = ["rlgf", "reinforcement-learning", "guided-feedback", f"arxiv:{_PAPER}"]
    known: dict[str, Any] = {"base_model": config.policy.model} if _on_hub(config.policy.model) else {}
    library = "transformers" if config.policy.lora is None else "peft"
    data = ModelCardData(library_name=library, pipeline_tag=task, tags=tags, **known)
    recipe = "\n".join("    " + line for line in config.to_yaml().splitlines())
    given = given or {}
    test = given.get("test", "test")
    measured = "the test split" if test == "test" else f"'{test}', since no test split was given"
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {_plain(config.name)}",
        "Trained with reinforcement learning with guided feedback "
        f"([arXiv {_PAPER}](https://arxiv.org/abs/{_PAPER})) by [rlgf](https://github.com/rlgf/rlgf).",
        _table(("", ""), _training(config, progress, guide, given)),
        f"## Load it\n\n{_loading(kind, layers(model), adapter=config.policy.lora is not None)}",
        f"## Measured on {measured}\n\n{_measured(evaluation)}",
        f"## Recipe\n\n{recipe}",
    ]
    ModelCard("\n\n".join(parts) + "\n").save(folder / "README.md")


def carry_card(adapter: str, folder: Path, model: PreTrainedModel) -> None:
    """Write the card of an adapter, where `write_model_card` wrote one, beside the whole model that it was merged into."""
    source = Path(adapter) / "README.md"
    card = source.read_text(encoding="utf-8") if source.is_file() else ""
    before, mark, rest = card.partition("## Load it\n\n```python\n")
    if mark and "\n- rlgf\n" in before:
        before = before.replace("library_name: peft", "library_name: transformers", 1)
        code = _loading(_class_name(model), (), adapter=False)
        card = f"{before}## Load it\n\n{code}{rest.partition('```')[2]}"
        (folder / "README.md").write_text(card, encoding="utf-8")


def _training(
    config: Config, progress: Progress, guide: Mapping[str, float], given: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    def source(section: str, named: str) -> str:
        return f"given in Python: {_code(given[section])}" if section in given else _code(named)

    scratch = "a small model from random weights" if config.policy.scratch else "a model given in Python"
    yield "from", _code(config.policy.model or scratch)
    if config.policy.lora is not None:
        yield "adapter", f"LoRA, r {config.policy.lora.r}, alpha {config.policy.lora.alpha}"
    guided = "guide" in given or config.guide is not None
    yield "guide", source("guide", config.guide.label if config.guide else "") if guided else "none"
    if guide.get("calls"):
        tokens = guide["prompt_tokens"] + guide["completion_tokens"]
        yield (
            "asked of the guide",
            f"{guide['calls']:,.0f} answers, {tokens:,.0f} tokens, cost {number(guide['cost'])}",
        )
    yield "task", source("task", config.task.name if config.task else "")
    if "reward" in given or config.reward is not None:
        reward = config.reward
        yield "reward", source("reward", (reward.name or ", ".join(reward.terms or {})) if reward else "")
    yield "algorithm", f"{_code(config.algorithm.name)}: {config.algorithm.summary}"
    yield (
        "training",
        f"{progress.update:,} updates, {progress.policy_tokens:,} tokens by the policy, seed {config.seed}",
    )


def _class_name(model: PreTrainedModel) -> str:
    """The class that loads it, which a model that was given in Python need not have."""
    return getattr(auto_class(model.config), "__name__", "AutoModelForCausalLM")


def _loading(kind: str, below: Sequence[str], *, adapter: bool) -> str:
    imports = [f"from transformers import {kind}"]
    model = [f"model = {kind}.from_pretrained(name)"]
    if adapter and below:
        # Of an adapter over an adapter `peft` by itself loads the last one, and leaves out those below it.
        imports = ["from peft import PeftModel", *imports]
        model = [
            f"model = {kind}.from_pretrained({below[0]!r})",
            f"for adapter in ({', '.join(map(repr, below[1:]))}, name):  # each lies over those before it",
            "    model = PeftModel.from_pretrained(model, adapter).merge_and_unload()",
        ]
    elif adapter and kind == "AutoModelForImageTextToText":
        # `peft` has no class of its own for these.
        imports = ["from peft import PeftConfig, PeftModel", *imports]
        model = [
            "base = PeftConfig.from_pretrained(name).base_model_name_or_path",
            f"model = PeftModel.from_pretrained({kind}.from_pretrained(base), name)",
        ]
    elif adapter:
        kind = kind.replace("Auto", "AutoPeft")
        imports, model = [f"from peft import {kind}"], [f"model = {kind}.from_pretrained(name)"]
    lines = [
        *imports,
        "from transformers import AutoTokenizer",
        "",
        'name = "."  # this folder, or its name on the hub',
        *model,
        "tokenizer = AutoTokenizer.from_pretrained(name)",
    ]
    return "```python\n" + "\n".join(lines) + "\n```"


def _measured(evaluation: Evaluation) -> str:
    """Each total, with the 95% interval of a mean over prompts where the metric has a value for each text."""
    rows = []
    for name, total in evaluation.totals.items():
        values = [float(v) for record in evaluation.records if isinstance(v := record.get(name), int | float)]
        found = interval(values) if len(values) > 1 else None
        # Of a total that is no mean of its values, such as a perplexity of all texts, no interval is known.
        known = found is not None and abs(found.mean - total) <= 1e-6 * max(1.0, abs(total))
        spread = f"± {found.half_width:.4f}" if known and found is not None else ""
        rows.append((name.replace("_", " "), f"{total:.4f}", spread))
    count = len(evaluation.records)
    note = f"Of {count:,} prompts, one text each; the interval is Student's over prompts, 95%, and says nothing of other seeds."
    return f"{_table(('metric', 'value', 'interval'), rows)}\n\n{note}"


def _table(header: tuple[str, ...], rows: Any) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _code(name: str) -> str:
    return f"`{_plain(name)}`"


def _plain(name: str) -> str:
    """A name in a table: it ends neither its cell nor its line nor its code."""
    return printable(name.replace("|", "/").replace("`", "'"))


def _on_hub(name: str | None) -> bool:
    """Whether a model's name may be one on the hub; the card of a folder on a disk would be refused there."""
    return name is not None and NAME.fullmatch(name) is not None and not Path(name).exists()
