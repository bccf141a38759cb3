"""Losses over pairs: DPO and REBEL, online, begun by a guide, and from a file of pairs."""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from rich.console import Console
from test_exact_gradients import (
    POLICY,
    REFERENCE,
    RESPONSES,
    draft,
    gradient_of,
    likelihood,
    penalized,
    reward,
    rollout_of,
    score,
)
from torch import Tensor

from rlgf.algorithms import ALGORITHMS, ESTIMATORS, Algorithm, Pairs, Signals, algorithm_from
from rlgf.config import Config
from rlgf.errors import UserError
from rlgf.learning.assessor import Assessor
from rlgf.learning.config import UpdateConfig
from rlgf.learning.updater import Updater
from rlgf.models.sampling import Sampling
from rlgf.objectives import losses
from rlgf.objectives.advantages import best_and_worst
from rlgf.rollout.writers import Draft
from rlgf.run.build import build_parts
from rlgf.run.display import Display
from rlgf.run.trainer import Trainer
from rlgf.tasks import Task, build_task
from rlgf.types import Author, Experience, Sample
from toys import LENGTH, FavouringGuide, LetterTask, TableModel, letter_gpt, share_of_a, table_language_model

KL = 0.3
ONLINE = ("dpo", "guided-dpo", "rebel", "guided-rebel")


def row(name: str) -> Algorithm:
    found = ALGORITHMS[name]
    assert isinstance(found, Algorithm)
    return found


# The pure functions.


def test_dpo_equals_its_formula() -> None:
    ratios = torch.tensor([[0.5, -1.0], [-2.0, 1.0], [0.3, 0.3]])
    loss, metrics = losses.dpo(ratios, 5.0, 0.4)
    margins = [0.4 * (a - b) for a, b in ratios.tolist()]
    assert loss.item() == pytest.approx(sum(math.log(1 + math.exp(-m)) for m in margins) / 5)
    assert metrics["margin"].item() == pytest.approx(sum(margins) / 5)
    assert metrics["pair_accuracy"].item() == pytest.approx(1 / 5)


def test_dpo_of_an_unchanged_policy_is_log_2() -> None:
    loss, metrics = losses.dpo(torch.zeros(4, 2), 4.0, 0.1)
    assert loss.item() == pytest.approx(math.log(2))
    assert metrics["pair_accuracy"].item() == 0


def test_rebel_equals_its_formula() -> None:
    ratios, difference = torch.tensor([[0.5, -1.0], [-2.0, 1.0]]), torch.tensor([0.7, 2.0])
    loss, metrics = losses.rebel(ratios, difference, 3.0, 0.5)
    assert loss.item() == pytest.approx(((0.5 * 1.5 - 0.7) ** 2 + (-0.5 * 3 - 2.0) ** 2) / 3)
    assert metrics["margin"].item() == pytest.approx((0.75 - 1.5) / 3)
    assert metrics["pair_accuracy"].item() == pytest.approx(1 / 3)


def test_rebel_is_0_where_the_policy_moved_by_the_rewards_alone() -> None:
    """The fixed point of the regression: pi proportional to old * exp(eta R)."""
    rewards, eta = torch.tensor([[1.0, 0.2], [0.5, -3.0]]), 2.0
    loss, _ = losses.rebel(eta * rewards + 0.7, rewards[:, 0] - rewards[:, 1], 2.0, 1 / eta)
    assert loss.item() == pytest.approx(0, abs=1e-12)


def test_best_and_worst_equals_a_loop_over_groups() -> None:
    random = torch.Generator().manual_seed(0)
    groups = torch.tensor([7, 2, 7, 2, 7, 5, 2, 5, 9, 9])
    for _ in range(20):
        scores = torch.randint(0, 3, (10,), generator=random).float()
        expected = []
        for group in (2, 5, 7, 9):
            members = [i for i in range(10) if groups[i] == group]
            best, worst = (pick(members, key=lambda i: float(scores[i])) for pick in (max, min))
            if scores[best] > scores[worst]:
                expected.append([best, worst])
        assert best_and_worst(scores, groups).tolist() == expected


def test_groups_that_scored_alike_make_no_pairs() -> None:
    assert best_and_worst(torch.ones(4), torch.tensor([0, 0, 1, 1])).shape == (0, 2)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # The penalty turns the order of the first group around.
        ("preference", [(0, 1, 1.0), (4, 5, 1.0)]),
        ("reward_difference", [(2, 1, 1.5), (4, 5, 3.0)]),
        ("given_order", [(0, 2, 1.0), (3, 5, 1.0)]),
    ],
)
def test_an_estimator_picks_one_pair_of_each_group(name: str, expected: list[tuple[int, int, float]]) -> None:
    mask = torch.tensor([[1, 1], [1, 0]] * 3, dtype=torch.bool)
    signals = Signals(
        token_rewards=torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.5, 1.0], [0.0, 0.0], [1.0, 1.0], [-1.0, 0.0]]),
        rewards=torch.tensor([2.0, -0.5, 1.5, 0.0, 2.0, -1.0]),
        values=torch.zeros(6, 2),
        mask=mask,
        group=torch.tensor([0, 0, 0, 1, 1, 1]),
        gamma=1.0,
        gae_lambda=1.0,
    )
    found = ESTIMATORS[name].estimate(signals)
    assert isinstance(found, Pairs)
    made = zip(found.rows.tolist(), found.difference.tolist(), strict=True)
    assert [(better, worse, gap) for (better, worse), gap in made] == expected


# The gradient, against the objective itself on the enumerated problem.


def episodes(guided: bool) -> list[tuple[tuple[int, ...], int]]:
    """Pairs, one after the other, of texts of which the guide began none, or up to two letters."""
    switches = itertools.cycle([0, 2, 1, 0, 1] if guided else [0])
    return list(zip((*RESPONSES, *RESPONSES[::-1][5:], *RESPONSES[9:14]), switches, strict=False))[:54]


def assessed(found: Algorithm, drafts: list[Draft], kl: float = KL) -> Experience:
    groups = [i // 2 for i in range(len(drafts))]
    policy, reference = table_language_model(POLICY), table_language_model(REFERENCE)
    assessor = Assessor(policy, reference, {}, reward, Sampling(), 10**6)
    return assessor.assess(rollout_of(drafts, groups), found, kl)


def library_gradient(
    found: Algorithm, experience: Experience, micro_tokens: int = 10**6
) -> tuple[Tensor, dict[str, float]]:
    """Of the loss over all pairs, at a policy that has moved from where the update began."""
    policy = table_language_model(MOVED)
    config = UpdateConfig(max_micro_tokens=micro_tokens)
    updater = Updater(policy, {}, Sampling(), config, seed=0)
    metrics = updater.backward(picked(experience), found)
    assert isinstance(policy.model, TableModel)
    assert policy.model.table.grad is not None
    return policy.model.table.grad[:, :3], {name: float(value) for name, value in metrics.items()}


def picked(experience: Experience) -> Experience:
    """All pairs, as one optimizer step has them."""
    return experience.take_units(torch.arange(len(experience.units)))


def beta_of(found: Algorithm) -> float:
    return 0.1 if found.terms["policy"].loss == "dpo" else 1.0


MOVED = (POLICY.log() + torch.linspace(-0.4, 0.5, POLICY.numel()).view_as(POLICY)).softmax(dim=-1)


def exact_loss(found: Algorithm, texts: list[tuple[tuple[int, ...], int]]) -> Callable[[Tensor], Tensor]:
    def ratio(probabilities: Tensor, base: Tensor, response: tuple[int, ...]) -> Tensor:
        return (likelihood(probabilities, response, 0, LENGTH) / likelihood(base, response, 0, LENGTH)).log()

    def value(probabilities: Tensor) -> Tensor:
        terms = []
        for (one, first), (other, second) in zip(texts[::2], texts[1::2], strict=True):
            if found.terms["policy"].loss == "dpo":
                gap = score(one) - score(other)
                better, worse = (one, other) if gap > 0 else (other, one)
                change = ratio(probabilities, REFERENCE, better) - ratio(probabilities, REFERENCE, worse)
                loss = (1 + (-beta_of(found) * change).exp()).log()
            else:
                gap = float(penalized(POLICY, one, first, KL) - penalized(POLICY, other, second, KL))
                change = ratio(probabilities, POLICY, one) - ratio(probabilities, POLICY, other)
                loss = (beta_of(found) * change - gap) ** 2
            if abs(gap) > 1e-6:
                terms.append(loss)
        return torch.stack(terms).mean()

    return value


def moved_gradient(objective: Callable[[Tensor], Tensor]) -> Tensor:
    logits = MOVED.log().clone().requires_grad_()
    objective(logits.softmax(dim=-1)).backward()
    assert logits.grad is not None
    return logits.grad


@pytest.mark.parametrize("name", ONLINE)
def test_a_pair_loss_follows_the_gradient_of_its_objective(name: str) -> None:
    found = row(name)
    texts = episodes(guided=found.script.rollin is not None)
    experience = assessed(found, [draft(found, response, switch) for response, switch in texts])
    gradient, metrics = library_gradient(found, experience)
    objective = exact_loss(found, texts)
    torch.testing.assert_close(gradient, moved_gradient(objective), atol=1e-6, rtol=1e-4)
    assert metrics["policy_loss"] == pytest.approx(float(objective(MOVED)), rel=1e-5)
    assert gradient.abs().max() > 1e-3


@pytest.mark.parametrize("name", ONLINE)
def test_micro_batches_change_nothing_and_part_no_pair(name: str) -> None:
    found = row(name)
    texts = episodes(guided=found.script.rollin is not None)
    experience = assessed(found, [draft(found, response, switch) for response, switch in texts])
    whole, metrics = library_gradient(found, experience)
    for micro_tokens in (1, 8, 20):
        cut, again = library_gradient(found, experience, micro_tokens)
        torch.testing.assert_close(cut, whole, atol=1e-7, rtol=1e-5)
        assert again == pytest.approx(metrics, rel=1e-5, abs=1e-6)


def test_offline_dpo_follows_the_gradient_of_its_objective() -> None:
    """The data's order, not the reward, says which text is the better one; nobody asks for a reward."""
    found = row("offline-dpo")
    texts = [(response, 0) for response in RESPONSES[:26]]
    drafts = [draft(found, response, 0) for response, _ in texts]
    groups = [i // 2 for i in range(len(drafts))]
    reference = table_language_model(REFERENCE)
    assessor = Assessor(table_language_model(POLICY), reference, {}, None, Sampling(), 10**6)
    experience = assessor.assess(rollout_of(drafts, groups), found, KL)

    def objective(probabilities: Tensor) -> Tensor:
        terms = []
        for (one, _), (other, _) in zip(texts[::2], texts[1::2], strict=True):
            ratios = [
                (likelihood(probabilities, text, 0, LENGTH) / likelihood(REFERENCE, text, 0, LENGTH)).log()
                for text in (one, other)
            ]
            terms.append((1 + (-beta_of(found) * (ratios[0] - ratios[1])).exp()).log())
        return torch.stack(terms).mean()

    gradient, _ = library_gradient(found, experience)
    torch.testing.assert_close(gradient, moved_gradient(objective), atol=1e-6, rtol=1e-4)
    assert experience.scored.rewards is None


def test_the_first_step_of_rebel_is_a_policy_gradient() -> None:
    """At pi = old the gradient is -2 beta (R - R') (grad log pi(y) - grad log pi(y'))."""
    found = row("rebel")
    texts = episodes(guided=False)
    experience = assessed(found, [draft(found, response, 0) for response, _ in texts], kl=0.0)
    policy = table_language_model(POLICY)
    updater = Updater(policy, {}, Sampling(), UpdateConfig(), seed=0)
    updater.backward(picked(experience), found)

    def surrogate(probabilities: Tensor) -> Tensor:
        terms = []
        for (one, _), (other, _) in zip(texts[::2], texts[1::2], strict=True):
            logs = [likelihood(probabilities, text, 0, LENGTH).log() for text in (one, other)]
            if score(one) != score(other):
                terms.append(-2 * (score(one) - score(other)) * (logs[0] - logs[1]))
        return torch.stack(terms).mean()

    assert isinstance(policy.model, TableModel)
    assert policy.model.table.grad is not None
    torch.testing.assert_close(policy.model.table.grad[:, :3], gradient_of(surrogate), atol=1e-6, rtol=1e-4)


# Which episodes are learned from.


def test_only_the_best_and_the_worst_of_a_group_are_learned_from() -> None:
    found = row("dpo")
    drafts = [draft(found, RESPONSES[i], 0) for i in (0, 5, 9, 14, 3, 3)]
    rollout = rollout_of(drafts, [0, 0, 0, 0, 1, 1])
    policy, reference = table_language_model(POLICY), table_language_model(REFERENCE)
    experience = Assessor(policy, reference, {}, reward, Sampling(), 10**6).assess(rollout, found, KL)
    scores = [score(RESPONSES[i]) for i in (0, 5, 9, 14)]
    best, worst = scores.index(max(scores)), scores.index(min(scores))
    assert experience.pairs is not None
    assert experience.pairs.tolist() == [[best, worst]]
    assert picked(experience).rollout.texts == (rollout.texts[best], rollout.texts[worst])


def trainer(
    tmp_path: Path,
    algorithm: Any,
    task: Task | None = None,
    reward: Any = share_of_a,
    **options: Any,
) -> Trainer:
    sections: dict[str, Any] = {
        "task": {"name": "letters"},
        "policy": {"model": "made by hand"},
        "guide": {"model": "made by hand"},
        "reward": {"name": "share_of_a"} if reward is not None else None,
        "algorithm": algorithm,
        "output": str(tmp_path / "run"),
        "rollout": {"episodes": 16, "max_prompt_tokens": 4, "max_response_tokens": 6},
        "update": {"minibatch": 4, "epochs": 2, "learning_rate": 5e-3},
        "training": {"updates": 3, "trackers": [], "checkpoint_every": 1000},
        "evaluation": {"every": 1000, "samples": 16, "test_samples": 16},
    }
    for name, change in options.items():
        sections[name] = {**sections[name], **change}
    config = Config.model_validate(sections)
    guide = FavouringGuide("a", 0.6)
    parts = build_parts(config, task=task or LetterTask(), reward=reward, guide=guide, policy=letter_gpt())
    return Trainer(config, parts, Display(Console(quiet=True)))


def test_minibatches_hold_whole_pairs_and_every_pair_once_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = trainer(tmp_path, "guided-rebel", update={"minibatch": 5})
    seen: list[Experience] = []
    backward = learner.parts.updater.backward

    def recorded(batch: Experience, *rest: Any, **named: Any) -> dict[str, Tensor]:
        seen.append(batch)
        return backward(batch, *rest, **named)

    monkeypatch.setattr(learner.parts.updater, "backward", recorded)
    experience = learner.assess(learner.collect(learner.batch(), learner.row()), learner.row())
    pairs = len(experience.units)
    metrics = learner.learn(experience, learner.row())
    assert metrics["pairs"] == pairs == 4
    assert [len(batch) for batch in seen] == [4, 4, 4, 4]
    for batch in seen:
        groups = batch.rollout.group.tolist()
        assert groups[::2] == groups[1::2]
        assert (batch.scored.rewards[::2] > batch.scored.rewards[1::2]).all()
    for epoch in (seen[:2], seen[2:]):
        assert sorted(g for batch in epoch for g in batch.rollout.group[::2].tolist()) == [0, 1, 2, 3]


def test_an_update_in_which_all_texts_are_alike_learns_nothing(tmp_path: Path) -> None:
    learner = trainer(tmp_path, "dpo", reward=lambda prompts, completions, **columns: [0.5] * len(prompts))
    before = copy.deepcopy(learner.parts.policy.model.state_dict())
    metrics = learner.step()
    assert metrics["pairs"] == 0
    assert "gradient_norm" not in metrics, "there is no optimizer step"
    after = learner.parts.policy.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_guide_begins_texts_of_a_group_apart(tmp_path: Path) -> None:
    learner = trainer(tmp_path, "guided-dpo")
    rollout = learner.collect(learner.batch(), learner.row())
    begun = rollout.written_by(Author.GUIDE).sum(dim=1).view(-1, 4)
    assert (begun > 0).any()
    assert (begun == 0).any()
    assert any(len(set(group)) > 2 for group in begun.tolist())
    experience = learner.assess(rollout, learner.row())
    by_guide = picked(experience).rollout.written_by(Author.GUIDE)
    assert by_guide.any(), "a loss over pairs reads whole texts"


@pytest.mark.parametrize(
    ("name", "scored"), [("guided-rebel", True), ("guided-dpo", False), ("rebel", False)]
)
def test_the_old_policy_scores_a_guides_tokens_where_the_loss_reads_them(
    tmp_path: Path, name: str, scored: bool
) -> None:
    learner = trainer(tmp_path, name)
    experience = learner.assess(learner.collect(learner.batch(), learner.row()), learner.row())
    by_guide = experience.rollout.written_by(Author.GUIDE)
    by_policy = experience.rollout.written_by(Author.POLICY)
    assert bool((experience.old_logprobs[by_guide] < 0).any()) == scored
    sampled = experience.rollout.sampled_logprobs
    torch.testing.assert_close(experience.old_logprobs[by_policy], sampled[by_policy], atol=1e-5, rtol=1e-4)


# Pairs from a file.


def pair_file(path: Path, *records: dict[str, Any]) -> dict[str, Any]:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    files = {split: str(path) for split in ("train", "validation", "test")}
    return {**files, "reference_field": "chosen", "rejected_field": "rejected"}


PAIR = {"prompt": "ab", "chosen": "aaaaa", "rejected": "bcd"}
OFFLINE = {"episodes": 32}


def test_pairs_are_read_from_a_file(tmp_path: Path) -> None:
    task = build_task("data", pair_file(tmp_path / "a.jsonl", PAIR | {"id": 7}))
    assert task.load("train")[:] == [
        Sample("ab", ("aaaaa",), {"chosen": "aaaaa", "rejected": "bcd", "id": 7}, rejected="bcd")
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rejected": "aaaaa"}, r"a\.jsonl, line 2: 'chosen' and 'rejected' are identical"),
        ({"rejected": 3}, r"line 2: 'rejected' must be a text or the messages of a chat \(it is 3\)"),
        ({"chosen": ["a", "b"]}, r"line 2: a pair needs one text to compare with 'rejected' \(there are 2\)"),
        ({"chosen": ""}, r"line 2: 'chosen' has an empty reference"),
    ],
)
def test_a_pair_that_is_none_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_task("data", pair_file(tmp_path / "a.jsonl", PAIR, PAIR | change)).load("train")
    missing = pair_file(tmp_path / "b.jsonl", {"prompt": "a", "chosen": "b"})
    with pytest.raises(
        UserError, match=r"no field 'rejected': set the option 'rejected_field'. Fields: chosen"
    ):
        build_task("data", missing).load("train")


def test_offline_dpo_learns_from_a_file(tmp_path: Path) -> None:
    """Chosen texts hold the letter a, rejected ones the others; no reward is given, and no guide."""
    records = [
        {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        for prompt in ("a", "bc", "d")
        for chosen, rejected in (("aaaaaa", "bcdbcd"), ("aaabaa", "ddc"), ("caaaa", "bbbbad"))
    ]
    task = build_task("data", pair_file(tmp_path / "a.jsonl", *records))
    learner = trainer(
        tmp_path,
        "offline-dpo",
        task,
        reward=None,
        rollout=OFFLINE,
        update={"minibatch": 16},
        training={"updates": 15},
    )
    rollout = learner.collect(learner.batch(), learner.row())
    assert [text.count("a") >= 4 for text in rollout.texts] == [True, False] * 16
    assert rollout.finished.any()
    assert all(sample.references[0].count("a") >= 4 for sample in rollout.samples)
    before = share_of_a(["d"] * 16, learner_texts(learner))
    first = learner.step()
    assert first["pairs"] == 16
    assert "reward" not in first
    learner.train()
    last = json.loads((learner.config.folder / "metrics.jsonl").read_text().splitlines()[-2])
    assert last["pair_accuracy"] == 1.0
    assert last["margin"] > 1.0
    assert sum(share_of_a(["d"] * 16, learner_texts(learner))) > sum(before) + 4


def learner_texts(learner: Trainer) -> list[str]:
    return list(learner.parts.collector.answers(Author.POLICY, [Sample("d")] * 16).texts)


def test_offline_dpo_without_pairs_is_refused_before_a_model_loads(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "a", "references": "b"}\n')
    config = {
        "task": {"name": "data", "options": {"train": str(path)}},
        "policy": {"scratch": {}},
        "algorithm": "offline-dpo",
    }
    with pytest.raises(UserError, match=r"learns from pairs, .* 'rejected_field: rejected'"):
        build_parts(Config.model_validate(config))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": "dpo", "reward": None}, "'dpo' needs a reward"),
        ({"algorithm": {"base": "rebel", "group_size": 1}}, "'group_size' must be 2 or more"),
        ({"algorithm": {"base": "offline-dpo", "group_size": 4}}, r"set 'group_size: 2' \(it is 4\)"),
        (
            {"algorithm": "offline-dpo", "rollout": {"min_response_tokens": 5}},
            r"'rollout.min_response_tokens: 0' \(it is 5\)",
        ),
        ({"algorithm": "guided-dpo", "guide": None}, "needs a guide"),
    ],
)
def test_what_a_pair_algorithm_needs_is_asked_for(changes: dict[str, Any], message: str) -> None:
    config = {
        "task": "imdb",
        "policy": {"model": "a"},
        "guide": {"model": "b"},
        "reward": {"name": "sentiment"},
    }
    config["task"] = {"name": "imdb"}
    with pytest.raises(ValidationError, match=message):
        Config.model_validate(config | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "dpo", "advantage": "group_relative"}, "pairs are picked by the advantages preference"),
        ({"base": "grpo", "advantage": "preference"}, "set one of each, or neither"),
        ({"base": "dpo", "terms": {"policy": {"on": "rollout"}}}, "set 'on: whole' for the term 'policy'"),
        ({"base": "grpo", "terms": {"policy": {"on": "whole"}}}, "a loss over pairs, and no other"),
        ({"base": "dpo", "whiten": True}, "no critic and no whitening"),
        ({"base": "dpo", "advantage": "given_order"}, "set 'script.rollout: reference'"),
        ({"base": "offline-dpo", "script": {"rollin": "reference"}}, "leave 'script.rollin' out"),
        ({"base": "dpo", "terms": {"value": {}}}, "no critic and no whitening"),
        ({"base": "dpo", "terms": {"policy": {"options": {"beta": 0}}}}, "greater than 0"),
    ],
)
def test_an_incoherent_row_of_pairs_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        algorithm_from(changes)


def test_a_pair_loss_without_a_reference_model_is_refused() -> None:
    found = row("offline-dpo")
    rollout = rollout_of([draft(found, response, 0) for response in RESPONSES[:2]], [0, 0])
    assessor = Assessor(table_language_model(POLICY), None, {}, None, Sampling(), 10**6)
    with pytest.raises(UserError, match="needs the policy's frozen start"):
        assessor.assess(rollout, found, KL)


def test_a_term_on_the_references_reads_the_preferred_text(tmp_path: Path) -> None:
    algorithm = {
        "base": "offline-dpo",
        "terms": {"references": {"loss": "nll", "on": "references", "weight": 0.1}},
    }
    learner = trainer(tmp_path, algorithm, reward=None, rollout=OFFLINE)
    assert {s.references for s in learner.collect(learner.batch(), learner.row()).samples} == {("aaaaaa",)}
    assert learner.step()["references_loss"] > 0
