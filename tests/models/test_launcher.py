"""Of all that a launcher can ask for, the part that is done here is read, and the rest is refused in a sentence."""

from __future__ import annotations

import pytest

from rlgf.errors import UserError
from rlgf.models import launcher

SHARED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
COPIES = {
    **SHARED,
    "ACCELERATE_USE_PARALLELISM_CONFIG": "true",
    "PARALLELISM_CONFIG_DP_REPLICATE_SIZE": "2",
    "PARALLELISM_CONFIG_DP_SHARD_SIZE": "2",
}


def test_one_process_has_nobody_to_share_with(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SHARED.items():
        monkeypatch.setenv(name, value)
    assert not launcher.wanted()


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "the launcher asks for ZeRO-2 of DeepSpeed"),
        ({**SHARED, "FSDP_VERSION": "1"}, "the launcher asks for version 1 of FSDP"),
        ({**SHARED, "ACCELERATE_MIXED_PRECISION": "fp16"}, "the launcher asks for 'mixed_precision: fp16'"),
        ({"ACCELERATE_MIXED_PRECISION": "fp8"}, "the launcher asks for 'mixed_precision: fp8'"),
        (
            {**SHARED, "FSDP_OFFLOAD_PARAMS": "true"},
            "the launcher asks for 'fsdp_offload_params: true': set it",
        ),
        (
            {**SHARED, "FSDP_ACTIVATION_CHECKPOINTING": "true"},
            "'update.gradient_checkpointing: true' in the recipe",
        ),
        (
            {**COPIES, "PARALLELISM_CONFIG_TP_SIZE": "2"},
            "the launcher asks for 'parallelism_config_tp_size: 2'",
        ),
        (
            {"ACCELERATE_USE_PARALLELISM_CONFIG": "true", "PARALLELISM_CONFIG_TP_SIZE": "2"},
            "the launcher asks for 'parallelism_config_tp_size: 2'",
        ),
        (COPIES, "2 copies of the weights, each spread over 2 processes, and starts 1: set"),
    ],
)
def test_what_a_launcher_cannot_have_is_said(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], said: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=said):
        launcher.wanted()


@pytest.mark.parametrize("keeps", [True, False])
def test_whether_layers_stay_is_as_the_launcher_says(monkeypatch: pytest.MonkeyPatch, keeps: bool) -> None:
    for name, value in {**SHARED, "FSDP_RESHARD_AFTER_FORWARD": str(not keeps).lower()}.items():
        monkeypatch.setenv(name, value)
    assert launcher.keeps_layers() is keeps


def test_as_many_share_a_copy_as_the_launcher_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launcher.sharing() == 1
    for name, value in {**COPIES, "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert launcher.sharing() == 2
