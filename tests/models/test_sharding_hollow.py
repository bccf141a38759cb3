"""Of processes that will share a model's weights one loads them, and the others get their shares from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from rlgf.models import sharding
from toys import letter_gpt, letter_tokenizer

TESTS = Path(__file__).parents[1]
SHARED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_RESHARD_AFTER_FORWARD": "true"}
CASES: dict[str, dict[str, Any]] = {
    "separate critic": {},
    "checkpointing": {"update": {"gradient_checkpointing": True}},
    "lora, its own guide": {
        "algorithm": {"base": "opsd"},
        "policy": {"lora": {"r": 2}},
        "guide": {"self": True},
        "rollout": {"max_hint_tokens": 14},
    },
    "read by its reward": {"algorithm": {"base": "gail"}, "reward": {"name": "discriminator"}},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 40 MB, with what a file lacks: a head that is tied to the embeddings, and the buffers of rotated keys."""
    folder = tmp_path_factory.mktemp("model")
    config = LlamaConfig(
        vocab_size=5,
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        bos_token_id=4,
        eos_token_id=4,
        pad_token_id=4,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    letter_tokenizer("abcd").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def outputs(model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What two processes leave that share the weights, where each loads the whole, and where one does."""
    root = tmp_path_factory.mktemp("loaded")
    for name, options in (("each", ["--whole"]), ("one", [])):
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        script = [str(TESTS / "loading_script.py"), str(model), json.dumps([*CASES.values()])]
        done = subprocess.run(
            [sys.executable, *launcher, *script, str(root / name), *options],
            env={**os.environ, "OMP_NUM_THREADS": "1", **SHARED},
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return [root / "each", root / "one"]


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", range(len(CASES)), ids=CASES)
def test_shares_from_one_process_end_in_the_same_bytes(outputs: list[Path], number: int) -> None:
    each, one = (load_file(*(folder / str(number)).glob("*.safetensors")) for folder in outputs)
    assert each.keys() == one.keys()
    assert all(torch.equal(one[name], weight) for name, weight in each.items())


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_process_that_does_not_load_holds_its_shares_alone(outputs: list[Path], model: Path) -> None:
    """Halves of policy, reference and critic, one weight at a time on the way, and what the libraries take."""
    size = (model / "model.safetensors").stat().st_size
    each, one = (json.loads((folder / "growth-1.json").read_text()) / size for folder in outputs)
    # Policy, reference, critic, and the gradients of a trial.
    assert each > 4
    assert one < 2.5


def test_a_hollow_copy_has_all_but_the_numbers() -> None:
    policy = letter_gpt(layers=2)
    tied = policy.model.lm_head.weight
    assert tied is policy.model.transformer.wte.weight
    model: Any = sharding._emptied(policy, [policy.model]).model
    assert sharding.is_hollow(model)
    assert not sharding.is_hollow(policy.model)
    assert model.lm_head.weight is model.transformer.wte.weight
    for (name, parameter), own in zip(model.named_parameters(), policy.model.parameters(), strict=True):
        assert (parameter.shape, parameter.dtype, parameter.device.type) == (own.shape, own.dtype, "meta"), (
            name
        )


def test_made_real_it_keeps_its_buffers() -> None:
    module = torch.nn.BatchNorm1d(3)
    module.running_mean = torch.full((3,), 7.0)
    empty = sharding._emptied(module, [module])
    sharding.materialize(empty, torch.device("cpu"))
    assert not sharding.is_hollow(empty)
    assert torch.equal(empty.running_mean, torch.full((3,), 7.0))
