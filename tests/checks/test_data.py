"""Rules between the data and everybody who reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from unfit_parts import HERE, SOUND, BarePrompts, refusal

from rlgf import checks
from rlgf.checks import parts
from rlgf.config import Config, load_config
from rlgf.errors import UserError
from rlgf.metrics import build_metrics
from rlgf.run.build import build_parts
from rlgf.strict import NamedConfig
from rlgf.types import Rollout, Sample
from toys import LetterTask


class Untouched:
    """A task whose splits hold what is given; no model is to be loaded for it."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample

    def load(self, split: str) -> list[Sample]:
        return [Sample("a", ("b",), {"concepts": ["b"]}), self.sample]


def right(completions: list[str], answers: list[str]) -> list[float]:
    return [float(text in answers) for text in completions]


def recipe(*metrics: Any) -> Any:
    return load_config(
        {
            "task": "imdb",
            "policy": {"model": "there-is-no-such-model"},
            "reward": "sentiment",
            "algorithm": "ppo",
            "evaluation": {"metrics": list(metrics)},
        }
    )


@pytest.fixture
def _unread_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy's configuration, a small file, is read early; here there is none."""
    monkeypatch.setattr(parts, "_named_too_short", lambda *_: None)


@pytest.mark.usefixtures("_unread_model")
@pytest.mark.parametrize(
    ("metrics", "sample", "said"),
    [
        (["wordz"], Sample("a"), "metric 'wordz' is not known: did you mean 'words'"),
        (
            ["words", "sari"],
            Sample("a"),
            r"'sari' needs 'references'.*sample 1 of the task's split 'validation'",
        ),
        ([{"name": "words", "options": {"n": 1}}], Sample("a"), "takes no options"),
        ([f"{__name__}:right"], Sample("a"), r"'.*:right' takes 'answers', which is not given: .*concepts"),
    ],
)
def test_what_a_metric_lacks_is_said_before_a_model_loads(
    metrics: list[Any], sample: Sample, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        build_parts(recipe(*metrics), task=Untouched(sample), reward=lambda *_, **__: [])


@pytest.mark.usefixtures("_unread_model")
def test_a_missing_column_is_said_before_a_model_loads() -> None:
    for columns in ({}, {"concepts": []}, {"concepts": "b"}):
        with pytest.raises(UserError, match=r"'concept_coverage' needs 'concepts'.*'evaluation.metrics'"):
            build_parts(
                recipe("concept_coverage"),
                task=Untouched(Sample("a", ("b",), columns)),
                reward=lambda *_, **__: [],
            )


def parts_of(reward: Any, samples: list[Sample] | None = None, algorithm: str = "gail") -> None:
    class Task(LetterTask):
        def load(self, split: str) -> list[Sample]:
            return samples or super().load(split)

    config = Config.model_validate(
        {
            "task": {"name": "letters"},
            "policy": {"model": "no such model"},
            "reward": reward,
            "algorithm": algorithm,
        }
    )
    build_parts(config, task=Task())


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is refused before a model loads."""
    monkeypatch.setattr("rlgf.checks.parts._named_too_short", lambda *arguments: None)
    monkeypatch.setattr("rlgf.run.models.load_language_model", lambda *arguments: pytest.fail("loaded"))


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("reward", [{"name": "toys:share_of_a"}, {"terms": {"a": "toys:share_of_a"}}])
def test_gail_with_a_reward_that_does_not_learn_is_refused(reward: dict[str, Any]) -> None:
    with pytest.raises(
        UserError, match=r"'gail' needs a reward that learns .*'reward: discriminator'"
    ) as caught:
        parts_of(reward)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_model")
def test_start_values_of_a_reward_that_learns_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"'a-star-po' estimates the value of a prompt once, and the reward learns"
    ):
        parts_of({"name": "discriminator"}, algorithm="a-star-po")


class Forgetful:
    """Learns, and keeps nothing of it."""

    def __call__(self, prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
        return [0.0] * len(completions)

    def update(self, rollout: Rollout) -> dict[str, float]:
        return {}


@pytest.mark.usefixtures("no_model")
def test_a_reward_that_learns_without_a_state_is_refused() -> None:
    with pytest.raises(UserError, match=r"'Forgetful' has 'update'.*give it 'state_dict\(\)'"):
        parts_of({"name": f"{__name__}:Forgetful"}, algorithm="ppo")


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    "reward", [{"name": "discriminator"}, {"terms": {"a": "toys:share_of_a", "discriminator": 1.0}}]
)
@pytest.mark.parametrize("algorithm", ["ppo", "gail"])
def test_data_without_references_is_refused(reward: dict[str, Any], algorithm: str) -> None:
    with pytest.raises(UserError, match=r"'Discriminator' learns from reference texts.*'reference_field'"):
        parts_of(reward, [Sample("a")], algorithm)


@pytest.mark.parametrize(
    ("task", "overrides", "message"),
    [
        (f"{HERE}:Silent", [], "has no method load(split)"),
        (f"{HERE}:NUMBER", [], "is not a class or function"),
        (f"{HERE}:BarePrompts", ["algorithm=offline-dpo"], "learns from pairs"),
        (f"{HERE}:BarePrompts", ["algorithm=dr-po"], "algorithm 'dr-po' needs reference texts"),
        (
            f"{HERE}:BarePrompts",
            ["algorithm.terms={references: {loss: nll, on: references, weight: 0.1}}"],
            "algorithm 'ppo' needs reference texts",
        ),
        (f"{HERE}:BarePrompts", ["evaluation.metrics=[rouge]"], "the metric 'rouge' needs 'references'"),
        (f"{HERE}:BarePrompts", ["algorithm=gail"], "needs a reward that learns beside the policy"),
        (f"{HERE}:BarePrompts", ["reward=discriminator"], "'Discriminator' learns from reference texts"),
    ],
)
def test_data_that_does_not_fit_is_one_sentence_before_models_load(
    task: str, overrides: list[Any], message: str
) -> None:
    # A guide that is asked would be the next thing to fail.
    assert message in refusal(*overrides, task=task)


def test_references_that_a_later_sample_lacks_are_missed_before_a_model_loads() -> None:
    samples = [Sample("a", ("b",)), Sample("a")]
    found = checks.Found(Untouched(samples[0]), samples, {}, [])
    assert list(checks.broken_by_data(load_config(SOUND, "algorithm=bc"), found)) == [
        "algorithm 'bc' needs reference texts, and a sample has none: let the task give them (its option 'reference_field'), "
        "or choose another algorithm."
    ]


def test_a_term_without_weight_needs_no_references() -> None:
    source = "algorithm.terms={references: {loss: nll, on: references, weight: 0}}"
    config = load_config(SOUND, source)
    found = checks.Found(BarePrompts(), BarePrompts().load("train"), {}, [])
    assert list(checks.broken_by_data(config, found)) == []


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_split_that_is_not_there_is_said_before_a_model_loads(split: str, tmp_path: Path) -> None:
    """The test comes after the last update."""
    file = tmp_path / "a.jsonl"
    file.write_text('{"prompt": "a"}\n')
    options: dict[str, Any] = dict.fromkeys(("train", "validation", "test"), str(file))
    options |= {"reference_field": None, split: []}
    said = refusal({"task": {"name": "data", "options": options}}, task="data")
    assert f"task 'data' has no file for the split '{split}'" in said


def misread(completions: list[str], solutoin: list[str]) -> list[float]:
    return [0.0 for _ in completions]


@pytest.mark.parametrize("column", ["solution", "turns"])
def test_a_reward_that_takes_no_column_of_the_data_is_refused_before_it_is_called(column: str) -> None:
    samples = [Sample("a"), Sample("b", columns={column: "c"})]
    config = load_config(SOUND, {"reward": f"{__name__}:misread"})
    found = checks.Found(LetterTask(), samples, {}, checks.named_rewards(config))
    (said,) = checks.broken_by_data(config, found)
    assert said.startswith("the reward 'misread' takes 'solutoin', which is not given: ")
    assert ("did you mean 'solution'?" in said) == (column == "solution")


class Strict:
    """A reward that is a class."""

    def __call__(self, completions: list[str], solution: list[str]) -> list[float]:
        return [0.0 for _ in completions]


def strict(completions: list[str], solution: list[str]) -> list[float]:
    return [0.0 for _ in completions]


@pytest.mark.parametrize("reward", ["Strict", "strict"])
@pytest.mark.parametrize("lacks", ["train", "validation", "test"])
def test_a_column_that_only_one_split_lacks_is_said_before_a_model_loads(
    reward: str, lacks: str, tmp_path: Path
) -> None:
    """The test comes after the last update."""
    whole, bare = tmp_path / "whole.jsonl", tmp_path / "bare.jsonl"
    # A row may lack it.
    whole.write_text('{"prompt": "a"}\n{"prompt": "a", "solution": "b"}\n')
    bare.write_text('{"prompt": "a"}\n')
    options: dict[str, Any] = dict.fromkeys(("train", "validation", "test"), str(whole))
    options |= {"reference_field": None, lacks: str(bare)}
    said = refusal(
        {"task": {"name": "data", "options": options}, "reward": f"{__name__}:{reward}"}, task="data"
    )
    where = "" if lacks == "train" else f"of the task's split '{lacks}': "
    assert said.startswith(f"{where}the reward '{reward}' takes 'solution', which is not given: ")


def test_hints_from_a_column_that_the_first_row_lacks_are_taken() -> None:
    hinted = {"algorithm": {"base": "hinted-grpo", "script": {"hint": {"author": None, "column": "hint"}}}}
    config = load_config(SOUND, hinted)
    samples = [Sample("a"), Sample("b", columns={"hint": "c"})]
    found = checks.Found(Untouched(Sample("a")), samples, {}, [])
    assert list(checks.broken_by_data(config, found)) == []
    (said,) = checks.broken_by_data(config, checks.Found(Untouched(Sample("a")), samples[:1], {}, []))
    assert "takes hints from the column 'hint', and a sample has none" in said


class Unsliced(Sequence[Sample]):
    """A sequence that is asked by place alone, and one of whose samples has no prompt."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, number: Any) -> Any:
        assert isinstance(number, int)
        sample = Sample("a", ("b",))
        if number:
            object.__setattr__(sample, "prompt", None)
        return sample


class Lazy:
    def load(self, split: str) -> Any:
        return Unsliced() if split == "validation" else [Sample("a", ("b",))]


@pytest.mark.parametrize("metric", ["words", "rouge"])
def test_a_sample_of_a_lazy_sequence_that_is_none_is_said(metric: str) -> None:
    found = checks.Found(Lazy(), [Sample("a")], build_metrics([NamedConfig(name=metric)]), [])
    (said,) = set(checks.broken_by_data(load_config(SOUND), found))
    assert said == "sample 1 of the task's split 'validation': 'prompt' must be a text (it is None)."


@pytest.mark.parametrize(("algorithm", "refused"), [("ppo++", True), ("ppo", False)])
def test_a_guide_that_writes_references_needs_some_before_a_model_loads(
    algorithm: str, refused: bool
) -> None:
    config = load_config({key: value for key, value in SOUND.items() if key != "guide"}, {"guide": "oracle"})
    config = load_config(config.model_dump(mode="json"), {"algorithm": algorithm})
    samples = [Sample("a", ("b",)), Sample("a")]
    found = checks.Found(Untouched(Sample("a", ("b",))), samples, {}, [])
    said = list(checks.broken_by_data(config, found))
    assert [one.partition(",")[0] for one in said] == ["the guide 'oracle' writes references"] * refused
    assert not list(checks.broken_by_data(config, replace(found, train=samples[:1])))
