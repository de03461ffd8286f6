import math

import torch
from torch import Tensor

from hardmax.checks import at_least, positive

from . import sampling
from .bounds import ArithmeticVIMCO, log_mean_exp, others_log_sum, with_scores
from .objectives import Objective, depends_on


class OVISMonteCarlo(ArithmeticVIMCO):
    r"""Gradient of the multi-sample bound, each draw's baseline being the mean over other draws in its place.

    With log-weights l, minus the costs of S draws, the bound is :math:`L = \log \frac1S \sum_s e^{l_s}`. The score of
    draw s has the weight :math:`L - v_s`, where :math:`v_s` is its share of the weights, less a baseline: the mean of
    :math:`L - v_s` as each of ``auxiliary`` further draws takes its place. The term :math:`v_s` is there only with a
    sampled KL divergence, as it comes from the derivative of log q(z). Where evaluations are dear, :class:`VIMCO` makes
    more of the same number: auxiliary draws do not tighten the bound.

    With gradients disabled its one evaluation gives the bound of a single draw.

    References:
        | Optimal Variance Control of the Score-Function Gradient Estimator for Importance-Weighted Bounds
          (Liévin et al., 2020)
        | https://arxiv.org/abs/2008.01998

    Arguments:
        samples: Number S of draws, at least 2.
        auxiliary: Number of draws that take the place of each, at least 1; evaluated without gradients.
    """

    compiles = False
    worth_trying = ({"samples": 4}, {"samples": 10})  # as for VIMCO

    def __init__(self, samples: int = 4, auxiliary: int = 1):
        super().__init__(samples)
        self.auxiliary = at_least(1, auxiliary=auxiliary)
        self.evaluations = f"S + {auxiliary}"

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        z = sampling.draw(logits, self.samples)  # [S, *batch, K, C]
        log_weight = -objective(z)  # [S, *batch]
        with torch.no_grad():
            other = -objective(sampling.draw(logits, self.auxiliary))  # [auxiliary, *batch]
        total = torch.logaddexp(others_log_sum(log_weight.detach()).unsqueeze(1), other)  # [S, auxiliary, *batch]
        baseline = total - math.log(self.samples)
        if depends_on(log_weight, logits):  # through log q
            baseline = baseline - (other - total).exp()
        weight = baseline.mean(1) - log_mean_exp(log_weight.detach(), 0)
        return with_scores(log_weight, weight, z, logits)


class OVISAsymptotic(ArithmeticVIMCO):
    r"""As :class:`OVISMonteCarlo`, with what its baseline tends to as the number of draws grows: no other draws.

    The baseline of draw s is :math:`\log Z_{-s} - \gamma v_s + (1 - \gamma) \log(1 - 1/S)`, where :math:`Z_{-s}` is the
    mean of the other weights: ``gamma`` is 1 where many draws carry weight, and 0 where one does. As :math:`v_s` is the
    draw's own, the gradient is biased for any ``gamma`` but 0 with a sampled KL divergence, which alone has the term:
    with 1 and even weights it is about S times that of the bound. Do not compare its length with others'.

    With gradients disabled its one evaluation gives the bound of a single draw.

    References:
        | Optimal Variance Control of the Score-Function Gradient Estimator for Importance-Weighted Bounds
          (Liévin et al., 2020)
        | https://arxiv.org/abs/2008.01998

    Arguments:
        samples: Number S of draws, at least 2.
        gamma: From 0 to 1.

    Raises:
        ValueError: For a gamma above 1.
    """

    compiles = False
    also_known_as = ("OVIS",)
    worth_trying = ({"gamma": 0.0}, {"gamma": 1.0})  # the two that Liévin et al. compare

    def __init__(self, samples: int = 4, gamma: float = 1.0):
        super().__init__(samples)
        self.gamma = 0.0 if gamma == 0 else positive(gamma=gamma)
        if gamma > 1:
            raise ValueError(f"gamma must be from 0 to 1, got {gamma}")
        self.unbiased = gamma == 0

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        z = sampling.draw(logits, self.samples)  # [S, *batch, K, C]
        log_weight = -objective(z)  # [S, *batch]
        values = log_weight.detach()
        baseline = self.without_each(values) + (1 - self.gamma) * math.log1p(-1 / self.samples)
        if depends_on(log_weight, logits):  # through log q
            baseline = baseline - self.gamma * values.softmax(0)
        return with_scores(log_weight, baseline - log_mean_exp(values, 0), z, logits)
