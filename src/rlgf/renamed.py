"""Keys of a recipe, and arguments, by other names: those of earlier versions, and those that TRL has for them."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence

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
        "rollin_below": "help: {success: ..., gate: {looks_at: group}}",
        "below": "success: ..., gate: {looks_at: group}",
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
"""Where the keys of earlier versions are now, by section; those of an algorithm from its own row on."""

_TRL: Mapping[str, str] = {
    "num_generations": "algorithm.group_size",
    "generation_batch_size": "rollout.episodes",
    "per_device_train_batch_size": "update.minibatch",
    "gradient_accumulation_steps": "update.minibatch",
    "num_iterations": "update.epochs",
    "num_train_epochs": "training.updates",
    "max_steps": "training.updates",
    "total_episodes": "training.policy_tokens",
    "kl_coef": "algorithm.kl.coefficient",
    "cliprange": "algorithm.terms.policy.options.clip",
    "vf_coef": "algorithm.terms.value.weight",
    "lam": "algorithm.gae_lambda",
    "num_ppo_epochs": "update.epochs",
    "response_length": "rollout.max_response_tokens",
    "max_prompt_length": "rollout.max_prompt_tokens",
    "max_completion_length": "rollout.max_response_tokens",
    "max_new_tokens": "rollout.max_response_tokens",
    "learning_rate": "update.learning_rate",
    "lr": "update.learning_rate",
    "lr_scheduler_type": "update.learning_rate: {start: 1e-5, end: 0, warmup: 0.05}",
    "warmup_steps": "update.learning_rate: {start: 1e-5, end: 0, warmup: 0.05}",
    "max_grad_norm": "update.max_gradient_norm",
    "beta": "algorithm.kl.coefficient",
    "epsilon": "algorithm.terms.policy.options.clip",
    "epsilon_high": "algorithm.terms.policy.options.clip_high",
    "use_vllm": "sampler: {engine: vllm}",
    "max_staleness": "training.async_steps",
    "reward_weights": "reward: {terms: {one: {weight: 2}}}",
    "reward_funcs": "reward",
    "train_dataset": "task: {name: data, options: {train: ...}}",
    "peft_config": "policy.lora",
    "report_to": "training.trackers",
    "save_steps": "training.checkpoint_every",
    "eval_steps": "evaluation.every",
    "output_dir": "output",
    "model_name_or_path": "policy.model",
    "dataset_name": "task: {name: data, options: {data: ...}}",
    "warmup_ratio": "update.learning_rate: {start: 1e-5, end: 0, warmup: 0.05}",
}
"""Keys by the names that TRL has for them (docs/from-trl.md)."""
_LAID_OVER = "recipes are laid over each other, as in `rlgf train first.yaml second.yaml`"
_OTHERS: Mapping[str, Mapping[str, str]] = {
    "guide": {
        "api_key": "a key is kept in an environment variable, which 'guide.key_variable' names",
        "base_url": "the address of a server is 'guide.url'",
        "max_tokens": "'rollout.max_guide_tokens' limits what a guide writes",
    },
    "include": {"include": _LAID_OVER},
    "defaults": {"defaults": _LAID_OVER},
    "reward": {"weights": "each term has a weight of its own, as in reward: {terms: {one: {weight: 2}}}"},
}
"""What does the work of keys that clients of servers, and other trainers, have in a section."""
_ARGUMENTS: Mapping[str, str] = {
    "model": "policy",
    "args": "config",
    "train_dataset": "train",
    "eval_dataset": "validation",
    "reward_funcs": "reward",
    "processing_class": "tokenizer",
    "optimizers": "optimizer' and 'scheduler",
}
"""What a trainer's arguments are called in TRL and here."""


def moved_key(path: Sequence[str]) -> str | None:
    """Where a key of an earlier version is now, if it was one."""
    now = _MOVED.get(path[0], {}).get(path[-1])
    section = ".".join([*path[:-1], ""]) if path[0] == "algorithm" else ""
    return None if now is None else f"{section}{now}"


def hint_on_key(path: Sequence[str]) -> str | None:
    """What does the work of a key that others have in this section, in a clause."""
    return _OTHERS.get(path[0], {}).get(path[-1])


def key_for_trls(name: str, sections: Container[str]) -> str | None:
    """The key that does what TRL has under a name, if it is in one of some sections."""
    ours = _TRL.get(name)
    return ours if ours is not None and re.split("[.:]", ours)[0] in sections else None


def refuse_others(names: Iterable[str]) -> None:
    """
    Raises:
        TypeError: there is an argument that a trainer does not have.
    """
    for name in names:
        here = f": what TRL calls so is '{_ARGUMENTS[name]}' here" if name in _ARGUMENTS else ""
        raise TypeError(f"Trainer has no argument '{name}'{here}.")
