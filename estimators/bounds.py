import math

import torch
from torch import Tensor

from hardmax.checks import at_least

from . import sampling
from .base import Estimator, graft
from .objectives import Objective


class VIMCO(Estimator):
    r"""Gradient of the multi-sample bound: each draw's score with a baseline made of the other draws.

    With log-weights l, minus the costs of S draws, the value is minus the bound
    :math:`L = \log \frac1S \sum_s e^{l_s}`, and the score of draw s has the weight :math:`L - L_{-s}`, where
    :math:`L_{-s}` has the mean of the other log-weights in the place of :math:`l_s`. A sampled KL divergence makes
    L the importance-weighted bound on the log-likelihood: log q(z) belongs inside it, gradients included. With an
    analytic KL divergence outside it bounds nothing. With more draws the bound is tighter, but its gradient
    tells less about q.

    With gradients disabled its one evaluation gives the bound of a single draw.

    References:
        | Variational Inference for Monte Carlo Objectives (Mnih and Rezende, 2016)
        | https://arxiv.org/abs/1602.06725

    Arguments:
        samples: Number S of draws, at least 2.
    """

    target, unbiased, differentiates_objective, attaches_log_q = "bound", True, False, True
    evaluations = "S"
    worth_trying = ({"samples": 4}, {"samples": 10})  # Mnih and Rezende use 2 to 50: the bound is then another

    def __init__(self, samples: int = 4):
        super().__init__()
        self.samples = at_least(2, samples=samples)

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        z = sampling.draw(logits, self.samples)  # [S, *batch, K, C]
        log_weight = -objective(z)  # [S, *batch]
        return with_scores(log_weight, self.weights(log_weight.detach()), z, logits)

    def weights(self, log_weight: Tensor) -> Tensor:
        r"""What the gradient of log q of each draw is multiplied by, from log-weights: both ``[S, *batch]``."""
        return self.without_each(log_weight) - log_mean_exp(log_weight, 0)

    def without_each(self, log_weight: Tensor) -> Tensor:
        r"""The bound with one log-weight after the other replaced by the mean of the others: ``[S, *batch]``."""
        S = len(log_weight)
        own = torch.eye(S, dtype=torch.bool, device=log_weight.device).reshape(S, S, *[1] * (log_weight.ndim - 1))
        mean = log_weight.masked_fill(own, 0.0).sum(1, keepdim=True) / (S - 1)  # [S, 1, *batch]
        return log_mean_exp(torch.where(own, mean, log_weight), 1)


class ArithmeticVIMCO(VIMCO):
    r"""VIMCO with the arithmetic mean of the other weights in the place of each: the bound of the others alone.

    Its :math:`L_{-s}` is the logarithm of the mean of the other S - 1 weights. Where one weight is far larger than the
    others, the geometric mean of :class:`VIMCO` stays with the others and this one goes with the largest: try both.

    References:
        | Variational Inference for Monte Carlo Objectives (Mnih and Rezende, 2016), who mention it
        | https://arxiv.org/abs/1602.06725

    Arguments:
        samples: Number S of draws, at least 2.
    """

    worth_trying = ({"samples": 4}, {"samples": 10})  # as for VIMCO

    def without_each(self, log_weight: Tensor) -> Tensor:
        return others_log_sum(log_weight) - math.log(self.samples - 1)


class ReweightedWakeSleep(VIMCO):
    r"""Fits q to the posterior that draws of q, importance-weighted, stand for; the bound's gradient for all else.

    The wake-phase update of q. With normalised weights :math:`w_s \propto e^{-\mathrm{cost}_s}` of S draws its gradient
    is :math:`-\sum_s w_s \nabla \log q(z_s)`: with a sampled KL divergence an estimate of the gradient of KL(posterior,
    q), whose mean is under the posterior, consistent but biased for finite S. That is no gradient of the value, minus
    the bound, which only the objective's own parameters follow. It asks for many draws: where few carry weight, q
    chases them. There is no sleep phase, draws from the model being nothing an objective offers.

    With gradients disabled its one evaluation gives the bound of a single draw.

    References:
        | Reweighted Wake-Sleep (Bornschein and Bengio, 2015)
        | https://arxiv.org/abs/1406.2751
        | Revisiting Reweighted Wake-Sleep for Models with Stochastic Control Flow (Le et al., 2019)
        | https://arxiv.org/abs/1805.10469

    Arguments:
        samples: Number S of draws, at least 2.
    """

    unbiased, attaches_log_q = False, False
    also_known_as = ("RWS", "wake-wake")
    worth_trying = ({"samples": 4}, {"samples": 10})  # Bornschein and Bengio use 5 and more

    def weights(self, log_weight: Tensor) -> Tensor:
        return -log_weight.softmax(0)


def with_scores(log_weight: Tensor, weight: Tensor, z: Tensor, logits: Tensor) -> Tensor:
    r"""Minus the bound of log-weights ``[S, *batch]``, with the gradient of the sum of ``weight * log q(z)``."""
    gradient = (weight[..., None, None] * z).sum(0) - weight.sum(0)[..., None, None] * logits.softmax(-1)
    return graft(-log_mean_exp(log_weight, 0), logits, gradient)


def others_log_sum(x: Tensor) -> Tensor:
    r"""log of the sum of exp(x) ``[S, *batch]`` over all draws but one, for each: of the same shape."""
    own = torch.eye(len(x), dtype=torch.bool, device=x.device).reshape(len(x), len(x), *[1] * (x.ndim - 1))
    return torch.where(own, -torch.inf, x).logsumexp(1)


def log_mean_exp(x: Tensor, dim: int) -> Tensor:
    r"""log of the mean of exp(x) over ``dim``."""
    return x.logsumexp(dim) - math.log(x.shape[dim])
