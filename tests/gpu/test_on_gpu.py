"""What only a GPU can show: where tensors are, in what precision passes run, how often the CPU waits.

`make gpu` runs these. Where there is no GPU they are skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel

from rlgf.models.forward import Tokens, response_outputs
from rlgf.models.generate import sample_continuations
from rlgf.models.kv_cache import ReservingLayer
from rlgf.models.language_model import LanguageModel
from rlgf.models.loading import ModelConfig, load_language_model
from rlgf.models.sampling import Sampling, draw
from rlgf.run.memory import estimated
from rlgf.run.trainer import Trainer
from rlgf.states import copied
from toys import letter_gpt

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and torch.cuda finds none"),
]
RECIPE = {
    "task": "toys:LetterTask",
    "policy": {"scratch": {"vocabulary": 300, "layers": 2, "width": 64, "context": 64}},
    "reward": "toys:share_of_a",
    "algorithm": "ppo",
    "rollout": {"episodes": 16, "max_prompt_tokens": 4, "max_response_tokens": 6},
    "update": {"minibatch": 8, "epochs": 2},
    "training": {"updates": 2, "trackers": []},
    "evaluation": {"samples": 8, "test_samples": 8},
}
_LOOKS = 16
"""Waits that a batch may cost however long its texts are."""


@pytest.fixture
def policy(tmp_path: Path) -> LanguageModel:
    """A model on the GPU, loaded as a run loads it, with its weights in float32."""
    made = letter_gpt(width=64, layers=2, context=128)
    made.model.save_pretrained(tmp_path)
    made.tokenizer.save_pretrained(tmp_path)
    return load_language_model(ModelConfig(model=str(tmp_path), dtype="float32"))


@pytest.mark.parametrize("critic", ["separate", "head"])
def test_everything_that_is_trained_is_on_the_gpu(critic: str) -> None:
    trainer = Trainer(RECIPE | {"policy": {**RECIPE["policy"], "critic": critic}})
    metrics = trainer.step()
    updater = trainer.parts.updater
    assert updater.trained
    for parameter in updater.trained:
        assert parameter.device.type == "cuda"
        assert parameter.dtype == torch.float32
        assert parameter.isfinite().all()
        for name, value in updater.optimizer.state[parameter].items():
            assert name == "step" or value.device.type == "cuda"
    assert {parameter.device.type for parameter in trainer.parts.assessor.reference.model.parameters()} == {
        "cuda"
    }
    assert metrics["seconds"] > 0


def test_products_run_in_bfloat16_over_weights_in_float32(policy: LanguageModel) -> None:
    ids = torch.zeros(2, 3, dtype=torch.long)
    tokens = Tokens(ids, ids.eq(0), ids, ids.eq(0)).to(policy.model.device)
    seen: list[torch.dtype] = []
    assert isinstance(policy.model, GPT2LMHeadModel)
    layer = policy.model.transformer.h[0].mlp.c_fc
    handle = layer.register_forward_hook(lambda module, given, output: seen.append(output.dtype))
    logits, _ = response_outputs(policy.model, tokens)
    logits.float().logsumexp(dim=-1).sum().backward()
    handle.remove()
    assert set(seen) == {torch.bfloat16}
    assert layer.weight.dtype == layer.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("length", [16, 96])
def test_decoding_waits_for_the_gpu_hardly_more_than_once_a_token(policy: LanguageModel, length: int) -> None:
    rows = 4
    prefixes = [torch.zeros(3, dtype=torch.long)] * rows
    uniforms = torch.rand(rows, length, generator=torch.Generator().manual_seed(0))
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            written = sample_continuations(
                policy.model,
                prefixes,
                torch.full((rows,), length),
                uniforms,
                Sampling(min_tokens=length),
                (4,),
            )
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [len(one.token_ids) for one in written] == [length] * rows
    waits = sum("synchroniz" in str(warning.message) for warning in said)
    # Transformers looks at each mask, and one step in eight looks who has ended.
    assert waits <= length * (1 + 1 / 8) + _LOOKS


def test_a_token_without_probability_is_never_drawn() -> None:
    """A GPU's cumulative sums may fall or rise by rounding alone where nothing is added."""
    logits = 3 * torch.randn(1, 150_000, generator=torch.Generator().manual_seed(0))
    logits[0, torch.randperm(150_000, generator=torch.Generator().manual_seed(1))[50:]] = float("-inf")
    sums = logits.cuda().softmax(dim=-1).cumsum(dim=-1)
    # One draw at each sum, where rounding decides.
    for uniform in sums.unique().clamp(max=1 - 2**-24):
        ids, logprobs = draw(logits.cuda(), uniform[None])
        assert logits[0, ids.cpu()].isfinite().all()
        assert logprobs.isfinite().all()


def test_copies_to_go_back_to_lie_in_memory_that_a_gpu_writes_to_itself() -> None:
    there = torch.randn(1000, device="cuda")
    kept = copied({"weight": there})["weight"]
    assert kept.is_pinned()
    assert torch.equal(kept, there.cpu())


def test_keys_and_values_are_kept_in_bfloat16(policy: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the estimate of memory counts them."""
    kept: list[torch.dtype] = []
    reserve = ReservingLayer._reserve

    def watched(self: ReservingLayer, states: torch.Tensor) -> torch.Tensor:
        kept.append(states.dtype)
        return reserve(self, states)

    monkeypatch.setattr(ReservingLayer, "_reserve", watched)
    sample_continuations(
        policy.model,
        [torch.zeros(3, dtype=torch.long)],
        torch.tensor([4]),
        torch.rand(1, 4),
        Sampling(),
        (4,),
    )
    assert set(kept) == {torch.bfloat16}


def test_an_update_keeps_to_the_estimate_of_its_memory() -> None:
    wide = {"scratch": {"vocabulary": 300, "layers": 4, "width": 512, "heads": 8, "context": 256}}
    trainer = Trainer(RECIPE | {"policy": wide})
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        trainer.step()
    assert 0.5 < torch.cuda.max_memory_allocated() / estimated(trainer.config).peak < 1.5


def test_weights_are_shared_out_on_one_gpu(tmp_path: Path) -> None:
    launcher = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_RESHARD_AFTER_FORWARD": "true"}
    script = Path(__file__).with_name("shards_script.py")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", str(script)],
        env={**os.environ, **launcher, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "the same" in done.stdout
