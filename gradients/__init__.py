r"""What is known of an estimator's gradients: their noise, their bias, and what they cost."""

from .draws import WHERE, Draws, evaluating, fill, frozen
from .evaluations import Evaluations
from .moments import BLOCKS, Known, Moments
from .noise import noises
from .running import RunningVariance
from .statistics import measure
from .streams import Stream, forked_random
from .truth import Truth, truth_of

__all__ = [
    "BLOCKS",
    "WHERE",
    "Draws",
    "Evaluations",
    "Known",
    "Moments",
    "RunningVariance",
    "Stream",
    "Truth",
    "evaluating",
    "fill",
    "forked_random",
    "frozen",
    "measure",
    "noises",
    "truth_of",
]
