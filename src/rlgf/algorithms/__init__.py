"""Algorithms as data: each is a row that says script, help and losses.

The trainer reads rows and knows no algorithm by name. To add one, write a row: in a recipe under
``algorithm:``, in Python, or in `catalog.py`.
"""

from rlgf.algorithms.catalog import ALGORITHMS
from rlgf.algorithms.estimators import ESTIMATORS, Estimates, Estimator, Pairs, Signals
from rlgf.algorithms.pick import algorithm_from
from rlgf.algorithms.row import KLConfig
from rlgf.algorithms.script import Gate, Help, Hint, RollinLength, Script, Span, View
from rlgf.algorithms.spec import Algorithm, AnyAlgorithm, Mixture
from rlgf.algorithms.terms import LossInputs, Selection, Term

__all__ = [
    "ALGORITHMS",
    "ESTIMATORS",
    "Algorithm",
    "AnyAlgorithm",
    "Estimates",
    "Estimator",
    "Gate",
    "Help",
    "Hint",
    "KLConfig",
    "LossInputs",
    "Mixture",
    "Pairs",
    "RollinLength",
    "Script",
    "Selection",
    "Signals",
    "Span",
    "Term",
    "View",
    "algorithm_from",
]
