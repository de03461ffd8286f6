r"""Gradient estimators for categorical variables: one contract, one file a family. See :mod:`estimators.base`."""

from estimators import sampling
from estimators.arsm import AR, ARS, ARSM
from estimators.base import Estimator
from estimators.exact import Exact
from estimators.gumbel_rao import GumbelRao
from estimators.gumbel_softmax import DecoupledSTGumbel, GumbelSoftmax, StraightThroughGumbelSoftmax
from estimators.imle import IMLE
from estimators.mve import MVE
from estimators.reinforce import Reinforce
from estimators.reinmax import DARN, ZGR, ReinMax, ReinMaxCV, ReinMaxRao
from estimators.softmax import Softmax
from estimators.straight_through import GappedStraightThrough, SlopeAnnealed, StraightThrough

__all__ = [
    "AR",
    "ARS",
    "ARSM",
    "DARN",
    "IMLE",
    "MVE",
    "ZGR",
    "DecoupledSTGumbel",
    "Estimator",
    "Exact",
    "GappedStraightThrough",
    "GumbelRao",
    "GumbelSoftmax",
    "ReinMax",
    "ReinMaxCV",
    "ReinMaxRao",
    "Reinforce",
    "SlopeAnnealed",
    "Softmax",
    "StraightThrough",
    "StraightThroughGumbelSoftmax",
    "sampling",
]
