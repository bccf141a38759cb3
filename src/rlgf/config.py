"""The typed configuration of a run, and how recipes and overrides become one."""

from __future__ import annotations

import types
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from rlgf import checks
from rlgf.algorithms import ALGORITHMS, Algorithm, Mixture, algorithm_from
from rlgf.algorithms.catalog import carried
from rlgf.errors import IncoherentError, RefusedError, UserError, nearest
from rlgf.guides.build import GuideConfig, fit_for, kinds
from rlgf.guides.settings import GuideSettings
from rlgf.identity import FREE, identity
from rlgf.models.loading import ModelConfig
from rlgf.models.lora import LoRAConfig, check_installed
from rlgf.models.quantization import Quantization
from rlgf.models.scratch import ScratchConfig
from rlgf.packaged import find_recipe
from rlgf.rewards.build import RewardConfig
from rlgf.rewards.build import fit_for as fit_reward
from rlgf.rollout.collector import RolloutConfig
from rlgf.training.evaluation import EvaluationConfig
from rlgf.training.update import UpdateConfig


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class PartConfig(_Strict):
    """A part found by name: one of ours, or your own as `module:attribute` or `file.py:attribute`.

    In a recipe the bare name is short for a part without options.
    """

    name: str
    options: dict[str, Any] = {}


class PolicyConfig(_Strict):
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
    """Keep the model's own weights in 4 or 8 bits, under an adapter."""

    @model_validator(mode="after")
    def _one_source(self) -> PolicyConfig:
        if self.model is not None and self.scratch is not None:
            raise ValueError("give exactly one of 'model' and 'scratch'")
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
            dtype="float32",  # small updates vanish in the rounding of half-precision weights
        )


class TrainingConfig(_Strict):
    """How long a run lasts and what it writes."""

    updates: Annotated[int, FREE] = Field(default=50, ge=1)
    """A resumed run may have more or fewer; schedules then go on as those of a run of the new length."""
    checkpoint_every: Annotated[int, FREE] = Field(default=10, ge=1)
    """Updates between checkpoints."""
    sample_every: Annotated[int, FREE] = Field(default=5, ge=1)
    """Updates between sample texts in the terminal."""
    trackers: Annotated[tuple[Literal["tensorboard", "wandb", "trackio"], ...], FREE] = ("tensorboard",)
    process_timeout: Annotated[float, FREE] = Field(default=1800.0, gt=0, allow_inf_nan=False)
    """Seconds that one process waits for another before it saves and ends the run."""


class Config(_Strict):
    """Everything that defines a run."""

    name: Annotated[str, FREE] = "run"
    seed: int = 0
    output: Annotated[Path | None, FREE] = None
    """Default: runs/<name>."""
    task: PartConfig | None = None
    policy: PolicyConfig = PolicyConfig()
    guide: GuideConfig | None = None
    reward: RewardConfig | None = None
    algorithm: Annotated[Algorithm | Mixture, BeforeValidator(algorithm_from)] = ALGORITHMS["ppo"]
    rollout: RolloutConfig = RolloutConfig()
    update: UpdateConfig = UpdateConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: Annotated[EvaluationConfig, FREE] = EvaluationConfig()

    @model_validator(mode="after")
    def _coherent(self, info: Any) -> Config:  # a ValidationInfo, a protocol that no run-time check can read
        broken = list(checks.broken(self, (info.context or {}).get("given", ())))
        if broken:
            raise IncoherentError(broken)
        return self

    @property
    def folder(self) -> Path:
        return self.output or Path("runs") / self.name

    @property
    def identity(self) -> dict[str, Any]:
        """What a resumed run must have in common with the one that wrote its checkpoint."""
        return identity(self)

    def to_yaml(self) -> str:
        return OmegaConf.to_yaml(OmegaConf.create(self.model_dump(mode="json")))


Source = str | Path | Mapping[str, Any]


def load_config(*sources: Source, given: Collection[str] = ()) -> Config:
    """A configuration from recipes and overrides, later ones over earlier ones.

    Args:
        sources: paths of YAML recipes, names of packaged ones such as ``imdb``, overrides such as
            ``update.epochs=2``, or mappings.
        given: sections that may be missing, since Python gives `Trainer` an object in place of each: 'task', 'policy',
            'guide' or 'reward'.

    Raises:
        UserError: a recipe that is not there or is no YAML; an unknown key, with the nearest known
            one; a value that does not fit, with the field and what would be right.
    """
    merged: dict[str, Any] = {}
    for source in sources:
        part = _spelled_out(read_source(source))
        if _whole_algorithm(part.get("algorithm")):
            old = merged.pop("algorithm", {})
            base = part["algorithm"].get("base")
            if base is not None:
                part["algorithm"] = laid_over(carried(old, str(base)), part["algorithm"])
        if isinstance(part.get("guide"), dict) and isinstance(merged.get("guide"), dict):
            merged["guide"] = fit_for(merged["guide"], part["guide"])
        if isinstance(part.get("reward"), dict) and isinstance(merged.get("reward"), dict):
            merged["reward"] = fit_reward(merged["reward"], part["reward"])
        merged = laid_over(merged, part)
    return validated(Config, merged, given)


def laid_over(merged: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe over earlier ones, key by key.

    Raises:
        UserError: a value cannot be read.
    """
    try:
        return OmegaConf.to_container(OmegaConf.merge(merged, part))  # type: ignore[return-value]  # a mapping
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        raise UserError(f"a value is no valid YAML for a recipe: {' '.join(str(error).split())}.") from error


def _whole_algorithm(algorithm: Any) -> bool:
    """Whether a recipe gives an algorithm of its own rather than changes to an earlier one."""
    return isinstance(algorithm, dict) and (
        "base" in algorithm or ("name" in algorithm and len(algorithm) > 1)
    )


def _spelled_out(part: dict[str, Any]) -> dict[str, Any]:
    """A recipe with its short forms written out, so that later sources can change single fields."""
    for key, field in (("algorithm", "base"), ("task", "name"), ("reward", "name")):
        if isinstance(part.get(key), str):
            part[key] = {field: part[key]}
    return part


Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], data: Mapping[str, Any], given: Collection[str] = ()) -> Model:
    """Validate data, and turn what is wrong into sentences, the first of which is the error's.

    Raises:
        RefusedError: the data does not fit the model.
    """
    try:
        return model.model_validate(data, context={"given": given})
    except ValidationError as error:
        raise RefusedError(_sentences(model, error)) from error


_MOVED: Mapping[str, Mapping[str, str]] = {
    "training": {"gamma": "algorithm.gamma", "kl": "algorithm.kl"},
    "rollout": {"group_size": "algorithm.group_size"},
    "update": {
        "clip": "algorithm.terms.policy.options.clip",
        "value_clip": "algorithm.terms.value.options.clip",
        "value_coef": "algorithm.terms.value.weight",
        "entropy_coef": "algorithm.terms.entropy.weight",
        "reference_coef": "algorithm.terms.references: {loss: nll, on: references, weight: ...}",
    },
    "algorithm": {
        "rollin": "script.rollin",
        "rollout": "script.rollout",
        "rollin_prob": "help.probability",
        "rollin_members": "help.members",
        "rollin_length": "help.length",
        "rollin_below": "help.below",
        "rollin_shared": "help.shared",
        "policy_loss": "terms.policy.loss",
        "policy_loss_on": "terms.policy.on",
        "value_loss_on": "terms.value: {weight: 0.5}",
        "rollin_loss": "terms.rollin: {loss: ..., on: rollin}",
        "rollin_coef": "terms.rollin.weight",
        "distill_coef": "terms.distill: {loss: distillation, weight: ...}",
        "jsd_beta": "terms.distill.options.jsd_beta",
        "pair_beta": "terms.policy.options.beta",
    },
}
"""Where the keys of version 0.1 are now, by section; those of an algorithm from its own row on."""


def _sentences(model: type[BaseModel], error: ValidationError) -> list[str]:
    """What is wrong, the first thing to mend first."""
    # A misspelled key also leaves the right one missing: the misspelling is what to mend.
    found = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    misspelled = {one["loc"][:-1] for one in found if one["type"] == "extra_forbidden"}
    sentences: list[str] = []
    for one in found:
        cause = one.get("ctx", {}).get("error")
        if isinstance(cause, IncoherentError):
            sentences += cause.sentences
        elif one["type"] != "missing" or one["loc"][:-1] not in misspelled:
            sentences.append(_sentence(model, one))
    return list(dict.fromkeys(sentences))


def _sentence(model: type[BaseModel], first: ErrorDetails) -> str:
    path = [str(part) for part in first["loc"]]
    where = ".".join(path)
    if first["type"] == "extra_forbidden":
        now = _MOVED.get(path[0], {}).get(path[-1])
        if now is not None:
            section = ".".join([*path[:-1], ""]) if path[0] == "algorithm" else ""
            return f"'{where}' has moved: it is now '{section}{now}'."
        parent = _fields(model, path[:-1])
        return f"'{where}' is not a known key: {nearest(path[-1], parent)}"
    if first["type"] == "missing":
        return f"'{where}' is missing: the recipe must set it."
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "model_type":
        expected = _fields(model, path)
        message = f"it must be a mapping with keys such as {', '.join(expected)}"
        if first["ctx"]["class_name"] == "Schedule":
            message = "it must be a number, or a mapping such as {start: 0.6, end: 0}"
    if first["type"] == "tuple_type":
        message = f"it must be a list, such as [{first['input']}]"
    value = "null" if first["input"] is None else repr(first["input"])
    given = "" if isinstance(first["input"], dict) or not path else f" (it is {value})"
    return f"'{where}'{given}: {message}." if where else f"{message}."


def _fields(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The keys that are known at a place in the configuration."""
    models = [model]
    for key in path:
        found = [
            m
            for parent in models
            if key in parent.model_fields
            for m in _models(parent.model_fields[key].annotation)
        ]
        models = found or models
    return sorted({name for m in models for name in m.model_fields})


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, GuideSettings):
        return list(kinds())
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType, Annotated, dict):
        return [model for argument in get_args(annotation) for model in _models(argument)]
    return []


def read_source(source: str | Path | Mapping[str, Any], folder: str = "") -> dict[str, Any]:
    """What one recipe, override or mapping says.

    Args:
        source: as for `load_config`.
        folder: where the name of a packaged recipe is looked for first (`rlgf.packaged.find_recipe`).

    Raises:
        UserError: there is no such recipe, or it is no YAML.
    """
    if isinstance(source, Mapping):
        return dict(source)
    path = Path(source)
    override = isinstance(source, str) and "=" in source and not path.is_file()
    if not override:
        path = find_recipe(source, folder)
    what = f"the override {source}" if override else f"the recipe {path}"
    try:
        plain = OmegaConf.to_container(
            OmegaConf.from_dotlist([str(source)]) if override else OmegaConf.load(path)
        )
    except (yaml.YAMLError, OmegaConfBaseException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{what} is no valid YAML: {reason}.") from error
    if not isinstance(plain, dict):
        raise UserError(f"{what} must be a mapping of keys to values.")
    found: dict[str, Any] = _with_text_keys(plain)
    return found


def _with_text_keys(value: Any) -> Any:
    """The same with texts for keys: YAML 1.1 reads the key `on` of a term as true."""
    if isinstance(value, list):
        return [_with_text_keys(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    return {"on" if key is True else str(key): _with_text_keys(entry) for key, entry in value.items()}
