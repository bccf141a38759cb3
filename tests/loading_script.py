"""A model from a folder is loaded for a run and makes an update; what each process took to build it is told.

ACCELERATE_USE_FSDP=true FSDP_VERSION=2 torchrun --nproc-per-node 2 loading_script.py FOLDER CASES OUTPUT [--whole]

FOLDER holds a model, and CASES is a JSON list of sections to lay over the recipe. OUTPUT gets for each case a folder
with the policy after an update, and `growth-RANK.json`: by how many bytes this process's memory grew at most while
the first one was built. With `--whole` each process loads the whole policy itself, and gives it to the run.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console
from safetensors.torch import load_file

from rlgf import distributed
from rlgf.config import Config
from rlgf.models import sharding
from rlgf.models.critic import SeparateCritic
from rlgf.models.loading import load_language_model
from rlgf.run.build import Parts, build_parts
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from toys import FavouringGuide, LetterTask, share_of_a


def built(folder: str, case: dict[str, Any], *, whole: bool) -> tuple[Config, Parts]:
    sections: dict[str, Any] = {
        "task": {"name": "letters"},
        "policy": {"model": folder},
        "guide": {"model": "made by hand"},
        "reward": {"name": "made by hand"},
        "rollout": {"episodes": 4, "max_prompt_tokens": 4, "max_response_tokens": 6},
        "update": {"minibatch": 4, "epochs": 1, "learning_rate": 1e-3},
        "training": {"updates": 1, "trackers": []},
        "evaluation": {"samples": 4},
    }
    for name, change in case.items():
        sections[name] = change if name == "guide" else {**sections.get(name, {}), **change}
    config = Config.model_validate(sections)
    guide = None if "guide" in case else FavouringGuide("a", 0.6)
    policy = load_language_model(config.policy.source) if whole else None
    reward = None if "reward" in case else share_of_a
    return config, build_parts(config, task=LetterTask(), reward=reward, guide=guide, policy=policy)


def check_start(folder: str, parts: Parts) -> None:
    """Policy, reference and critics begin with the very numbers of the files."""
    given = load_file(f"{folder}/model.safetensors")
    for model in (parts.policy.model, parts.assessor.reference.model):
        for name, weight in model.named_parameters():
            if ".lora_" not in name:
                found = sharding.put_together(weight.detach())
                assert torch.equal(found, given[name.replace(".base_layer.", ".")]), name
    for critic in parts.updater.critics.values():
        assert not any(sharding.put_together(weight).any() for weight in critic.head.parameters())
        if isinstance(critic, SeparateCritic):
            for name, weight in critic.trunk.named_parameters():
                prefix = "" if name in given else f"{parts.policy.model.base_model_prefix}."
                assert torch.equal(sharding.put_together(weight.detach()), given[prefix + name]), name


def main() -> None:
    torch.set_num_threads(1)
    folder, cases, output = sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3])
    distributed.join(60)
    before = psutil.Process().memory_info().rss
    for number, case in enumerate(cases):
        config, parts = built(folder, case, whole="--whole" in sys.argv)
        if number == 0:
            growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
            output.mkdir(exist_ok=True)
            (output / f"growth-{distributed.rank()}.json").write_text(json.dumps(growth))
        check_start(folder, parts)
        trainer = Trainer(config, parts, Display(Console(quiet=True)))
        trainer.step()
        trainer.save_model(output / str(number))


if __name__ == "__main__":
    main()
