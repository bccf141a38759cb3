"""Greedy decoding and beam search, against a plain loop and against all texts."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from transformers import MixtralConfig, MixtralForCausalLM

from conftest import ROTARY, sharpen
from rlgf.errors import UserError
from rlgf.models.abilities import Abilities, declare
from rlgf.models.generate import Continuation
from rlgf.models.language_model import LanguageModel
from rlgf.models.samplers import BeamSampler, Beginning
from rlgf.models.sampling import Sampling
from toys import letter_gpt, letter_t5

LETTERS = "abcd"
PROMPTS = ["a", "bdca", "cc", "dab", "dddddd"]
KINDS = pytest.mark.parametrize("kind", ["causal", "encoder-decoder"])


def sharp(kind: str, seed: int, rows: int | None = None) -> LanguageModel:
    """
    Args:
        rows: of the model's head, where it has more than there are tokens.
    """
    policy = letter_gpt(LETTERS, seed=seed) if kind == "causal" else letter_t5(LETTERS, seed=seed)
    if rows is not None:
        policy.model.resize_token_embeddings(rows)
        head = policy.model.get_output_embeddings().weight.data
        own = policy.end_id + 1
        head[own:] = 1.5 * head[torch.arange(rows - own) % own]  # as likely as any, and often more
    sharpen(policy.model, 8.0 if kind == "causal" else 16.0)
    return LanguageModel(policy.model, policy.tokenizer)


def next_logprobs(policy: LanguageModel, prompt: list[int], written: list[int]) -> Tensor:
    """Of one text alone, from a whole pass."""
    prefixes, prompts = policy.prefixes([prompt], [written])
    if prompts is None:
        logits = policy.model(prefixes[0][None]).logits
    else:
        logits = policy.model(input_ids=prompts[0][None], decoder_input_ids=prefixes[0][None]).logits
    return logits[0, -1, : policy.end_id + 1].log_softmax(-1)


def beginnings(policy: LanguageModel, limit: int) -> list[Beginning]:
    return [Beginning(policy.encode_prompt(prompt, 8), [], limit, seed=0) for prompt in PROMPTS]


def ids_of(written: list[Continuation]) -> list[list[int]]:
    return [one.token_ids.tolist() for one in written]


@KINDS
@pytest.mark.parametrize("least", [0, 4])
@pytest.mark.parametrize(("max_batch_tokens", "rows"), [(1, None), (1000, None), (1000, 20)])
@torch.no_grad()
def test_one_beam_takes_the_most_probable_token(
    kind: str, least: int, max_batch_tokens: int, rows: int | None
) -> None:
    policy = sharp(kind, seed=8, rows=rows)
    own = policy.model.generation_config
    own.repetition_penalty = 5.0
    asked = beginnings(policy, 6)
    found = BeamSampler(policy, 1, max_batch_tokens).write(asked, Sampling(min_tokens=least))
    assert policy.model.generation_config is own
    for one, written in zip(asked, found, strict=True):
        slow: list[int] = []
        while len(slow) < 6 and policy.end_id not in slow:
            logprobs = next_logprobs(policy, list(one.prompt), slow)
            if len(slow) < least:
                logprobs[policy.end_id] = float("-inf")
            slow.append(int(logprobs.argmax()))
        assert written.token_ids.tolist() == slow
        assert written.finished == (slow[-1] == policy.end_id)
        assert written.logprobs.tolist() == [0.0] * len(slow)


@pytest.mark.long
@pytest.mark.parametrize(("kind", "seed"), [("causal", 1), ("encoder-decoder", 0)])
@pytest.mark.parametrize("rows", [None, 12])
@torch.no_grad()
def test_enough_beams_find_the_best_of_all_texts(kind: str, seed: int, rows: int | None) -> None:
    policy = sharp(kind, seed, rows)
    asked = beginnings(policy, 3)
    found = BeamSampler(policy, 100).write(asked, Sampling())
    greedy = BeamSampler(policy, 1).write(asked, Sampling())
    end = policy.end_id
    texts = [[*text, end] for n in range(3) for text in itertools.product(range(end), repeat=n)]
    texts += [list(text) for text in itertools.product(range(end), repeat=3)]

    def score(one: Beginning, text: list[int]) -> float:
        """Per token."""
        steps = [next_logprobs(policy, list(one.prompt), text[:t])[text[t]] for t in range(len(text))]
        return float(sum(steps)) / len(text)

    for one, written in zip(asked, ids_of(found), strict=True):
        assert score(one, written) == pytest.approx(max(score(one, text) for text in texts), abs=1e-5)
    if rows is None:
        assert ids_of(found) != ids_of(greedy)


@KINDS
@pytest.mark.parametrize("beams", [1, 256])
def test_a_text_goes_on_from_where_it_stands(kind: str, beams: int) -> None:
    policy = sharp(kind, seed=8)
    asked = beginnings(policy, 4)
    whole = ids_of(BeamSampler(policy, beams).write(asked, Sampling(min_tokens=4)))
    # Of unequal length, so that what is to follow is, too.
    cut = [text[: i % 3] for i, text in enumerate(whole)]
    later = [
        Beginning(one.prompt, begun, 4 - len(begun), seed=0, position=len(begun))
        for one, begun in zip(asked, cut, strict=True)
    ]
    rest = ids_of(BeamSampler(policy, beams).write(later, Sampling(min_tokens=4)))
    assert [[*begun, *end] for begun, end in zip(cut, rest, strict=True)] == whole


@pytest.mark.parametrize("lacks", ["generate", "positions"])
def test_a_model_that_cannot_search_is_refused(lacks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = letter_gpt()
    if lacks == "generate":
        monkeypatch.setattr(policy.model, "can_generate", lambda: False)
    else:
        declare(policy.model, Abilities(first_position=2))
    with pytest.raises(
        UserError, match=r"'evaluation.beams' is 2, .* cannot be used with GPT2LMHeadModel: set it to 1"
    ):
        BeamSampler(policy, 2)
    BeamSampler(policy, 1)


def test_a_model_with_experts_searches_whatever_its_routers_are_asked_for() -> None:
    model = MixtralForCausalLM(MixtralConfig(**ROTARY, num_local_experts=4))
    policy = LanguageModel(sharpen(model), letter_gpt(LETTERS).tokenizer)
    plain = ids_of(BeamSampler(policy, 2).write(beginnings(policy, 4), Sampling()))
    model.config.output_router_logits = True
    assert ids_of(BeamSampler(policy, 2).write(beginnings(policy, 4), Sampling())) == plain


def test_a_search_does_not_wait_for_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of weights that processes share the library would sum flags over all of them, and some may have no text."""
    monkeypatch.setattr("transformers.generation.utils.is_fsdp_managed_module", lambda module: True)
    monkeypatch.setattr("transformers.generation.utils._get_torch_distributed_world_size", lambda: 2)
    policy = letter_gpt(LETTERS)
    (found,) = BeamSampler(policy, 2, 64).write([Beginning(policy.encode("a"), [], 3, 0)], Sampling())
    assert len(found.token_ids) <= 3
