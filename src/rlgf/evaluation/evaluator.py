"""What an author writes for held-out prompts, and every metric of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch
from jaxtyping import Float
from pydantic import Field, PlainSerializer, field_validator
from torch import Tensor
from transformers import TrainerState

from rlgf import distributed
from rlgf.chat import ChatTemplate
from rlgf.errors import UserError
from rlgf.evaluation.files import Evaluation, summarize
from rlgf.metrics import TEXT_METRICS, Metric, MetricResult, measure
from rlgf.metrics.base import check_samples
from rlgf.models import sharding
from rlgf.models.language_model import LanguageModel
from rlgf.models.loading import ModelConfig
from rlgf.models.response_scores import score_logprobs, text_scores
from rlgf.models.samplers import BeamSampler, bring_weights
from rlgf.objectives.losses import kl_estimate
from rlgf.rewards import Reward, RewardInput, score
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.rollout.writers import prompt_tokens, splice
from rlgf.strict import NamedConfig, Strict
from rlgf.types import Author, Completion, Rollout, Sample


def _short(named: NamedConfig) -> NamedConfig | str:
    return named if named.options else named.name


_Judge = Annotated[NamedConfig, PlainSerializer(_short)]
"""Written by its name where it has no options, as the finished runs of a comparison are known by."""


class EvaluationConfig(Strict):
    """The measures, on how many prompts, and how often."""

    samples: int = Field(default=256, ge=1)
    """Prompts of the validation split while training."""
    test_samples: int = Field(default=512, ge=1)
    """Prompts of the test split at the end."""
    every: int = Field(default=5, ge=1)
    """Updates between evaluations."""
    beams: int | None = Field(default=None, ge=1)
    """The policy also answers each prompt with the best text of a beam search with so many beams, with 1 by greedy
    decoding. What those texts score is reported as ``beam/reward`` or ``greedy/reward``, and so on."""
    judge: _Judge | None = None
    """A second scorer that no training sees: a reward's name, or ``{name: ..., options: {...}}``. It shows reward
    hacking."""
    language_model: ModelConfig | None = None
    """The frozen model whose perplexity of the outputs is reported; default: the policy's start."""
    reference: ModelConfig | None = None
    """The model that KL is measured against; default: the one that the policy's run started from."""
    metrics: tuple[NamedConfig, ...] = tuple(NamedConfig(name=name) for name in TEXT_METRICS)
    """Names of metrics, or ``{name: ..., options: {...}}``; see docs/metrics.md."""

    @field_validator("metrics", mode="before")
    @classmethod
    def _listed(cls, metrics: Any) -> Any:
        if not isinstance(metrics, list | tuple):
            raise ValueError("it must be a list of names, such as [distinct, words]")
        return metrics


@dataclass
class Evaluator:
    """Measures the policy, its guide or the data set's own texts in the same way."""

    collector: Collector
    reference: LanguageModel
    language_model: LanguageModel
    reward: Reward | None
    judge: Reward | None
    metrics: Mapping[str, Metric] = field(default_factory=lambda: TEXT_METRICS)
    trainer_state: TrainerState = field(default_factory=TrainerState)
    beams: int | None = None
    """See `EvaluationConfig.beams`."""

    def __post_init__(self) -> None:
        """
        Raises:
            UserError: the policy's model cannot search.
        """
        self.searcher = None if self.beams is None else _searching(self.collector, self.beams)
        tokenizer = self.language_model.tokenizer
        other = tokenizer.get_vocab() != self.collector.policy.tokenizer.get_vocab()
        self._template = ChatTemplate(
            tokenizer if other else None, "'evaluation.language_model'", "name another model"
        )
        """The template of a language model from another family, which reads chats in its own way."""

    def evaluate(self, author: Author, samples: Sequence[Sample]) -> Evaluation:
        """Let an author answer each sample's prompt once; the same noise at every call.

        Of several processes each measures a share of the texts and computes a share of the metrics, and
        all get the whole.

        Raises:
            UserError: a sample lacks what a metric needs, or a metric or scorer returned no numbers, or under a name
                that is taken.
        """
        check_samples(self.metrics, samples, "the evaluation")
        texts, found, extra = self._measured(self.collector, author, samples)
        if self.searcher is not None and author is Author.POLICY:
            best, of_best, beside = self._measured(self.searcher, author, samples, drawn=False)
            name = "greedy" if self.beams == 1 else "beam"
            found.update({f"{name}/{key}": result for key, result in of_best.items()})
            extra |= {f"{name}/{key}": column for key, column in {"completion": best, **beside}.items()}
        return summarize(samples, texts, found, extra)

    def _measured(
        self, collector: Collector, author: Author, samples: Sequence[Sample], *, drawn: bool = True
    ) -> tuple[list[str], dict[str, MetricResult], dict[str, list[Any]]]:
        """The texts that an author writes, what they measure, and what else is known about each; KL among it where the
        policy's are ``drawn`` from its distribution."""
        mine = distributed.portion(len(samples))
        # Here, since a process without samples makes no pass.
        models = (collector.policy, self.reference, self.language_model)
        with sharding.whole(*(one.model for one in models)):
            if author is Author.POLICY:
                bring_weights(collector.sampler)
            measured = None
            if len(mine):
                rollout = collector.answers(author, [samples[i] for i in mine], numbers=mine)
                measured = self._share(rollout)
                if author is Author.POLICY and drawn:
                    # Of all processes or of none.
                    self._beside_draws(measured, rollout, all(sample.references for sample in samples))
        shares = [share for share in distributed.gathered(measured) if share is not None]
        texts = [text for share in shares for text in share.texts]
        found = _joined(shares)
        of_texts = self._text_metrics(samples, texts)
        taken = of_texts.keys() & {*shares[0].values, *shares[0].nll, "tokens"}
        if taken:
            raise UserError(
                f"a metric of 'evaluation.metrics' returns '{min(taken)}', which an evaluation measures itself: let it return "
                "another name."
            )
        found.update(of_texts)
        lengths = [length for share in shares for length in share.lengths]
        found["tokens"] = MetricResult(sum(lengths) / len(texts))
        return texts, found, _extra(shares)

    def _share(self, rollout: Rollout) -> _Share:
        """Everything that concerns each text by itself."""
        share = _Share(rollout.texts, rollout.authored.sum(dim=1).tolist())
        for name, scorer in (("reward", self.reward), ("judge", self.judge)):
            if scorer is not None:
                values, terms, logged = score(scorer, RewardInput.of(rollout, self.trainer_state))
                share.logged.update({key: sum(said) / len(said) for key, said in logged.metrics.items()})
                share.extra.update(logged.extra)
                share.values[name] = values.tolist()
                for term, of_term in terms.items():
                    share.values[f"{name}/{term}"] = [None if v != v else v for v in of_term.tolist()]
        told, limits = [self._told(sample) for sample in rollout.samples], self.collector.config
        share.nll["output_perplexity"] = text_nll(self.language_model, told, rollout.texts, limits)
        return share

    def _beside_draws(self, share: _Share, rollout: Rollout, referenced: bool) -> None:
        """Add how the policy differs from its start and, where there are references, from the data."""
        share.values["kl"] = self._kl(rollout)
        if referenced:
            texts = [sample.references[0] for sample in rollout.samples]
            policy, limits = self.collector.policy, self.collector.config
            share.nll["reference_perplexity"] = text_nll(policy, rollout.samples, texts, limits)

    def _told(self, sample: Sample) -> Sample:
        """A sample as the language model reads it."""
        if not sample.messages or not self._template.there:
            return sample
        prompt = self._template.prompt(sample.messages, sample.columns)
        return replace(sample, prompt=prompt)

    def _text_metrics(self, samples: Sequence[Sample], texts: Sequence[str]) -> dict[str, MetricResult]:
        """The metrics, which look at all texts together: each is computed by one of the processes."""
        mine = list(self.metrics)[distributed.rank() :: distributed.count()]
        computed = {name: measure({name: self.metrics[name]}, samples, texts) for name in mine}
        every = {name: values for one in distributed.gathered(computed) for name, values in one.items()}
        return {key: value for name in self.metrics for key, value in every[name].items()}

    def _kl(self, rollout: Rollout) -> list[float | None]:
        """KL(policy || its start) of each text, in nats per token."""
        limits, ends = self.collector.config, self.collector.policy.end_ids
        with self.reference.running() as model:
            found = score_logprobs(model, rollout, limits.sampling, ends, limits.max_batch_tokens)
        kl = kl_estimate(rollout.sampled_logprobs, found) * rollout.authored
        per_token: list[float | None] = (kl.sum(dim=1) / rollout.authored.sum(dim=1)).tolist()
        return per_token


@dataclass(frozen=True)
class _Share:
    """What one process measured, in the order of its texts."""

    texts: tuple[str, ...]
    lengths: list[int]
    values: dict[str, list[float | None]] = field(default_factory=dict)
    logged: dict[str, float] = field(default_factory=dict)
    extra: dict[str, list[Any]] = field(default_factory=dict)
    nll: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Nats and tokens of each text."""


def _extra(shares: Sequence[_Share]) -> dict[str, list[Any]]:
    """What rewards said beside of each text; None of those that a process's reward said nothing about."""
    names = dict.fromkeys(name for share in shares for name in share.extra)
    return {
        name: [value for share in shares for value in share.extra.get(name, [None] * len(share.texts))]
        for name in names
    }


def _joined(shares: Sequence[_Share]) -> dict[str, MetricResult]:
    """What all processes measured of each text."""
    found: dict[str, MetricResult] = {}
    for name in shares[0].values:
        found[name] = MetricResult.mean([value for share in shares for value in share.values[name]])
    for name in dict.fromkeys(name for share in shares for name in share.logged):
        # A number that a reward logged stands for all texts that it scored together.
        said = [(share.logged[name], len(share.texts)) for share in shares if name in share.logged]
        total = sum(value * number for value, number in said) / sum(number for _, number in said)
        found.setdefault(name, MetricResult(total))  # as in training, a name of ours stays ours
    for name in shares[0].nll:
        nll, tokens = (torch.cat(parts) for parts in zip(*(s.nll[name] for s in shares), strict=True))
        # The total weighs tokens, so it is not a mean of the texts' own perplexities.
        found[name] = MetricResult(perplexity(nll, tokens), perplexities(nll, tokens))
    return found


def _searching(collector: Collector, beams: int) -> Collector:
    """The same without a guide, whose policy writes what a beam search finds."""
    sampler = BeamSampler(collector.policy, beams, collector.config.max_batch_tokens)
    return Collector(
        collector.policy, None, collector.config, collector.seed, sampler, dialogue=collector.dialogue
    )


def text_nll(
    language_model: LanguageModel,
    samples: Sequence[Sample],
    texts: Sequence[str],
    config: RolloutConfig,
) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    """Negative log-likelihood of each text after its sample's prompt, as the model itself would give it.

    Returns:
        Sums of nats (B,) and numbers of tokens (B,), over at most ``max_response_tokens`` tokens per text.
    """
    scored = []
    for sample, text in zip(samples, texts, strict=True):
        before = prompt_tokens(language_model, sample, config.max_prompt_tokens)
        context = language_model.context(before)
        passage = splice(language_model, Completion(text, False), config.max_response_tokens, context)
        scored.append((before, passage.ids))
    with language_model.running() as model:
        logprobs = text_scores(model, scored, 1.0, config.max_batch_tokens)
    return -torch.tensor([sum(one) for one in logprobs]), torch.tensor([float(len(one)) for one in logprobs])


def perplexity(nll: Float[Tensor, "B"], tokens: Float[Tensor, "B"]) -> float:
    """``exp(sum of nats / number of tokens)`` over all texts."""
    # Infinite, and no error, where texts are too improbable for a number.
    return float(torch.exp(nll.double().sum() / tokens.sum().clamp(min=1)))


def perplexities(nll: Float[Tensor, "B"], tokens: Float[Tensor, "B"]) -> list[float]:
    """The same for each text alone."""
    values: list[float] = torch.exp(nll / tokens.clamp(min=1)).tolist()
    return values
