r"""Gradient estimators for categorical variables: one contract (:mod:`hardmax.estimators.base`), one file a family."""

from . import sampling
from .arsm import AR, ARS, ARSM, ARSMPlus, ARSPlus
from .base import Estimator
from .bounds import VIMCO, ArithmeticVIMCO, ReweightedWakeSleep
from .carms import CARMS, Stratified
from .direct import DirectOptimisation
from .disarm import DisARMIW, DisARMSB, DisARMTree
from .distributions import OneHotCategorical
from .double_cv import DoubleCV
from .exact import Exact
from .gumbel_rao import GumbelRao
from .gumbel_softmax import DecoupledSTGumbel, GumbelSoftmax, StraightThroughGumbelSoftmax
from .hard_concrete import HardConcrete
from .imle import IMLE, AdaptiveIMLE, BlackBox, SumOfGammaIMLE, SymmetricIMLE
from .local_expectation import LocalExpectation, RandomLocalExpectation
from .muprop import MuProp
from .mve import MVE
from .nvil import NVIL
from .ovis import OVISAsymptotic, OVISMonteCarlo
from .perturbed_argmax import PerturbedArgmax
from .rebar import Rebar, Relax
from .redge import ReDGE, ReDGECov, ReinDGE
from .reinforce import Reinforce
from .reinmax import DARN, ZGR, ReinMax, ReinMaxCV, ReinMaxRao
from .rodeo import Rodeo
from .score_control_variate import ScoreControlVariate
from .softmax import Softmax
from .sparse import Entmax, SparseExpectation, Sparsemax, StraightThroughEntmax, StraightThroughSparsemax
from .spigot import SPIGOT
from .stochastic_triples import StochasticTriples
from .straight_through import (
    GappedStraightThrough,
    IdentityStraightThrough,
    SlopeAnnealed,
    StochasticStraightThrough,
    StraightThrough,
)
from .sum_and_sample import SumAndSample
from .tvo import TVO
from .unordered_set import UnorderedSet
from .without_replacement import ReinforceWithoutReplacement

__all__ = [
    "AR",
    "ARS",
    "ARSM",
    "CARMS",
    "DARN",
    "IMLE",
    "MVE",
    "NVIL",
    "SPIGOT",
    "TVO",
    "VIMCO",
    "ZGR",
    "ARSMPlus",
    "ARSPlus",
    "AdaptiveIMLE",
    "ArithmeticVIMCO",
    "BlackBox",
    "DecoupledSTGumbel",
    "DirectOptimisation",
    "DisARMIW",
    "DisARMSB",
    "DisARMTree",
    "DoubleCV",
    "Entmax",
    "Estimator",
    "Exact",
    "GappedStraightThrough",
    "GumbelRao",
    "GumbelSoftmax",
    "HardConcrete",
    "IdentityStraightThrough",
    "LocalExpectation",
    "MuProp",
    "OVISAsymptotic",
    "OVISMonteCarlo",
    "OneHotCategorical",
    "PerturbedArgmax",
    "RandomLocalExpectation",
    "ReDGE",
    "ReDGECov",
    "Rebar",
    "ReinDGE",
    "ReinMax",
    "ReinMaxCV",
    "ReinMaxRao",
    "Reinforce",
    "ReinforceWithoutReplacement",
    "Relax",
    "ReweightedWakeSleep",
    "Rodeo",
    "ScoreControlVariate",
    "SlopeAnnealed",
    "Softmax",
    "SparseExpectation",
    "Sparsemax",
    "StochasticStraightThrough",
    "StochasticTriples",
    "StraightThrough",
    "StraightThroughEntmax",
    "StraightThroughGumbelSoftmax",
    "StraightThroughSparsemax",
    "Stratified",
    "SumAndSample",
    "SumOfGammaIMLE",
    "SymmetricIMLE",
    "UnorderedSet",
    "sampling",
]
