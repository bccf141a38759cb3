"""The policy as it was at some moment, for whoever writes with it while it trains."""

from __future__ import annotations

import copy
from itertools import chain

import torch

from rlgf.models.abilities import abilities
from rlgf.models.language_model import LanguageModel


class Snapshot:
    """A copy of a language model, with the weights that it had when the copy was made or last brought up to date.

    Weights that are not trained are the model's own, so of a model with an adapter the adapter alone is copied.
    """

    def __init__(self, live: LanguageModel) -> None:
        # Tried out once, and not once more by each copy.
        abilities(live.model)
        trained = {id(parameter) for parameter in live.trained}
        tensors = chain(live.model.parameters(), live.model.buffers())
        shared = {id(tensor): tensor for tensor in tensors if id(tensor) not in trained}
        model = copy.deepcopy(live.model, shared)
        # A tokenizer is not for two threads at once.
        self.language_model = LanguageModel(model, copy.deepcopy(live.tokenizer))
        both = zip(live.model.parameters(), model.parameters(), strict=True)
        self._pairs = [(theirs, own) for theirs, own in both if id(theirs) in trained]
        for _, own in self._pairs:
            own.requires_grad_(False)

    @property
    def weights(self) -> list[torch.Tensor]:
        """The copies."""
        return [own for _, own in self._pairs]

    @torch.no_grad()
    def update(self, share: float = 1.0) -> None:
        """Take over the weights as they are now.

        Args:
            share: of the way to them; less than 1 makes an exponential moving average.
        """
        for theirs, own in self._pairs:
            if share == 1.0:
                own.copy_(theirs)
            else:
                own.lerp_(theirs, share)
