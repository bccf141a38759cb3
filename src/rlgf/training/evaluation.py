"""What an author writes for held-out prompts, and every metric of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator
from transformers import TrainerState

from rlgf.losses import kl_estimate
from rlgf.metrics import TEXT_METRICS, Metric, MetricConfig, check_needs, measure
from rlgf.metrics.perplexity import perplexities, perplexity, text_nll
from rlgf.metrics.records import Evaluation, Found, summarize
from rlgf.models.loading import LanguageModel, ModelConfig
from rlgf.rewards import Reward, RewardInput, score
from rlgf.rollout.collector import Collector, RolloutConfig
from rlgf.rollout.scoring import score_logprobs
from rlgf.types import Author, Rollout, Sample


class EvaluationConfig(BaseModel):
    """What is measured, on how many prompts, how often."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int = Field(default=256, ge=1)
    """Prompts of the validation split while training."""
    test_samples: int = Field(default=512, ge=1)
    """Prompts of the test split at the end."""
    every: int = Field(default=5, ge=1)
    """Updates between evaluations."""
    judge: str | None = None
    """A second scorer that no training sees, named like a reward; it shows reward hacking."""
    language_model: ModelConfig | None = None
    """The frozen model whose perplexity of the outputs is reported; default: the policy's start."""
    reference: ModelConfig | None = None
    """The model that KL is measured against; default: the one that the policy's run started from."""
    metrics: tuple[MetricConfig, ...] = tuple(MetricConfig(name=name) for name in TEXT_METRICS)
    """Names of metrics, or ``{name: ..., options: {...}}``; see docs/metrics.md."""

    @field_validator("metrics", mode="before")
    @classmethod
    def _spelled_out(cls, metrics: Any) -> Any:
        if not isinstance(metrics, list | tuple):
            raise ValueError("it must be a list of names, such as [distinct, words]")
        return tuple({"name": metric} if isinstance(metric, str) else metric for metric in metrics)


def check_samples(metrics: Mapping[str, Metric], samples: Sequence[Sample], where: str) -> None:
    """Refuse samples that lack what a metric needs.

    Raises:
        UserError: names the metric, the sample and what it lacks.
    """
    remedy = "let the task give it, or take the metric out of 'evaluation.metrics'"
    check_needs(metrics, samples, lambda i: f"sample {i} of {where}", remedy)


class Evaluator:
    """Measures the policy, its guide or the data set's own texts in the same way."""

    def __init__(
        self,
        collector: Collector,
        reference: LanguageModel,
        language_model: LanguageModel,
        reward: Reward | None,
        judge: Reward | None,
        config: RolloutConfig,
        metrics: Mapping[str, Metric] = TEXT_METRICS,
        trainer_state: TrainerState | None = None,
    ) -> None:
        self.collector = collector
        self.reference = reference
        self.language_model = language_model
        self.scorers = {"reward": reward, "judge": judge}
        self.config = config
        self.metrics = metrics
        self.trainer_state = trainer_state or TrainerState()

    def evaluate(self, author: Author, samples: Sequence[Sample]) -> Evaluation:
        """Let an author answer each sample's prompt once; the same noise at every call.

        Raises:
            UserError: a sample lacks what a metric needs, or a metric or scorer returned no numbers.
        """
        check_samples(self.metrics, samples, "the evaluation")
        rollout = self.collector.answers(author, samples)
        found: Found = {}
        extra: dict[str, list[Any]] = {}
        for name, scorer in self.scorers.items():
            if scorer is not None:
                values, terms, logged = score(scorer, RewardInput.of(rollout, self.trainer_state))
                found |= {key: sum(said) / len(said) for key, said in logged.metrics.items()}
                extra |= logged.extra
                found[name] = values.tolist()
                for term, of_term in terms.items():
                    found[f"{name}/{term}"] = [None if v != v else v for v in of_term.tolist()]
        found.update(
            self._perplexity("output_perplexity", self.language_model, rollout.samples, rollout.texts)
        )
        if author is Author.POLICY:
            found.update(self._policy_metrics(rollout))
        found.update(measure(self.metrics, rollout.samples, rollout.texts))
        found["tokens"] = float(rollout.lengths.float().mean())
        return summarize(rollout.samples, rollout.texts, found, extra)

    def _policy_metrics(self, rollout: Rollout) -> Found:
        """What needs the policy's own probabilities: KL to its start, perplexity of the references."""
        with self.reference.running() as model:
            reference_logprobs = score_logprobs(
                model,
                rollout,
                self.config.sampling,
                self.collector.policy.end_ids,
                self.config.max_batch_tokens,
            )
        kl = kl_estimate(rollout.sampled_logprobs, reference_logprobs) * rollout.response_mask
        found: Found = {"kl": (kl.sum(dim=1) / rollout.lengths).tolist()}
        with_text = [sample for sample in rollout.samples if sample.references]
        if len(with_text) == len(rollout):
            texts = [sample.references[0] for sample in with_text]
            policy = self.collector.policy
            found.update(self._perplexity("reference_perplexity", policy, rollout.samples, texts))
        return found

    def _perplexity(
        self, name: str, model: LanguageModel, samples: Sequence[Sample], texts: Sequence[str]
    ) -> Found:
        nll, tokens = text_nll(
            model,
            samples,
            texts,
            max_prompt_tokens=self.config.max_prompt_tokens,
            max_tokens=self.config.max_response_tokens,
            max_batch_tokens=self.config.max_batch_tokens,
        )
        # The total weighs tokens, so it is no mean of the texts' own perplexities.
        return {name: perplexity(nll, tokens), f"{name} of text": perplexities(nll, tokens)}
