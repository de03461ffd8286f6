import torch
from torch import Tensor

from hardmax.checks import at_least, one_of

from . import sampling
from .base import Estimator, graft
from .objectives import Objective


class ScoreControlVariate(Estimator):
    r"""Score function less a multiple of itself: each variable has the coefficient of least variance, from the draws.

    With the score :math:`s_k = z_k - p_k` of variable k, whose mean is 0, the gradient is a mean over S draws of
    :math:`(f - b_k) s_k`, and :math:`b_k` an estimate of :math:`E[f |s_k|^2] / E[|s_k|^2]`. By default it is one from
    the other draws, which leaves the gradient unbiased. As published, one coefficient comes from all draws, whose own
    costs shrink the gradient or turn it: on the certificate's problems by 15 to 100 % with 4 draws, 3 to 44 % with 8.

    With two draws the default is REINFORCE with ``leave_one_out``, mostly of no more variance with more of them, and
    simpler: take that. This one is here because black box variational inference is built on it.

    References:
        | Black Box Variational Inference (Ranganath, Gerrish and Blei, 2014), Equation 9
        | https://arxiv.org/abs/1401.0118

    Arguments:
        samples: Number S of draws, at least 2.
        leave_one_out: Whether a draw's coefficient is from the others. Otherwise it is the ratio of the draws' own
            covariance of ``f`` times the score with the score to the score's variance, as published, and 0 where
            all draws of a variable are the same.
    """

    target, unbiased, differentiates_objective = "expectation", True, False
    evaluations = "S"
    also_known_as = ("BBVI: leave_one_out=False",)

    def __init__(self, samples: int = 4, leave_one_out: bool = True):
        super().__init__()
        self.samples = at_least(2, samples=samples)
        self.leave_one_out = self.unbiased = one_of([True, False], leave_one_out=leave_one_out)

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        z = sampling.draw(logits, self.samples)  # [S, *batch, K, C]
        cost = objective(z)
        f, score = cost.detach().double()[..., None, None], z.double() - sampling.softmax(logits.double())
        if self.leave_one_out:
            size = score.square().sum(-1, keepdim=True)
            others = 1 - torch.eye(self.samples, dtype=size.dtype, device=size.device)
            coefficient = ratio(torch.tensordot(others, size * f, 1), torch.tensordot(others, size, 1))
        else:
            off, change = score - score.mean(0), f * score
            covariance = (off * (change - change.mean(0))).sum((0, -1), keepdim=True)
            coefficient = ratio(covariance, off.square().sum((0, -1), keepdim=True))
        return graft(cost.mean(0), logits, ((f - coefficient) * score).mean(0))


def ratio(x: Tensor, y: Tensor) -> Tensor:
    r"""x / y, and 0 where y is 0: draws that do not differ."""
    return torch.where(y == 0, 0.0, x / y)
