"""What truncated sampling left to draw from: a set of vocabulary entries for each token that was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

_WORD = 32


@dataclass(frozen=True)
class KeptTokens:
    """The kept sets of top-k and top-p at ``T`` positions, so that they can be applied again.

    A position takes 4 bytes for each kept entry, or one bit for each entry of the vocabulary where that is
    less: never more than about ``vocabulary / 8`` bytes, and ``4 k`` bytes under top-k.
    """

    vocabulary: int
    counts: Int[Tensor, "T"]
    """How many entries were kept; 0 where nothing was cut off."""
    words: Int[Tensor, "_"]
    """Position after position: the kept entries, or the bits of a mask."""

    def __len__(self) -> int:
        return len(self.counts)

    @staticmethod
    def of(mask: Bool[Tensor, "T V"]) -> KeptTokens:
        """The sets that a mask holds, on the CPU; each has at least one entry."""
        mask = mask.cpu()
        vocabulary = mask.shape[1]
        counts = mask.sum(dim=1)
        parts = [
            _bits(row) if count > _row_words(vocabulary) else row.nonzero().squeeze(1).int()
            for row, count in zip(mask, counts.tolist(), strict=True)
        ]
        return KeptTokens(
            vocabulary, counts, torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int32)
        )

    @staticmethod
    def join(parts: Sequence[KeptTokens]) -> KeptTokens:
        """The positions of one part after those of another; at least one part."""
        counts, words = (torch.cat([getattr(part, name) for part in parts]) for name in ("counts", "words"))
        return KeptTokens(parts[0].vocabulary, counts, words)

    def rows(self) -> list[KeptTokens]:
        """Each position by itself."""
        parts = self.words.split(self._sizes.tolist())
        return [
            KeptTokens(self.vocabulary, count, part)
            for count, part in zip(self.counts.split(1), parts, strict=True)
        ]

    def spread(self, over: Bool[Tensor, "N"]) -> KeptTokens:
        """The same sets at the true positions of a longer row, whose other positions were not cut."""
        counts = self.counts.new_zeros(len(over))
        counts[over] = self.counts
        return replace(self, counts=counts)

    def to(self, device: torch.device) -> KeptTokens:
        return replace(self, counts=self.counts.to(device), words=self.words.to(device))

    def mask(self, length: int, width: int) -> Bool[Tensor, "N V"]:
        """What could be drawn at the first ``length`` positions; all true at positions that were not cut.

        Args:
            width: entries of the mask, at least ``vocabulary`` or as many as a model has logits.
        """
        counts, sizes = self.counts[:length], self._sizes[:length]
        rows = torch.arange(len(counts), device=counts.device)
        found = (counts == 0)[:, None].repeat(1, width)
        words = self.words[: int(sizes.sum())]
        listed = (counts <= _row_words(self.vocabulary)).repeat_interleave(sizes)
        found[rows.repeat_interleave(sizes)[listed], words[listed].long()] = True
        packed = counts > _row_words(self.vocabulary)
        if packed.any():
            shifts = torch.arange(_WORD, device=words.device)
            bits = ((words[~listed].view(int(packed.sum()), -1, 1) >> shifts) & 1).bool().flatten(1)
            found[packed, : self.vocabulary] = bits[:, : self.vocabulary]
        return found

    @property
    def _sizes(self) -> Int[Tensor, "T"]:
        """How many words each position takes."""
        return self.counts.clamp(max=_row_words(self.vocabulary))


def kept_mask(
    kept: Sequence[KeptTokens | None], length: int, width: int, device: torch.device
) -> Bool[Tensor, "B T V"] | None:
    """What could be drawn at each position of several responses; None where nothing was cut anywhere.

    Args:
        kept: the sets of each response, None for one that was drawn from all of the vocabulary.
        length: positions ``T``; those after the end of a response are all true.
        width: entries ``V`` of each mask.
    """
    if all(sets is None for sets in kept):
        return None
    mask = torch.ones(len(kept), length, width, dtype=torch.bool, device=device)
    for row, sets in enumerate(kept):
        if sets is not None:
            cut = sets.to(device).mask(length, width)
            mask[row, : len(cut)] = cut
    return mask


def _row_words(vocabulary: int) -> int:
    """Words of a mask with a bit for each entry; more kept entries than that are stored so."""
    return -(-vocabulary // _WORD)


def _bits(row: Bool[Tensor, "V"]) -> Int[Tensor, "_"]:
    padded = torch.nn.functional.pad(row, (0, -len(row) % _WORD)).view(-1, _WORD).long()
    words = (padded << torch.arange(_WORD)).sum(dim=1)
    # The highest bit is the sign of a 32-bit integer.
    return torch.where(words >= 2**31, words - 2**32, words).int()
