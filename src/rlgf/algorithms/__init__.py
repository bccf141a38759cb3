"""Algorithms as data: each is a row that says script, help and losses.

The trainer reads rows and knows no algorithm by name. To add one, write a row: in a recipe under
``algorithm:``, in Python, or in `catalog.py`.
"""

from rlgf.algorithms.catalog import ALGORITHMS
from rlgf.algorithms.estimators import ESTIMATORS, Estimates, Estimator, Pairs, Signals
from rlgf.algorithms.hint import Hint, View
from rlgf.algorithms.kl import KLConfig
from rlgf.algorithms.pick import algorithm_from
from rlgf.algorithms.script import Gate, Help, RollinLength, Script, Span, StartValue
from rlgf.algorithms.selection import SELECTORS, Selection
from rlgf.algorithms.spec import Algorithm, AnyAlgorithm, Mixture
from rlgf.algorithms.terms import LOSSES, LossFunction, LossInputs, Term

__all__ = [
    "ALGORITHMS",
    "ESTIMATORS",
    "LOSSES",
    "SELECTORS",
    "Algorithm",
    "AnyAlgorithm",
    "Estimates",
    "Estimator",
    "Gate",
    "Help",
    "Hint",
    "KLConfig",
    "LossFunction",
    "LossInputs",
    "Mixture",
    "Pairs",
    "RollinLength",
    "Script",
    "Selection",
    "Signals",
    "Span",
    "StartValue",
    "Term",
    "View",
    "algorithm_from",
]
