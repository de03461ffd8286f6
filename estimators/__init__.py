r"""Gradient estimators for categorical variables: one contract, one file a family. See :mod:`estimators.base`."""

from estimators import sampling
from estimators.arsm import AR, ARS, ARSM, ARSMPlus, ARSPlus
from estimators.base import Estimator
from estimators.carms import CARMS
from estimators.disarm import DisARMIW, DisARMSB, DisARMTree
from estimators.exact import Exact
from estimators.gumbel_softmax import GumbelSoftmax, StraightThroughGumbelSoftmax
from estimators.local_expectation import LocalExpectation
from estimators.reinforce import Reinforce
from estimators.softmax import Softmax
from estimators.straight_through import StraightThrough
from estimators.sum_and_sample import SumAndSample
from estimators.unordered_set import UnorderedSet

__all__ = [
    "AR",
    "ARS",
    "ARSM",
    "CARMS",
    "ARSMPlus",
    "ARSPlus",
    "DisARMIW",
    "DisARMSB",
    "DisARMTree",
    "Estimator",
    "Exact",
    "GumbelSoftmax",
    "LocalExpectation",
    "Reinforce",
    "Softmax",
    "StraightThrough",
    "StraightThroughGumbelSoftmax",
    "SumAndSample",
    "UnorderedSet",
    "sampling",
]
