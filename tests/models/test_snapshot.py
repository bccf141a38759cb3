"""A copy of the policy that writes while the policy trains."""

from __future__ import annotations

from pathlib import Path

import torch

from resume_script import toy_trainer
from rlgf.models.snapshot import Snapshot
from toys import letter_gpt


def test_a_snapshot_of_an_adapter_shares_its_base(tmp_path: Path) -> None:
    policy = toy_trainer(tmp_path / "run", policy={"lora": {"r": 2}}).parts.policy
    snapshot = Snapshot(policy)
    trained = {id(parameter) for parameter in policy.trained}
    copied = dict(snapshot.language_model.model.named_parameters())
    for name, parameter in policy.model.named_parameters():
        assert (copied[name] is parameter) == (id(parameter) not in trained)
    with torch.no_grad():
        for parameter in policy.trained:
            parameter += 1
    assert all(not torch.equal(copied[n], p) for n, p in policy.model.named_parameters() if id(p) in trained)
    snapshot.update()
    assert all(torch.equal(copied[n], p) for n, p in policy.model.named_parameters())


def test_a_snapshot_leaves_the_policy_as_it_is() -> None:
    policy = letter_gpt()
    snapshot = Snapshot(policy)
    assert all(parameter.requires_grad for parameter in policy.trained)
    assert not any(parameter.requires_grad for parameter in snapshot.language_model.model.parameters())
    assert (
        snapshot.language_model.model.lm_head.weight is snapshot.language_model.model.transformer.wte.weight
    )
