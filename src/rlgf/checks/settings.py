"""Rules of the configuration alone."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from rlgf.checks.dialogues import an_environment_has_a_name
from rlgf.checks.engines import engines_are_installed, the_engine_fits_the_policy
from rlgf.checks.rule import Rule
from rlgf.guides.base import GuideSettings
from rlgf.guides.config import follows_policy, members
from rlgf.guides.ensemble import EnsembleConfig
from rlgf.guides.http_config import HTTPGuideConfig
from rlgf.guides.local import LocalGuideConfig
from rlgf.sections import Sections
from rlgf.types import Author

# Of sections that have to be there, unless Python gives an object in place of one.


def a_task_is_there(config: Sections) -> str | None:
    if config.task is not None:
        return None
    return "'task' is missing: the recipe must set it, or stand after one that does, as in `rlgf train imdb smollm2`."


def a_policy_is_there(config: Sections) -> str | None:
    if config.policy.model is not None or config.policy.scratch is not None:
        return None
    if "policy" in config.model_fields_set:
        return "'policy': give exactly one of 'model' and 'scratch'."
    return "'policy' is missing: the recipe must set it."


def a_guide_is_there(config: Sections) -> str | None:
    if config.guide is None and any(row.needs_guide for row in config.algorithm.rows):
        return f"algorithm '{config.algorithm.name}' needs a guide: give a 'guide:' section, such as guide.model."
    return None


def a_reward_is_there(config: Sections) -> str | None:
    if config.reward is not None:
        nameless = config.reward.name is None and config.reward.terms is None
        return "'reward': give exactly one of 'name' and 'terms'." if nameless else None
    if any(row.needs_reward for row in config.algorithm.rows):
        return f"algorithm '{config.algorithm.name}' needs a reward: give a 'reward:' section."
    if config.guide is not None and config.guide.candidates > 1:
        return f"of {config.guide.candidates} texts ('guide.candidates') the reward picks the best: give a 'reward:' section."
    return None


SECTIONS: Mapping[str, Rule] = {
    "task": a_task_is_there,
    "policy": a_policy_is_there,
    "guide": a_guide_is_there,
    "reward": a_reward_is_there,
    "environment": an_environment_has_a_name,
}


# Of the configuration alone.


def the_guide_has_probabilities(config: Sections) -> str | None:
    guide = _scoring(config)
    if guide is None or guide.may_score:
        return None
    return (
        f"algorithm '{config.algorithm.name}' reads the guide's probabilities (the loss 'distillation'), and a guide "
        f"given by 'guide.{guide.mark}' has none: set 'guide.model' to a causal model with the policy's "
        "tokenizer, or name a class of your own with a method 'log_distribution(tokens)'."
    )


def the_guide_scores_texts(config: Sections) -> str | None:
    guide = config.guide if any(row.reads_guide_scores for row in config.algorithm.rows) else None
    if guide is None or guide.may_score_texts:
        return None
    asks = f"algorithm '{config.algorithm.name}' asks the guide how probable the policy's texts are, and"
    if isinstance(guide, HTTPGuideConfig):
        return f"{asks} a chat server says that of no text but its own: set 'guide.style: completions'."
    return (
        f"{asks} a guide given by 'guide.{guide.mark}' does not say it: set 'guide.model', or 'guide.url' of a server that "
        "gives log-probabilities of prompts, or name a class of your own with a method 'score(requests)'."
    )


def a_guide_is_steered_only_to_write(config: Sections) -> str | None:
    guide = _scoring(config)
    if guide is None or not any(model.steered for model in members(guide, LocalGuideConfig)):
        return None
    return (
        f"algorithm '{config.algorithm.name}' reads the guide's probabilities of the policy's own prompt and text, and "
        "'guide.template' is for what the guide writes: leave it out."
    )


def a_guide_that_follows_only_scores(config: Sections) -> str | None:
    if config.guide is None or not follows_policy(config.guide):
        return None
    if all(row.distills and not row.asks_for_texts for row in config.algorithm.rows):
        return None
    return (
        f"algorithm '{config.algorithm.name}' has texts of the guide's, and a guide that follows the policy ('guide.self') "
        "only says how probable texts are: set 'guide: self', which is the policy's start, or choose opsd or sdft."
    )


def candidates_are_whole_texts(config: Sections) -> str | None:
    if config.guide is None or config.guide.candidates == 1:
        return None
    for row in config.algorithm.rows:
        hint, help = row.script.hint, row.help
        begins = row.script.rollin is Author.GUIDE and help.ever and not help.length.whole
        if begins or (hint is not None and hint.author is Author.GUIDE):
            what = "begins texts" if begins else "writes hints"
            return (
                f"'guide.candidates' {config.guide.candidates} lets the reward pick among whole texts, and in algorithm "
                f"'{row.name}' the guide {what}: set it to 1, or an algorithm in which the guide writes to the end, such "
                "as seq-kd, dagger, aggrevated or luffy."
            )
    return None


def start_values_are_in_the_rewards_own_numbers(config: Sections) -> str | None:
    reads = any(row.start_value is not None for row in config.algorithm.rows)
    if not reads or config.reward is None or not (config.reward.normalize or config.reward.clip):
        return None
    key = "normalize: false" if config.reward.normalize else "clip: null"
    return (
        f"algorithm '{config.algorithm.name}' compares what a text earns with the value of its prompt, which is estimated "
        f"once from rewards as they are: set 'reward.{key}'."
    )


def groups_fill_the_episodes(config: Sections) -> str | None:
    for row in config.algorithm.rows:
        if config.rollout.episodes % row.group_size:
            return (
                f"'rollout.episodes' {config.rollout.episodes} must be a multiple of the 'algorithm.group_size' "
                f"{row.group_size} of '{row.name}'."
            )
    return None


def given_texts_may_be_short(config: Sections) -> str | None:
    for row in config.algorithm.rows:
        if row.from_pairs and config.rollout.min_response_tokens:
            return (
                f"algorithm '{row.name}' learns from given texts of any length: set 'rollout.min_response_tokens: 0' "
                f"(it is {config.rollout.min_response_tokens})."
            )
    return None


def values_of_branches_are_means_of_pay(config: Sections) -> str | None:
    if config.reward is None or config.reward.clip is None:
        return None
    for row in config.algorithm.rows:
        if row.reads_branches:
            return (
                f"algorithm '{row.name}' takes means of rewards, and 'reward.clip' cuts each one off: leave 'clip' out, or "
                "clip in the reward itself."
            )
    return None


def ratios_to_the_past_are_of_all_tokens(config: Sections) -> str | None:
    past = any(row.script.rollin is Author.PAST for row in config.algorithm.rows)
    if not past or (config.rollout.top_k is None and config.rollout.top_p == 1):
        return None
    key = "top_k: null" if config.rollout.top_k is not None else "top_p: 1"
    return (
        f"algorithm '{config.algorithm.name}' compares the policy with what it drew at earlier visits, and which tokens it "
        f"chose among is not kept: set 'rollout.{key}'."
    )


def how_far_an_update_goes_can_be_measured(config: Sections) -> str | None:
    for row in config.algorithm.rows:
        if config.update.max_update_kl is not None and row.scores_prompts:
            return (
                f"'update.max_update_kl' {config.update.max_update_kl:g} compares with the policy before the update, and "
                f"algorithm '{row.name}' knows that only after the prompts with hints: leave it out, or set "
                "'view: written' for the algorithm's terms."
            )
    return None


def logged_names_differ(config: Sections) -> str | None:
    if config.reward is None or not isinstance(config.guide, EnsembleConfig):
        return None
    for name in sorted((config.reward.terms or {}).keys() & config.guide.guides.keys()):
        return (
            f"a term of the reward and a guide are both called '{name}', and 'reward/{name}' is logged "
            "for each: give one of them another name."
        )
    return None


def tokens_of_a_guide_are_used(config: Sections) -> str | None:
    if config.training.guide_tokens is None or any(row.asks_for_texts for row in config.algorithm.rows):
        return None
    return (
        f"'training.guide_tokens' would never be reached, since '{config.algorithm.name}' asks no guide for texts: leave "
        "it out, or choose an algorithm whose guide writes."
    )


def difficulty_is_known(config: Sections) -> str | None:
    if config.rollout.draw == "passes" or any(row.help.success is not None for row in config.algorithm.rows):
        return None
    return (
        "'rollout.draw: difficulty' counts successes: set 'algorithm.help.success' to what a text has to earn to be one, "
        "such as 0.5."
    )


def something_is_left_without_the_guide(config: Sections) -> str | None:
    for server in members(config.guide, HTTPGuideConfig):
        if server.budget.then == "unguided" and config.algorithm.unguided is None:
            return (
                f"'guide.budget.then: unguided' does not fit algorithm '{config.algorithm.name}': without its "
                "guide nobody finishes its texts, or nothing is left to learn from; set 'stop'."
            )
    return None


def trackers_are_installed(config: Sections) -> str | None:
    for name in config.training.trackers:
        if importlib.util.find_spec(name) is None:
            return (
                f"'training.trackers' names '{name}', which is not installed: pip install 'rlgf[tracking]'."
            )
    return None


RULES: tuple[Rule, ...] = (
    the_guide_has_probabilities,
    the_guide_scores_texts,
    a_guide_is_steered_only_to_write,
    a_guide_that_follows_only_scores,
    candidates_are_whole_texts,
    groups_fill_the_episodes,
    start_values_are_in_the_rewards_own_numbers,
    given_texts_may_be_short,
    values_of_branches_are_means_of_pay,
    ratios_to_the_past_are_of_all_tokens,
    how_far_an_update_goes_can_be_measured,
    logged_names_differ,
    tokens_of_a_guide_are_used,
    difficulty_is_known,
    something_is_left_without_the_guide,
    the_engine_fits_the_policy,
    engines_are_installed,
    trackers_are_installed,
)


def _scoring(config: Sections) -> GuideSettings | None:
    """The guide, where the algorithm reads its probabilities."""
    return config.guide if any(row.distills for row in config.algorithm.rows) else None
