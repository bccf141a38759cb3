"""Every architecture of `transformers` that writes text, as small as it can be, and what becomes of it here.

`benchmarks/models.py` writes the table of docs/models.md from this file, and test_architectures.py holds the table
to it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from architecture_settings import BEGIN, END, HOLE, LETTERS, SMALL, SPECIAL, VOCABULARY
from architecture_sight import IMAGE, SEEING
from conftest import sharpen

MULTIMODAL = "Made for images or sound; not tried."


NOT_TRIED: Mapping[str, str] = {
    **dict.fromkeys(
        [
            "AudioFlamingo3ForConditionalGeneration",
            "Dots3NoteForCausalLM",
            "Emu3ForCausalLM",
            "FuyuForCausalLM",
            "Gemma3nForConditionalGeneration",
            "Gemma4UnifiedForConditionalGeneration",
            "GlmAsrForConditionalGeneration",
            "GotOcr2ForConditionalGeneration",
            "GraniteSpeechForConditionalGeneration",
            "GraniteSpeechPlusForConditionalGeneration",
            "MoshiForCausalLM",
            "MossTranscribeDiarizeForConditionalGeneration",
            "MusicFlamingoForConditionalGeneration",
            "MusicgenForCausalLM",
            "MusicgenMelodyForCausalLM",
            "Nemotron3_5TranscribeForConditionalGeneration",
            "OmniASRForConditionalGeneration",
            "Phi4MultimodalForCausalLM",
            "Qwen2AudioForConditionalGeneration",
            "Qwen3ASRForConditionalGeneration",
            "T5Gemma2ForConditionalGeneration",
            "VibeVoiceAsrForConditionalGeneration",
            "VoxtralForConditionalGeneration",
            "VoxtralRealtimeForConditionalGeneration",
            "WhisperForCausalLM",
        ],
        MULTIMODAL,
    ),
    **dict.fromkeys(
        ("Gemma4AssistantForCausalLM", "Gemma4UnifiedAssistantForCausalLM"),
        "Drafts for a larger model, whose states it reads; not tried.",
    ),
    "Qwen4ExpForCausalLM": "Has sizes that are not made small here; not tried.",
}
"""Architectures that are not tried, with the reason."""


TEXT_PART = "Its part for text alone is loaded, trained and saved."


NO_GENERATE = "Greedy text is not compared: `generate` of `transformers` fails."


NOTES = {
    "BltForCausalLM": NO_GENERATE,
    "Llama4ForConditionalGeneration": TEXT_PART,
    "xLSTMForCausalLM": NO_GENERATE,
    "YoutuForCausalLM": "Without a padding token in its configuration: `transformers` sets that token's row to 0 at each load.",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table."""

    architecture: str
    model_type: str
    refused: str = ""
    together: bool = False
    """Whether texts of unequal length are run together."""
    cached: bool = False

    @property
    def line(self) -> str:
        """In the table of docs/models.md."""
        head = f"| `{self.architecture}` | {self.model_type} |"
        if self.refused:
            return f"{head} no | no | no | {self.refused} |"
        how = [] if self.together else ["Texts of one length run together."]
        how += [NOTES[self.architecture]] if self.architecture in NOTES else []
        how += [] if self.cached else ["Reads the whole text for every token."]
        return f"{head} yes | yes | yes | {' '.join(how)} |"


def architectures() -> dict[str, str]:
    """The model type of each architecture, by the name of its class; a class with several counts once.

    Of a configuration within another, the one for text.
    """
    found: dict[str, str] = {}
    seeing = {name: MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[name] for name in SEEING}
    for mapping in (MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, seeing):
        for model_type, name in mapping.items():
            own = name.lower().startswith(model_type.replace("-", "").replace("_", ""))
            if name not in found or own or model_type == f"{found[name]}_text":
                found[name] = model_type
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def small_config(kind: type[PreTrainedConfig], **special: Any) -> PreTrainedConfig:
    """A configuration with every size that it has set to a small one, and so within."""
    fields = {field.name: field.default for field in dataclasses.fields(kind)}
    sizes = {name: size for name, size in SMALL.items() if name in fields}
    parts = {name: CONFIG_MAPPING[part] for name, part in SEEING.get(kind.model_type, {}).items()}
    for name, default in fields.items():
        if name.endswith(("_token_id", "_token_index")) and name not in SMALL and isinstance(default, int):
            sizes[name] = 3
    for name, inner in {**(kind.sub_configs or {}), **parts}.items():
        if name in fields and dataclasses.is_dataclass(inner):
            own = SPECIAL.get(inner.model_type, {})
            if name != "text_config":
                own = {size: IMAGE[size] for size in IMAGE if size in inner.__dataclass_fields__} | dict(own)
            sizes[name] = small_config(inner, **own)
    return kind(**(sizes | special))


def small_model(name: str, model_type: str) -> PreTrainedModel:
    """The architecture with random weights, always the same."""
    special = dict(SPECIAL.get(model_type, {}))
    kind = CONFIG_MAPPING[model_type]
    writes_alone = name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    if name == "EncoderDecoderModel":
        bert = CONFIG_MAPPING["bert"]
        special["encoder"] = small_config(bert).to_dict()
        special["decoder"] = small_config(bert, is_decoder=True, add_cross_attention=True).to_dict()
    config = small_config(kind, **special)
    if writes_alone and config.is_encoder_decoder:
        config = small_config(kind, is_encoder_decoder=False, is_decoder=True, **special)
    if writes_alone and hasattr(config, "is_decoder"):
        config.is_decoder = True
    architecture = getattr(transformers, name)
    with torch.device("meta"):
        size = sum(weight.numel() for weight in architecture._from_config(config).parameters())
    assert size < 500_000, f"{name} is not small: {size} weights"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = sharpen(architecture._from_config(config), 2.0)
    # BART and its kin end every text of `generate` in this token, wherever its limit is.
    model.generation_config.forced_eos_token_id = None
    if config.is_encoder_decoder and not model.generation_config.decoder_start_token_id:
        model.generation_config.decoder_start_token_id = BEGIN
    return model


def small_tokenizer() -> PreTrainedTokenizerFast:
    """Letters, with fewer ids than the models have rows, and a hole between them."""
    free = [i for i in range(VOCABULARY) if i > BEGIN and i != HOLE]
    vocabulary = {"</s>": END, "<s>": BEGIN} | dict(zip(LETTERS, free, strict=False))
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="</s>", eos_token="</s>", bos_token="<s>"
    )
