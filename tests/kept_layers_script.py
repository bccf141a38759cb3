"""Which layers have all of their weights between a forward and a backward pass, and which after both.

ACCELERATE_USE_FSDP=true FSDP_VERSION=2 FSDP_RESHARD_AFTER_FORWARD=false torchrun --nproc-per-node 2 kept_layers_script.py
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from rlgf.models import launcher, sharding
from rlgf.models.forward import Tokens, response_outputs
from toys import letter_gpt


def main() -> None:
    dist.init_process_group("gloo")
    model = letter_gpt(layers=2).model
    ids = torch.arange(24).view(4, 6) % 4
    tokens = Tokens(ids, torch.ones_like(ids).bool(), ids, torch.ones_like(ids).bool())
    sharding.shard(model, "the policy")

    def whole() -> set[bool]:
        """Of the layers, and not of what is in none."""
        return {not sharding.is_sharded(one) for name, one in model.named_parameters() if ".h." in name}

    for _ in range(2):
        with sharding.whole(model):
            assert whole() == {True}
        assert whole() == {False}
        logits, _ = sharding.run(model, response_outputs, model, tokens)
        assert whole() == {launcher.keeps_layers()}
        logits.logsumexp(dim=-1).sum().backward()
        assert whole() == {False}
        assert all(sharding.is_sharded(one.grad) for one in model.parameters())
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
