"""Of several texts of the guide's the reward picks one, and all of them are asked for, counted and foreseen."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from faulty_server import FaultyServer, serving
from rlgf.algorithms import Algorithm
from rlgf.algorithms.catalog import GAD, LUFFY
from rlgf.algorithms.imitation_rows import DAGGER, SEQ_KD
from rlgf.config import load_config
from rlgf.guides import Guide, HTTPGuide, HTTPGuideConfig, ReplayGuide, ReplayGuideConfig
from rlgf.identity import identity
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.run.trainer import Trainer
from rlgf.types import Author, Rollout, Sample
from toys import FavouringGuide, letter_gpt, share_of_a

SAMPLES = [Sample("abca"[: 1 + i % 4], ("aaaaaa",)) for i in range(12)]
CONFIG = RolloutConfig(max_prompt_tokens=4, max_response_tokens=6, min_response_tokens=6)


def pay(rollout: Rollout) -> Tensor:
    return Tensor(share_of_a(rollout.prompts, list(rollout.texts)))


def collector(guide: Guide, candidates: int) -> Collector:
    return Collector(letter_gpt(), guide, CONFIG, seed=0, candidates=candidates, rewards=pay)


def waited(server: FaultyServer, requests: int) -> None:
    """Until a server has been asked so often, and no more often."""
    patience = time.monotonic() + 20
    while len(server.bodies) < requests and time.monotonic() < patience:
        time.sleep(0.01)
    assert len(server.bodies) == requests


@pytest.mark.parametrize("base", [SEQ_KD, DAGGER, LUFFY], ids=lambda row: row.name)
def test_the_best_text_is_taken_and_the_first_of_equals(base: Algorithm) -> None:
    """Judged with what the policy began; each text is one that the guide wrote, and there were so many."""
    guide = FavouringGuide("a", 0.5)
    maker = collector(guide, 4)
    rollout = maker.collect(SAMPLES, base)
    texts = [
        request.written + completion.text
        for request, completion in zip(guide.requests, guide.write(list(guide.requests)), strict=False)
    ]
    by_guide = rollout.written_by(Author.GUIDE).any(dim=1)
    picked = [text for text, has in zip(rollout.texts, by_guide.tolist(), strict=True) if has]
    assert len(texts) == 4 * len(picked) > 0
    groups = [texts[first : first + 4] for first in range(0, len(texts), 4)]
    assert picked == [max(group, key=lambda text: text.count("a")) for group in groups]
    assert sum(group[0] != text for group, text in zip(groups, picked, strict=True)) > 2
    each = rollout.written_by(Author.GUIDE).sum(dim=1)
    assert maker.sampled[Author.GUIDE] == 4 * int(each.sum())


def test_the_first_candidate_is_the_text_that_would_be_alone() -> None:
    guide = FavouringGuide("a", 0.5)
    alone = collector(guide, 1).collect(SAMPLES, SEQ_KD).texts
    first = guide.requests[:]
    guide.requests.clear()
    best = collector(guide, 3).collect(SAMPLES, SEQ_KD).texts
    assert guide.requests[::3] == first
    assert len({request.seed for request in guide.requests}) == len(guide.requests)
    assert sum(text.count("a") for text in best) > sum(text.count("a") for text in alone)


def test_of_recorded_texts_the_one_that_is_used_is_booked(tmp_path: Path) -> None:
    file = tmp_path / "recorded.jsonl"
    rows = [f'{{"prompt": "{prompt}", "completion": "bbabbb"}}' for prompt in ("a", "ab", "abc", "abca")]
    file.write_text("\n".join(rows))
    maker = collector(ReplayGuide(ReplayGuideConfig(file=file)), 3)
    rollout = maker.collect(SAMPLES, SEQ_KD)
    assert maker.sampled[Author.GUIDE] == int(rollout.written_by(Author.GUIDE).sum()) > 0


def test_a_remote_guide_is_asked_ahead_for_every_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving(FaultyServer(letters="abcd")) as server:
        guide = HTTPGuide(HTTPGuideConfig(url=server.url, model="letters", style="completions", cache=None))
        maker = collector(guide, 3)
        maker.prefetch(SAMPLES, LUFFY, 0, 0.0)
        waited(server, 3 * len(SAMPLES))
        maker.collect(SAMPLES, LUFFY)
        guide.close()
        assert len(server.bodies) == guide.usage.calls == 3 * len(SAMPLES)


@pytest.mark.parametrize("row", [SEQ_KD, GAD], ids=lambda row: row.name)
def test_whole_texts_are_asked_ahead(monkeypatch: pytest.MonkeyPatch, row: Algorithm) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving(FaultyServer(letters="abcd")) as server:
        guide = HTTPGuide(HTTPGuideConfig(url=server.url, model="letters", style="completions", cache=None))
        maker = collector(guide, 1)
        maker.prefetch(SAMPLES, row, 0, 0.0)
        waited(server, len(SAMPLES))
        maker.collect(SAMPLES, row)
        guide.close()
        assert len(server.bodies) == guide.usage.calls == len(SAMPLES)


def test_a_recipe_sets_the_number_and_the_reward_of_the_run_judges(tmp_path: Path) -> None:
    def trainer(number: int) -> Trainer:
        options = {"favourite": "a", "probability": 0.5}
        recipe: dict[str, Any] = {
            "task": "toys:LetterTask",
            "algorithm": "seq-kd",
            "guide": {"name": "toys:FavouringGuide", "options": options, "candidates": number},
            "reward": "toys:share_of_a",
            "rollout": {"episodes": 16, "max_prompt_tokens": 4, "max_response_tokens": 6},
            "output": str(tmp_path / str(number)),
            "training": {"updates": 2, "trackers": []},
        }
        return Trainer(load_config(recipe, given=["policy"]), policy=letter_gpt())

    one, six = trainer(1), trainer(6)
    assert "candidates" not in identity(one.config)["guide"], "runs of before go on"
    assert identity(six.config)["guide"]["candidates"] == 6
    assert pay(six.collect()).mean() > pay(one.collect()).mean() + 0.1
    # An evaluation measures the guide by its first text alone.
    assert six.evaluate(Author.GUIDE).totals == one.evaluate(Author.GUIDE).totals


def test_answers_that_were_paid_for_are_found_whatever_the_number() -> None:
    one, more = (HTTPGuideConfig(url="http://x/v1", model="m", candidates=n) for n in (1, 2))
    assert one.identity == more.identity
