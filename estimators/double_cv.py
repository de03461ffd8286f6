import torch
from torch import Tensor, nn

from hardmax.checks import at_least

from . import sampling
from .base import Estimator, graft
from .learning import trained_on
from .objectives import Objective, derivative


class DoubleCV(Estimator):
    r"""Leave-one-out REINFORCE whose costs are corrected by their linearisation at the *other* draws.

    With the derivatives :math:`g_k` at the S draws, and :math:`\bar g_{-k}` the mean of the others', the cost of
    draw k is augmented by :math:`\alpha \, \bar g_{-k} \cdot (z_k - p)`, and the exact expectation of what this
    adds is subtracted. The published form is for binary variables; this one is for categories and agrees with it
    at two. Uses the objective's derivative at the draws; where that says nothing about other categories,
    :math:`\alpha` stays near 0, which is leave-one-out REINFORCE, as it is exactly where there is no derivative.

    References:
        | Double Control Variates for Gradient Estimation in Discrete Latent Variable Models (Titsias and Shi, 2022)
        | https://arxiv.org/abs/2111.05300

    Arguments:
        samples: Number S of draws, at least 2.
    """

    target, unbiased, differentiates_objective = "expectation", True, True
    evaluations, learns = "S", "one coefficient, on the gradient's square"
    compiles = False
    worth_trying = ({"samples": 2}, {"samples": 4})  # what more evaluations buy

    def __init__(self, samples: int = 2):
        super().__init__()
        self.samples = at_least(2, samples=samples)
        self.alpha = nn.Parameter(torch.zeros(()))

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        z = sampling.draw(logits, self.samples)  # [S, *batch, K, C]
        cost, slope = with_slope(objective, z)
        p = sampling.softmax(logits.detach())
        score = z - p
        tilt = self.alpha * (others(slope) * score).sum((-2, -1))  # [S, *batch]
        surplus = cost.detach() + tilt
        advantage = (surplus - others(surplus))[..., None, None]
        mean_slope = slope.mean(0)
        through = p * (mean_slope - (p * mean_slope).sum(-1, keepdim=True))
        gradient = (advantage * score).mean(0) - self.alpha * through
        cost = graft(cost.mean(0), logits, gradient)
        return trained_on(gradient.square().sum((-2, -1)).mean(), cost, self) if self.training else cost


def with_slope(objective: Objective, z: Tensor) -> tuple[Tensor, Tensor]:
    r"""Costs ``[S, *batch]`` at draws z ``[S, *batch, K, C]``, and the derivatives there, of z's shape; 0 for none."""
    z = z.requires_grad_()
    cost = objective(z)
    return cost, derivative(cost, z)


def others(x: Tensor) -> Tensor:
    r"""The mean over the other draws of x ``[S, ...]``, for every draw: of the same shape."""
    return (x.sum(0) - x) / (len(x) - 1)
