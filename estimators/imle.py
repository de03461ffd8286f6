from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hardmax.checks import positive

from . import sampling
from .base import graft
from .objectives import Objective, derivative
from .pathwise import Pathwise


class _OneStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, z: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.change = change
        return z.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        return ctx.change(g).sum(0), None, None


class IMLE(Pathwise):
    r"""Implicit maximum likelihood: the draw against the one that the same noise gives for better logits.

    The better logits are one step of length ``step`` down the objective's derivative at the draw; the gradient
    is the difference of the two draws over ``step``. It is exactly 0 whenever the step changes no draw: a small
    step gives rare and large gradients (for a linear objective of the right mean, in the limit), a large one
    frequent and small ones, further from the truth. The authors' code does not divide by the step: there the learning
    rate has to make up for it.

    The Gumbel noise is what makes the draws those of the categorical variables. One evaluation; the derivative
    costs a second backward pass through the objective, since the gradient is not linear in it. For the same reason
    ``rsample`` steps along the derivative of the loss itself: in a mean over B examples that is B times shorter.

    References:
        | Implicit MLE: Backpropagating Through Discrete Exponential Family Distributions (Niepert et al., 2021)
        | https://arxiv.org/abs/2106.01798

    Arguments:
        step: From the logits to the better ones, in units of the derivative; above 0.
    """

    target, compiles = "expectation", False
    worth_trying = ({"step": 1.0}, {"step": 10.0})  # which is best depends on the size of the objective

    def __init__(self, step: float = 1.0):
        super().__init__()
        self.step = positive(step=step)

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        perturbed = logits.detach() + sampling.gumbel(logits, 1)
        z = sampling.one_hot(perturbed.argmax(-1), logits).requires_grad_()
        cost = objective(z)[0]
        g = derivative(cost.unsqueeze(0), z)
        return graft(cost, logits, self.change(perturbed, z, g)[0])

    def draw(self, logits: Tensor) -> Tensor:
        perturbed = logits.detach() + sampling.gumbel(logits, 1)
        z = sampling.one_hot(perturbed.argmax(-1), logits)
        return _OneStep.apply(logits, z, lambda g: self.change(perturbed, z, g).to(logits.dtype))

    def change(self, perturbed: Tensor, z: Tensor, g: Tensor) -> Tensor:
        r"""The draws z less those of better logits, over the step, ``[1, *batch, K, C]``; g is the derivative at z."""
        return (z - sampling.one_hot((perturbed - self.step * g).argmax(-1), z)) / self.step
