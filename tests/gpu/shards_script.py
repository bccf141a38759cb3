"""One step of a model that FSDP2 shares out over a single process, beside the same step without.

ACCELERATE_USE_FSDP=true FSDP_VERSION=2 FSDP_RESHARD_AFTER_FORWARD=true torchrun --nproc-per-node 1 shards_script.py
"""

from __future__ import annotations

import copy

import torch
import torch.distributed as dist

from rlgf.distributed import device
from rlgf.models import sharding
from rlgf.models.forward import Tokens, response_outputs
from toys import letter_gpt


def step(model: torch.nn.Module, tokens: Tokens) -> None:
    logits, _ = sharding.run(model, response_outputs, model, tokens)
    logits.float().logsumexp(dim=-1).sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.01).step()


def main() -> None:
    where = device()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    plain = letter_gpt(layers=2).model.to(where)
    shared = copy.deepcopy(plain)
    ids = torch.arange(24).view(4, 6) % 4
    tokens = Tokens(ids, torch.ones_like(ids).bool(), ids, torch.ones_like(ids).bool()).to(where)
    sharding.shard(shared, "the policy")
    assert not sharding.is_whole(shared)
    for model in (plain, shared):
        step(model, tokens)
    for (name, expected), found in zip(plain.named_parameters(), shared.parameters(), strict=True):
        whole = sharding.put_together(found)
        assert whole.device.type == where.type
        # On a GPU both run in bfloat16, by autocast.
        torch.testing.assert_close(whole, expected, atol=1e-3, rtol=1e-3, msg=name)
    print("the same")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
