"""A guide behind HTTP, asked over real sockets, with a server that works and one that does not."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import torch
from tenacity import RetryCallState, Retrying

from faulty_server import FAULTS, FaultyServer, answer_to, serving
from resume_script import toy_trainer
from rlgf.config import load_config
from rlgf.errors import UserError
from rlgf.guides import BudgetSpentError, EnsembleGuide, HTTPGuide, HTTPGuideConfig, LocalGuideConfig, Request
from rlgf.guides.answer_cache import GuideCache
from rlgf.guides.endpoint import _wait
from rlgf.run.trainer import Trainer
from rlgf.types import Author

MADE: list[HTTPGuide] = []
GUIDED = {"algorithm": {"base": "ppo++", "help": {"probability": 0.9}}}


def requests(count: int, start: int = 0) -> list[Request]:
    return [Request(f"text {i} ", 4, seed=i) for i in range(start, start + count)]


def guide(server: FaultyServer, folder: Path | None = None, **settings: Any) -> HTTPGuide:
    settings = {"timeout": 0.5, "patience": 20.0, "concurrency": 16} | settings
    cache = None if folder is None else str(folder)
    made = HTTPGuide(HTTPGuideConfig(url=server.url, model="letters", cache=cache, **settings))
    MADE.append(made)
    return made


def expected(asked: list[Request]) -> list[str]:
    return [answer_to(request.prefix, request.seed, "abcd", 6) for request in asked]


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with serving(FaultyServer()) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_key_and_nothing_left_open(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    yield
    while MADE:
        MADE.pop().close()


def test_closing_gives_up_on_what_is_under_way() -> None:
    with serving(FaultyServer(faults=["server error"], share=1.0)) as server:
        writer = guide(server, patience=100.0)
        writer.prefetch(requests(3))
        time.sleep(0.2)
        started = time.perf_counter()
        writer.close()
        assert time.perf_counter() - started < 2


# Asking.


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_survived(fault: str) -> None:
    with serving(FaultyServer(faults=[fault], share=0.5, hang=0.3)) as server:
        asked = requests(12)
        writer = guide(server, timeout=0.2)
        assert [c.text for c in writer.write(asked)] == expected(asked)
        assert writer.usage.calls == 12
        failed = 0 if fault == "slow" else sum(server.seen.values()) - 12
        assert writer.usage.retries == failed
        assert failed or fault == "slow"


def test_answers_come_in_order_and_each_once(server: FaultyServer) -> None:
    asked = requests(50)
    assert [c.text for c in guide(server).write(asked)] == expected(asked)
    assert set(server.answered.values()) == {1}
    assert all(not c.finished for c in guide(server).write(asked[:2])), "cut by the limit"


def test_a_server_says_when_to_come_back() -> None:
    def waits(headers: dict[str, str]) -> float:
        response = httpx2.Response(429, headers=headers, request=httpx2.Request("POST", "http://x"))
        state = RetryCallState(Retrying(), None, (), {})
        error = openai.RateLimitError("slow down", response=response, body=None)
        state.set_exception((type(error), error, None))
        return _wait(state)

    assert waits({"retry-after": "7"}) == 7.0
    soon = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30))
    assert 25 < waits({"retry-after": soon}) <= 30
    assert 0 <= waits({}) <= 20
    assert 0 <= waits({"retry-after": "soon"}) <= 20


@pytest.mark.parametrize(
    ("serve", "ask", "message"),
    [
        ({"key": "secret-1"}, {}, "environment variable OPENAI_API_KEY is not set"),
        ({"model": "other"}, {}, r"no model letters.*set 'guide.model'.*Known: other"),
        ({"context": 5}, {}, "context holds 5 tokens.*rollout's lengths"),
        (
            {"faults": ["server error"], "share": 1.0},
            {"patience": 0.5},
            r"no usable answer within 0 s.*out of order",
        ),
        ({"faults": ["no choices"], "share": 1.0}, {"patience": 0.5}, "without choices"),
        ({"faults": ["hang"], "share": 1.0, "hang": 0.5}, {"patience": 0.5, "timeout": 0.1}, "timed out"),
    ],
)
def test_what_cannot_be_mended_by_asking_again_is_one_sentence(
    serve: dict[str, Any], ask: dict[str, Any], message: str
) -> None:
    with serving(FaultyServer(**serve)) as server, pytest.raises(UserError, match=message) as caught:
        guide(server, **ask).write(requests(1))
    assert "\n" not in str(caught.value)


def test_a_refused_key_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-2")
    with serving(FaultyServer(key="secret-1")) as server, pytest.raises(UserError, match="refused") as caught:
        guide(server, tmp_path).write(requests(1))
    assert "secret" not in str(caught.value)
    with serving(FaultyServer(key="secret-2")) as server:
        writer = guide(server, tmp_path)
        writer.write(requests(1))
        GuideCache(str(tmp_path)).export(tmp_path / "export.jsonl")
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"secret" not in kept
    assert "secret" not in repr(writer.config)


def test_no_server_is_one_sentence_within_the_patience(server: FaultyServer) -> None:
    writer = guide(server, patience=1.0)
    server.shutdown()
    server.server_close()
    started = time.perf_counter()
    with pytest.raises(UserError, match=r"Start the server or mend the address, then --resume"):
        writer.write(requests(3))
    assert time.perf_counter() - started < 5


def test_no_wait_goes_beyond_the_patience() -> None:
    """Neither one that the server asks for, nor one that has grown long."""
    with serving(FaultyServer(faults=["rate limit"], share=1.0, retry_after=30.0)) as server:
        started = time.perf_counter()
        with pytest.raises(UserError, match="slow down"):
            guide(server, patience=1.0).write(requests(3))
    assert 1 <= time.perf_counter() - started < 5


def test_a_server_that_comes_back_is_waited_for() -> None:
    first = FaultyServer()
    with serving(first):
        writer = guide(first, timeout=2.0)
        writer.write(requests(1))
    writer.prefetch(requests(3, start=1))
    time.sleep(0.5)
    with serving(FaultyServer(("127.0.0.1", first.server_port))):
        asked = requests(3, start=1)
        assert [c.text for c in writer.write(asked)] == expected(asked)
    assert writer.usage.retries


# Chat style.


@pytest.mark.parametrize(
    ("prefix", "reply", "text"),
    [
        ("The film was", "great.", " great."),
        ("The film was", " great.", " great."),
        ("The film was", "The film was great.", " great."),
        ("I saw it. The film was bad, the cast was", "The film was bad, the cast was good", " good"),
        ("I saw it and", "it and more", " it and more"),
        ("Stop", "Stop here", " here"),
        ("It ended. ", "Well", "Well"),
        ("wonder", "!", "!"),
    ],
)
def test_a_chat_model_continues_the_text(prefix: str, reply: str, text: str) -> None:
    with serving(FaultyServer(replies=[reply])) as server:
        assert guide(server, style="chat").write([Request(prefix, 9, 0)])[0].text == text
        (message,) = server.bodies[0]["messages"]
        assert message["content"].endswith(prefix)


def test_the_assistants_message_is_continued_where_the_server_can(server: FaultyServer) -> None:
    writer = guide(server, style="chat", continue_message=True, template="Summarize: {text}")
    writer.write([Request("a postshort", 4, 0, prompt_length=6), Request("a post", 4, 0, prompt_length=6)])
    by_length = sorted((body["messages"] for body in server.bodies), key=len)
    asked = {"role": "user", "content": "Summarize: a post"}
    assert by_length == [[asked], [asked, {"role": "assistant", "content": "short"}]]


def test_empty_answers_are_counted(server: FaultyServer) -> None:
    server.replies = ["", "  "]
    writer = guide(server)
    writer.write(requests(4))
    assert writer.usage.empty == 4


# Cache.


def test_nothing_is_asked_twice(server: FaultyServer, tmp_path: Path) -> None:
    asked = requests(10)
    first = guide(server, tmp_path).write([*asked, *asked])
    again = guide(server, tmp_path)
    assert [c.text for c in again.write(asked)] == [c.text for c in first[:10]]
    assert sum(server.seen.values()) == 10
    assert (again.usage.calls, again.usage.cached) == (0, 10)
    summary = GuideCache(str(tmp_path)).summary()["letters"]
    assert summary["answers"] == 10
    assert summary["hits"] == 10
    assert summary["tokens saved"] == summary["tokens"]


@pytest.mark.parametrize(
    "change",
    [{"temperature": 0.5}, {"top_p": 0.5}, {"style": "chat"}, {"token_ratio": 2.0}],
)
def test_other_settings_are_other_answers(
    server: FaultyServer, tmp_path: Path, change: dict[str, Any]
) -> None:
    guide(server, tmp_path).write(requests(1))
    guide(server, tmp_path, **change).write(requests(1))
    assert sum(server.seen.values()) == 2


def test_another_seed_prefix_or_length_is_another_answer(server: FaultyServer, tmp_path: Path) -> None:
    writer = guide(server, tmp_path)
    writer.write([Request("a", 4, 0), Request("a", 4, 1), Request("b", 4, 0), Request("a", 5, 0)])
    assert sum(server.seen.values()) == 4


def test_what_was_answered_before_a_failure_is_kept(tmp_path: Path) -> None:
    asked = requests(20)
    with serving(FaultyServer(faults=["server error"], share=0.3)) as server:
        with pytest.raises(UserError, match="no usable answer"):
            guide(server, tmp_path, patience=0.01).write(asked)
        answered = len(server.answered)
        assert 0 < answered < 20
        assert len(list(GuideCache(str(tmp_path)).entries())) == answered


WRITER = """
import sys
from rlgf.guides import Request
from rlgf.guides.answer_cache import GuideCache
cache, who = GuideCache(sys.argv[1]), sys.argv[2]
for i in range(300):
    for text in (f"{who} {i}", f"both {i}"):
        cache.put({"model": "m"}, Request(text, 4, i), {"text": text, "prompt_tokens": 1, "completion_tokens": 1})
    cache.count_hits({"model": "m"}, 1)
"""


def test_several_processes_share_a_cache(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), who]) for who in ("a", "b")]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    cache = GuideCache(str(tmp_path))
    assert cache.summary() == {"m": {"answers": 900, "tokens": 1800, "hits": 600, "tokens saved": 1200}}
    for i in range(300):
        for text in (f"a {i}", f"b {i}", f"both {i}"):
            assert (cache.get({"model": "m"}, Request(text, 4, i)) or {})["text"] == text


def test_a_cache_of_another_version_is_refused(tmp_path: Path) -> None:
    cache = GuideCache(str(tmp_path))
    cache._store["format"] = "rlgf-guide-cache-0"
    with pytest.raises(UserError, match=r"format 'rlgf-guide-cache-0'.*move it away"):
        GuideCache(str(tmp_path))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "cache.db").write_text("no data base")
    with pytest.raises(UserError, match="cannot be read"):
        GuideCache(str(tmp_path / "other"))


# Budget.


@pytest.mark.parametrize(
    ("budget", "affordable"),
    [({"calls": 5}, 5), ({"tokens": 5 * (4 + 6)}, 5), ({"cost": 5 * (4 * 1 + 6 * 2) / 1e6}, 5)],
)
def test_a_budget_is_never_exceeded(server: FaultyServer, budget: dict[str, Any], affordable: int) -> None:
    writer = guide(server, budget=budget, prices={"prompt": 1.0, "completion": 2.0})
    with pytest.raises(BudgetSpentError, match=r"'guide.budget'.*raise it and --resume"):
        writer.write(requests(affordable + 1))
    assert not server.seen, "not one of a batch that is too large"
    writer.write(requests(affordable - 1))
    assert writer.usage.calls == affordable - 1


def test_prefetching_keeps_to_the_budget(server: FaultyServer) -> None:
    writer = guide(server, timeout=5.0, budget={"calls": 5})  # a slow machine asks no sixth time
    writer.prefetch(requests(9))
    writer.write(requests(5))
    assert sum(server.seen.values()) == 5
    with pytest.raises(BudgetSpentError):
        writer.write(requests(1, start=5))


# Training.


def toy(
    folder: Path, server: FaultyServer, cache: Path | None = None, settings: Any = None, **changes: Any
) -> Trainer:
    return toy_trainer(folder, guide=guide(server, cache, **(settings or {})), **GUIDED | changes)


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.parts.policy.model.parameters()])


def test_faults_change_no_weight(tmp_path: Path) -> None:
    with serving(FaultyServer()) as calm, serving(FaultyServer(faults=FAULTS, share=0.2, hang=0.4)) as wild:
        runs = [toy(tmp_path / "calm", calm), toy(tmp_path / "wild", wild, settings={"timeout": 0.3})]
        for run in runs:
            run.train()
    assert torch.equal(weights(runs[0]), weights(runs[1]))
    assert runs[1].guide_usage.total.retries > 0
    assert runs[0].guide_usage.total.calls == runs[1].guide_usage.total.calls > 10


def test_a_second_run_asks_for_nothing(tmp_path: Path) -> None:
    with serving(FaultyServer()) as server:
        first = toy(tmp_path / "first", server, tmp_path / "cache")
        first.train()
        asked = sum(server.seen.values())
        second = toy(tmp_path / "second", server, tmp_path / "cache")
        second.train()
        assert sum(server.seen.values()) == asked > 0
    assert torch.equal(weights(first), weights(second))


def test_a_dead_server_leaves_a_checkpoint_and_a_full_cache_needs_none(tmp_path: Path) -> None:
    with serving(FaultyServer()) as server:
        straight = toy(tmp_path / "straight", server, tmp_path / "cache")
        straight.train()
    with serving(FaultyServer()) as server:

        def dies(update: int) -> None:
            if update == 2:
                time.sleep(0.5)  # what was asked ahead for the third update has come
                server.faults, server.share = ["server error"], 1.0

        dying = toy_trainer(tmp_path / "dying", dies, guide=guide(server, patience=0.5), **GUIDED)
        with pytest.raises(UserError, match="then --resume"):
            dying.train()
        # Every second update is saved anyway.
        assert sorted(path.name for path in (tmp_path / "dying" / "checkpoints").iterdir()) == [
            "000002",
            "000003",
        ]
    # No server listens any more.
    resumed = toy(tmp_path / "dying", server, tmp_path / "cache")
    resumed.train(resume=True)
    assert torch.equal(weights(resumed), weights(straight))


def test_a_spent_budget_stops_with_a_checkpoint_that_a_larger_one_resumes(tmp_path: Path) -> None:
    with serving(FaultyServer()) as server:
        straight = toy(tmp_path / "straight", server)
        straight.train()
        poor = toy(tmp_path / "run", server, settings={"budget": {"calls": 17}})
        with pytest.raises(BudgetSpentError):
            poor.train()
        assert 0 < poor.progress.update < 4
        rich = toy(tmp_path / "run", server, settings={"budget": {"calls": 100}})
        rich.train(resume=True)
    assert torch.equal(weights(rich), weights(straight))
    assert rich.guide_usage.total.calls == straight.guide_usage.total.calls


def test_a_spent_budget_can_go_on_unguided(tmp_path: Path) -> None:
    with serving(FaultyServer()) as server:
        settings = {"budget": {"calls": 17, "then": "unguided"}}
        run = toy(tmp_path / "run", server, settings=settings)
        run.train()
        assert run.progress.unguided
        assert sum(server.seen.values()) <= 17
        rollout = run.collect(run.batch(), run.row())
        assert not rollout.written_by(Author.GUIDE).any()


def test_prefetched_requests_hide_the_guides_latency(tmp_path: Path) -> None:
    def pause(update: int) -> None:
        time.sleep(0.3)

    with serving(FaultyServer(latency=0.2)) as server:
        run = toy_trainer(tmp_path, pause, guide=guide(server), **GUIDED)
        cold, *warm = (run.step() for _ in range(4))
    assert float(cold["guide_waited_seconds"]) > 0.2
    for metrics in warm:
        assert float(metrics["guide_waited_seconds"]) < 0.15 * float(metrics["seconds"])
        assert float(metrics["guide_overlap"]) > 0.8


# Several guides.


def test_an_ensemble_splits_requests_by_weight_and_says_who_wrote() -> None:
    with serving(FaultyServer(letters="ab")) as one, serving(FaultyServer(letters="cd")) as two:
        both = EnsembleGuide({"one": (guide(one), 3.0), "two": (guide(two), 1.0)})
        asked = requests(200)
        both.prefetch(asked)
        answers = both.write(asked)
        for answer in answers:
            assert set(answer.text) <= set("ab" if answer.guide == "one" else "cd")
        assert 0.65 < sum(a.guide == "one" for a in answers) / 200 < 0.85
        accounts = both.accounts
        assert sum(usage.calls for usage in accounts.values()) == 200
        both.restore(accounts)
        assert both.accounts == accounts


# What a recipe may say.

RECIPE: dict[str, Any] = {
    "task": "imdb",
    "reward": "sentiment",
    "algorithm": "ppo++",
    "policy": {"model": "x"},
    "guide": {"url": "http://127.0.0.1:1/v1", "model": "letters"},
}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("guide.url=localhost", r"'guide.url' .*an address such as"),
        ("guide.url=http://me:secret@host/v1", "environment variable"),
        ("guide.template=Go on.", r"needs a place for the text: write \{text\}"),
        ("guide.prices.prompt=-1", "'guide.prices.prompt'.*greater than or equal to 0"),
        ("guide.budget.cost=3", "needs 'prices'"),
        ("guide.continue_message=true", "belongs to 'style: chat'"),
        ("guide.tempereture=1", "'guide.tempereture' is not a known key: did you mean 'temperature'"),
        ("guide.budget={calls: 3, then: unguided}", "does not fit algorithm 'aggrevated'"),
    ],
)
def test_a_recipe_that_cannot_work_is_one_sentence(override: str, message: str) -> None:
    recipe = RECIPE | {"algorithm": "aggrevated"}
    with pytest.raises(UserError, match=message):
        load_config(recipe, override)


def test_a_resumed_run_may_change_how_its_guide_is_reached() -> None:
    config = load_config(RECIPE)
    moved = load_config(RECIPE, "guide.url=http://127.0.0.2:1/v1", "guide.budget.calls=3")
    assert config.identity == moved.identity
    assert config.identity != load_config(RECIPE, "guide.top_p=0.5").identity


@pytest.mark.parametrize(
    "order",
    [("guide.model=letters", "guide.url=http://h/v1"), ("guide.url=http://h/v1", "guide.model=letters")],
)
def test_a_later_recipe_may_change_the_kind_of_guide(order: tuple[str, str]) -> None:
    local = {"model": "folder", "sampling": {"top_p": 0.5}}
    recipe = RECIPE | {"guide": local}
    assert isinstance(load_config(recipe).guide, LocalGuideConfig)
    config = load_config(recipe, *order).guide
    assert isinstance(config, HTTPGuideConfig)
    assert (config.model, config.top_p) == ("letters", 0.92)
    with pytest.raises(UserError, match=r"'guide\.sampling' is not a known key"):
        load_config(recipe, *order, "guide.sampling.top_p=0.5")
