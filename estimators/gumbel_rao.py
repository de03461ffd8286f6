import torch
from torch import Tensor

from estimators import sampling
from estimators.base import at_least
from estimators.gumbel_softmax import Temperature
from estimators.straight_through import PulledBack


class GumbelRao(PulledBack):
    r"""Straight-through Gumbel-softmax with its noise, given the draw, averaged out of the Jacobian.

    The Jacobian of the relaxed sample is a mean over ``noises`` draws of the Gumbel noise among those that
    lead to the same category; one evaluation of the objective however many they are. Its expectation is that of
    :class:`StraightThroughGumbelSoftmax`, bias included, and its variance is no larger: use more noises where
    low temperatures are wanted. With a single one it is that estimator, at a higher price. No gradient flows
    through the conditional noise: with one the expectation would be another.

    References:
        | Rao-Blackwellizing the Straight-Through Gumbel-Softmax Gradient Estimator (Paulus et al., 2021)
        | https://arxiv.org/abs/2010.04838

    Arguments:
        noises: Number of conditional noises, at least 1.
        temperature: Of the relaxed sample, above 0; with ``rate``, ``floor`` and ``every`` as in
            :class:`Temperature`.
        rate: Decay of the temperature per optimiser step; 0 keeps it fixed.
        floor: Lowest temperature of the schedule.
        every: Optimiser steps between updates of the schedule.
    """

    def __init__(
        self, noises: int = 10, temperature: float = 1.0, rate: float = 0.0, floor: float = 0.5, every: int = 500
    ):
        super().__init__()
        self.noises = at_least(1, noises=noises)
        self.temperature = Temperature(temperature, rate, floor, every, learned=False)

    def pullback(self, logits, hard):
        return mean_jacobian(logits.log_softmax(-1), hard, self.noises, float(self.temperature()))

    def advance(self):
        self.temperature.advance()


def mean_jacobian(log_p: Tensor, hard: Tensor, noises: int, temperature: float):
    r"""Pullback through relaxed samples, averaged over Gumbel noise that leads to the draws ``hard``.

    Arguments:
        log_p: Logarithms of the probabilities, ``[*batch, K, C]`` or ``[1, *batch, K, C]``.
        hard: One-hot draws, ``[1, *batch, K, C]``.
        noises: Number of conditional noises.
        temperature: Of the relaxed samples.
    """
    perturbed = conditional_gumbel(log_p, hard, noises)
    y = perturbed.div_(temperature).softmax(-1)  # [noises, *batch, K, C]

    def pullback(g):
        inner = (y * g).sum(-1, keepdim=True)
        return (y.mean(0, keepdim=True) * g - (y * inner).mean(0, keepdim=True)) / temperature

    return pullback


def conditional_gumbel(log_p: Tensor, hard: Tensor, noises: int) -> Tensor:
    r"""Perturbed logits ``log_p + Gumbel noise`` given where their maximum is: ``[noises, *batch, K, C]``.

    With exponential clocks E, the maximum is :math:`-\log E_i` at the drawn category i, and the others are
    :math:`-\log(E_j / p_j + E_i)`, with one :math:`E_i` for all of them.

    Arguments:
        log_p: Logarithms of probabilities that sum to 1, ``[*batch, K, C]`` or ``[1, *batch, K, C]``.
        hard: One-hot vectors of the maxima, ``[1, *batch, K, C]``.
        noises: Number of draws.
    """
    drawn = hard.bool()
    noise = sampling.gumbel(hard[0], noises)
    top = noise.masked_fill(~drawn, 0.0).sum(-1, keepdim=True)
    # An infinite probability leaves E_i alone at the drawn category itself.
    return torch.logaddexp(noise.add_(log_p.masked_fill(drawn, torch.inf)).neg_(), -top).neg_()
