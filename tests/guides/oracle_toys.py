"""Problems with solutions, and the oracle that finishes them."""

from __future__ import annotations

from typing import Any

from rlgf.guides import Request
from rlgf.guides.oracle import OracleGuide, OracleGuideConfig
from rlgf.rewards import RewardInput, build_reward, checked_rewards
from rlgf.tasks import build_task
from rlgf.types import Sample

KINDS: dict[str, dict[str, Any]] = {
    "chain_sum": {"response": "{steps}\nAnswer: {answer}"},
    "countdown": {"response": "{steps}\n= {answer}"},
    "number_sorting": {},
    "spell_backward": {"response": "<answer>{answer}</answer>"},
    "word_sorting": {},
}


def samples(dataset: str, count: int = 20, **options: Any) -> list[Sample]:
    sizes = {"train_samples": count, "validation_samples": 1, "test_samples": 1}
    return list(
        build_task("reasoning", {**sizes, "dataset": dataset, **KINDS[dataset], **options}).load("train")
    )


def oracle(errors: float = 0.0, seed: int = 0, *, habitual: bool = False) -> OracleGuide:
    return OracleGuide(OracleGuideConfig(oracle=True, errors=errors, seed=seed, habitual=habitual))


def finished(guide: OracleGuide, rows: list[Sample], written: list[str]) -> list[str]:
    """The whole responses."""
    requests = [
        Request(row.prompt + begun, 99, seed=i, prompt_length=len(row.prompt), sample=row)
        for i, (row, begun) in enumerate(zip(rows, written, strict=True))
    ]
    return [begun + part.text for begun, part in zip(written, guide.write(requests), strict=True)]


def solved(rows: list[Sample], texts: list[str]) -> float:
    columns = {name: [row.columns[name] for row in rows] for name in rows[0].columns}
    given = RewardInput([row.prompt for row in rows], texts, columns)
    return float(checked_rewards(build_reward("verifier", {}), given).mean())
