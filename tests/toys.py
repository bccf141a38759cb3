"""Small real parts: a tokenizer of letters, a tiny GPT over them, and a model that is a table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    TrainerCallback,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from rlgf import seeding
from rlgf.errors import UserError
from rlgf.guides import Piece, Request
from rlgf.models.abilities import Abilities, declare
from rlgf.models.critic import Critic
from rlgf.models.forward import Tokens
from rlgf.models.language_model import LanguageModel
from rlgf.types import Author, Completion, Rollout, Sample, pad


def letter_tokenizer(letters: str) -> PreTrainedTokenizerFast:
    """One token a letter, in the order given; the end-of-text token, which also pads, comes last."""
    vocabulary = {letter: i for i, letter in enumerate(letters)} | {"<end>": len(letters)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
    # Letters join without spaces between them.
    fast.backend_tokenizer.decoder = _fuse()
    return fast


def _fuse() -> object:
    from tokenizers import decoders

    return decoders.Fuse()


def letter_gpt(
    letters: str = "abcd", *, width: int = 32, layers: int = 1, context: int = 32, seed: int = 0
) -> LanguageModel:
    """A GPT-2 with random weights over letters."""
    tokenizer = letter_tokenizer(letters)
    end = len(letters)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=end + 1,
                n_embd=width,
                n_layer=layers,
                n_head=2,
                n_positions=context,
                bos_token_id=end,
                eos_token_id=end,
                pad_token_id=end,
                attn_pdrop=0.0,
                embd_pdrop=0.0,
                resid_pdrop=0.0,
            )
        )
    return LanguageModel(model.eval(), tokenizer)


def letter_t5(letters: str = "abcd", *, width: int = 32, seed: int = 0) -> LanguageModel:
    """A T5 with random weights over letters."""
    end = len(letters)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = T5ForConditionalGeneration(
            T5Config(
                vocab_size=end + 1,
                d_model=width,
                d_kv=width // 2,
                d_ff=2 * width,
                num_layers=1,
                num_heads=2,
                eos_token_id=end,
                pad_token_id=end,
                decoder_start_token_id=end,
            )
        )
    return LanguageModel(model.eval(), letter_tokenizer(letters))


class FavouringGuide:
    """Writes one letter with a given probability and the others evenly, and counts its requests."""

    def __init__(self, favourite: str, probability: float, letters: str = "abcd") -> None:
        self.others = [letter for letter in letters if letter != favourite]
        self.favourite = favourite
        self.probability = probability
        self.requests: list[Request] = []

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        self.requests += requests
        return [Completion("".join(self._letters(request)), finished=False) for request in requests]

    def score(self, requests: Sequence[Request]) -> list[list[Piece]]:
        """What it says of a text is how it writes one."""
        one, other = (
            math.log(self.probability or 1e-9),
            math.log((1 - self.probability) / len(self.others) or 1e-9),
        )
        texts = [str(request.scored) for request in requests]
        return [
            [Piece(i, i + 1, one if letter == self.favourite else other) for i, letter in enumerate(text)]
            for text in texts
        ]

    def _letters(self, request: Request) -> list[str]:
        draws = seeding.uniforms(2 * request.max_new_tokens, request.seed, "toy").view(2, -1).tolist()
        return [
            self.favourite if which < self.probability else self.others[int(other * len(self.others))]
            for which, other in zip(*draws, strict=True)
        ]


def written(*texts: str, prompts: Sequence[str] = ("ab",), authors: str = "") -> Rollout:
    """Finished episodes of the letters abcd, whose policy is `letter_gpt`; each ends in the end of text.

    Args:
        prompts: taken in turns.
        authors: of each token, as the first letters of their names, in every text; default: the policy wrote all.
    """
    numbers = {"p": Author.POLICY, "g": Author.GUIDE, "r": Author.REFERENCE}
    asked = [prompts[i % len(prompts)] for i in range(len(texts))]
    before = [torch.tensor(["abcd".index(letter) for letter in prompt]) for prompt in asked]
    after = [torch.tensor([*("abcd".index(letter) for letter in text), 4]) for text in texts]
    wrote = [[numbers[name] for name in (authors or "p" * len(ids))[: len(ids)]] for ids in after]
    author = pad([torch.tensor(names, dtype=torch.uint8) for names in wrote], Author.NOBODY)
    return Rollout(
        samples=tuple(Sample(prompt, (text,)) for prompt, text in zip(asked, texts, strict=True)),
        prompt_ids=pad(before, 4, left=True),
        prompt_mask=pad([torch.ones(len(ids), dtype=torch.bool) for ids in before], False, left=True),
        response_ids=pad(after, 4),
        author=author,
        sampled_logprobs=torch.zeros(author.shape),
        kept=(None,) * len(texts),
        finished=torch.ones(len(texts), dtype=torch.bool),
        group=torch.arange(len(texts)),
        texts=texts,
        guides=(None,) * len(texts),
        altered=torch.zeros(len(texts), dtype=torch.bool),
    )


LENGTH = 3
LETTERS = "abc"
STATES = [s for n in range(LENGTH) for s in itertools.product(range(3), repeat=n)]
"""Every response prefix that has a next token, from the empty one on."""


def state_index(prefix: Sequence[int]) -> int:
    return STATES.index(tuple(prefix))


class TableModel(PreTrainedModel):
    """A causal model whose logits are one row of a table for each response prefix.

    The prompt is one end-of-text token; the response has `LENGTH` letters.
    """

    config_class = PreTrainedConfig

    def __init__(self, probabilities: Tensor) -> None:
        super().__init__(PreTrainedConfig())
        # The end of text cannot be drawn, so that every response has the same length.
        end = torch.full((len(STATES), 1), -1e9)
        self.table = nn.Parameter(torch.cat([probabilities.log(), end], dim=1))

    def forward(
        self,
        input_ids: Tensor,
        logits_to_keep: int = 0,
        output_hidden_states: bool = False,
        **unused: object,
    ) -> CausalLMOutputWithPast:
        rows = []
        for ids in input_ids.tolist():
            start = len(ids) - 1 - ids[::-1].index(3)
            states = [state_index(ids[start + 1 : i + 1]) for i in range(start, len(ids))]
            first = self.first_row(ids[:start])
            rows.append([0] * start + [first + state for state in states])
        logits = self.table[torch.tensor(rows)]
        return CausalLMOutputWithPast(logits=logits[:, -logits_to_keep:])

    def get_input_embeddings(self) -> nn.Module:
        """It has none; one stands for how many tokens it reads."""
        return nn.Embedding(len(LETTERS) + 1, 1)

    def first_row(self, before: list[int]) -> int:
        """Where the table of a prompt begins that has these tokens before its last end of text."""
        return 0


class TableCritic(Critic):
    """A value for each response prefix."""

    reads_policy_hidden = False

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(values)

    def forward(self, tokens: Tokens, hidden: Tensor | None) -> Tensor:
        rows = [[state_index(ids[:t]) for t in range(len(ids))] for ids in tokens.response_ids.tolist()]
        return self.table[torch.tensor(rows)]


def table_language_model(probabilities: Tensor) -> LanguageModel:
    model = TableModel(probabilities)
    # It reads no other texts than those of its table, so nothing can be tried out.
    declare(model, Abilities(cache=False))
    return LanguageModel(model, letter_tokenizer(LETTERS))


class LetterTask:
    """Short prompts of letters; the reference text is the letter a, six times, the rejected one has none."""

    def load(self, split: str) -> list[Sample]:
        offset = {"train": 0, "validation": 1, "test": 2}[split]
        return [
            Sample("abcd"[i % 4] + "dcba"[(i // 4 + offset) % 4], ("aaaaaa",), rejected="bcdbcd")
            for i in range(64)
        ]


class StopWhenLearned(TrainerCallback):
    """Ends a run once nearly all that the policy writes is paid: the rest of its updates would show nothing.

    Where somebody else begins some of the texts, their reward is not the policy's alone, and all updates are run.
    """

    def on_log(self, args: Any, state: Any, control: Any, logs: Any, **kwargs: Any) -> None:
        alone = all(row.script.helper is None for row in args.algorithm.rows)
        control.should_training_stop = alone and logs.get("reward", 0.0) > 0.97


def share_of_a(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    """The share of a completion's letters that are a."""
    return [text.count("a") / max(len(text), 1) for text in completions]


def says_d(turns: list[str]) -> str:
    """An environment that answers each turn with the letter d."""
    return "d"


def turns_of_a(turns: list[list[str]], **columns: object) -> list[float]:
    """The share of the letters of all of an author's turns that are a."""
    return share_of_a([], ["".join(said) for said in turns])


class HintedTableModel(TableModel):
    """A table for each of two prompts: the bare one, which is one end-of-text token, and one with a letter before that.

    The rows of the second come after those of the first.
    """

    def __init__(self, bare: Tensor, hinted: Tensor) -> None:
        super().__init__(bare)
        end = torch.full((len(STATES), 1), -1e9)
        self.table = nn.Parameter(torch.cat([self.table.data, torch.cat([hinted.log(), end], dim=1)]))

    def get_input_embeddings(self) -> nn.Module:
        """It has none; one stands for how many tokens it reads."""
        return nn.Embedding(len(LETTERS) + 1, 1)

    def first_row(self, before: list[int]) -> int:
        return len(STATES) if before and before[-1] != 3 else 0


def hinted_table_model(bare: Tensor, hinted: Tensor) -> LanguageModel:
    model = HintedTableModel(bare, hinted)
    declare(model, Abilities(cache=False, shared_prompts=False))
    return LanguageModel(model, letter_tokenizer(LETTERS))


def sentence_of(make: Callable[[], object]) -> str:
    """The one sentence that a call is refused with."""
    try:
        make()
    except UserError as error:
        message = str(error)
    else:
        raise AssertionError("it was not refused")
    assert "\n" not in message
    assert message.count(". ") == 0, "one sentence"
    assert message.endswith(".")
    return message
