"""Rules of a run whose processes share the weights of its models (FSDP2)."""

from __future__ import annotations

from rlgf.checks.rule import Rule
from rlgf.guides.config import follows_policy, members
from rlgf.guides.itself import SelfGuideConfig
from rlgf.sections import Sections
from rlgf.types import Author


def shared_weights_are_not_quantized(config: Sections) -> str | None:
    if config.policy.quantization is None:
        return None
    return "'policy.quantization' does not go with FSDP: leave it out, or start the run without FSDP."


def a_critic_of_shared_adapters_is_a_head(config: Sections) -> str | None:
    if config.policy.lora is None or config.policy.critic == "head":
        return None
    if all(row.critic is None for row in config.algorithm.rows):
        return None
    return (
        "with 'policy.lora' and FSDP a critic of its own adapter does not run: set 'policy.critic: head', or start the "
        "run without FSDP."
    )


def a_discriminator_is_no_shared_adapter(config: Sections) -> str | None:
    if config.policy.lora is None or config.reward is None:
        return None
    if all(name != "discriminator" for name, _ in config.reward.named):
        return None
    return (
        "with 'policy.lora' and FSDP the reward 'discriminator', an adapter of its own, does not run: leave 'policy.lora' "
        "out, or start the run without FSDP."
    )


def a_policy_that_guides_itself_writes_nothing(config: Sections) -> str | None:
    guided = any(Author.GUIDE in row.script.authors for row in config.algorithm.rows)
    if not guided or not members(config.guide, SelfGuideConfig):
        return None
    return (
        "with FSDP the guide 'self' gives probabilities and writes no texts, since processes ask for these at different "
        "times: set 'guide.model', or start the run without FSDP."
    )


def starts_are_asked_by_all_at_once(config: Sections) -> str | None:
    if all(row.start_value is None for row in config.algorithm.rows):
        return None
    return (
        f"with FSDP algorithm '{config.algorithm.name}' does not run, since processes meet new prompts at different times: "
        "choose another, or start the run without FSDP."
    )


def a_guide_that_follows_is_whole(config: Sections) -> str | None:
    if config.guide is None or not follows_policy(config.guide):
        return None
    return (
        "with FSDP the guide 'self' is the policy's start: set 'guide: self', or start the run without FSDP."
    )


SHARD_RULES: tuple[Rule, ...] = (
    starts_are_asked_by_all_at_once,
    a_guide_that_follows_is_whole,
    shared_weights_are_not_quantized,
    a_critic_of_shared_adapters_is_a_head,
    a_discriminator_is_no_shared_adapter,
    a_policy_that_guides_itself_writes_nothing,
)
