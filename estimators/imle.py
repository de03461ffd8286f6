from hardmax.checks import positive

from . import sampling
from .base import Estimator, graft
from .objectives import derivative


class IMLE(Estimator):
    r"""Implicit maximum likelihood: the draw against the one that the same noise gives for better logits.

    The better logits are one step of length ``step`` down the objective's derivative at the draw; the gradient
    is the difference of the two draws over ``step``. It is exactly 0 whenever the step changes no draw: a small
    step gives rare and large gradients (for a linear objective of the right mean, in the limit), a large one
    frequent and small ones, further from the truth.

    The Gumbel noise is what makes the draws those of the categorical variables. One evaluation; the derivative
    costs a second backward pass through the objective, since the gradient is not linear in it.

    References:
        | Implicit MLE: Backpropagating Through Discrete Exponential Family Distributions (Niepert et al., 2021)
        | https://arxiv.org/abs/2106.01798

    Arguments:
        step: From the logits to the better ones, in units of the derivative; above 0.
    """

    target, unbiased, differentiates_objective = "expectation", False, True
    compiles = False

    def __init__(self, step: float = 1.0):
        super().__init__()
        self.step = positive(step=step)

    def estimate(self, logits, objective, context):
        perturbed = logits.detach() + sampling.gumbel(logits, 1)
        z = sampling.one_hot(perturbed.argmax(-1), logits).requires_grad_()
        cost = objective(z)[0]
        better = sampling.one_hot((perturbed - self.step * derivative(cost.unsqueeze(0), z)).argmax(-1), logits)
        return graft(cost, logits, ((z - better) / self.step)[0])
