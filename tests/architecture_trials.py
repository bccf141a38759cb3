"""What becomes of a small model here: it writes, is scored and trained, and is saved and read back."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from transformers import PreTrainedModel

from architecture_settings import BEGIN, END, HOLE, LIMIT, TOLERANCE, VOCABULARY
from architectures import NO_GENERATE, NOT_TRIED, NOTES, Row, small_model, small_tokenizer
from rlgf.config import Config
from rlgf.errors import UserError
from rlgf.models.abilities import abilities, takes
from rlgf.models.critic import build_critic
from rlgf.models.encoder_decoder import decoder_start, is_encoder_decoder
from rlgf.models.forward import Tokens, response_outputs
from rlgf.models.generate import sample_continuations
from rlgf.models.language_model import LanguageModel
from rlgf.models.loading import ModelConfig, load_language_model
from rlgf.models.samplers import BeamSampler, Beginning
from rlgf.models.sampling import Sampling, token_logprobs
from rlgf.run.build import build_parts
from rlgf.run.checkpoint import load_checkpoint, save_checkpoint
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from rlgf.types import pad
from toys import FavouringGuide, LetterTask, share_of_a


def check(name: str, model_type: str, folder: Path) -> Row:
    """Put an architecture through all that a run does with it.

    Raises:
        AssertionError: it is taken at loading, and something then comes out wrong.
    """
    row = Row(name, model_type)
    if name in NOT_TRIED:
        return dataclasses.replace(row, refused=NOT_TRIED[name])
    small_model(name, model_type).save_pretrained(folder / "start")
    small_tokenizer().save_pretrained(folder / "start")
    try:
        policy = load_language_model(ModelConfig(model=str(folder / "start")))
    except UserError as error:
        return dataclasses.replace(row, refused=str(error).replace(str(folder / "start"), "…"))
    able = abilities(policy.model)
    samples_are_scored(policy)
    if NOTES.get(name) != NO_GENERATE:
        writes_as_generate_does(policy)
    values_fit(policy)
    try:
        trains_and_is_saved(policy, folder)
    except UserError as error:
        return dataclasses.replace(row, refused=str(error).replace(str(folder / "start"), "…"))
    searches_each_text_alone(policy)
    return dataclasses.replace(
        row,
        together=able.padding and able.prompt_padding,
        cached=able.cache,
    )


def plain_logprobs(policy: LanguageModel, prompt: Tensor, response: Tensor) -> Tensor:
    """(T, V) of what `transformers` itself says of one text alone, over the tokens that there are."""
    model = policy.model
    whole = uncached(model)
    with torch.no_grad():
        if is_encoder_decoder(model):
            ids = torch.cat([torch.tensor(decoder_start(model)), response])
            logits = model(input_ids=prompt[None], decoder_input_ids=ids[None], **whole).logits[0]
        else:
            logits = model(input_ids=torch.cat([prompt, response])[None], **whole).logits[0]
    logits = logits[-len(response) - 1 : -1, :VOCABULARY].float()
    logits[:, without_token()] = float("-inf")
    return logits.log_softmax(dim=-1)


def uncached(model: PreTrainedModel) -> dict[str, Any]:
    """Some cannot build their own cache."""
    return {"use_cache": False} if takes(model, "use_cache") else {}


def without_token() -> list[int]:
    return sorted({*range(VOCABULARY)} - set(small_tokenizer().get_vocab().values()))


def letters(*lengths: int, seed: int = 0) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randint(BEGIN + 1, HOLE, (length,), generator=random) for length in lengths]


def same_model(one: PreTrainedModel, other: PreTrainedModel) -> None:
    """Weights bit for bit; logits too but for where their weights lie in memory, which can change a last digit."""
    others = other.state_dict()
    assert all(torch.equal(weight, others[name]) for name, weight in one.state_dict().items())
    given: dict[str, Any] = {"input_ids": letters(7)[0][None]} | uncached(one)
    if is_encoder_decoder(one):
        given["decoder_input_ids"] = letters(4, seed=1)[0][None]
    with torch.no_grad():
        torch.testing.assert_close(one(**given).logits, other(**given).logits, atol=1e-5, rtol=1e-5)


def samples_are_scored(policy: LanguageModel) -> None:
    """Rows of unequal prompts and beginnings that end at different times, against one plain pass each."""
    prompts = letters(5, 1, 9, 3, 4, 7)
    written = letters(0, 2, 1, 0, 3, 0, seed=1)
    limits = torch.tensor([2, 8, 4, 1, 6, 8])
    prefixes, read = policy.prefixes([p.tolist() for p in prompts], [w.tolist() for w in written])
    uniforms = torch.rand(len(prompts), LIMIT, generator=torch.Generator().manual_seed(0))
    sampled = sample_continuations(
        policy.model, prefixes, limits, uniforms, Sampling(), policy.end_ids, prompts=read
    )
    responses = [torch.cat([w, one.token_ids]) for w, one in zip(written, sampled, strict=True)]
    tokens = Tokens(
        pad(prompts, END, left=True),
        pad([torch.ones_like(p, dtype=torch.bool) for p in prompts], False, left=True),
        pad(responses, END),
        pad([torch.ones_like(r, dtype=torch.bool) for r in responses], False),
    )
    with torch.no_grad():
        logits, _ = response_outputs(policy.model, tokens)
    scored = token_logprobs(logits, tokens.response_ids, Sampling(), policy.end_ids)
    for row, (prompt, response, one) in enumerate(zip(prompts, responses, sampled, strict=True)):
        plain = plain_logprobs(policy, prompt, response).gather(-1, response[:, None])[:, 0]
        torch.testing.assert_close(scored[row, : len(response)], plain, atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(one.logprobs, plain[-len(one.token_ids) :], atol=TOLERANCE, rtol=0)
    assert len({len(one.token_ids) for one in sampled}) > 2
    assert not {i for one in sampled for i in one.token_ids.tolist()} & set(without_token())


def writes_as_generate_does(policy: LanguageModel) -> None:
    """Greedily."""
    prompts = letters(6)
    prefixes, read = policy.prefixes([p.tolist() for p in prompts], [[]])
    greedy = sample_continuations(
        policy.model,
        prefixes,
        torch.tensor([LIMIT]),
        torch.zeros(1, LIMIT),
        Sampling(top_k=1),
        policy.end_ids,
        prompts=read,
    )
    first = abilities(policy.model).first_position or 0
    for prompt, prefix, one in zip(prompts, prefixes, greedy, strict=True):
        # `generate` counts the positions of RoBERTa and its kin from 0, where their own pass does not.
        given = {"position_ids": first + torch.arange(len(prompt))[None]} if first else {}
        generated = policy.model.generate(
            prompt[None],
            attention_mask=torch.ones_like(prompt)[None],
            do_sample=False,
            max_new_tokens=LIMIT + len(decoder_start(policy.model)[1:]),
            eos_token_id=END,
            pad_token_id=END,
            suppress_tokens=without_token(),
            **given,
        )
        assert one.token_ids.tolist() == generated[0, len(prefix) :].tolist()


def searches_each_text_alone(policy: LanguageModel) -> None:
    """By a beam search, where there is one; else greedily."""
    asked = [Beginning(prompt.tolist(), [], LIMIT, seed=0) for prompt in letters(5, 1, 9)]
    try:
        search = BeamSampler(policy, 2)
    except UserError:
        search = BeamSampler(policy, 1)
    together = search.write(asked, Sampling())
    for one, written in zip(asked, together, strict=True):
        (alone,) = search.write([one], Sampling())
        assert written.token_ids.tolist() == alone.token_ids.tolist()


def values_fit(policy: LanguageModel) -> None:
    """Both critics start from the same states, those under the policy's head."""
    prompts, responses = letters(5, 2), letters(3, 4, seed=1)
    tokens = Tokens(
        pad(prompts, END, left=True),
        pad([torch.ones_like(p, dtype=torch.bool) for p in prompts], False, left=True),
        pad(responses, END),
        pad([torch.ones_like(r, dtype=torch.bool) for r in responses], False),
    )
    with torch.no_grad():
        _, hidden = response_outputs(policy.model, tokens, hidden=True)
        found = []
        for kind in ("separate", "head"):
            critic = build_critic(kind, policy.model)
            torch.nn.init.ones_(critic.head.weight)
            found.append(critic(tokens, hidden)[tokens.response_mask])
    torch.testing.assert_close(found[0], found[1], atol=TOLERANCE, rtol=1e-4)
    assert found[0].std() > 0


def small_trainer(policy: LanguageModel) -> Trainer:
    config = Config.model_validate(
        {
            "task": {"name": "letters"},
            "policy": {"model": "made by hand"},
            "guide": {"model": "made by hand"},
            "reward": {"name": "made by hand"},
            "algorithm": "ppo++",
            "rollout": {"episodes": 4, "max_prompt_tokens": 4, "max_response_tokens": 6},
            "update": {"minibatch": 4, "epochs": 1, "learning_rate": 1e-3},
            "training": {"updates": 4, "trackers": []},
            "evaluation": {"samples": 4},
        }
    )
    guide = FavouringGuide("a", 0.9)
    parts = build_parts(config, task=LetterTask(), reward=share_of_a, guide=guide, policy=policy)
    return Trainer(config, parts, Display(Console(quiet=True)))


def trains_and_is_saved(start: LanguageModel, folder: Path) -> None:
    """An update of PPO++, its checkpoint read over other weights, and the policy as plain `transformers` loads it."""
    policy = copy.deepcopy(start)
    trainer = small_trainer(policy)
    trainer.step()
    updater, critic = trainer.parts.updater, trainer.parts.updater.critics["policy"]
    assert any(
        not torch.equal(one, two)
        for one, two in zip(policy.model.parameters(), start.model.parameters(), strict=True)
    )
    trained, valued = copy.deepcopy(policy.model.state_dict()), copy.deepcopy(critic.state_dict())
    saved = save_checkpoint(folder / "checkpoints", updater, trainer.progress, trainer.config.identity)
    loaded = type(policy.model).from_pretrained(saved / "policy", dtype=torch.float32).eval()
    same_model(loaded, policy.model)
    with torch.no_grad():
        for weight in (*updater.policy.trained, *critic.parameters()):
            weight.zero_()
    load_checkpoint(saved, updater, trainer.config.identity)
    assert all(torch.equal(weight, trained[name]) for name, weight in policy.model.state_dict().items())
    assert all(torch.equal(weight, valued[name]) for name, weight in critic.state_dict().items())
