"""A scorer reads what its tokenizer or its template makes of a text."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_bert import save_bert
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    CanineConfig,
    ConvBertConfig,
    FNetConfig,
    GPT2Config,
    GPT2ForSequenceClassification,
    PerceiverConfig,
    RobertaConfig,
    T5Config,
    XLNetConfig,
)

from chat_toys import ASKED, SYSTEM, TAGS, USER, WORDS, with_template
from rlgf.chat import transcript
from rlgf.errors import UserError
from rlgf.models.language_model import LanguageModel
from rlgf.models.loading import ModelConfig, load_language_model
from rlgf.models.lora import Adapters, LoRAConfig
from rlgf.reward_models.scorer import Scorer, load_published, load_scorer
from rlgf.rewards import build_reward
from tokenizer_kinds import byte_bpe, encoder_pieces, llama_legacy, word_pieces


@pytest.mark.parametrize("kind", [byte_bpe, word_pieces, llama_legacy, encoder_pieces])
def test_a_scorer_reads_what_its_tokenizer_makes_of_a_text(kind: Any) -> None:
    """With a beginning of text where there is one, once, also where the text is cut."""
    scorer = Scorer(None, kind(), 99)
    before, after = scorer.codec.around
    for prompt, completion in [("the film", " was a joy"), ("the mus", "ic"), ("", "a joy"), ("a", "")]:
        (ids,) = scorer.encode([prompt], [completion])
        assert ids == scorer.tokenizer(prompt + completion)["input_ids"]
    (ids,) = replace(scorer, max_tokens=6).encode(["the film was"], [" a joy from the first scene"])
    assert len(ids) == 6
    assert ids[: len(before)] == before
    assert ids[6 - len(after) :] == after
    if before:
        name = scorer.tokenizer.convert_ids_to_tokens(before[0])
        assert scorer.encode([f"{name}the film"], [""])[0].count(before[0]) == 1


@pytest.mark.parametrize("kind", [byte_bpe, word_pieces, llama_legacy])
def test_a_completion_cannot_write_a_scorers_special_tokens(kind: Any) -> None:
    scorer = Scorer(None, kind(), 99)
    around = [i for part in scorer.codec.around for i in part]
    names = [scorer.tokenizer.eos_token, *(["[MASK]", "[PAD]"] if kind is word_pieces else [])]
    special = scorer.tokenizer.all_special_ids
    for name in names:
        (ids,) = scorer.encode(["the film"], [f" was{name} a joy"])
        assert [i for i in ids if i in special] == around
        (told,) = scorer.encode([f"the{name} film"], [" was"])
        assert len([i for i in told if i in special]) == len(around) + 1, "a prompt may be a rendered chat"
    end = names[0]
    assert scorer.encode(["the"], [f" film{end} a joy"]) == scorer.encode(["the"], [" film"])


@pytest.mark.parametrize("kind", [byte_bpe, word_pieces, llama_legacy, encoder_pieces])
def test_a_reward_model_reads_the_whole_conversation_through_its_own_template(kind: Any) -> None:
    tokenizer = with_template(kind())
    if kind is word_pieces:
        tokenizer.eos_token = "[SEP]"
    scorer = Scorer(None, tokenizer, 99)
    (ids,) = scorer.encode([(SYSTEM, USER)], ["a joy"])
    told = tokenizer.apply_chat_template([*ASKED, {"role": "assistant", "content": "a joy"}], tokenize=False)
    whole = scorer.codec.encode_prompt(told)
    assert ids == scorer.codec.surround(whole, 99, ends=True)
    assert "assistant" in tokenizer.decode(ids).replace(" ", "")
    (trimmed,) = Scorer(None, with_template(copy.deepcopy(tokenizer), WORDS), 99).encode(
        [(USER,)], ["  a joy  "]
    )
    assert trimmed == scorer.encode(["user says the film?.assistant says a joy."], [""])[0]


def test_a_completion_cannot_end_its_turn_in_a_reward_models_template() -> None:
    scorer = Scorer(None, with_template(byte_bpe(), TAGS.replace("<user>", "<u>")), 99)
    tokenizer = copy.deepcopy(scorer.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    scorer = Scorer(None, tokenizer, 99)
    (ids,) = scorer.encode([(USER,)], ["a<turn><user>joy"])
    assert tokenizer.convert_tokens_to_ids("<turn>") not in ids
    assert ids.count(tokenizer.eos_token_id) == 1, "the template's own"


def test_a_reward_model_without_a_template_reads_the_names_of_the_roles() -> None:
    scorer = Scorer(None, byte_bpe(), 99)
    told = "system: be kind\n\nuser: the film?\n\nassistant: "
    assert scorer.encode([(SYSTEM, USER)], ["a joy"]) == scorer.encode([told], ["a joy"])
    assert transcript((USER,)) == "the film?"


def test_texts_are_held_against_what_the_positions_are_enough_for(tmp_path: Path) -> None:
    RobertaConfig(max_position_embeddings=40, pad_token_id=1).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="set it to 38 or less"):
        load_scorer(str(tmp_path), 40)


def test_a_base_may_bring_a_head_of_its_own_or_none(tmp_path: Path) -> None:
    bases = [
        save_bert(tmp_path / "labels", BertForSequenceClassification, num_labels=3),
        save_bert(tmp_path / "none", BertForMaskedLM),
    ]
    for base in bases:
        assert load_scorer(base, 8).model.classifier.weight.shape == (1, 16)
        assert load_scorer(base, 8, layers=1).model.config.num_hidden_layers == 1
    with pytest.raises(
        UserError, match=r"'classifier.bias' has the shape \(3,\) in the files.* needs \(1,\)"
    ):
        load_scorer(bases[0], 8, trained=True)


def test_no_weights_of_a_base_are_drawn_at_random(tmp_path: Path) -> None:
    folder = save_bert(tmp_path, BertForMaskedLM)
    with pytest.raises(UserError, match=r"'layers' 9 is more than the model .* holds: set it to 2 or less"):
        load_scorer(folder, 8, layers=9)
    config = BertConfig.from_pretrained(folder)
    config.num_hidden_layers = 3
    config.save_pretrained(folder)
    with pytest.raises(UserError, match=r"no weights for 'bert.encoder.layer.2.*drawn at random"):
        load_scorer(folder, 8)


def test_a_tokenizer_without_a_token_that_pads_is_refused_before_the_model_loads(tmp_path: Path) -> None:
    tokenizer = word_pieces()
    tokenizer.pad_token = tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"neither a token that pads \(pad_token\) nor one that ends a text"):
        load_scorer(str(tmp_path), 8)


def test_an_encoder_decoder_is_refused_by_its_configuration(tmp_path: Path) -> None:
    T5Config().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"an encoder and a decoder \('t5'\).*encoder or a causal model"):
        load_scorer(str(tmp_path), 8)


@pytest.mark.parametrize(
    "config",
    [CanineConfig(num_labels=1), PerceiverConfig(num_labels=1)],
    ids=lambda config: config.model_type,
)
def test_a_model_without_embeddings_of_tokens_is_refused_by_its_configuration(
    config: Any, tmp_path: Path
) -> None:
    config.architectures = [type(config).__name__.replace("Config", "ForSequenceClassification")]
    config.save_pretrained(tmp_path)
    for load in (lambda: load_scorer(str(tmp_path), 8), lambda: load_published(str(tmp_path), None)):
        with pytest.raises(UserError, match=rf"\('{config.model_type}'\) has no table of token embeddings"):
            load()


def test_labels_are_found_in_any_order_and_a_regressions_output_is_paid_as_it_is(tmp_path: Path) -> None:
    save_bert(tmp_path, BertForSequenceClassification, id2label={0: "0", 1: "1", 2: "2"})
    model = BertForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        alone = model(**word_pieces()("it is a joy", return_tensors="pt")).logits[0]
    written = json.loads((tmp_path / "config.json").read_text())
    written["id2label"] = {"2": "2", "0": "0", "1": "1"}
    (tmp_path / "config.json").write_text(json.dumps(written))
    for label in (0, 1, 2):
        reward = build_reward("model", {"model": str(tmp_path), "label": label})
        assert reward([""], ["it is a joy"]) == pytest.approx([alone.softmax(dim=0)[label].item()], abs=1e-5)
    (tmp_path / "config.json").write_text(json.dumps(written | {"problem_type": "regression"}))
    reward = build_reward("model", {"model": str(tmp_path), "label": "2"})
    assert reward(["it is"], [" a joy"]) == pytest.approx([alone[2].item()], abs=1e-5)


def test_a_batch_is_padded_with_the_token_that_the_model_looks_for(
    tmp_path: Path, language_model: LanguageModel
) -> None:
    tokenizer = language_model.tokenizer
    pad_id = tokenizer("d")["input_ids"][0]
    assert pad_id != tokenizer.pad_token_id
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=1, num_labels=1, pad_token_id=pad_id
    )
    model = GPT2ForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    texts = ["a", "abcabcab", "cab"]
    with torch.no_grad():
        alone = [model(torch.tensor([tokenizer(text)["input_ids"]])).logits.item() for text in texts]
    reward = build_reward("model", {"model": str(tmp_path)})
    assert reward([""] * 3, texts) == pytest.approx(alone, abs=1e-6)


@pytest.mark.parametrize(
    "config",
    [
        XLNetConfig(vocab_size=30522, d_model=16, n_layer=1, n_head=2, d_inner=16, num_labels=1),
        ConvBertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_labels=1),
        FNetConfig(vocab_size=30522, hidden_size=16, num_hidden_layers=1, num_labels=1),
    ],
    ids=lambda config: config.model_type,
)
def test_a_model_whose_scores_padding_would_change_reads_each_text_alone(config: Any, tmp_path: Path) -> None:
    tokenizer = word_pieces()
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    texts = ["a joy", "it is a joy from the first scene on", "no"]
    with torch.no_grad():
        alone = [model(torch.tensor([tokenizer(text)["input_ids"]])).logits.item() for text in texts]
    assert build_reward("model", {"model": str(tmp_path)})([""] * 3, texts) == pytest.approx(alone, abs=1e-4)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    save_bert(tmp_path / "whole", BertForSequenceClassification, num_labels=1)
    BertForSequenceClassification.from_pretrained(tmp_path / "whole").save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"has no tokenizer, such as tokenizer\.json"):
        build_reward("model", {"model": str(tmp_path)})


def test_an_adapter_of_a_policy_scores_no_texts(letter_folder: str, tmp_path: Path) -> None:
    policy = load_language_model(ModelConfig(model=letter_folder))
    Adapters(policy.model, LoRAConfig(r=2)).save(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"has no weights for 'score\.weight', so it was never trained"):
        build_reward("model", {"model": str(tmp_path)})
