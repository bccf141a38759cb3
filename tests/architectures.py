"""Every architecture of `transformers` that writes text, as small as it can be, and what becomes of it here.

`benchmarks/models.py` writes the table of docs/models.md from this file, and test_architectures.py holds the table
to it.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from conftest import sharpen
from rlgf.config import Config
from rlgf.errors import UserError
from rlgf.models.abilities import abilities, takes
from rlgf.models.critic import build_critic
from rlgf.models.encoder_decoder import decoder_start, is_encoder_decoder
from rlgf.models.forward import Tokens, response_outputs
from rlgf.models.generate import sample_continuations
from rlgf.models.language_model import LanguageModel
from rlgf.models.loading import ModelConfig, load_language_model
from rlgf.models.sampling import Sampling, token_logprobs
from rlgf.run.build import build_parts
from rlgf.run.checkpoint import load_checkpoint, save_checkpoint
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from rlgf.types import pad
from toys import FavouringGuide, LetterTask, share_of_a

END, BEGIN = 1, 2
HOLE = 20
"""An id between others that no token has."""
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGH"
VOCABULARY = 40
"""Rows of embeddings; the tokenizer has fewer tokens."""
TOLERANCE = 1e-3
LIMIT = 8

SMALL: Mapping[str, Any] = {
    **dict.fromkeys(
        [
            "vocab_size",
            "src_vocab_size",
            "tgt_vocab_size",
            "vocab_size_per_layer_input",
            "unpadded_vocab_size",
            "audio_vocab_size",
            "t2u_vocab_size",
            "unit_hifi_gan_vocab_size",
            "char_vocab_size",
        ],
        VOCABULARY,
    ),
    "encoder_hash_byte_group_vocab": 64,
    "shape_vocab_size": 8,
    "pronunciation_vocab_size": 8,
    **dict.fromkeys(
        [
            "hidden_size",
            "d_model",
            "n_embd",
            "emb_dim",
            "hidden_size_global",
            "intermediate_size",
            "decoder_ffn_dim",
            "encoder_ffn_dim",
            "d_ff",
            "dim_ff",
            "dff",
            "ffn_dim",
            "d_inner",
            "n_inner",
            "ffn_hidden_size",
            "intermediate_size_mlp",
            "dense_intermediate_size",
            "feed_forward_size",
            "backbone_hidden_size",
            "speech_encoder_intermediate_size",
        ],
        32,
    ),
    "output_embedding_size": 24,
    **dict.fromkeys(
        [
            "embedding_size",
            "input_embedding_size",
            "moe_intermediate_size",
            "expert_ffn_hidden_size",
            "shared_expert_intermediate_size",
            "shared_intermediate_size",
            "shared_experts_intermediate_size",
            "moe_shared_expert_intermediate_size",
            "head_dim",
            "swa_head_dim",
            "d_kv",
            "dim_head",
            "kv_channels",
            "attention_head_size",
            "global_head_dim",
            "v_head_dim",
            "mamba_d_head",
            "mamba_head_dim",
            "query_pre_attn_scalar",
        ],
        16,
    ),
    **dict.fromkeys(
        [
            "num_hidden_layers",
            "num_layers",
            "n_layer",
            "n_layers",
            "encoder_layers",
            "decoder_layers",
            "num_decoder_layers",
            "num_encoder_layers",
            "speech_encoder_layers",
            "num_attention_heads",
            "num_heads",
            "n_head",
            "n_heads",
            "attention_heads",
            "encoder_attention_heads",
            "decoder_attention_heads",
            "num_encoder_attention_heads",
            "num_decoder_attention_heads",
            "num_key_value_heads",
            "swa_num_attention_heads",
            "swa_num_key_value_heads",
            "speech_encoder_attention_heads",
            "num_experts_per_tok",
            "moe_k",
            "moe_topk",
            "zero_expert_num",
            "n_groups",
            "o_groups",
            "index_n_heads",
            "linear_num_key_heads",
            "linear_num_value_heads",
            "linear_num_heads",
            "global_block_size",
        ],
        2,
    ),
    **dict.fromkeys(
        [
            "num_experts",
            "n_routed_experts",
            "num_local_experts",
            "moe_num_experts",
            "mamba_n_heads",
            "mamba_num_heads",
        ],
        4,
    ),
    **dict.fromkeys(
        [
            "n_group",
            "topk_group",
            "n_shared_experts",
            "max_window_layers",
            "t2u_encoder_layers",
            "t2u_decoder_layers",
        ],
        1,
    ),
    **dict.fromkeys(
        [
            "max_position_embeddings",
            "n_positions",
            "n_ctx",
            "max_seq_len",
            "context_length",
            "original_max_position_embeddings",
            "max_encoder_position_embeddings",
            "max_decoder_position_embeddings",
            "max_target_positions",
            "max_source_positions",
            "index_topk",
            "mamba_d_ssm",
            "t2u_max_position_embeddings",
        ],
        64,
    ),
    # Smaller than the texts, so that what is out of sight shows.
    **dict.fromkeys(
        [
            "sliding_window",
            "sliding_window_size",
            "attention_window_size",
            "local_attention",
            "window_size",
            "keep_window_size",
            "attention_chunk_size",
        ],
        6,
    ),
    **dict.fromkeys(
        [
            "kv_lora_rank",
            "q_lora_rank",
            "qk_rope_head_dim",
            "qk_nope_head_dim",
            "o_lora_rank",
            "index_head_dim",
            "mamba_d_state",
            "mamba_chunk_size",
            "state_size",
            "ssm_state_size",
            "chunk_size",
            "block_size",
            "linear_key_head_dim",
            "linear_value_head_dim",
            "linear_head_dim",
            "rotary_dim",
            "relative_attention_num_buckets",
            "num_buckets",
            "hidden_size_per_layer_input",
            "laurel_rank",
            "attention_window",
            "local_attention_window_len",
            "lang_embed_dim",
            "spkr_embed_dim",
            "unit_embed_dim",
        ],
        8,
    ),
    "relative_attention_max_distance": 16,
    "num_kv_shared_layers": 0,
    "local_radius": 3,
    "pad_token_id": END,
    "eos_token_id": END,
    "sep_token_id": END,
    "bos_token_id": BEGIN,
    "decoder_start_token_id": BEGIN,
}
"""Sizes by the names that configurations have for them."""

HYBRID = {"layer_types": ["linear_attention", "full_attention"]}
SPECIAL: Mapping[str, Mapping[str, Any]] = {
    "bailing_hybrid": HYBRID,
    "bamba": {"attn_layer_indices": [1]},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}
    },
    "dbrx": {"attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4}},
    "dory": {"num_hidden_layers": 3, "n_input_layers": 1, "n_output_layers": 1, "n_recurrent_layers": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": HYBRID,
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": HYBRID,
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "lfm3": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": {"head_dim": 8},
    "mamba2": {"num_heads": 4},
    "mimo_v2_flash": {"layer_types": ["full_attention", "sliding_attention"]},
    "opt": {"word_embed_proj_dim": 16},
    "qwen3_5_moe_text": HYBRID,
    "qwen3_5_text": HYBRID,
    "qwen3_next": HYBRID,
    "qwen4_exp_text": HYBRID,
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "reformer": {
        "axial_pos_shape": (8, 8),
        "axial_pos_embds_dim": (16, 16),
        "attn_layers": ["local", "lsh"],
        "local_attn_chunk_length": 64,
        "lsh_attn_chunk_length": 64,
    },
    "rwkv": {"rescale_every": 1},
    "xlstm": {"embedding_dim": 32, "hidden_size": 32, "num_blocks": 2},
    "xmod": {"default_language": "en_XX"},
    "youtu": {"pad_token_id": None},
    "zamba": {"num_hidden_layers": 3, "layers_block_type": ["linear_attention", "hybrid", "hybrid"]},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"], "n_mamba_heads": 4},
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 16},
}
"""What else an architecture needs to be small and to show all its parts, by its model type."""

MULTIMODAL = "Made for images or sound, which no policy here is given; not tried."
NOT_TRIED: Mapping[str, str] = {
    **dict.fromkeys(
        [
            "AudioFlamingo3ForConditionalGeneration",
            "Dots3NoteForCausalLM",
            "Emu3ForCausalLM",
            "FuyuForCausalLM",
            "Gemma3ForConditionalGeneration",
            "Gemma3nForConditionalGeneration",
            "Gemma4ForConditionalGeneration",
            "Gemma4UnifiedForConditionalGeneration",
            "GitForCausalLM",
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

NO_GENERATE = "Greedy text is not compared: `generate` of `transformers` fails."
NOTES = {
    "BltForCausalLM": NO_GENERATE,
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
    for mapping in (MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES):
        for model_type, name in mapping.items():
            own = name.lower().startswith(model_type.replace("-", "").replace("_", ""))
            if name not in found or own or model_type == f"{found[name]}_text":
                found[name] = model_type
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def small_config(kind: type[PreTrainedConfig], **special: Any) -> PreTrainedConfig:
    """A configuration with every size that it has set to a small one, and so within."""
    fields = {field.name: field.default for field in dataclasses.fields(kind)}
    sizes = {name: size for name, size in SMALL.items() if name in fields}
    for name, default in fields.items():
        if name.endswith(("_token_id", "_token_index")) and name not in SMALL and isinstance(default, int):
            sizes[name] = 3
    for name, inner in (kind.sub_configs or {}).items():
        if name in fields and dataclasses.is_dataclass(inner):
            sizes[name] = small_config(inner)
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
