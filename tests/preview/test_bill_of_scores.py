"""What scores are said to cost at most is no less than what a run is billed."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from faulty_server import FaultyServer, serving
from rlgf.config import Config
from rlgf.preview.bill import training_bills
from rlgf.rollout.plan import planned
from rlgf.run.build import build_parts
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from toys import LetterTask, letter_gpt


def test_scored_texts_are_billed_as_prompts(tmp_path: Path) -> None:
    with serving(FaultyServer()) as server:
        config = Config.model_validate(
            {
                "task": {"name": "letters"},
                "policy": {"model": "made by hand"},
                "guide": {"url": server.url, "model": "letters", "cache": str(tmp_path)},
                "algorithm": "opd",
                "rollout": {"episodes": 8, "max_prompt_tokens": 4, "max_response_tokens": 6},
                "update": {"minibatch": 8},
                "training": {"updates": 2, "trackers": []},
            }
        )
        parts = build_parts(config, task=LetterTask(), policy=letter_gpt())
        trainer = Trainer(config, parts, Display(Console(quiet=True)))
        assert len(server.bodies) == 4, "the test before training"
        for _ in range(2):
            trainer.step()
        trainer.close()
    (bill,) = training_bills(
        config, planned(config.algorithm, config.rollout, 2, config.seed, 16), parts.train
    )
    used = trainer.guide_usage.total
    assert (bill.update.calls, bill.run.calls, bill.run.completion_tokens) == (8, 20, 20)
    assert 4 < used.calls <= bill.run.calls
    assert used.completion_tokens == used.calls
