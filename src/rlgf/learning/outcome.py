"""Making sure of what an update ends in, before anybody builds on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from rlgf.finite import require_finite
from rlgf.models import sharding
from rlgf.models.critic import Critic
from rlgf.models.forward import Tokens, response_outputs
from rlgf.models.language_model import LanguageModel
from rlgf.models.sampling import Sampling, token_logprobs
from rlgf.types import Rollout


@torch.no_grad()
def check_result(
    policy: LanguageModel,
    critics: Mapping[str, Critic],
    parameters: Mapping[str, Sequence[torch.nn.Parameter]],
    rollout: Rollout,
) -> None:
    """Make sure that what an update ends in can write and be saved: weights, and outputs for one text.

    Args:
        parameters: the trained ones, by the name of its model.
        rollout: the first of its texts is read.

    Raises:
        UserError: names the number that is not finite.
    """
    for name, trained in parameters.items():
        for parameter in trained:
            require_finite(f"the weights of the {name}", sharding.own_part(parameter))
    tokens = Tokens.of(rollout[torch.tensor([0])]).to(policy.model.device)
    shared = any(critic.reads_policy_hidden for critic in critics.values())
    with sharding.whole(policy.model, *critics.values()):
        logits, hidden = response_outputs(policy.model, tokens, hidden=shared)
        said = token_logprobs(logits, tokens.response_ids, Sampling(), ())
        require_finite("the trained policy's log-probabilities", said, tokens.response_mask)
        for name, critic in critics.items():
            require_finite(f"the values of the critic {name}", critic(tokens, hidden), tokens.response_mask)
