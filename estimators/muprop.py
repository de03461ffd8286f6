from torch import Tensor

from . import sampling
from .base import Estimator, graft
from .objectives import Objective, derivative
from .straight_through import through_softmax


class MuProp(Estimator):
    r"""REINFORCE on what the first-order Taylor expansion at the probabilities leaves, plus the expansion's gradient.

    With probabilities p it is :math:`(f(z) - f(p) - f'(p) \cdot (z - p)) (z - p) + J(p) f'(p)`, exact in every draw
    for a linear objective. The objective must be defined inside the simplex. Where it has no
    derivative there, f(p) is a mere baseline; where it is strongly curved the expansion is far from it at the draws,
    and the variance larger than with a mere baseline.

    References:
        | MuProp: Unbiased Backpropagation for Stochastic Neural Networks (Gu et al., 2016)
        | https://arxiv.org/abs/1511.05176
    """

    target, unbiased, differentiates_objective = "expectation", True, True
    evaluations, compiles = "2", False

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        p = logits.detach().softmax(-1)
        z = sampling.draw(logits, 1)
        cost = objective(z)[0]
        mean_field = p.unsqueeze(0).requires_grad_()
        at_mean = objective(mean_field)[0]
        slope = derivative(at_mean, mean_field)
        rest = (cost - at_mean).detach() - (slope * (z - p)).sum((0, -2, -1))
        return graft(cost, logits, rest[..., None, None] * (z[0] - p) + through_softmax(p, slope[0]))
