"""A reward that learns to tell the policy's texts from given ones: the discriminator of GAIL and GAD."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import torch
from jaxtyping import Float, Int
from pydantic import Field, validate_call
from torch import Tensor, nn

from rlgf import distributed, seeding
from rlgf.errors import UserError
from rlgf.models.critic import build_critic
from rlgf.models.forward import Tokens, length_batches
from rlgf.models.language_model import LanguageModel
from rlgf.rollout.config import RolloutConfig
from rlgf.types import Rollout, padded

_MAX_GRADIENT_NORM = 1.0
_EPSILON = 1e-6
"""Of Adam. Some first gradients are 0 but for rounding, since the head starts at 0 and labels are balanced; the
usual 1e-8 makes whole steps of that rounding, which differs with the number of processes."""
_MAX_MICRO_TOKENS = 16_384
"""Tokens, padding included, of one forward and backward pass; bounds memory, changes no result."""


class Discriminator:
    """How much a text looks like a reference: ``R(x, y) = log D(x, y) - log(1 - D(x, y))``.

    D(x, y) is the probability that completion y of prompt x is a reference text, ``sigmoid`` of the
    mean of a linear head over the completion's tokens. Beside the policy it minimizes the binary
    cross-entropy ``-log D(x, reference) - log(1 - D(x, text of the run))`` (Ho and Ermon, arXiv
    1606.03476, equation 16; the log-odds are the reward of Fu et al., arXiv 1710.11248, section 4).
    The paper's own reward, ``-log(1 - D)``, is flat at 0 where D knows the policy's texts for sure,
    which is where a policy starts; the log-odds go on telling a bad text from a worse one.

    Its model is a copy of the policy's trunk at the start, or an adapter on it where the policy is one: that
    reads any task's prompts and texts in the policy's own tokens, needs nothing to be downloaded, and costs
    what a critic costs.
    Where the algorithm has the guide write the examples (`Algorithm.examples`), its text for the same prompt stands in
    the place of a reference.
    Both kinds of text are cut to the same limits, so that their lengths alone give nothing away.
    """

    needs_references = True
    reads_text = True

    @validate_call
    def __init__(
        self,
        learning_rate: Annotated[float, Field(gt=0)] = 1e-4,
        epochs: Annotated[int, Field(ge=1)] = 1,
        minibatch: Annotated[int, Field(ge=1)] = 32,
        pairs: bool = False,
    ) -> None:
        """
        Args:
            epochs: passes over an update's texts.
            minibatch: episodes an optimizer step, each with a reference and the run's own text.
            pairs: whether it learns which of the two is the reference, ``-log sigmoid(f(x, reference) - f(x, text of the
                run))`` with f the log-odds (Ye et al., arXiv 2511.10643, section 2), instead of learning of each alone.
        """
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.minibatch = minibatch
        self.pairs = pairs

    def attach(self, policy: LanguageModel, config: RolloutConfig, seed: int) -> None:
        """Make the classifier from the policy's trunk; see `PolicyReadingReward`."""
        self._policy = policy
        self._config = config
        self._seed = seed
        self._updates = 0
        self.classifier = _Classifier(policy)
        self._optimizer = torch.optim.AdamW(
            self.classifier.parameters(), lr=self.learning_rate, eps=_EPSILON, weight_decay=0.0, fused=True
        )

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """The log-odds of being a reference, one a completion; see `Reward`."""
        found: list[float] = self._log_odds(self._encoded(prompts, completions)).tolist()
        return found

    def _log_odds(self, texts: Sequence[_Text]) -> Float[Tensor, "N"]:
        logits = torch.zeros(len(texts))
        with torch.no_grad():
            for rows, batch in self._micro_batches(texts, self._config.max_batch_tokens):
                logits[rows] = self.classifier(batch).float().cpu()
        return logits

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Learn from an update's texts and as many references, or texts of the guide's.

        Of several processes each runs a share of the texts, and the gradients are added up.

        Returns:
            Binary cross-entropy in nats and accuracy, each before the step that learns from the texts; of pairs that are
            told apart where it learns from those.

        Raises:
            UserError: a sample has no reference, or a gradient is not finite.
        """
        if rollout.examples is None and not all(rollout.references):
            raise UserError("reward 'discriminator' needs reference texts, and a sample has none.")
        draw = seeding.generator(self._seed, "discriminator", self._updates)
        self._updates += 1
        given = rollout.references if rollout.examples is None else [(text,) for text in rollout.examples]
        chosen = [texts[int(torch.randint(len(texts), (), generator=draw))] for texts in given]
        real = self._encoded(rollout.prompts, chosen)
        written = self._encoded(rollout.prompts, rollout.texts)
        sums: dict[str, float] = defaultdict(float)
        for _ in range(self.epochs):
            for rows in torch.randperm(len(rollout), generator=draw).split(self.minibatch):
                index = rows.tolist()
                self._step([real[row] for row in index], [written[row] for row in index], sums)
        seen = (1 if self.pairs else 2) * self.epochs * len(rollout)
        totals = distributed.sum_numbers({name: torch.tensor(total) for name, total in sums.items()})
        return {f"discriminator_{name}": float(total) / seen for name, total in totals.items()}

    def _step(self, real: list[_Text], written: list[_Text], sums: dict[str, float]) -> None:
        mine = distributed.every_nth(torch.arange(len(real))).tolist()
        texts = [side[row] for side in (real, written) for row in mine]
        labels = torch.tensor([1.0, 0.0]).repeat_interleave(len(mine))
        slopes = self._slopes(texts, sums) if self.pairs else None
        for rows, batch in self._micro_batches(texts, _MAX_MICRO_TOKENS):
            logits = self.classifier(batch)
            if slopes is not None:
                (logits @ slopes[rows].to(logits) / len(real)).backward()
                continue
            of_rows = labels[rows].to(logits.device)
            loss = nn.functional.binary_cross_entropy_with_logits(logits, of_rows, reduction="sum")
            (loss / (2 * len(real))).backward()
            sums["loss"] += float(loss.detach())
            sums["accuracy"] += float(((logits > 0) == (of_rows > 0.5)).sum())
        distributed.sum_gradients(self.classifier.parameters())
        norm = nn.utils.clip_grad_norm_(self.classifier.parameters(), _MAX_GRADIENT_NORM)
        if not bool(torch.isfinite(norm)):
            raise UserError(
                f"the gradient of the reward 'discriminator' must be finite, and it is {norm.item()}: lower its "
                f"'learning_rate' (it is {self.learning_rate:g})."
            )
        self._optimizer.step()
        self._optimizer.zero_grad()

    def _slopes(self, texts: Sequence[_Text], sums: dict[str, float]) -> Float[Tensor, "N"]:
        """The derivative of the loss of pairs by the log-odds of each text, so that the texts of a pair need not be in one
        batch.

        Args:
            texts: the references, then the run's own texts in the same order.
        """
        log_odds, count = self._log_odds(texts), len(texts) // 2
        margin = log_odds[:count] - log_odds[count:]
        sums["loss"] += float(nn.functional.softplus(-margin).sum())
        sums["accuracy"] += float((margin > 0).sum())
        slope = torch.sigmoid(-margin)
        return torch.cat([-slope, slope])

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer and the number of updates, from which its random numbers follow."""
        return {
            "classifier": self.classifier.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "updates": self._updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.classifier.load_state_dict(state["classifier"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._updates = state["updates"]

    def _encoded(self, prompts: Sequence[str], texts: Sequence[str]) -> list[_Text]:
        """Prompts and texts in the policy's tokens, cut as its own episodes are."""
        policy, config, found = self._policy, self._config, []
        for prompt, text in zip(prompts, texts, strict=True):
            before = policy.encode_prompt(prompt, config.max_prompt_tokens)
            ids, _ = policy.continuation(policy.until_end(text), policy.context(before))
            found.append((before, ids[: config.max_response_tokens] or [policy.end_id]))
        return found

    def _micro_batches(
        self, texts: Sequence[_Text], max_tokens: int
    ) -> Iterator[tuple[Int[Tensor, "N"], Tokens]]:
        lengths = torch.tensor([[len(before), len(ids)] for before, ids in texts], dtype=torch.long).view(
            -1, 2
        )
        for rows in length_batches(lengths[:, 0], lengths[:, 1], max_tokens):
            chosen = [texts[row] for row in rows.tolist()]
            yield rows, _tokens(chosen, self._policy.end_id).to(self._policy.model.device)


_Text = tuple[list[int], list[int]]
"""Token ids of a prompt and of its completion."""


def _tokens(texts: Sequence[_Text], end_id: int) -> Tokens:
    """With one more token after each completion: the state before it has read all of the completion."""
    completions = [[*ids, end_id] for _, ids in texts]
    return Tokens(*padded([before for before, _ in texts], end_id, left=True), *padded(completions, end_id))


class _Classifier(nn.Module):
    """A copy of the policy's trunk, or an adapter on it where the policy is one, and a linear head that
    starts at 0: no reward before there is evidence."""

    def __init__(self, policy: LanguageModel) -> None:
        super().__init__()
        self.states = build_critic("separate", policy.model, policy.adapters, "discriminator")

    def forward(self, tokens: Tokens) -> Float[Tensor, "N"]:
        """The mean of the head over the states after each of the completion's tokens."""
        logits: Tensor = self.states(tokens, None)[:, 1:]
        read = tokens.response_mask[:, 1:]
        return (logits * read).sum(dim=1) / read.sum(dim=1)
