"""The card beside a saved policy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from rlgf.config import Config
from rlgf.run.progress import Progress


def write_model_card(folder: Path, config: Config, totals: Mapping[str, float], progress: Progress) -> None:
    """Write ``README.md`` with what the policy was trained from, how, and what it measured."""
    data = ModelCardData(library_name="transformers", pipeline_tag="text-generation", tags=["rlgf"])
    scratch = "a small GPT from random weights" if config.policy.scratch else "a model given in Python"
    base = config.policy.model or scratch
    guide = config.guide.label if config.guide else "none"
    numbers = "\n".join(f"| {name.replace('_', ' ')} | {value:.4f} |" for name, value in totals.items())
    recipe = "\n".join("    " + line for line in config.to_yaml().splitlines())
    text = (
        f"---\n{data.to_yaml()}\n---\n\n# {config.name}\n\n"
        f"Trained with rlgf: algorithm `{config.algorithm.name}`, task `{config.task.name if config.task else 'given in Python'}`, from `{base}`, "
        f"guide `{guide}`, {progress.update} updates, {progress.policy_tokens:,} policy tokens.\n\n"
        "Load it with `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained`.\n\n"
        f"## Measured on the test split\n\n| metric | value |\n|---|---|\n{numbers}\n\n"
        f"## Recipe\n\n{recipe}\n"
    )
    ModelCard(text).save(folder / "README.md")
