"""What a recipe says under `training`: how long a run lasts, and what it writes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rlgf.identity import FREE, LATER
from rlgf.strict import Strict


class TrainingConfig(Strict):
    """How long a run lasts, what it writes, and whether it samples ahead."""

    updates: Annotated[int, FREE] = Field(default=50, ge=1)
    """A resumed run may have more or fewer; schedules then go on as those of a run of the new length."""
    policy_tokens: Annotated[int | None, FREE] = Field(default=None, ge=1)
    """Tokens that the policy may sample in training. The run ends after the update that reaches them, however many
    updates are left, and schedules follow the share that is used up. So algorithms are compared at equal tokens."""
    guide_tokens: Annotated[int | None, FREE] = Field(default=None, ge=1)
    """The same of the guide's tokens. `guide.budget` stops an update halfway; this ends the run in order."""
    async_steps: Annotated[int, LATER] = Field(default=0, ge=0)
    """While an update learns, the texts of the next ones are sampled, with weights that are this many updates old.
    0: each update samples with the newest weights, and then learns. See `rlgf.run.ahead`."""
    checkpoint_every: Annotated[int, FREE] = Field(default=10, ge=1)
    """Updates between checkpoints."""
    sample_every: Annotated[int, FREE] = Field(default=5, ge=1)
    """Updates between sample texts in the terminal."""
    samples_kept: Annotated[int, FREE] = Field(default=16, ge=0)
    """Episodes of each update, and texts of each evaluation, that are written to ``samples.jsonl``; 0 writes none."""
    trackers: Annotated[tuple[Literal["tensorboard", "wandb", "trackio", "mlflow"], ...], FREE] = (
        "tensorboard",
    )
    """Where numbers, the recipe and tables of texts go besides the run's own files."""
    process_timeout: Annotated[float, FREE] = Field(default=1800.0, gt=0, allow_inf_nan=False)
    """Seconds that one process waits for another before it saves and ends the run."""

    @property
    def counts_tokens(self) -> bool:
        """Whether tokens may end the run, so that its updates are not known beforehand."""
        return self.policy_tokens is not None or self.guide_tokens is not None

    def share(self, updates: int, policy_tokens: int, guide_tokens: int) -> float:
        """The share of the run that is over after so much, from 0 to 1: of its updates or of its tokens, whichever
        is larger."""
        used = (updates, self.updates), (policy_tokens, self.policy_tokens), (guide_tokens, self.guide_tokens)
        return min(max(done / limit for done, limit in used if limit is not None), 1.0)

    def expected_updates(self, updates: int, policy_tokens: int, guide_tokens: int) -> int:
        """How many updates the run will have had at its end, if it goes on to use tokens as it has."""
        share = self.share(updates, policy_tokens, guide_tokens)
        return max(updates, round(updates / share)) if updates and self.counts_tokens else self.updates
