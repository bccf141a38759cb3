"""What lambda does to AggreVaTeD's advantages: exactly, on a problem that can be written out, and in a run.

    python benchmarks/guide_lambda.py [--runs]

The problem has three letters and six tokens; policy, guide and reward are drawn at random. The policy writes up
to a switch, uniform over 1..5, and the guide finishes. Every text is taken as often as it is likely, so means are
exact. The advantage that is meant is that of one step, ``A^g(s, a) = Q^g(s, a) - V^g(s)``; it is compared with the
mean of what GAE gives at the same state and token, for critics that are exact, wrong by random numbers at
each state, or cold (0 everywhere). With ``--runs``, AggreVaTeD also learns the tests' letter task.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from rlgf.objectives.advantages import gae

LETTERS, LENGTH, PROBLEMS = 3, 6, 5
LAMBDAS = (0.0, 0.5, 0.95, 1.0)
TEXTS = list(itertools.product(range(LETTERS), repeat=LENGTH))


def key(prefix: tuple[int, ...]) -> int:
    """Number of a prefix: those of one length come one after the other."""
    number = sum(LETTERS**n for n in range(len(prefix)))
    return number + sum(letter * LETTERS**i for i, letter in enumerate(reversed(prefix)))


STATES = sum(LETTERS**n for n in range(LENGTH))
VISITED = torch.tensor([[key(text[:t]) for t in range(LENGTH)] for text in TEXTS])
LETTER = torch.tensor(TEXTS)


def problem(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities of the policy and of the guide at each state (S, 3), and the reward of each text (N)."""
    random = torch.Generator().manual_seed(seed)
    policy, guide = (torch.randn(STATES, LETTERS, generator=random).softmax(-1) for _ in range(2))
    worth = torch.rand(LENGTH, LETTERS, LETTERS, generator=random)
    pairs = LETTER.roll(1, dims=1)
    reward = worth[torch.arange(LENGTH), LETTER, pairs].mean(dim=1)
    return policy.double(), guide.double(), reward.double()


def chances(probabilities: Tensor) -> Tensor:
    """Of each token given those before it (N, T)."""
    return probabilities[VISITED, LETTER]


def mean_by(index: Tensor, values: Tensor, weights: Tensor, size: int) -> Tensor:
    total = torch.zeros(size, dtype=torch.float64).index_add(0, index, weights * values)
    return total / torch.zeros(size, dtype=torch.float64).index_add(0, index, weights).clamp(min=1e-300)


def guide_values(guide: Tensor, reward: Tensor) -> tuple[Tensor, Tensor]:
    """Exact V^g (S) and Q^g (S * 3)."""
    ways_on = chances(guide).flip(1).cumprod(1).flip(1)
    values, actions = torch.zeros(STATES).double(), torch.zeros(STATES * LETTERS).double()
    for t in range(LENGTH):
        after = ways_on[:, t + 1] if t + 1 < LENGTH else torch.ones(len(TEXTS)).double()
        values.index_add_(0, VISITED[:, t], ways_on[:, t] * reward)
        actions.index_add_(0, VISITED[:, t] * LETTERS + LETTER[:, t], after * reward)
    return values, actions


def measure(seed: int, critic: str, gae_lambda: float) -> tuple[float, float, float]:
    """Bias and standard deviation over the spread of A^g, and the cosine of the expected gradient with the exact one."""
    policy, guide, reward = problem(seed)
    exact, actions = guide_values(guide, reward)
    advantage = actions.view(STATES, LETTERS) - exact[:, None]
    noise = torch.randn(STATES, generator=torch.Generator().manual_seed(seed)).double() * advantage.std()
    values = {"exact": exact, "wrong": exact + noise, "cold": 0 * exact}[critic]

    rewards = torch.zeros(len(TEXTS), LENGTH).double()
    rewards[:, -1] = reward
    found, _ = gae(
        rewards, values[VISITED], torch.ones(len(TEXTS), LENGTH, dtype=torch.bool), 1.0, gae_lambda
    )
    weights, pairs, given = [], [], []
    by_policy, by_guide = chances(policy), chances(guide)
    for switch in range(1, LENGTH):
        chance = torch.cat([by_policy[:, :switch], by_guide[:, switch:]], dim=1).prod(dim=1) / (LENGTH - 1)
        for t in range(switch):
            weights.append(chance)
            pairs.append(VISITED[:, t] * LETTERS + LETTER[:, t])
            given.append(found[:, t])
    weight, pair, value = torch.cat(weights), torch.cat(pairs), torch.cat(given)
    size = STATES * LETTERS
    # A constant for each state moves no gradient, so it is no bias either.
    visits = torch.zeros(size).double().index_add(0, pair, weight).view(STATES, LETTERS)
    mean = mean_by(pair, value, weight, size).view(STATES, LETTERS)

    def centred(estimate: Tensor) -> Tensor:
        return estimate - (policy * estimate).sum(1, keepdim=True)

    wanted, got = centred(advantage), centred(mean)
    spread = ((visits * wanted**2).sum() / visits.sum()).sqrt()
    bias = ((visits * (got - wanted) ** 2).sum() / visits.sum()).sqrt() / spread
    deviation = ((weight * (value - mean.flatten()[pair]) ** 2).sum() / weight.sum()).sqrt() / spread
    gradients = [(visits.sum(1, keepdim=True) * policy * x).flatten() for x in (got, wanted)]
    return float(bias), float(deviation), float(torch.cosine_similarity(*gradients, dim=0))


def run(gae_lambda: float, seed: int, updates: int) -> float:
    """Test reward of AggreVaTeD on the tests' letter task: 0.25 at the start, 0.6 for the guide."""
    from rich.console import Console

    from rlgf.config import Config
    from rlgf.run.build import build_parts
    from rlgf.run.display import Display
    from rlgf.run.trainer import Trainer
    from toys import FavouringGuide, LetterTask, letter_gpt, share_of_a

    with tempfile.TemporaryDirectory() as folder:
        config = Config.model_validate(
            {
                "seed": seed,
                "task": {"name": "letters"},
                "policy": {"model": "made by hand"},
                "guide": {"model": "made by hand"},
                "reward": {"name": "made by hand"},
                "algorithm": {"base": "aggrevated", "gae_lambda": gae_lambda, "kl": {"coefficient": 0.0}},
                "output": folder,
                "rollout": {"episodes": 64, "max_prompt_tokens": 4, "max_response_tokens": 6}
                | {"min_response_tokens": 6},
                "update": {"minibatch": 32, "epochs": 2, "learning_rate": 5e-3},
                "training": {"updates": updates, "trackers": []},
                "evaluation": {"test_samples": 64},
            }
        )
        parts = build_parts(
            config, task=LetterTask(), reward=share_of_a, guide=FavouringGuide("a", 0.6), policy=letter_gpt()
        )
        trainer = Trainer(config, parts, Display(Console(quiet=True)))
        for _ in range(updates):
            trainer.step()
        return trainer.evaluate().totals["reward"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", action="store_true", help="also learn the tests' letter task, three seeds")
    arguments = parser.parse_args()
    print("bias and deviation in units of A^g's spread, cosine of the expected gradient; means of 5 problems")
    for critic in ("exact", "wrong", "cold"):
        for gae_lambda in LAMBDAS:
            measured = torch.tensor([measure(seed, critic, gae_lambda) for seed in range(PROBLEMS)])
            bias, deviation, cosine = measured.mean(dim=0).tolist()
            print(
                f"{critic:6} lambda {gae_lambda:4}: bias {bias:.2f}, deviation {deviation:.2f}, cosine {cosine:.3f}"
            )
    if arguments.runs:
        sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
        for gae_lambda in LAMBDAS:
            for updates in (8, 20):
                rewards = [run(gae_lambda, seed, updates) for seed in range(3)]
                print(
                    f"lambda {gae_lambda:4}, {updates} updates: " + ", ".join(f"{r:.2f}" for r in rewards),
                    flush=True,
                )


if __name__ == "__main__":
    main()
