"""What a recipe says under `rollout`: how many episodes an update collects, how long they are, how they are drawn."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from rlgf.algorithms import Algorithm, AnyAlgorithm
from rlgf.identity import FREE, LATER
from rlgf.models.sampling import Sampling
from rlgf.strict import Strict
from rlgf.types import Author


class RolloutConfig(Strict):
    """How many episodes an update collects, and how long they are."""

    episodes: int = Field(default=112, ge=1)
    """Episodes per update."""
    draw: Annotated[Literal["passes", "difficulty"], LATER] = "passes"
    """Which prompts an update takes. ``passes``: all of the data in a shuffled order, then again in another.
    ``difficulty``: those more often whose texts now and then succeed, see `rlgf.run.plan.by_difficulty`."""
    max_prompt_tokens: int = Field(default=64, ge=1)
    """Longer prompts lose their beginning, so that what stands next to the response stays; those of a
    sample with a cue lose the end of what stands before the cue."""
    min_response_tokens: int = Field(default=0, ge=0)
    max_response_tokens: int = Field(default=48, ge=1)
    max_guide_tokens: int | None = Field(default=None, ge=1)
    """How many tokens of a response the guide may write, in a dialogue of each of its turns; default: all of them."""
    max_hint_tokens: Annotated[int, LATER] = Field(default=64, ge=1)
    """How many tokens a hint, with its template, may add to a prompt."""
    temperature: float = Field(default=1.0, ge=0.01, allow_inf_nan=False)
    top_k: int | None = None
    """Draw from the k most probable tokens alone; with 1 nothing could be learned."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw from the most probable tokens that together reach this probability."""
    max_batch_tokens: Annotated[int, FREE] = Field(default=32_768, ge=1)
    """Tokens, padding included, that one decoding or scoring pass may hold."""

    @field_validator("top_k")
    @classmethod
    def _leaves_a_choice(cls, top_k: int | None) -> int | None:
        if top_k is not None and top_k < 2:
            raise ValueError("it must be at least 2, or null to draw from all tokens")
        return top_k

    @model_validator(mode="after")
    def _arithmetic(self) -> RolloutConfig:
        if self.min_response_tokens > self.max_response_tokens:
            raise ValueError(
                f"'min_response_tokens' {self.min_response_tokens} must not exceed "
                f"'max_response_tokens' {self.max_response_tokens}"
            )
        return self

    def prompts(self, row: Algorithm) -> int:
        return self.episodes // row.group_size

    def limit(self, author: Author) -> int:
        """The most tokens of a response that an author may write."""
        limit = self.max_response_tokens
        return min(limit, self.max_guide_tokens or limit) if author is Author.GUIDE else limit

    def room(self, algorithm: AnyAlgorithm) -> tuple[int, int]:
        """The most tokens of a prompt, with its hint where a row of the algorithm has hints, and of the text after
        it."""
        hints = [row.script.hint for row in algorithm.rows if row.script.hint is not None]
        written = any(hint.author in (Author.POLICY, Author.GUIDE) for hint in hints)
        return (
            self.max_prompt_tokens + (self.max_hint_tokens if hints else 0),
            max(self.max_response_tokens, self.max_hint_tokens if written else 0),
        )

    @property
    def sampling(self) -> Sampling:
        return Sampling(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            # With the limit itself as minimum every response has exactly that length.
            min_tokens=self.min_response_tokens,
        )
