from torch import Tensor

from estimators.base import one_of, positive
from estimators.straight_through import PulledBack, through_softmax


class DARN(PulledBack):
    r"""REINFORCE with the objective's first-order change from a baseline point instead of its value.

    The objective is taken for linear between the draw and the baseline, so the gradient is exact if it is
    linear, and for two categories with ``baseline=uniform`` if it is quadratic; else it is biased. It has more
    variance than :class:`StraightThrough`, whose mean with it is :class:`ZGR`: prefer that one.

    References:
        | Deep AutoRegressive Networks (Gregor et al., 2014)
        | https://arxiv.org/abs/1310.8499

    Arguments:
        baseline: Point of the simplex the change is taken from: ``probabilities``, or ``uniform`` (1 / C).
    """

    def __init__(self, baseline: str = "probabilities"):
        super().__init__()
        self.baseline = one_of(("probabilities", "uniform"), baseline=baseline)

    def pullback(self, logits, hard):
        p = logits.softmax(-1)
        change = hard - (p if self.baseline == "probabilities" else 1 / logits.shape[-1])
        return lambda g: (g * change).sum(-1, keepdim=True) * (hard - p)


class ZGR(PulledBack):
    r"""Mean of :class:`StraightThrough` and :class:`DARN`: exact, on average, for an objective quadratic in z.

    One evaluation and nothing to tune. More variance than straight-through, and still biased where the
    objective is far from quadratic between categories. :class:`ReinMax` at temperature 1, draw by draw.

    References:
        | Cold Analysis of Rao-Blackwellized Straight-Through Gumbel-Softmax Gradient Estimator (Shekhovtsov, 2023)
        | https://proceedings.mlr.press/v202/shekhovtsov23a.html
    """

    def pullback(self, logits, hard):
        p = logits.softmax(-1)
        change = hard - p

        def pullback(g):
            along = (g * change).sum(-1, keepdim=True) * change
            return 0.5 * (through_softmax(p, g) + along)

        return pullback


class ReinMax(PulledBack):
    r"""Straight-through of second order: Jacobians at the draw's side of the probabilities and at themselves.

    Where straight-through takes the Jacobian J of the softmax at p, this takes :math:`2 J((p_\tau + D) / 2) -
    J(p) / 2`, the two points of Heun's method. At temperature 1 it is exact, on average, for an objective that is
    quadratic in z. Other temperatures trade that for variance. Not for a small budget of draws with C in the
    hundreds, where the variance of its first term shows.

    References:
        | Bridging Discrete and Backpropagation: Straight-Through and Beyond (Liu et al., 2023)
        | https://arxiv.org/abs/2304.08612

    Arguments:
        temperature: Of the probabilities mixed with the draw, above 0. Its reciprocal scales nothing.
    """

    def __init__(self, temperature: float = 1.0):
        super().__init__()
        self.temperature = positive(temperature=temperature)

    def pullback(self, logits, hard):
        p, midpoint = logits.softmax(-1), self.midpoint(logits, hard)
        return lambda g: 2 * through_softmax(midpoint, g) - 0.5 * through_softmax(p, g)

    def midpoint(self, logits: Tensor, hard: Tensor) -> Tensor:
        r"""Half the way from the tempered probabilities to the draws, ``[1, *batch, K, C]``."""
        return 0.5 * ((logits / self.temperature).softmax(-1) + hard)
