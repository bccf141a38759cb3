"""Small runs, what `rlgf check` tells of them, and what they do."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from rlgf.config import Config, load_config
from rlgf.guides import Request
from rlgf.preview.faults import check
from rlgf.preview.report import told
from rlgf.run.build import build_parts
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from toys import FavouringGuide, LetterTask, letter_gpt

RECIPE: dict[str, Any] = {
    "name": "letters",
    "task": "toys:LetterTask",
    "policy": {"scratch": {"vocabulary": 300, "layers": 1, "width": 32, "context": 64}},
    "guide": {"name": "toys:FavouringGuide", "options": {"favourite": "a", "probability": 0.6}},
    "reward": "toys:share_of_a",
    "rollout": {"episodes": 16, "max_prompt_tokens": 4, "max_response_tokens": 6, "max_hint_tokens": 16},
    "update": {"minibatch": 8, "epochs": 2},
    "training": {"updates": 5, "trackers": []},
    "evaluation": {"samples": 8, "test_samples": 8, "every": 2},
}


class CountingGuide(FavouringGuide):
    """Knows which update it was asked in."""

    updates: list[list[Request]]

    def next_update(self) -> None:
        self.updates = [*getattr(self, "updates", []), self.requests]
        self.requests = []


def counted(config: Config) -> tuple[Trainer, list[list[Request]]]:
    """A real run of all updates, and what its guide was asked in each."""
    guide = CountingGuide("a", 0.6)
    parts = build_parts(config, task=LetterTask(), guide=guide, policy=letter_gpt())
    trainer = Trainer(config, parts, Display(Console(quiet=True)))
    for _ in range(config.training.updates):
        trainer.step()
        guide.next_update()
    return trainer, guide.updates


def shown(*sources: Any) -> str:
    found = check(load_config(RECIPE, *sources))
    assert found.broken == []
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(told(found))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 100
    return text
