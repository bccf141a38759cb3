"""Random numbers are functions of the seed and the purpose, and of nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlgf import seeding
from rlgf.seeding import derive, generator, uniforms


def test_derive_is_the_same_on_every_machine_and_in_every_process() -> None:
    assert derive(0) == 1223360973
    assert derive(7, "mixture", 3) == 1419950380
    assert derive(-1, "rollout", 2**40) == 76809913


def test_derive_tells_purposes_apart() -> None:
    purposes: list[tuple[int, tuple[str | int, ...]]] = [
        (1, ("a", 1)),
        (1, ("a1",)),
        (1, ("a", "1")),
        (1, (1, "a")),
        (11, ("a",)),
        (1, (1,)),
        (11, ()),
        (1, ()),
    ]
    assert len({derive(seed, *purpose) for seed, purpose in purposes}) == len(purposes)


def test_derive_rarely_repeats_and_fits_31_bits() -> None:
    seeds = [derive(seed, "prompt", update) for seed in range(20) for update in range(200)]
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert len(set(seeds)) > len(seeds) - 5
    assert max(seeds) > 2**30 > min(seeds)


def test_uniforms_depend_on_nothing_but_their_arguments() -> None:
    first = uniforms(15, 0, "sampling", 1)
    torch.rand(10)
    uniforms(4, 1, "other")
    assert torch.equal(uniforms(15, 0, "sampling", 1), first)
    assert not torch.equal(uniforms(15, 0, "sampling", 2), first)
    assert not torch.equal(uniforms(15, 1, "sampling", 1), first)


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    generator(3, "anything")
    uniforms(16, 3, "anything")
    assert torch.equal(torch.get_rng_state(), before)


def test_uniforms_are_uniform_on_0_to_1() -> None:
    numbers = uniforms(20_000, 5, "check")
    assert numbers.shape == (20_000,)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = torch.histc(numbers, bins=10, min=0, max=1)
    assert ((counts - 2000).abs() < 200).all()


def test_drawing_first_weights_starts_no_other_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with several devices, of which none must be touched."""

    def touched(*unused: object) -> None:
        pytest.fail("a device was started")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("get_rng_state", "set_rng_state", "manual_seed_all"):
        monkeypatch.setattr(torch.cuda, name, touched)
    before = torch.get_rng_state()
    with seeding.seeded(3):
        first = torch.rand(3)
    with seeding.seeded(3):
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), before)
    sources = Path(seeding.__file__).parent.rglob("*.py")
    # vLLM works on the current device anyway.
    assert {path.name for path in sources if "fork_rng(" in path.read_text()} == {"seeding.py", "engine.py"}
