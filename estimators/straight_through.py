from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hardmax.checks import one_of, positive

from . import sampling
from .annealing import StandsStill, annealed, check_annealing
from .base import straight_through
from .pathwise import Pathwise


class _PulledBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, hard: Tensor, pullback: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.pullback, ctx.dtype = pullback, logits.dtype
        return hard.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        return ctx.pullback(g).sum(0).to(ctx.dtype), None, None


def pulled_back(logits: Tensor, hard: Tensor, pullback: Callable[[Tensor], Tensor]) -> Tensor:
    r"""``hard``, through which a gradient g, ``[S, *batch, K, C]``, comes to ``logits`` as ``pullback(g).sum(0)``."""
    return _PulledBack.apply(logits, hard, pullback)


class PulledBack(Pathwise):
    r"""Base of the estimators that differentiate the objective at discrete draws and invent the draws' Jacobian.

    A subclass writes :meth:`pullback`: what stands for the Jacobian of the draws with respect to the logits. It
    is applied in the ordinary backward pass, to :math:`g`, the derivative of the objective at the draws: there
    is no second evaluation and no second backward pass, whatever the Jacobian, and the objective's own
    parameters get their ordinary gradient.
    """

    target = "expectation"

    def draw(self, logits: Tensor) -> Tensor:
        wide = logits.detach().to(torch.promote_types(logits.dtype, torch.float32))
        hard = sampling.draw(wide, 1)
        if not torch.is_grad_enabled():
            return hard.to(logits.dtype)
        return pulled_back(logits, hard.to(logits.dtype), self.pullback(wide, hard))

    def pullback(self, logits: Tensor, hard: Tensor) -> Callable[[Tensor], Tensor]:
        r"""The transposed Jacobian of the draws, as a function of g ``[S, *batch, K, C]`` to one of that shape.

        Arguments:
            logits: ``[*batch, K, C]``, without gradients.
            hard: The draws, one-hot, ``[S, *batch, K, C]``.
        """
        raise NotImplementedError


def through_softmax(q: Tensor, g: Tensor, dim: int = -1) -> Tensor:
    r""":math:`(\mathrm{diag}(q) - q q^\top)\, g`: the Jacobian of a softmax over ``dim``, of value q, applied to g."""
    return q * (g - (q * g).sum(dim, keepdim=True))


def with_a_choice(logits: Tensor) -> Tensor:
    r"""Which categories are possible and not the only possible one of their variable, ``[*batch, K, C]``."""
    possible = logits > -torch.inf
    return possible & (possible.sum(-1, keepdim=True) > 1)


class StraightThrough(Pathwise):
    r"""Straight-through hardmax: the most probable categories forward, softmax backward.

    One evaluation and no variance, at the price of a bias that nothing removes: the value is the cost of the most
    probable categories, so nothing is explored. The estimator of the paper draws: that is
    :class:`StochasticStraightThrough`. Prefer that one wherever draws will be used in the end.

    References:
        | Estimating or Propagating Gradients Through Stochastic Neurons for Conditional Computation
          (Bengio et al., 2013), whose straight-through gradient this gives to a hardmax
        | https://arxiv.org/abs/1308.3432

    Arguments:
        temperature: Divides the logits in the backward pass, above 0; its reciprocal scales the gradient.
    """

    target = "mode"
    # 1: as it is mostly written; lower: nearer to the argmax
    worth_trying = ({"temperature": 0.5}, {"temperature": 1.0})

    def __init__(self, temperature: float = 1.0):
        super().__init__()
        self.temperature = positive(temperature=temperature)

    def draw(self, logits: Tensor) -> Tensor:
        return straight_through(self.choose(logits), sampling.softmax(logits / self.temperature).unsqueeze(0))

    def choose(self, logits: Tensor) -> Tensor:
        r"""The categories that the objective sees, one-hot, ``[1, *batch, K, C]``."""
        return sampling.one_hot(logits.argmax(-1), logits).unsqueeze(0)


class StochasticStraightThrough(StraightThrough):
    r"""Stochastic straight-through: a draw forward, softmax backward.

    One evaluation and little variance, at the price of a bias that no number of draws removes. At temperature 1 the
    gradient is exact, on average, for an objective that is linear in each variable given the others: where it bends
    between the categories of a variable prefer :class:`ReinMax`.

    References:
        | Estimating or Propagating Gradients Through Stochastic Neurons for Conditional Computation
          (Bengio et al., 2013)
        | https://arxiv.org/abs/1308.3432
        | SIMPLE: A Gradient Estimator for k-Subset Sampling (Ahmed et al., 2023), which is this for k = 1
        | https://arxiv.org/abs/2210.01941

    Arguments:
        temperature: Divides the logits in the backward pass, above 0; its reciprocal scales the gradient.
    """

    target = "expectation"
    also_known_as = ("SIMPLE",)  # of subsets of one category
    # 1: as it is mostly written; ReinMax's authors go above it
    worth_trying = ({"temperature": 1.0}, {"temperature": 2.0})

    def choose(self, logits: Tensor) -> Tensor:
        return sampling.draw(logits, 1)


class IdentityStraightThrough(PulledBack):
    r"""Straight-through with the identity backward: the objective's derivative at a draw is the gradient, as it is.

    ``hard + logits - logits.detach()``, as it is often written. The probabilities have no part in it: rare categories
    are moved as much as likely ones, so that it is biased even for a linear objective. Where all are equally likely it
    is, centred, C times :class:`StochasticStraightThrough`: of the right direction, not length. Prefer that one: it
    costs the same.
    Without ``centred`` the gradient also has a part along (1, ..., 1) in every variable, which the softmax does not see
    but weights before it do. Where only one category is possible there is no choice, and no gradient.

    References:
        | Backpropagation through Combinatorial Algorithms: Identity with Projection Works (Sahoo et al., 2023), which
          centres
        | https://arxiv.org/abs/2205.15213
        | Estimating or Propagating Gradients Through Stochastic Neurons for Conditional Computation
          (Bengio et al., 2013)
        | https://arxiv.org/abs/1308.3432

    Arguments:
        centred: Whether the mean over the possible categories is subtracted.
    """

    worth_trying = ({"centred": False}, {"centred": True})  # as it is mostly written, and with the projection

    def __init__(self, centred: bool = False):
        super().__init__()
        self.centred = one_of([True, False], centred=centred)

    def pullback(self, logits: Tensor, hard: Tensor) -> Callable[[Tensor], Tensor]:
        moved = with_a_choice(logits)
        number = moved.sum(-1, keepdim=True).clamp(min=1)

        def pullback(g: Tensor) -> Tensor:
            g = g.masked_fill(~moved, 0.0)
            return (g - g.sum(-1, keepdim=True) / number).masked_fill(~moved, 0.0) if self.centred else g

        return pullback


class GappedStraightThrough(PulledBack):
    r"""Straight-through with logits shifted so that the drawn category leads all others by at least ``gap``.

    The surrogate then agrees with the draw, as that of straight-through Gumbel-softmax does, without its noise.
    The shift is constant in the backward pass. It is biased even for a linear objective, and where the draws
    are seldom the most probable category it hides the logits' own order: where bias matters more than
    variance prefer :class:`ReinMax`.

    References:
        | Training Discrete Deep Generative Models via Gapped Straight-Through Estimator (Fan et al., 2022)
        | https://arxiv.org/abs/2206.07235

    Arguments:
        temperature: Divides the shifted logits in the backward pass, above 0; its reciprocal scales the gradient.
        gap: Lead of the drawn category, above 0.
    """

    also_known_as = ("GST",)
    worth_trying = ({"temperature": 0.5}, {"temperature": 1.0})  # 1: what Fan et al. begin with

    def __init__(self, temperature: float = 1.0, gap: float = 1.0):
        super().__init__()
        self.temperature, self.gap = positive(temperature=temperature), positive(gap=gap)

    def pullback(self, logits: Tensor, hard: Tensor) -> Callable[[Tensor], Tensor]:
        q = sampling.softmax(self.gapped(logits, hard) / self.temperature)
        return lambda g: through_softmax(q, g) / self.temperature

    def gapped(self, logits: Tensor, hard: Tensor) -> Tensor:
        r"""Logits of which the drawn one is the largest and all others are at least ``gap`` below it."""
        top = logits.amax(-1, keepdim=True)
        return torch.where(hard > 0, top, torch.minimum(logits, top - self.gap))


class SlopeAnnealed(PulledBack):
    r"""Straight-through with a surrogate ``softmax(slope * logits)`` that is sharpened as training goes on.

    After t optimiser steps the slope is ``min(ceiling, slope + rate * t)``. The draws keep the logits' own
    distribution. A steep slope makes for rare and large gradients: do not raise it where
    :class:`StochasticStraightThrough` with its constant temperature already has too much variance.

    References:
        | Hierarchical Multiscale Recurrent Neural Networks (Chung et al., 2017), for binary variables
        | https://arxiv.org/abs/1609.01704
        | Categorical Reparameterization with Gumbel-Softmax (Jang et al., 2017), who compare with it
        | https://arxiv.org/abs/1611.01144

    Arguments:
        slope: At the start, above 0; it multiplies the logits in the backward pass and scales the gradient.
        rate: Rise of the slope per optimiser step, at least 0; 0 keeps it fixed.
        ceiling: Highest slope of the schedule, at least ``slope``.
        annealing: ``linear``, ``exponential`` or ``cosine``; other than linear only with ``over``.
        over: Optimiser steps from ``slope`` to ``ceiling``, which takes a rate of 0; None: the rate says how fast it
            goes. In a config ``${share:0.5}`` is half of the run's steps.

    Raises:
        ValueError: For a ceiling below the slope, and for both a rate and ``over``.
    """

    steps: Tensor
    worth_trying = ({"rate": 1e-4}, {"rate": 4e-4})  # to a slope of 2 and of 5, the ceiling, in 10,000 steps

    def __init__(
        self,
        slope: float = 1.0,
        rate: float = 0.0001,
        ceiling: float = 5.0,
        annealing: str = "linear",
        over: int | None = None,
    ):
        super().__init__()
        self.initial, self.ceiling = positive(slope=slope), positive(ceiling=ceiling)
        self.rate = 0.0 if rate == 0 else positive(rate=rate)
        if ceiling < slope:
            raise ValueError(f"ceiling must be at least the slope {slope}, got {ceiling}")
        check_annealing(annealing, over, rate, "linear")
        self.annealing, self.over, self.still = annealing, over, StandsStill()
        self.register_buffer("steps", torch.tensor(0.0, dtype=torch.float64))

    def pullback(self, logits: Tensor, hard: Tensor) -> Callable[[Tensor], Tensor]:
        slope = self.slope()
        q = sampling.softmax(slope * logits)
        return lambda g: slope * through_softmax(q, g)

    def slope(self) -> Tensor:
        r"""The slope now, a scalar."""
        if self.rate or self.over:
            self.still.look(self.training)
        if self.over:
            return annealed(self.initial, self.ceiling, self.steps / self.over, self.annealing)
        return (self.initial + self.rate * self.steps).clamp(max=self.ceiling)

    def advance(self) -> None:
        self.steps += 1
        self.still.looks = 0
