import torch

from estimators.base import positive
from estimators.straight_through import PulledBack, through_softmax


class MVE(PulledBack):
    r"""Minimum-variance Jacobian among those that are right on average, with bias traded for variance by ``tau``.

    Exact, on average, for a linear objective at every ``tau``. At 0 it is :class:`StraightThrough`, draw by
    draw; as it grows it becomes exact, on average, for quadratic objectives as :class:`ZGR` is, from a Jacobian
    that varies less from draw to draw (of a given objective's gradient that need not be true).
    It solves a C x C system for every variable: from some hundred categories on that dominates the step, and
    :class:`ReinMax` comes without it.

    References:
        | Generalized and Optimal Straight-Through Estimators (Hooper and Shekhovtsov, 2026)
        | https://openreview.net/forum?id=5LZQfHUVER

    Arguments:
        tau: At least 0; the larger, the less bias and the more variance.
    """

    def __init__(self, tau: float = 1.0):
        super().__init__()
        self.tau = 0.0 if tau == 0 else positive(tau=tau)

    def pullback(self, logits, hard):
        # The published Jacobian S has S^T g = J(p) (r * u) + tau g_x / (1 + 2 tau p_x) J(p) e_x, x the drawn
        # category, where A u = a * g - (b . g) e_x. A is symmetric and diagonally dominant, but by little for large tau.
        p, tau, x = logits.double().softmax(-1), self.tau, hard.double()
        p_x = (x * p).sum(-1, keepdim=True)

        def pullback(g):
            wide = g.double()
            apart = p.unsqueeze(-2) / (1 + tau * (p.unsqueeze(-1) + p.unsqueeze(-2)))  # [*batch, K, C, C]
            A = torch.diag_embed((1 + tau * p) * apart.sum(-1)) - tau * p.unsqueeze(-1) * apart
            near = wide / (1 + tau * (p + p_x))
            right = (1 + tau * p) * near - (tau * p * near).sum(-1, keepdim=True) * x
            u = torch.linalg.solve(A, right.unsqueeze(-1)).squeeze(-1)
            of_draw = tau * wide / (1 + 2 * tau * p_x) * x
            return through_softmax(p, (1 + tau * p) / (1 + 2 * tau * p) * u + of_draw).to(g.dtype)

        return pullback
