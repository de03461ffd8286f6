r"""What is known of an estimator's gradients: their noise, their bias, and what they cost."""

from .advice import Candidate, candidate_of, recommend
from .comparison import EstimatorComparison, compare
from .draws import WHERE, Draws, add_draws, evaluating, frozen
from .evaluations import Evaluations
from .moments import BLOCKS, Moments, TrueGradient
from .noise import noise_by_source
from .outcomes import measure_outcomes, outcomes_of
from .running import RunningVariance
from .statistics import measure
from .streams import Stream, forked_random
from .truth import Truth, truth_of

__all__ = [
    "BLOCKS",
    "WHERE",
    "Candidate",
    "Draws",
    "EstimatorComparison",
    "Evaluations",
    "Moments",
    "RunningVariance",
    "Stream",
    "TrueGradient",
    "Truth",
    "add_draws",
    "candidate_of",
    "compare",
    "evaluating",
    "forked_random",
    "frozen",
    "measure",
    "measure_outcomes",
    "noise_by_source",
    "outcomes_of",
    "recommend",
    "truth_of",
]
