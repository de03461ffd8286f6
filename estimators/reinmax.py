import math
from collections.abc import Callable

import torch
from torch import Tensor

from hardmax.checks import at_least, one_of, positive

from . import sampling
from .gumbel_rao import mean_jacobian
from .straight_through import PulledBack, through_softmax


class DARN(PulledBack):
    r"""REINFORCE with the objective's first-order change from a baseline point instead of its value.

    The objective is taken for linear between the draw and the baseline, so the gradient is exact if it is linear in
    each variable given the others, and for two categories with ``baseline=uniform`` if it is quadratic; else it is in
    general biased. It mostly has more variance than :class:`StochasticStraightThrough` at temperature 1, whose mean
    with it, with ``probabilities``, is :class:`ZGR`: prefer that one.

    References:
        | Deep AutoRegressive Networks (Gregor et al., 2014)
        | https://arxiv.org/abs/1310.8499

    Arguments:
        baseline: Point of the simplex the change is taken from: ``probabilities``, or ``uniform`` (1 / C).
    """

    worth_trying = ({"baseline": "probabilities"}, {"baseline": "uniform"})  # two expansions of the objective

    def __init__(self, baseline: str = "probabilities"):
        super().__init__()
        self.baseline = one_of(("probabilities", "uniform"), baseline=baseline)

    def pullback(self, logits: Tensor, hard: Tensor) -> Callable[[Tensor], Tensor]:
        p = sampling.softmax(logits)
        change = hard - (p if self.baseline == "probabilities" else 1 / logits.shape[-1])
        return lambda g: (g * change).sum(-1, keepdim=True) * (hard - p)


class ZGR(PulledBack):
    r"""Mean of stochastic straight-through and :class:`DARN`: exact, on average, for an objective quadratic in z.

    That is :class:`StochasticStraightThrough` at temperature 1, and the same draw for both. One evaluation and nothing
    to tune. Mostly more variance than straight-through, and still biased where the objective is far from quadratic
    between categories. :class:`ReinMax` at temperature 1, draw by draw.

    References:
        | Cold Analysis of Rao-Blackwellized Straight-Through Gumbel-Softmax Gradient Estimator (Shekhovtsov, 2023)
        | https://proceedings.mlr.press/v202/shekhovtsov23a.html
    """

    def pullback(self, logits: Tensor, hard: Tensor) -> Callable[[Tensor], Tensor]:
        p = sampling.softmax(logits)
        change = hard - p

        def pullback(g: Tensor) -> Tensor:
            along = (g * change).sum(-1, keepdim=True) * change
            return 0.5 * (through_softmax(p, g) + along)

        return pullback


class ReinMax(PulledBack):
    r"""Straight-through of second order: the softmax's Jacobian halfway to the draw, and at the probabilities.

    Where straight-through takes the Jacobian J of the softmax at p, this takes
    :math:`2 J((p_\tau + D) / 2) - J(p) / 2` with the draw D, two points of Heun's method. At temperature 1 it is
    exact, on average, for an objective that is quadratic in z; at others it is not, and the variance changes little,
    up or down. Where bias does not matter, straight-through, whose Jacobian does not depend on the draw, has less.

    References:
        | Bridging Discrete and Backpropagation: Straight-Through and Beyond (Liu et al., 2023)
        | https://arxiv.org/abs/2304.08612

    Arguments:
        temperature: Of the probabilities mixed with the draw, above 0. Its reciprocal scales nothing.
    """

    # Liu et al. (2023) choose from 1 to 1.5 on autoencoders
    worth_trying = ({"temperature": 1.0}, {"temperature": 1.3})

    def __init__(self, temperature: float = 1.0):
        super().__init__()
        self.temperature = positive(temperature=temperature)

    def pullback(self, logits: Tensor, hard: Tensor) -> Callable[[Tensor], Tensor]:
        p = sampling.softmax(logits)
        tempered = p if self.temperature == 1 else sampling.softmax(logits / self.temperature)
        midpoint = 0.5 * (tempered + hard)
        return lambda g: 2 * through_softmax(midpoint, g) - 0.5 * through_softmax(p, g)


class ReinMaxRao(PulledBack):
    r"""ReinMax whose first Jacobian is :class:`GumbelRao`'s, at the probabilities halfway to the draw.

    Mostly less variance than :class:`ReinMax` at all but low temperatures, and another bias: it is not exact for
    quadratic objectives, nor for linear ones. At high temperatures the first Jacobian vanishes and the gradient turns
    around, into minus half of straight-through's: stay near 1 or below.

    References:
        | Beyond ReinMax: Low-Variance Gradient Estimators for Discrete Latent Variables (Wang and Bui, 2026)
        | https://arxiv.org/abs/2603.08257

    Arguments:
        noises: Number of conditional noises, at least 1.
        temperature: Of the relaxed samples, above 0; its reciprocal scales the first term.
    """

    worth_trying = ({"temperature": 0.3}, {"temperature": 1.0})  # as for Gumbel-Rao, whose Jacobian it has

    def __init__(self, noises: int = 10, temperature: float = 1.0):
        super().__init__()
        self.noises, self.temperature = at_least(1, noises=noises), positive(temperature=temperature)

    def pullback(self, logits: Tensor, hard: Tensor) -> Callable[[Tensor], Tensor]:
        p = sampling.softmax(logits)
        first = mean_jacobian(log_midpoint(logits, hard), hard, self.noises, self.temperature)
        return lambda g: 2 * first(g) - 0.5 * through_softmax(p, g)


class ReinMaxCV(ReinMax):
    r"""ReinMax plus ``eta`` times the difference of two Gumbel-softmax Jacobians halfway to the draw.

    The two are :class:`GumbelRao`'s, given the draw, and that of one relaxed sample with noise of its own. Given the
    draw, ReinMax has no noise left that such a difference could take out, and the mean of the difference is not 0: with
    ``eta`` the bias moves, and the variance mostly rises. Where variance matters prefer :class:`ReinMaxRao`. With the
    noise that made the draw in place of its own mostly both rise further; the authors' code has the relaxed sample in
    the place of its noise, so that the variance mostly falls a little below ReinMax's, and the bias moves
    (:class:`hardmax.estimators.released.ReinMaxCVAsReleased`).

    References:
        | Beyond ReinMax: Low-Variance Gradient Estimators for Discrete Latent Variables (Wang and Bui, 2026)
        | https://arxiv.org/abs/2603.08257

    Arguments:
        temperature: Of ReinMax itself, as in :class:`ReinMax`.
        eta: Weight of the difference, at least 0; with 0 this is ReinMax.
        noises: Number of conditional noises, at least 1.
        relaxation_temperature: Of the relaxed samples in the difference, above 0; its reciprocal scales it.
    """

    worth_trying = ({"eta": 0.5}, {"eta": 1.0})  # half and all of the control variate

    def __init__(
        self, temperature: float = 1.0, eta: float = 0.5, noises: int = 10, relaxation_temperature: float = 1.0
    ):
        super().__init__(temperature)
        self.eta, self.noises = 0.0 if eta == 0 else positive(eta=eta), at_least(1, noises=noises)
        self.relaxation_temperature = positive(relaxation_temperature=relaxation_temperature)

    def pullback(self, logits: Tensor, hard: Tensor) -> Callable[[Tensor], Tensor]:
        reinmax, tau = super().pullback(logits, hard), self.relaxation_temperature
        log_q = log_midpoint(logits / self.temperature, hard)
        given_draw = mean_jacobian(log_q, hard, self.noises, tau)
        free = sampling.softmax((log_q + sampling.gumbel(logits, 1)) / tau)
        return lambda g: reinmax(g) + self.eta * (given_draw(g) - through_softmax(free, g) / tau)


def log_midpoint(logits: Tensor, hard: Tensor) -> Tensor:
    r"""Logarithm of the point halfway from ``softmax(logits)`` to the draws ``hard``, ``[1, *batch, K, C]``."""
    log_p = logits.log_softmax(-1)
    return torch.where(hard > 0, log_p.exp().log1p(), log_p) - math.log(2)
