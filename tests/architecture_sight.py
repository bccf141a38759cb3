"""What makes a model that also sees small, and which of them are tried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

IMAGE: Mapping[str, Any] = {
    **dict.fromkeys(
        [
            "embed_dim",
            "hidden_dim",
            "out_hidden_size",
            "vision_output_dim",
            "projector_input_dim",
            "projector_output_dim",
        ],
        32,
    ),
    **dict.fromkeys(["depth", "num_global_layers"], 1),
    "image_size": 28,
    "patch_size": 14,
    "position_embedding_size": 4,
    "deepstack_visual_indexes": [0],
    "fullatt_block_indexes": [0],
}
"""Sizes of what reads images or sound."""


SEEING: Mapping[str, Mapping[str, str]] = {
    "aya_vision": {"text_config": "cohere2", "vision_config": "siglip_vision_model"},
    "gemma3": {"vision_config": "siglip_vision_model"},
    "gemma4": {},
    "git": {},
    "idefics3": {"text_config": "llama"},
    "internvl": {"text_config": "qwen2"},
    "llama4": {},
    "llava": {"text_config": "llama", "vision_config": "clip_vision_model"},
    "llava_onevision": {"text_config": "qwen2", "vision_config": "siglip_vision_model"},
    "mistral3": {"text_config": "mistral", "vision_config": "pixtral"},
    "mllama": {},
    "paligemma": {"text_config": "gemma2", "vision_config": "siglip_vision_model"},
    "qwen2_vl": {},
    "qwen2_5_vl": {},
    "qwen3_5": {},
    "qwen3_5_moe": {},
    "qwen3_vl": {},
    "qwen3_vl_moe": {},
    "smolvlm": {"text_config": "llama"},
}
"""Architectures that also see and are tried, with the kinds of those parts that may be of several."""
