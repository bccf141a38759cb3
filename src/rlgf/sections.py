"""The sections of a recipe, and their defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, model_validator

from rlgf.algorithms import ALGORITHMS, Algorithm, Mixture, algorithm_from
from rlgf.environments import EnvironmentConfig
from rlgf.evaluation.evaluator import EvaluationConfig
from rlgf.guides.config import GuideConfig
from rlgf.identity import FREE, LATER, identity
from rlgf.learning.rates import UpdateConfig
from rlgf.models.loading import ChatOptions, ModelConfig
from rlgf.models.lora import LoRAConfig, check_installed
from rlgf.models.samplers import SamplerConfig
from rlgf.models.scratch import ScratchConfig
from rlgf.models.weights import Quantization
from rlgf.rewards.build import RewardConfig
from rlgf.rollout.config import RolloutConfig
from rlgf.strict import NamedConfig, Strict
from rlgf.training import TrainingConfig


class PolicyConfig(Strict):
    """The model to train: one to load, or a small GPT from scratch."""

    model: str | None = None
    """A hub name, a folder, or the name of a packaged model."""
    scratch: ScratchConfig | None = None
    revision: str | None = None
    trust_remote_code: Annotated[bool, FREE] = False
    critic: Literal["separate", "head"] = "separate"
    """The value function: a network of its own, or a head on the policy's trunk."""
    lora: LoRAConfig | None = None
    """Train an adapter and leave the model's own weights as they are; ``{}`` takes the defaults."""
    quantization: Quantization | None = None
    """Keep the model's own weights in 4 or 8 bits (Dettmers et al., arXiv 2305.14314), under an adapter."""
    chat_template_kwargs: Annotated[ChatOptions, LATER] = {}
    """What its chat template is told besides the messages, such as ``{enable_thinking: false}``."""

    @model_validator(mode="after")
    def _one_source(self) -> PolicyConfig:
        if self.model is not None and self.scratch is not None:
            raise ValueError("give exactly one of 'model' and 'scratch' (null takes the other away)")
        if self.lora is not None:
            check_installed("'policy.lora'")
        if self.quantization is not None and (self.lora is None or self.scratch is not None):
            raise ValueError(
                "'quantization' keeps a model's weights as they are: give 'model' and 'lora' with it"
            )
        return self

    @property
    def source(self) -> ModelConfig | ScratchConfig:
        """Where the model comes from, unless Python gives one."""
        if self.scratch is not None:
            return self.scratch
        assert self.model is not None, "checked with the configuration"
        return ModelConfig(
            model=self.model,
            revision=self.revision,
            trust_remote_code=self.trust_remote_code,
            quantization=self.quantization,
            chat_template_kwargs=self.chat_template_kwargs,
            dtype="float32",  # small updates vanish in the rounding of half-precision weights
        )


def _written_out(path: Path | None) -> Path | None:
    if path is not None and path.parts[:1] and path.parts[0].startswith("~"):
        raise ValueError(
            f"'~' is not expanded in a recipe, and would be a folder here: write {Path.home()} in its place"
        )
    if path is not None:
        _file_name(str(path))
    return path


def _file_name(name: str) -> str:
    if "\0" in name:
        raise ValueError("it becomes part of a path, and must not hold the character NUL")
    if "${" in name:
        raise ValueError(
            "'${' stands for nothing in a recipe, and would be a part of the folder's name: write it out"
        )
    return name


def _run_name(name: str) -> str:
    if not name or name.startswith("/") or {".", ".."} & set(name.split("/")):
        raise ValueError(
            "it becomes a folder below runs/, such as 'mine'; set 'output' for a place of your own"
        )
    return _file_name(name)


class Sections(Strict):
    """Everything that defines a run; whether it fits together is asked in `rlgf.checks`."""

    name: Annotated[str, AfterValidator(_run_name), FREE] = "run"
    seed: int = 0
    output: Annotated[Path | None, AfterValidator(_written_out), FREE] = None
    """Default: runs/<name>."""
    task: NamedConfig | None = None
    policy: PolicyConfig = PolicyConfig()
    guide: GuideConfig | None = None
    reward: RewardConfig | None = None
    environment: Annotated[EnvironmentConfig | None, LATER] = None
    """Answers the turns of a dialogue; without one a response is one text."""
    algorithm: Annotated[Algorithm | Mixture, BeforeValidator(algorithm_from)] = ALGORITHMS["ppo"]
    rollout: RolloutConfig = RolloutConfig()
    sampler: Annotated[SamplerConfig, LATER] = SamplerConfig()
    update: UpdateConfig = UpdateConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: Annotated[EvaluationConfig, FREE] = EvaluationConfig()

    @property
    def folder(self) -> Path:
        return self.output or Path("runs") / self.name

    @property
    def turns(self) -> int:
        """Of a dialogue at most; 1 without an environment."""
        # Each turn has a token at least.
        return (
            1 if self.environment is None else min(self.environment.turns, self.rollout.max_response_tokens)
        )

    @property
    def foreseen(self) -> bool:
        """Whether it is known before an update is over which prompts the next one takes, and how much help it gives."""
        return not self.training.counts_tokens and self.rollout.draw == "passes"

    @property
    def identity(self) -> dict[str, Any]:
        """What a resumed run must have in common with the one that wrote its checkpoint."""
        return identity(self)
