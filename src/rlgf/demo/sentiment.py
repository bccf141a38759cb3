"""How positive a text is: a small transformer, trained here on film reviews and kept.

The encoder is MiniLM (all-MiniLM-L6-v2, Wang et al. 2020, arXiv 2002.10957), of which the first layers
are used: the reward is called at every update, so its time counts.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, validate_call
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from rlgf.cachedir import cached_folder
from rlgf.demo.imdb import Review, labelled_reviews, snippets
from rlgf.demo.models import minilm_folder
from rlgf.distributed import device
from rlgf.models.text import Codec
from rlgf.seeding import derive, seeded
from rlgf.types import padded

LAYERS = 3
"""Measured with 6400 snippets, on held-out snippets of 40 words: accuracy 0.776 with three layers, 0.756
with two, which take 0.7 of the time."""
SNIPPETS = 6400
_MAX_TOKENS = 128
_BATCH = 32
_HELD_OUT = 500
"""Reviews of the `reward` split that accuracy is measured on and that are not trained on."""


class Sentiment:
    """The probability that a text comes from a positive film review.

    By default it reads the completion alone. The prompt is real review text that the policy cannot
    change, and its mood mostly decides the probability of prompt and completion together: that would
    add noise to the reward and credit the policy with other people's words. The original IMDB
    task, in RL4LMs and TRIL, scores prompt and completion together; ``with_prompt=True`` does so too.

    A text over 128 tokens loses its beginning.
    """

    reads_text = True

    @validate_call
    def __init__(
        self,
        threshold: Annotated[float, Field(ge=0, lt=1)] | None = None,
        with_prompt: bool = False,
        snippets: Annotated[int, Field(ge=_BATCH)] = SNIPPETS,
        folder: Path | None = None,
    ) -> None:
        """
        Args:
            threshold: the reward becomes 1.0 where the probability is over it, else 0.0.
            with_prompt: read the prompt too.
            snippets: how many it is trained on, the first time.
            folder: what `train_sentiment` wrote. Default: trained at the first use, then kept.
        """
        folder = folder or load_or_train(snippets)
        self.threshold = threshold
        self.with_prompt = with_prompt
        self.report: dict[str, Any] = json.loads((folder / "report.json").read_text())
        self._tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
        self._classifier = _Classifier(AutoModel.from_pretrained(folder))
        self._classifier.head.load_state_dict(load_file(folder / "head.safetensors"))
        self._classifier.eval().to(device())

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """One number in [0, 1] a completion; see `Reward`."""
        texts = completions
        if self.with_prompt:
            texts = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
        probabilities = _probabilities(self._classifier, self._tokenizer, texts)
        if self.threshold is None:
            return probabilities
        return [float(probability > self.threshold) for probability in probabilities]


def load_or_train(count: int = SNIPPETS, layers: int = LAYERS) -> Path:
    """The folder of the trained classifier; trains it where it is not there yet."""
    name = f"sentiment-v1-layers{layers}-snippets{count}-seed0"
    return cached_folder(name, lambda folder: train_sentiment(folder, count, layers))


def train_sentiment(
    folder: Path, count: int = SNIPPETS, layers: int = LAYERS, seed: int = 0
) -> dict[str, Any]:
    """Train the classifier on snippets of the `reward` split and write it to a folder.

    The result depends on the arguments and the number of threads alone.

    Args:
        count: training snippets.
        layers: how many of the encoder's six layers to keep.

    Returns:
        Measured on reviews that were not trained on: accuracy and Brier score (mean squared
        error of the probability) on snippets of 30 to 110 words, accuracy on snippets of 40 words;
        and the training snippets, layers, seed and seconds.

    Raises:
        UserError: the encoder's package is not installed.
    """
    start = time.perf_counter()
    reviews = list(labelled_reviews("reward"))
    held_out, trained_on = reviews[:_HELD_OUT], reviews[_HELD_OUT:]
    examples = snippets(trained_on, -(-count // len(trained_on)), seed)
    random.Random(derive(seed, "sentiment", "examples")).shuffle(examples)
    with seeded(derive(seed, "sentiment", "weights")):
        classifier, tokenizer = _untrained(layers)
        _fit(classifier, tokenizer, examples[:count], seed)
    report: dict[str, Any] = {"snippets": count, "layers": layers, "seed": seed}
    report |= {"seconds": round(time.perf_counter() - start, 1)}
    for name, words in (("", (30, 110)), ("_40_words", (40, 40))):
        accuracy, brier = _measure(classifier, tokenizer, snippets(held_out, 2, seed, words))
        report |= {f"accuracy{name}": round(accuracy, 4), f"brier{name}": round(brier, 4)}
    classifier.encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_file(classifier.head.state_dict(), folder / "head.safetensors")
    (folder / "report.json").write_text(json.dumps(report, indent=1))
    return report


class _Classifier(torch.nn.Module):
    """An encoder, the mean over its tokens, and a linear layer."""

    def __init__(self, encoder: PreTrainedModel) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = torch.nn.Linear(encoder.config.hidden_size, 1)

    def forward(self, ids: Int[Tensor, "N L"], mask: Bool[Tensor, "N L"]) -> Float[Tensor, "N"]:
        """Logits of being positive."""
        states: Tensor = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        mean = (states * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        logits: Tensor = self.head(mean)
        return logits[:, 0]


def _untrained(layers: int) -> tuple[_Classifier, PreTrainedTokenizerBase]:
    package = minilm_folder()
    encoder = AutoModel.from_pretrained(package)
    encoder.encoder.layer = encoder.encoder.layer[:layers]
    encoder.config.num_hidden_layers = layers
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # costs a quarter of the time; few snippets are seen twice
    return _Classifier(encoder), AutoTokenizer.from_pretrained(package)


def _fit(
    classifier: _Classifier, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Review], seed: int
) -> None:
    ids = _tokenized(tokenizer, [text for text, _ in examples])
    labels = torch.tensor([float(label == "positive") for _, label in examples])
    batches = list(_batches(ids))
    random.Random(derive(seed, "sentiment", "batches")).shuffle(batches)
    embeddings = list(classifier.encoder.get_input_embeddings().parameters())
    head = list(classifier.head.parameters())
    apart = {id(parameter) for parameter in embeddings + head}
    body = [parameter for parameter in classifier.parameters() if id(parameter) not in apart]
    rates = [2e-4, 1e-3, 1e-3]
    optimizer = torch.optim.AdamW(
        [{"params": p, "lr": rate} for p, rate in zip((body, embeddings, head), rates, strict=True)],
        weight_decay=0.01,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rates, total_steps=max(2, len(batches)), pct_start=0.1
    )
    classifier.train().to(device())
    for rows in track(batches, description="Training the sentiment classifier"):
        logits = classifier(*_padded([ids[row] for row in rows]))
        target = labels[rows].to(logits.device)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    classifier.eval()


def _measure(
    classifier: _Classifier, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Review]
) -> tuple[float, float]:
    """Accuracy and Brier score."""
    found = torch.tensor(_probabilities(classifier, tokenizer, [text for text, _ in examples]))
    labels = torch.tensor([float(label == "positive") for _, label in examples])
    right = (found > 0.5) == (labels > 0.5)
    return right.float().mean().item(), (found - labels).square().mean().item()


@torch.no_grad()
def _probabilities(
    classifier: _Classifier, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> list[float]:
    ids = _tokenized(tokenizer, texts)
    found = [0.0] * len(ids)
    for rows in _batches(ids):
        probabilities = classifier(*_padded([ids[row] for row in rows])).sigmoid().tolist()
        for row, probability in zip(rows, probabilities, strict=True):
            found[row] = probability
    return found


def _tokenized(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    # The end of a long text is the policy's latest writing, so the beginning is what goes.
    codec = Codec(tokenizer)
    return [codec.surround(codec.encode(text), _MAX_TOKENS, ends=True) for text in texts]


def _batches(ids: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Row numbers, texts of like length together so that padding costs little."""
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    for start in range(0, len(order), _BATCH):
        yield order[start : start + _BATCH]


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "N L"], Bool[Tensor, "N L"]]:
    ids, mask = padded(rows, 0)
    return ids.to(device()), mask.to(device())
