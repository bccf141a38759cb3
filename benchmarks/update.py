"""Where one PPO++ update of a small GPT spends its time, its tokens and its padding.

    python benchmarks/update.py

112 prompts of 64 tokens, responses of exactly 48, 5 epochs, roll-in probability 0.6, a guide of the
same size. The bare cost of collecting is measured beside it: the same tokens through plain loops
over the model, without splicing, authors or log-probabilities kept.
"""

from __future__ import annotations

import resource
import statistics
from collections.abc import Callable

import torch
from transformers import DynamicCache, PreTrainedModel

from common import median_seconds, reviews, small_gpt
from rlgf.algorithms.catalog import PPO_PLUS_PLUS
from rlgf.guides import LocalGuide
from rlgf.learning.assessor import Assessor
from rlgf.learning.rates import UpdateConfig
from rlgf.learning.updater import Updater
from rlgf.models.critic import build_critic
from rlgf.models.forward import Tokens
from rlgf.models.kv_cache import cache_argument
from rlgf.models.sampling import Sampling
from rlgf.rollout.collector import Collector
from rlgf.rollout.config import RolloutConfig
from rlgf.types import Author, Rollout

PROMPTS, PROMPT, RESPONSE, EPOCHS, REPEATS = 112, 64, 48, 5, 5


def constant_reward(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    """No cost, so that the time is the library's own."""
    return [float(len(text) % 7) for text in completions]


class TokenCounter:
    """Counts the positions that a model runs, padding included."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.positions = 0
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: object, args: object, kwargs: dict[str, torch.Tensor]) -> None:
        self.positions += kwargs["input_ids"].numel()

    def during(self, work: Callable[[], object]) -> int:
        before = self.positions
        work()
        return self.positions - before


@torch.no_grad()
def bare_decode(model: PreTrainedModel, rows: int, prefix: int, new: int) -> None:
    """Sample `new` tokens for `rows` prefixes of equal length: nothing but the model and a draw."""
    cache = DynamicCache(config=model.config)
    ids = torch.randint(0, model.config.vocab_size, (rows, prefix))
    for _ in range(new):
        logits = model(input_ids=ids, logits_to_keep=1, **{cache_argument(model): cache}).logits[:, -1]
        ids = torch.multinomial(logits.softmax(dim=-1), 1)


@torch.no_grad()
def bare_pass(model: torch.nn.Module, rollout: Rollout) -> None:
    """One pass over prompts and responses."""
    model(**Tokens.of(rollout).model_inputs(model), use_cache=False)


def multiplications_per_second() -> float:
    """Floating-point operations a second of this machine in float32, as the best of some matrix products."""
    a, b = torch.randn(2048, 1024), torch.randn(1024, 1024)
    seconds = min(median_seconds(lambda: a @ b, 5) for _ in range(5))
    return float(2 * 2048 * 1024 * 1024 / seconds)


def operations_of_learning(model: PreTrainedModel, rollout: Rollout) -> float:
    """Floating-point operations of the matrix products that one epoch of policy and critic cannot do without.

    Two for each weight and token forwards and four back; the head at response tokens alone; attention to half of
    the text on average.
    """
    config = model.config
    text = (rollout.prompt_mask.sum(dim=1) + rollout.lengths - 1).double()
    trunk = 12 * config.n_layer * config.n_embd**2 * text.sum()
    attention = config.n_layer * config.n_embd * (text**2).sum()
    head = config.vocab_size * config.n_embd * rollout.lengths.sum()
    return float(6 * (2 * (trunk + attention) + head))


def main() -> None:
    torch.set_num_threads(2)
    samples, texts = reviews(PROMPTS)
    policy, guide_model, reference = (small_gpt(texts) for _ in range(3))
    config = RolloutConfig(episodes=PROMPTS, max_prompt_tokens=PROMPT, min_response_tokens=RESPONSE)
    guide = LocalGuide(guide_model, policy.tokenizer, Sampling(top_p=0.92, min_tokens=RESPONSE))
    collector = Collector(policy, guide, config, seed=0)
    critic = build_critic("separate", policy.model)
    assessor = Assessor(
        policy, reference, {"policy": critic}, constant_reward, config.sampling, config.max_batch_tokens
    )
    updater = Updater(policy, {"policy": critic}, config.sampling, UpdateConfig(epochs=EPOCHS), seed=0)

    rollout = collector.collect(samples, PPO_PLUS_PLUS)
    experience = assessor.assess(rollout, PPO_PLUS_PLUS, 0.001)
    by_guide = rollout.written_by(Author.GUIDE).sum(dim=1)
    by_policy = rollout.written_by(Author.POLICY).sum(dim=1)
    prompts = rollout.prompt_mask.sum(dim=1)
    led = by_guide > 0
    print(
        f"{PROMPTS} prompts of {float(prompts.float().mean()):.1f} tokens, {int(led.sum())} with a roll-in;"
    )
    print(f"{int(by_guide.sum())} guide tokens, {int(by_policy.sum())} policy tokens\n")

    # Interleaved, so that what else the machine does falls on both.
    parts: dict[str, Callable[[], object]] = {
        "collect": lambda: collector.collect(samples, PPO_PLUS_PLUS),
        "assess": lambda: assessor.assess(rollout, PPO_PLUS_PLUS, 0.001),
        "bare guide": lambda: bare_decode(
            guide_model.model, int(led.sum()), PROMPT, round(float(by_guide[led].float().mean()))
        ),
        "bare policy": lambda: (
            bare_decode(policy.model, int((~led).sum()), PROMPT, RESPONSE),
            bare_decode(
                policy.model,
                int(led.sum()),
                PROMPT + round(float(by_guide[led].float().mean())),
                round(float(by_policy[led].float().mean())),
            ),
        ),
        "bare reference": lambda: bare_pass(reference.model, rollout),
        "bare critic": lambda: bare_pass(critic.trunk, rollout),
    }
    for work in parts.values():
        work()
    rounds = [{name: median_seconds(work, 1) for name, work in parts.items()} for _ in range(REPEATS)]
    seconds = {name: statistics.median(r[name] for r in rounds) for name in parts}
    seconds["learn"] = median_seconds(lambda: updater.update(experience, PPO_PLUS_PLUS), 3)

    useful_pass = int((prompts + rollout.lengths - 1).sum())
    counters = {name: TokenCounter(m) for name, m in (("policy", policy.model), ("guide", guide_model.model))}
    decoded = counters["policy"].positions, counters["guide"].positions
    collector.collect(samples, PPO_PLUS_PLUS)
    decoded = (counters["policy"].positions - decoded[0], counters["guide"].positions - decoded[1])
    learned = counters["policy"].during(lambda: updater.update(experience, PPO_PLUS_PLUS))
    useful = {
        "guide decoding": (int((prompts + by_guide - 1)[led].sum()), decoded[1]),
        "policy decoding": (int((prompts + rollout.lengths - 1).sum()), decoded[0]),
        "policy learning": (EPOCHS * useful_pass, learned),
    }
    tokens = int(rollout.lengths.sum())
    print(f"{'phase':<10}{'seconds':>9}{'response tokens/s':>20}")
    for phase, passes in (("collect", 1), ("assess", 1), ("learn", EPOCHS)):
        print(f"{phase:<10}{seconds[phase]:>9.2f}{passes * tokens / seconds[phase]:>20,.0f}")
    print()
    for phase, (needed, run) in useful.items():
        print(f"padding in {phase:<16}{1 - needed / run:>7.1%} of {run:,} positions")
    bare = sum(value for name, value in seconds.items() if name.startswith("bare"))
    ratios = [
        (r["collect"] + r["assess"]) / sum(v for name, v in r.items() if name.startswith("bare"))
        for r in rounds
    ]
    print(f"\nbare cost of collecting and assessing {bare:.2f} s; ratio {statistics.median(ratios):.2f}")
    rate, operations = multiplications_per_second(), EPOCHS * operations_of_learning(policy.model, rollout)
    print(
        f"learning is {operations / 1e12:.2f} TFLOP, {operations / rate:.1f} s at this machine's "
        f"{rate / 1e9:.0f} GFLOP/s; ratio {seconds['learn'] * rate / operations:.2f}"
    )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
