r"""Costs that are sums of powers of distances, one for each variable, minimised over the logits themselves."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hardmax.checks import at_least, finite, is_number, one_of

from .base import Problem
from .known_cost import KnownCost


class Distances(KnownCost):
    r"""Sum over K variables of ``share * |x_k - target_k| ** power``, where ``x_k`` is the sum of weights times z_k.

    At a one-hot z, x is the weight of its category; at a point of the simplex it lies between them, and the cost
    is convex there, not linear. Each example of a batch is an independent draw of the same problem. Figures:
    ``cost``, the exact expectation; ``optimum``, the lowest that the logits can reach; ``gap``, their difference.

    Arguments:
        weights: Of the categories, ``[C]``.
        targets: Of the variables, ``[K]``.
        power: Of the distances, at least 1.
        share: Of each variable's term in the cost.
        free: The logits that are learned at the start: ``[K, C]``; ``[1, C]`` if the variables share them; with one
            category less if the first one is pinned at 0.
    """

    weights: Tensor
    targets: Tensor

    def __init__(
        self, weights: Sequence[float] | Tensor, targets: Sequence[float], power: float, share: float, free: Tensor
    ):
        super().__init__()
        if not is_number(power) or not 1 <= power < float("inf"):
            raise (ValueError if is_number(power) else TypeError)(
                f"power must be a number of at least 1, got {power!r}"
            )
        self.power, self.share = float(power), share
        self.register_buffer("weights", torch.as_tensor(weights, dtype=torch.float32), persistent=False)
        self.register_buffer("targets", torch.as_tensor(targets, dtype=torch.float32), persistent=False)
        self.free = nn.Parameter(free)
        self.pinned = len(weights) - free.shape[-1]

    def logits(self) -> Tensor:
        r"""Of all variables, ``[K, C]``."""
        logits = nn.functional.pad(self.free, (self.pinned, 0)) if self.pinned else self.free
        return logits.expand(len(self.targets), -1)

    def problem(self, batch: Tensor) -> Problem:
        logits = self.logits()
        return Problem(logits.expand(len(batch), *logits.shape), self.objective, pinned=self.pinned)

    def objective(self, z: Tensor) -> Tensor:
        r"""Cost ``[...]`` of one-hot or relaxed z ``[..., K, C]``."""
        return self.share * self.distances(z @ self.weights).sum(-1)

    def distances(self, x: Tensor) -> Tensor:
        return (x - self.targets).abs() ** self.power

    def values(self) -> Tensor:
        r"""Cost ``[K, C]`` of each variable in each category."""
        return self.share * self.distances(self.weights.unsqueeze(-1)).T

    def expected_cost(self, logits: Tensor) -> Tensor:
        return (logits.softmax(-1) * self.values()).sum((-2, -1))

    def optimum(self) -> float:
        r"""The lowest expected cost that the logits can reach."""
        values = self.values()
        return float(values.min(-1).values.sum() if len(self.free) == len(values) else values.sum(0).min())


class Polynomial(Distances):
    r"""Polynomial programming: mean over K variables of ``|x_k - target| ** power``. See :class:`Distances`.

    With two categories x is 1 in the first and 0 in the second, the problem of Liu et al.; with more, weights are
    drawn from a normal distribution, the same every time, and scaled to [0, 1], that of Hooper and Shekhovtsov
    with four. Theirs too is the ``integer`` embedding: category c, counted from 0, has the weight c / (C - 1). Logits
    start out uniform in [-0.01, 0.01].

    References:
        | Bridging Discrete and Backpropagation: Straight-Through and Beyond (Liu et al., 2023)
        | https://arxiv.org/abs/2304.08612
        | Generalized and Optimal Straight-Through Estimators (Hooper and Shekhovtsov, 2026)
        | https://openreview.net/forum?id=5LZQfHUVER

    Arguments:
        variables, categories: Numbers K and C, the latter at least 2.
        power: 1.5, 2 or 3 in the papers; at least 1.
        target: What all x want to be.
        embedding: ``drawn`` or ``integer``: what the weights are.
    """

    def __init__(
        self,
        variables: int = 128,
        categories: int = 2,
        power: float = 2,
        target: float = 0.45,
        embedding: str = "drawn",
    ):
        K, C = at_least(1, variables=variables), at_least(2, categories=categories)
        drawn = one_of(("drawn", "integer"), embedding=embedding) == "drawn"
        weights = torch.randn(C, generator=torch.Generator().manual_seed(0)) if drawn else torch.arange(C)
        weights = (weights - weights.min()) / (weights.max() - weights.min())
        super().__init__(weights, [finite(target=target)] * K, power, 1 / K, torch.empty(K, C).uniform_(-0.01, 0.01))


# Targets, number of variables and share of each; whether they share one logit.
QUADRATICS = {
    "tucker": ([0.45], 1.0, False),
    "grathwohl": ([0.499], 1.0, False),
    "kool": ([0.6, 0.51, 0.48], 1.0, True),
    "titsias": ([0.499] * 200, 1 / 200, False),
}


class Quadratic(Distances):
    r"""The quadratic costs of papers, ``(b - target) ** 2`` of binary b, with one logit a variable for b = 1.

    ``tucker`` and ``grathwohl`` have one variable, with targets 0.45 and 0.499; ``kool`` the sum over three
    variables that share one logit, with targets 0.6, 0.51 and 0.48; ``titsias`` the mean over 200 variables
    with target 0.499. See :class:`Distances`.

    References:
        | REBAR: Low-variance, unbiased gradient estimates for discrete latent variable models (Tucker et al., 2017)
        | https://arxiv.org/abs/1703.07370
        | Backpropagation through the Void (Grathwohl et al., 2018)
        | https://arxiv.org/abs/1711.00123
        | Estimating Gradients for Discrete Random Variables by Sampling without Replacement (Kool et al., 2020)
        | https://arxiv.org/abs/2002.06043
        | Double Control Variates for Gradient Estimation in Discrete Latent Variable Models (Titsias and Shi, 2022)
        | https://arxiv.org/abs/2111.05300

    Arguments:
        toy: ``tucker``, ``grathwohl``, ``kool`` or ``titsias``.
        start: Every logit at the start; 0 in all papers, in Kool's also -4.
    """

    def __init__(self, toy: str = "tucker", start: float = 0.0):
        targets, share, shared = QUADRATICS[one_of(QUADRATICS, toy=toy)]
        logits = torch.full((1 if shared else len(targets), 1), finite(start=start))
        super().__init__([0.0, 1.0], targets, 2, share, logits)
