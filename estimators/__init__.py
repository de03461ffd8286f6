r"""Gradient estimators for categorical variables: one contract, one file a family. See :mod:`estimators.base`."""

from estimators import sampling
from estimators.arsm import AR, ARS, ARSM, ARSMPlus, ARSPlus
from estimators.base import Estimator
from estimators.bounds import VIMCO, ReweightedWakeSleep
from estimators.carms import CARMS
from estimators.disarm import DisARMIW, DisARMSB, DisARMTree
from estimators.double_cv import DoubleCV
from estimators.exact import Exact
from estimators.gumbel_rao import GumbelRao
from estimators.gumbel_softmax import DecoupledSTGumbel, GumbelSoftmax, StraightThroughGumbelSoftmax
from estimators.imle import IMLE
from estimators.local_expectation import LocalExpectation
from estimators.muprop import MuProp
from estimators.mve import MVE
from estimators.nvil import NVIL
from estimators.rebar import Rebar, Relax
from estimators.reinforce import Reinforce
from estimators.reinmax import DARN, ZGR, ReinMax, ReinMaxCV, ReinMaxRao
from estimators.rodeo import Rodeo
from estimators.softmax import Softmax
from estimators.straight_through import GappedStraightThrough, SlopeAnnealed, StraightThrough
from estimators.sum_and_sample import SumAndSample
from estimators.unordered_set import UnorderedSet

__all__ = [
    "AR",
    "ARS",
    "ARSM",
    "CARMS",
    "DARN",
    "IMLE",
    "MVE",
    "NVIL",
    "VIMCO",
    "ZGR",
    "ARSMPlus",
    "ARSPlus",
    "DecoupledSTGumbel",
    "DisARMIW",
    "DisARMSB",
    "DisARMTree",
    "DoubleCV",
    "Estimator",
    "Exact",
    "GappedStraightThrough",
    "GumbelRao",
    "GumbelSoftmax",
    "LocalExpectation",
    "MuProp",
    "Rebar",
    "ReinMax",
    "ReinMaxCV",
    "ReinMaxRao",
    "Reinforce",
    "Relax",
    "ReweightedWakeSleep",
    "Rodeo",
    "SlopeAnnealed",
    "Softmax",
    "StraightThrough",
    "StraightThroughGumbelSoftmax",
    "SumAndSample",
    "UnorderedSet",
    "sampling",
]
