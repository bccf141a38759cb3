"""Where there are too many samples, some of every stretch are left."""

from __future__ import annotations

from report_toys import sample

from rlgf.report.samples import thinned


def test_where_there_are_too_many_updates_are_left_out_evenly() -> None:
    samples = [sample(update, i, ["a"]) for update in range(1, 101) for i in range(2)]
    kept = thinned(samples, 50)
    updates = sorted({s["update"] for s in kept})
    assert len(kept) <= 50
    assert updates[0] == 1
    assert updates[-1] == 100
    assert all(sum(s["update"] == update for s in kept) == 2 for update in updates)
    assert thinned(samples, 200) == samples


def test_where_two_updates_are_too_many_each_split_keeps_its_first_texts() -> None:
    samples = [
        sample(update, i, ["a"], split=split)
        for update in (0, 5, 9)
        for split in ("train", "validation", "test")
        for i in range(20)
    ]
    kept = [(s["update"], s["split"], s["episode"]) for s in thinned(samples, 13)]
    assert kept[:3] == [(0, "train", 0), (0, "train", 1), (0, "train", 2)], "the odd one is the first's"
    rest = [(u, s) for u in (0, 9) for s in ("train", "validation", "test")][1:]
    assert kept[3:] == [(update, split, i) for update, split in rest for i in range(2)]
