"""A small file beside a reward model's weights, without which its scores could not be read."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rlgf.errors import UserError
from rlgf.loads import damage, plain
from rlgf.strict import Strict

_FILE = "reward.json"

Kind = Literal["preference", "classifier"]


class Notes(Strict):
    """The contents of that file."""

    kind: Kind
    max_tokens: int
    layers: int | None = None
    """How many of the base's first layers an adapter is for; default: all."""
    centre: float = 0.0
    """The mean score of the training texts, which is taken off every score."""

    def save(self, folder: Path) -> None:
        (folder / _FILE).write_text(self.model_dump_json(indent=1))


def holds_reward_model(folder: str) -> bool:
    return (Path(folder) / _FILE).is_file()


def read_notes(folder: str, reward: str) -> Notes:
    """What stands beside a reward model's weights.

    Raises:
        UserError: there is nothing; names the reward that was to be built.
    """
    place = f"reward '{reward}', option 'folder' (it is '{folder}')"
    notes = Path(folder) / _FILE
    if not notes.is_file():
        raise UserError(
            f"{place}: it holds no adapter that `rlgf reward RECIPE.yaml` trained; pay by another model with reward: {{name: "
            "model, options: {{model: ...}}}}."
        )
    try:
        return Notes.model_validate_json(notes.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{place} holds a damaged reward model: {damage(notes.parent) or f'{notes} ({plain(error)})'}."
        ) from error
