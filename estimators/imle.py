from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hardmax.checks import at_least, one_of, positive

from . import sampling
from .base import RunningMean, graft
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
    noises, symmetric = 1, False

    def __init__(self, step: float = 1.0):
        super().__init__()
        self.step = positive(step=step)

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        perturbed = self.perturbed(logits)
        z = sampling.one_hot(perturbed[:1].argmax(-1), logits).requires_grad_()
        cost = objective(z)[0]
        g = derivative(cost.unsqueeze(0), z)
        return graft(cost, logits, self.change(logits, perturbed, g)[0])

    def draw(self, logits: Tensor) -> Tensor:
        perturbed = self.perturbed(logits)
        z = sampling.one_hot(perturbed[:1].argmax(-1), logits)
        return _OneStep.apply(logits, z, lambda g: self.change(logits.detach(), perturbed, g).to(logits.dtype))

    def perturbed(self, logits: Tensor) -> Tensor:
        r"""Logits plus noise, ``[noises, *batch, K, C]``; the first of them makes the draw."""
        return logits.detach() + sampling.gumbel(logits, self.noises)

    def change(self, logits: Tensor, perturbed: Tensor, g: Tensor) -> Tensor:
        r"""The mean difference of draws over the step between their logits, ``[1, *batch, K, C]``.

        Arguments:
            logits: ``[*batch, K, C]``.
            perturbed: The same plus noise, ``[noises, *batch, K, C]``.
            g: Derivative at the draw, ``[1, *batch, K, C]``.
        """
        step = self.step_for(logits, g)
        worse = perturbed + step * g if self.symmetric else perturbed
        apart = sampling.one_hot(worse.argmax(-1), g) - sampling.one_hot((perturbed - step * g).argmax(-1), g)
        return (apart / (2 * step if self.symmetric else step)).mean(0, keepdim=True)

    def step_for(self, logits: Tensor, g: Tensor) -> Tensor | float:
        r"""Length of the step in units of the derivative g, a number or ``[1, *batch, 1, 1]``."""
        return self.step


class BlackBox(IMLE):
    r"""Differentiation of a black box: the most probable categories against those of better logits.

    :class:`IMLE` without noise: no variance, and nothing is explored. The gradient is exactly 0 wherever the step does
    not change the most probable category, the more often the surer the model; the costs of categories that the step
    does not reach have no part in it, however small they are. Where draws will be used in the end, or the logits are
    far apart, prefer :class:`IMLE`. What is black in the paper's name is the solver, which chooses; a cost of which
    only values are known has no derivative, and needs another estimator.

    References:
        | Differentiation of Blackbox Combinatorial Solvers (Vlastelica et al., 2020)
        | https://arxiv.org/abs/1912.02175

    Arguments:
        step: From the logits to the better ones, in units of the derivative; above 0.
    """

    target = "mode"
    worth_trying = ({"step": 1.0}, {"step": 10.0})  # which is best depends on the size of the objective

    def perturbed(self, logits: Tensor) -> Tensor:
        return logits.detach().to(torch.promote_types(logits.dtype, torch.float32)).unsqueeze(0)


class SymmetricIMLE(IMLE):
    r"""Implicit maximum likelihood with a central difference: draws of better logits against those of worse ones.

    Both are ``step`` away, down and up the objective's derivative, and have the noise of the draw. For a linear
    objective the mean is mostly nearer to the truth than that of :class:`IMLE` with the same step, the surer the
    smaller the step; for others it is as biased, and :class:`ReinMax` is better. With more noises its variance is less,
    at the same one evaluation.

    References:
        | Adaptive Perturbation-Based Gradient Estimation for Discrete Latent Variable Models (Minervini et al., 2023)
        | https://arxiv.org/abs/2209.04862

    Arguments:
        step: From the logits to the better and to the worse ones, in units of the derivative; above 0.
        noises: Over how many noises the difference is averaged, at least 1; the draw is that of the first.
    """

    worth_trying = ({"step": 1.0}, {"step": 10.0})  # as for implicit MLE
    symmetric = True

    def __init__(self, step: float = 1.0, noises: int = 1):
        super().__init__(step)
        self.noises = at_least(1, noises=noises)


class SumOfGammaIMLE(IMLE):
    r"""Implicit maximum likelihood with sum-of-gamma noise, of which ``k`` together are nearly one Gumbel noise.

    Made for choices of ``k`` among many, whose noises then add up to one that is nearly Gumbel. For a single category,
    as here, ``k=1`` is right: its draws have the softmax's probabilities but for the finite number of terms. With
    another k the noise is weaker and the draws sharper. Use it to repeat what others have done, and else :class:`IMLE`.

    References:
        | Implicit MLE: Backpropagating Through Discrete Exponential Family Distributions (Niepert et al., 2021)
        | https://arxiv.org/abs/2106.01798

    Arguments:
        step: From the logits to the better ones, in units of the derivative; above 0.
        noises: Over how many noises the difference is averaged, at least 1; the draw is that of the first.
        symmetric: Whether better logits are compared with worse ones, as far away, instead of the draw's.
        k: How many noises together are nearly a Gumbel noise, at least 1.
        terms: Number of gamma variables in a noise, at least 1.
    """

    target = "draws"
    worth_trying = ({"step": 1.0}, {"step": 10.0})  # as for implicit MLE

    def __init__(self, step: float = 1.0, noises: int = 1, symmetric: bool = False, k: int = 1, terms: int = 10):
        super().__init__(step)
        self.noises, self.symmetric = at_least(1, noises=noises), one_of([True, False], symmetric=symmetric)
        self.k, self.terms = at_least(1, k=k), at_least(1, terms=terms)

    def perturbed(self, logits: Tensor) -> Tensor:
        return logits.detach() + sampling.sum_of_gamma(logits, self.noises, self.k, self.terms)


class AdaptiveIMLE(IMLE):
    r"""Implicit maximum likelihood with a step that grows while gradients are too sparse, and shrinks otherwise.

    The step is ``beta`` times the norm of an example's logits over that of its derivative; after every optimiser step
    beta moves by ``speed``, up while fewer than ``entries`` of an example's gradient are other than 0 on a running
    average, and else down. So the size of the objective does not matter, and there is no step to tune. The gradient is
    that of :class:`SymmetricIMLE` or :class:`IMLE`, and as biased. An example whose logits are all 0 has steps of
    length 0, and gets no gradient: do not begin with such. The released code takes the norms over the whole batch,
    and with S noises its gradient is the root of S times as long; here examples are independent.

    References:
        | Adaptive Perturbation-Based Gradient Estimation for Discrete Latent Variable Models (Minervini et al., 2023)
        | https://arxiv.org/abs/2209.04862

    Arguments:
        noises: Over how many noises the difference is averaged, at least 1; the draw is that of the first.
        symmetric: Whether better logits are compared with worse ones, as far away, instead of the draw's.
        beta: At the start, above 0.
        speed: Change of beta per optimiser step; 0 keeps it fixed.
        entries: How many of a gradient's entries should be other than 0, above 0.
        decay: Of the running average of their number, per optimiser step, from 0 up to but not including 1.
    """

    learns = "the step"
    worth_trying = ({"entries": 1.0}, {"entries": 10.0})  # what the authors take, and denser gradients

    beta: Tensor

    def __init__(
        self,
        noises: int = 1,
        symmetric: bool = True,
        beta: float = 1.0,
        speed: float = 0.001,
        entries: float = 1.0,
        decay: float = 0.9,
    ):
        super().__init__()
        self.noises, self.symmetric = at_least(1, noises=noises), one_of([True, False], symmetric=symmetric)
        self.speed, self.entries = 0.0 if speed == 0 else positive(speed=speed), positive(entries=entries)
        self.number = RunningMean(decay)
        self.register_buffer("beta", torch.tensor(positive(beta=beta), dtype=torch.float64))

    def change(self, logits: Tensor, perturbed: Tensor, g: Tensor) -> Tensor:
        found = super().change(logits, perturbed, g)
        if self.training:
            self.number.note((found != 0).sum((-2, -1)).double().mean())
        return found

    def step_for(self, logits: Tensor, g: Tensor) -> Tensor:
        wide = torch.promote_types(g.dtype, torch.float32)
        possible = logits.to(wide).masked_fill(logits == -torch.inf, 0.0)
        of_logits, of_g = (torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True) for x in (possible, g.to(wide)))
        return (self.beta.to(wide) * of_logits / of_g).masked_fill(of_g == 0, 0.0).clamp(min=1e-30)

    def advance(self) -> None:
        if not self.number.pending:
            return
        self.number.advance()
        up = self.number() < self.entries
        self.beta.add_(torch.where(up, self.speed, -self.speed)).clamp_(min=0)
