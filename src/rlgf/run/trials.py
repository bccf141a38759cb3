"""Trials before any weights load: a server, chat templates, rewards on a sample, how long prompts are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from itertools import islice

from transformers import TrainerState

from rlgf import distributed
from rlgf.chat import ChatTemplate, parted, row_options
from rlgf.config import Config
from rlgf.environments import Environment, reply_to
from rlgf.errors import UserError
from rlgf.guides import Guide, HTTPGuide, HTTPGuideConfig, LocalGuideConfig, RemoteGuide, guide_template
from rlgf.guides.config import members
from rlgf.guides.repeats import check_repeats, first_request, scored_first
from rlgf.models.language_model import LanguageModel
from rlgf.models.loading import ModelConfig, load_tokenizer
from rlgf.models.text import Codec
from rlgf.rewards import Reward, RewardInput, build_reward, score
from rlgf.rewards.composed import reads_policy
from rlgf.rollout.hints import room_for_hint
from rlgf.tasks.base import SEEN
from rlgf.tasks.chats import Prompted, PromptedTask
from rlgf.tasks.source import CHECKED
from rlgf.types import Message, Sample


def asked_guide(config: Config, train: Sequence[Sample], undone: ExitStack, *, evaluates: bool) -> Guide:
    """A guide that loads no model, which ``undone`` closes; a remote one is asked once, so that a wrong address, key, model
    or context shows before models load. Where a run learns from its scores, it is asked twice and must answer alike.

    Raises:
        UserError: it cannot be had, or its answer is none, or it does not repeat its scores.
    """
    assert config.guide is not None, "asked for where there is one"
    guide = config.guide.build(None)
    if isinstance(guide, RemoteGuide):
        undone.callback(guide.close)
    scores = not evaluates and any(row.reads_guide_scores for row in config.algorithm.rows)
    # By one process, since a limit is one of the run: it may allow no second request.
    if isinstance(guide, RemoteGuide) and distributed.is_main():
        if scores and isinstance(guide, HTTPGuide):
            check_repeats(guide, scored_first(train))
        if not scores or any(row.asks_for_texts for row in config.algorithm.rows):
            continued = any(one.continue_message for one in members(config.guide, HTTPGuideConfig))
            request = first_request(train, config.rollout.max_response_tokens, _BEGUN if continued else "")
            (answer,) = guide.write([request])
            if continued and answer.text.strip().startswith(_BEGUN):
                raise UserError(
                    "the guide's server repeats the beginning of an answer that it is to go on with: set "
                    "'guide.continue_message: false'."
                )
    return guide


_BEGUN = "To begin with"
"""What an answer is begun with where a server is to go on with it."""


def check_chats(guides: Sequence[LocalGuideConfig], train: Prompted) -> None:
    """Try the guides' chat templates, before any weights load and with the line that one refuses.

    Raises:
        UserError: a template refuses messages, or a guide of texts is steered.
    """
    if not train[0].messages:
        return
    for guide in guides:
        if guide.steered:
            raise UserError(
                "'guide.template' stands before texts, and the task has chats: leave it out, and put what steers the guide "
                "into the messages."
            )
        template = guide_template(load_tokenizer(guide), guide.model)
        for number in range(min(len(train), CHECKED) if template.there else 0):
            template.prompt(train[number].messages, train[number].columns, train.place(number))


def check_dialogues(environment: Environment, template: ChatTemplate, train: Prompted) -> None:
    """Try an environment on a turn, and the policy's chat template on a dialogue, before any weights load.

    Raises:
        UserError: the template refuses the messages, or leaves some out; or see `reply_to`.
    """
    if train[0].messages:
        template.between(parted(train[0].messages)[0], "yes", row_options(train[0].columns))
    reply_to(environment, train[0], (Message("assistant", _some_text(train[0])),))


def policy_template(config: Config, policy: LanguageModel | None) -> ChatTemplate:
    """The chat template that makes the policy's prompts, from its tokenizer alone."""
    if policy is not None:
        name = policy.model.name_or_path
        return ChatTemplate(policy.tokenizer, f"the policy '{name}'" if name else "the policy", _CHAT_MODEL)
    source = config.policy.source
    # A model from scratch has yet to train a tokenizer, and that without a template.
    tokenizer = load_tokenizer(source) if isinstance(source, ModelConfig) else None
    name = f"'{source.model}'" if isinstance(source, ModelConfig) else "from scratch"
    return ChatTemplate(tokenizer, f"the policy {name}", _CHAT_MODEL)


_CHAT_MODEL = "set the option 'chat_model' of the task 'data' to a model whose template makes its prompts"


def check_hints(config: Config, template: Callable[[], ChatTemplate], train: Prompted) -> None:
    """Put the first prompt into the templates of hints, before any weights load.

    Raises:
        UserError: a template leaves no room for a hint, or the policy's tokenizer is not there.
    """
    for row in config.algorithm.rows:
        hint = row.script.hint
        chat = None if hint is None else template()
        # A model from scratch has no tokenizer yet.
        if hint is not None and chat is not None and chat.tokenizer is not None:
            room_for_hint(train[0], hint, Codec(chat.tokenizer), chat, config.rollout.max_hint_tokens)


def scorers(
    config: Config, reward: Reward | None, train: Sequence[Sample], *, in_turns: bool
) -> tuple[Reward | None, Reward | None]:
    """The reward and the judge, each tried on a sample, which is a dialogue where they are to score those (``in_turns``).

    Raises:
        UserError: there is no such scorer, or it does not fit the data or the algorithm.
    """
    # A function of Python's may name what is made later, such as the trainer.
    not_yet = () if reward is None else (NameError,)
    if reward is None and config.reward is not None:
        reward = config.reward.build()
    if reward is not None and not reads_policy(reward):
        with suppress(*not_yet):
            _try(reward, train[0], config, in_turns=in_turns)
    named = config.evaluation.judge
    judge = None if named is None else build_reward(named.name, named.options)
    if judge is not None:
        _try(judge, train[0], config, in_turns=in_turns)
    return reward, judge


def _try(reward: Reward, sample: Sample, config: Config, *, in_turns: bool) -> None:
    """Call a reward once on a sample's own text: what it cannot take or give shows before models load (`checked_rewards`).

    There are no tokens yet, so the text's bytes stand in for them.
    """
    text = _some_text(sample)
    given = RewardInput(
        [sample.prompt],
        [text],
        {name: [value] for name, value in sample.columns.items()},
        [sample.references],
        prompt_ids=[list(sample.prompt.encode())],
        completion_ids=[list(text.encode())],
        finished=[True],
        trainer_state=TrainerState(max_steps=config.training.updates),
        messages=[sample.messages],
        dialogues=[(Message("assistant", text),)] if in_turns else None,
    )
    # One sample alone says little of which rows a reward does not apply to.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        score(reward, given)


def _some_text(sample: Sample) -> str:
    return sample.references[0] if sample.references else sample.prompt


def long_prompts(
    task: PromptedTask, train: Sequence[Sample], codec: Codec, limit: int, *, ends: bool = False
) -> list[str]:
    """No sentence, or one, about prompts over ``limit`` tokens among the first 256.

    They lose their beginning, which may be what they were to be told first. Those of a task that goes on with texts
    do not need it, and those with a cue are cut where their task wants them to be. ``ends``: what the tokenizer puts
    after a text counts too, as it does for an encoder.
    """
    if task.continues_texts:
        return []
    some = list(islice(train, SEEN))
    around = limit - codec.room(limit, ends=ends)
    lengths = [around + len(codec.encode_prompt(sample.prompt)) for sample in some if not sample.cue]
    over = [length for length in lengths if length > limit]
    if not over:
        return []
    first = "first " if len(some) < len(train) else ""
    return [
        f"{len(over):,} of the {first}{len(some):,} prompts of 'train' are over {limit:,} tokens and lose their beginning "
        f"(the longest has {max(over):,}): raise 'rollout.max_prompt_tokens'."
    ]


def answered_prompts(train: Sequence[Sample]) -> list[str]:
    """No sentence, or one, about chats that end in answers of the data's own, and have no references.

    A beginning that an answer is to have is mostly the same in all of them.
    """
    some = list(islice(train, SEEN))
    ends = {s.messages[-1].content for s in some if s.messages and s.messages[-1].role == "assistant"}
    if len(ends) < 2 or any(sample.references for sample in some):
        return []
    return [
        "prompts of 'train' end in answers of the assistant's, which the policy goes on with and is paid for: where they are "
        "whole conversations, name their column as 'reference_field' and leave 'prompt_field' out."
    ]


def unread_prompts(train: Prompted, codec: Codec) -> list[str]:
    """No sentence, or one, about characters of prompts that are dropped or read as unknown."""
    count = min(SEEN, len(train))
    unread = [number for number in range(count) if _unread(train[number].prompt, codec)]
    if not unread:
        return []
    first = "first " if count < len(train) else ""
    return [
        f"{len(unread):,} of the {first}{count:,} prompts of 'train' hold characters that the policy's tokenizer does not "
        f"have, so that the policy does not read them (the first: {train.place(unread[0])}): choose another policy, or "
        "write the prompts in its characters."
    ]


def _unread(prompt: str, codec: Codec) -> bool:
    ids, unknown = codec.encode_prompt(prompt), codec.tokenizer.unk_token
    # A template may write out the token for an unknown text, which in GPT-2 is the end of text.
    lost = unknown is not None and unknown not in prompt and codec.tokenizer.unk_token_id in ids
    return bool(prompt.strip()) and (lost or not ids)
