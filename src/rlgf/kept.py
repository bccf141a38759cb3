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
        vocabulary, most = mask.shape[1], _row_words(mask.shape[1])
        counts = mask.sum(dim=1)
        sizes = counts.clamp(max=most)
        starts = sizes.cumsum(dim=0) - sizes
        words = torch.empty(int(sizes.sum()), dtype=torch.int32, device=mask.device)
        packed = counts > most
        rows, entries = (mask & ~packed[:, None]).nonzero(as_tuple=True)
        listed = counts.masked_fill(packed, 0)
        words[
            starts[rows] + torch.arange(len(rows), device=rows.device) - (listed.cumsum(0) - listed)[rows]
        ] = entries.int()
        if packed.any():
            places = starts[packed][:, None] + torch.arange(most, device=mask.device)
            words[places] = _bits(mask[packed])
        return KeptTokens(vocabulary, counts.cpu(), words.cpu())

    @staticmethod
    def join(parts: Sequence[KeptTokens]) -> KeptTokens:
        """The positions of one part after those of another; at least one part."""
        counts, words = (torch.cat([getattr(part, name) for part in parts]) for name in ("counts", "words"))
        return KeptTokens(parts[0].vocabulary, counts, words)

    def take(self, positions: Int[Tensor, "M"]) -> KeptTokens:
        """The sets of some positions, in their order."""
        sizes = self._sizes
        starts, taken = (sizes.cumsum(dim=0) - sizes)[positions], sizes[positions]
        within = torch.arange(int(taken.sum())) - (taken.cumsum(dim=0) - taken).repeat_interleave(taken)
        return replace(
            self, counts=self.counts[positions], words=self.words[starts.repeat_interleave(taken) + within]
        )

    def split(self, lengths: Sequence[int]) -> list[KeptTokens]:
        """One after another, of so many positions each."""
        counts = self.counts.split(list(lengths))
        words = self.words.split([int(one.sum()) for one in self._sizes.split(list(lengths))])
        return [replace(self, counts=one, words=of) for one, of in zip(counts, words, strict=True)]

    def spread(self, over: Bool[Tensor, "N"]) -> KeptTokens:
        """The same sets at the true positions of a longer row, whose other positions were not cut."""
        counts = self.counts.new_zeros(len(over))
        counts[over] = self.counts
        return replace(self, counts=counts)

    def mask(self, length: int, width: int, device: torch.device | None = None) -> Bool[Tensor, "N V"]:
        """What could be drawn at the first ``length`` positions; all true at positions that were not cut.

        Args:
            width: entries of the mask, at least ``vocabulary`` or as many as a model has logits.
            device: of the mask; default: the CPU.
        """
        counts, sizes = self.counts[:length], self._sizes[:length]
        found = (counts == 0).to(device)[:, None].repeat(1, width)
        words = self.words[: int(sizes.sum())]
        # All that is counted is counted on the CPU, where nothing is waited for.
        listed = (counts <= _row_words(self.vocabulary)).repeat_interleave(sizes)
        rows = torch.arange(len(counts)).repeat_interleave(sizes)[listed]
        found[rows.to(device), words[listed].long().to(device)] = True
        packed = (counts > _row_words(self.vocabulary)).nonzero().squeeze(1)
        if len(packed):
            shifts = torch.arange(_WORD, device=device)
            bits = (words[~listed].view(len(packed), -1, 1).to(device) >> shifts & 1).bool().flatten(1)
            found[packed.to(device), : self.vocabulary] = bits[:, : self.vocabulary]
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
            cut = sets.mask(length, width, device)
            mask[row, : len(cut)] = cut
    return mask


def _row_words(vocabulary: int) -> int:
    """Words of a mask with a bit for each entry; more kept entries than that are stored so."""
    return -(-vocabulary // _WORD)


def _bits(rows: Bool[Tensor, "N V"]) -> Int[Tensor, "N W"]:
    padded = torch.nn.functional.pad(rows, (0, -rows.shape[1] % _WORD)).unflatten(1, (-1, _WORD)).long()
    words = (padded << torch.arange(_WORD, device=rows.device)).sum(dim=2)
    # The highest bit is the sign of a 32-bit integer.
    return torch.where(words >= 2**31, words - 2**32, words).int()
