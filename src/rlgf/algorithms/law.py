"""The switch law: how much of its author's text a roll-in is."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, model_validator

from rlgf.schedules import Share, constant


class RollinLength(BaseModel):
    """A roll-in's length is uniform between two shares of the length L of its author's text.

    ``h ~ Uniform{max(1, ceil(low * L)), ..., min(L - 1, floor(high * L))}``; the default is the
    paper's uniform law over 1..L-1 (arXiv 2306.11816). Where ``high * L`` is below 1 there is no roll-in.

    L counts the policy's tokens, with the end of the text and up to the response limit. Reference texts and
    recorded ones are known before the draw. Of a text that is yet to be written L is the limit, and where
    it then ends no later than h, h is drawn again over the length that it has.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: Share = constant(0.0)
    high: Share = constant(1.0)
    whole: bool = False
    """The whole text up to its end, in place of a draw: nothing is written behind it."""

    @model_validator(mode="after")
    def _one_law(self) -> RollinLength:
        if self.whole and (self.low, self.high) != (constant(0.0), constant(1.0)):
            raise ValueError("'whole' takes the text up to its end: leave 'low' and 'high' out")
        return self

    def positions(self, length: int, progress: float) -> range:
        """The numbers of tokens among which h is drawn, for a text of L tokens; empty where there are none."""
        # A share such as 0.07 of 100 is 7, and not a rounding above it.
        high = min(length - 1, math.floor(self.high.at(progress) * length + 1e-6))
        low = min(max(1, math.ceil(self.low.at(progress) * length - 1e-6)), high)
        return range(low, high + 1) if high > 0 else range(0)
