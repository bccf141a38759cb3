"""Algorithms as data: each is a row that says who writes which part and which loss reads it.

The trainer reads rows and knows no algorithm by name. To add one, write a row: in `table.py`, in a
recipe under ``algorithm:``, or in Python.
"""

from rlgf.algorithms.pieces import (
    ESTIMATORS,
    POLICY_LOSSES,
    Estimates,
    Estimator,
    PolicyLoss,
    PolicyTerms,
    Signals,
)
from rlgf.algorithms.rows import Algorithm, AnyAlgorithm, Mixture, Part, RollinLength
from rlgf.algorithms.table import (
    AGGREVATED,
    ALGORITHMS,
    BC,
    BREAD,
    D2LOLS,
    DISTILL,
    DR_PO,
    GRPO,
    GUIDED_GRPO,
    GUIDED_RLOO,
    LOLS,
    LUFFY,
    PPO,
    PPO_PLUS_PLUS,
    REVERSE_CURRICULUM,
    RLOO,
    algorithm_from,
)

__all__ = [
    "AGGREVATED",
    "ALGORITHMS",
    "BC",
    "BREAD",
    "D2LOLS",
    "DISTILL",
    "DR_PO",
    "ESTIMATORS",
    "GRPO",
    "GUIDED_GRPO",
    "GUIDED_RLOO",
    "LOLS",
    "LUFFY",
    "POLICY_LOSSES",
    "PPO",
    "PPO_PLUS_PLUS",
    "REVERSE_CURRICULUM",
    "RLOO",
    "Algorithm",
    "AnyAlgorithm",
    "Estimates",
    "Estimator",
    "Mixture",
    "Part",
    "PolicyLoss",
    "PolicyTerms",
    "RollinLength",
    "Signals",
    "algorithm_from",
]
