"""Settings that make a model of any architecture as small as it can be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}}


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
    "qwen2_5_vl_text": MROPE,
    "qwen2_vl_text": MROPE,
    "youtu": {"pad_token_id": None},
    "zamba": {"num_hidden_layers": 3, "layers_block_type": ["linear_attention", "hybrid", "hybrid"]},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"], "n_mamba_heads": 4},
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 16},
}
"""What else an architecture needs to be small and to show all its parts, by its model type."""
