"""Training a reward model from preferences or labels, as a recipe says."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from rich.progress import track
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlgf import distributed, seeding
from rlgf.chat import ChatTemplate
from rlgf.errors import UserError
from rlgf.jsontext import to_json
from rlgf.models.lora import LoRAConfig, check_installed
from rlgf.outputs import require_no_model
from rlgf.recipe import laid_over, read_source, validated
from rlgf.reward_models.calibration import expected_calibration_error, reliability, save_reliability
from rlgf.reward_models.data import ExamplesConfig, Label, Labelled, Pair, Text
from rlgf.reward_models.notes import Kind, Notes
from rlgf.reward_models.scorer import Scorer, load_scorer, load_tokenizer
from rlgf.strict import Strict
from rlgf.types import Messages

_MAX_GRADIENT_NORM = 1.0


class RewardModelConfig(Strict):
    """A recipe of `rlgf reward`."""

    kind: Kind
    output: Path
    """The folder for the model, its report and its reliability plot."""
    data: ExamplesConfig
    positive: Label | None = None
    """The label whose probability a classifier gives."""
    model: str = "minilm"
    """An encoder or a causal model: a packaged name, a hub name or a folder."""
    layers: int | None = Field(default=None, ge=1)
    """How many of its first layers to keep; default: all."""
    lora: LoRAConfig | None = None
    """Train an adapter alone; `rlgf merge` makes a whole model of it."""
    max_tokens: int = Field(default=128, ge=1)
    """A longer text loses its beginning."""
    epochs: int = Field(default=1, ge=1)
    minibatch: int = Field(default=32, ge=1)
    """Pairs or texts an optimizer step."""
    learning_rate: float = Field(default=2e-4, gt=0)
    seed: int = 0

    @model_validator(mode="after")
    def _coherent(self) -> RewardModelConfig:
        if (self.positive is None) == (self.kind == "classifier"):
            raise ValueError(
                "'positive' names the label that a classifier looks for: set it where 'kind' is 'classifier', "
                "and only there"
            )
        return self


def load_reward_recipe(*sources: str | Path | Mapping[str, Any]) -> RewardModelConfig:
    """A reward model's recipe from YAML files, names of packaged ones and overrides, later ones over earlier ones.

    Raises:
        UserError: a recipe that is not there or is no YAML; a key or a value that does not fit.
    """
    merged: dict[str, Any] = {}
    for source in sources:
        merged = laid_over(merged, read_source(source, "rewards"))
    return validated(RewardModelConfig, merged)


def train_reward_model(config: RewardModelConfig) -> dict[str, Any]:
    """Train a reward model, and write it with what it measured to the recipe's folder.

    A preference model minimizes ``-log sigmoid(r(x, chosen) - r(x, rejected))`` (Bradley and Terry, 1952;
    Ouyang et al., arXiv 2203.02155, equation 1), a classifier the binary cross-entropy of having the label
    ``positive``. The result depends on the recipe, the data and the number of threads alone.

    Returns:
        What ``report.json`` holds: accuracy and expected calibration error on the held-out rows, their number
        and that of the training rows, and the seconds that training took.

    Raises:
        UserError: data, a model or the package for LoRA is not there or does not fit, the folder cannot be written
            or holds a model already, a launcher has started several processes, or a loss, a gradient or a score is not finite.
    """
    distributed.require_one("the training of a reward model")
    require_no_model(config.output, "'output'")
    if config.lora is not None:
        check_installed("'lora'")
    train, held_out = _examples(config, "train"), _examples(config, "validation")
    start = time.perf_counter()
    with seeding.seeded(seeding.derive(config.seed, "reward model")):
        scorer = load_scorer(config.model, config.max_tokens, config.layers)
        if config.lora is not None:
            scorer = replace(scorer, model=_adapted(scorer.model, config.lora))
        _fit(scorer, train, config)
    centre = float(scorer.scores(*_texts(train)).mean()) if config.kind == "preference" else 0.0
    seconds = time.perf_counter() - start
    probabilities, labels = _predictions(scorer, held_out)
    if not bool(probabilities.isfinite().all()):
        raise UserError(
            f"the trained {config.kind} model gives scores that are not finite: lower 'learning_rate' (it is "
            f"{config.learning_rate:g}); nothing was saved."
        )
    bins = reliability(probabilities, labels)
    report = {
        "kind": config.kind,
        "model": config.model,
        "train": len(train),
        "held_out": len(held_out),
        "accuracy": round(float(((probabilities > 0.5) == labels).float().mean()), 4),
        "calibration_error": round(expected_calibration_error(bins), 4),
        "seconds": round(seconds, 1),
    }
    config.output.mkdir(parents=True, exist_ok=True)
    layers = None if config.lora is None else config.layers
    notes = Notes(kind=config.kind, max_tokens=config.max_tokens, layers=layers, centre=centre)
    scorer.save(config.output, notes)
    save_reliability(config.output / "reliability.png", bins, f"{len(held_out)} held-out rows")
    (config.output / "report.json").write_text(to_json(report, indent=1))
    return report


def _examples(config: RewardModelConfig, split: str) -> Sequence[Pair | Labelled]:
    if config.positive is not None:
        return config.data.labelled(split, config.positive)
    found = config.data.pairs(split)
    _require_rendered(found, split, config)
    return found


def _require_rendered(pairs: Sequence[Pair], split: str, config: RewardModelConfig) -> None:
    """Make sure that the model's chat template takes all chats.

    Raises:
        UserError: names the row that it refuses.
    """
    chats = [(row, pair.chosen) for row, pair in enumerate(pairs) if not isinstance(pair.chosen.prompt, str)]
    if not chats:
        return
    template = ChatTemplate(load_tokenizer(config.model), f"model '{config.model}'", "choose another 'model'")
    rows = config.data.rows(split)
    for row, (prompt, completion) in chats if template.there else ():
        assert not isinstance(prompt, str), "chosen so above"
        # The rejected side has the same roles.
        template.conversation(prompt, completion, rows.place(row))


def _texts(examples: Sequence[Pair | Labelled]) -> tuple[list[str | Messages], list[str]]:
    """Prompts and completions: the chosen and the rejected one in turn, or the labelled texts."""
    sides = ([Text("", e.text)] if isinstance(e, Labelled) else [e.chosen, e.rejected] for e in examples)
    texts = [text for of_one in sides for text in of_one]
    return [text.prompt for text in texts], [text.completion for text in texts]


def _adapted(model: PreTrainedModel, lora: LoRAConfig) -> Any:
    """The model with an adapter, which is then all of it that is trained beside the head."""
    import peft

    # All that the base's files may lack, and which is then drawn at random, is saved beside the adapter.
    head = {name for name, part in model.named_children() if any(True for _ in part.parameters())}
    poolers = {"pooler" for name, _ in model.named_modules() if name.endswith("pooler")}
    config = peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        target_modules=lora.layers,
        task_type="SEQ_CLS",
        modules_to_save=sorted(head - {model.base_model_prefix} | poolers),
    )
    with warnings.catch_warnings():
        # What peft asks of transformers by an old name, and the layout of GPT-2's weights, which it finds out.
        warnings.simplefilter("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")
        return peft.get_peft_model(model, config).eval()


def _fit(scorer: Scorer, examples: Sequence[Pair | Labelled], config: RewardModelConfig) -> None:
    ids = scorer.encode(*_texts(examples))
    sides = len(ids) // len(examples)
    rows = [ids[i * sides : (i + 1) * sides] for i in range(len(examples))]
    _tell_of_cut(rows, config)
    batches = [batch for epoch in range(config.epochs) for batch in _batches(rows, config, epoch)]
    trained = [parameter for parameter in scorer.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=max(2, len(batches)), pct_start=0.1
    )
    for batch in track(batches, description=f"Training the {config.kind} model"):
        logits = scorer.logits([side for row in batch for side in rows[row]]).view(len(batch), sides)
        if config.kind == "preference":
            loss = -nn.functional.logsigmoid(logits[:, 0] - logits[:, 1]).mean()
        else:
            labels = torch.tensor([float(bool(examples[row][1])) for row in batch], device=logits.device)
            loss = nn.functional.binary_cross_entropy_with_logits(logits[:, 0], labels)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(trained, _MAX_GRADIENT_NORM)
        if not bool(torch.isfinite(loss + norm)):
            raise UserError(
                f"the training of the {config.kind} model has left the finite numbers (loss {loss.item()}, gradient "
                f"{norm.item()}): lower 'learning_rate' (it is {config.learning_rate:g}); nothing was saved."
            )
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def _tell_of_cut(rows: Sequence[Sequence[Sequence[int]]], config: RewardModelConfig) -> None:
    """Warn of texts that lose their beginning where nobody chose so, and of pairs of which nothing is left to learn."""
    cut = sum(len(side) >= config.max_tokens for row in rows for side in row)
    if cut and "max_tokens" not in config.model_fields_set:
        warnings.warn(
            f"{cut:,} of the {sum(map(len, rows)):,} texts to learn from have {config.max_tokens} tokens or more, and of "
            "those with more the beginning is left out: set 'max_tokens'.",
            stacklevel=2,
        )
    alike = sum(row[0] == row[-1] for row in rows) if config.kind == "preference" else 0
    if alike:
        warnings.warn(
            f"{alike:,} of the {len(rows):,} pairs to learn from read the same on both sides, with 'max_tokens' "
            f"{config.max_tokens}, and teach nothing: raise it, or drop them.",
            stacklevel=2,
        )


def _batches(
    rows: Sequence[Sequence[Sequence[int]]], config: RewardModelConfig, epoch: int
) -> Iterator[list[int]]:
    """One pass in a random order, rows of like length together so that padding costs little."""
    draw = seeding.generator(config.seed, "reward model", epoch)
    tied = torch.randperm(len(rows), generator=draw).tolist()
    order = sorted(tied, key=lambda row: max(map(len, rows[row])))
    batches = [order[i : i + config.minibatch] for i in range(0, len(order), config.minibatch)]
    for number in torch.randperm(len(batches), generator=draw).tolist():
        yield batches[number]


def _predictions(
    scorer: Scorer, examples: Sequence[Pair | Labelled]
) -> tuple[Float[Tensor, "N"], Bool[Tensor, "N"]]:
    """The probability that the chosen text wins or that the label is there, and the truth."""
    scores = scorer.scores(*_texts(examples)).view(len(examples), -1)
    if scores.shape[1] == 2:
        return (scores[:, 0] - scores[:, 1]).sigmoid(), torch.ones(len(examples), dtype=torch.bool)
    return scores[:, 0].sigmoid(), torch.tensor([bool(example[1]) for example in examples])
