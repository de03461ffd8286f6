from collections.abc import Callable

import torch
from torch import Tensor

from hardmax.checks import at_least, positive

from . import sampling
from .annealing import StandsStill, annealed, check_annealing
from .base import numbers_at_once
from .straight_through import PulledBack, through_softmax

LARGEST_SYSTEM = 10_000  # categories; beyond them one takes gigabytes and a minute


class MVE(PulledBack):
    r"""Minimum-variance Jacobian among those that are right on average, with bias traded for variance by ``tau``.

    Exact, on average, for a linear objective at every ``tau``. At 0 it is :class:`StochasticStraightThrough` at
    temperature 1, draw by draw; as it grows it becomes exact, on average, for quadratic objectives as :class:`ZGR` is,
    from a Jacobian that varies less from draw to draw (of a given objective's gradient that need not be true).
    It solves a C x C system for every variable: from some hundred categories on that dominates the step, and
    :class:`ReinMax` comes without it.

    References:
        | Generalized and Optimal Straight-Through Estimators (Hooper and Shekhovtsov, 2026)
        | https://openreview.net/forum?id=5LZQfHUVER

    Arguments:
        tau: At least 0; the larger, the less bias for an objective near to quadratic, and mostly the more variance.
        rate: After t optimiser steps, tau is ``min(ceiling, tau * exp(rate * t))``; 0 keeps it fixed.
        ceiling: Highest tau of the schedule, at least ``tau``.
        every: Optimiser steps between updates by the rate.
        annealing: ``exponential``, ``linear`` or ``cosine``; other than exponential only with ``over``.
        over: Optimiser steps from ``tau`` to ``ceiling``; None: the rate says how fast it goes. In a config
            ``${share:0.5}`` is half of the run's steps.

    Raises:
        ValueError: For a ceiling below tau, with a rate or ``over``, for both of these, and for a rate or an
            exponential from 0; at the call, for more than 10,000 categories.
    """

    steps: Tensor
    worth_trying = ({"tau": 1.0}, {"tau": 100.0})  # at high ones exact for quadratic objectives

    def __init__(
        self,
        tau: float = 1.0,
        rate: float = 0.0,
        ceiling: float = 1e6,
        every: int = 500,
        annealing: str = "exponential",
        over: int | None = None,
    ):
        super().__init__()
        self.tau = 0.0 if tau == 0 else positive(tau=tau)
        self.rate = 0.0 if rate == 0 else positive(rate=rate)
        self.ceiling, self.every = positive(ceiling=ceiling), at_least(1, every=every)
        check_annealing(annealing, over, rate, "exponential")
        self.annealing, self.over, self.still = annealing, over, StandsStill()
        if (rate or over) and ceiling < tau:
            raise ValueError(f"ceiling must be at least tau {tau}, got {ceiling}")
        if rate or (over and annealing == "exponential"):
            positive(tau=tau)
        self.register_buffer("steps", torch.tensor(0.0, dtype=torch.float64))

    def pullback(self, logits: Tensor, hard: Tensor) -> Callable[[Tensor], Tensor]:
        # The published Jacobian S has S^T g = J(p) (r * u) + tau g_x / (1 + 2 tau p_x) J(p) e_x, x the drawn
        # category, where A u = a * g - (b . g) e_x. For large tau A is nearly singular. A constant added to all of
        # its entries mends that, and moves u only by a multiple of 1 / r, which J(p) takes to 0.
        if logits.shape[-1] > LARGEST_SYSTEM:
            most = f"at most {LARGEST_SYSTEM:,} categories"
            raise ValueError(f"MVE solves a C x C system for {most}, got logits of {logits.shape[-1]:,}: take ReinMax")
        p, tau = sampling.softmax(logits), self.tau_now()
        p_x = (hard * p).sum(-1, keepdim=True)

        def pullback(g: Tensor) -> Tensor:
            near = g / (1 + tau * (p + p_x))
            right = (1 + tau * p) * near - (tau * p * near).sum(-1, keepdim=True) * hard
            u = solve(p, tau, right)
            of_draw = tau * g / (1 + 2 * tau * p_x) * hard
            return through_softmax(p, (1 + tau * p) / (1 + 2 * tau * p) * u + of_draw)

        return pullback

    def tau_now(self) -> Tensor | float:
        r"""What the schedule has made of tau."""
        if not (self.rate or self.over):
            return self.tau
        self.still.look(self.training)
        if self.over:
            return annealed(self.tau, self.ceiling, self.steps / self.over, self.annealing)
        done = self.steps - self.steps % self.every
        return (self.tau * (self.rate * done).exp()).clamp(max=self.ceiling)

    def advance(self) -> None:
        self.steps += 1
        self.still.looks = 0


def solve(p: Tensor, tau: Tensor | float, right: Tensor) -> Tensor:
    r"""u with ``(A + 1 / C) u = right``, for so many variables at a time as memory bears.

    A is symmetric and positive definite: the diagonal exceeds what is beside it by ``sum_j p_j / (1 + tau (p + p_j))``.

    Arguments:
        p: Probabilities, ``[*batch, K, C]``.
        tau: At least 0.
        right: ``[S, *batch, K, C]``.
    """
    C = p.shape[-1]
    at_once = max(1, numbers_at_once(p.device) // C**2)
    rows = p.expand(right.shape[1:]).reshape(-1, C)  # [N, C]
    columns = right.reshape(len(right), -1, C).movedim(0, -1)  # [N, C, S]
    found = []
    for q, b in zip(rows.split(at_once), columns.split(at_once), strict=True):
        scaled = tau * q
        A = ((1 + scaled).unsqueeze(-1) + scaled.unsqueeze(-2)).reciprocal_()  # [n, C, C]
        diagonal = (1 + scaled) * (A @ q.unsqueeze(-1)).squeeze(-1)
        A.mul_(scaled.unsqueeze(-1) * -q.unsqueeze(-2)).add_(1 / C).diagonal(dim1=-2, dim2=-1).add_(diagonal)
        found.append(torch.cholesky_solve(b, torch.linalg.cholesky_ex(A)[0]))  # unlike cholesky, reads nothing back
    return torch.cat(found).movedim(-1, 0).reshape(right.shape)
