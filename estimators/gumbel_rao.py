from collections.abc import Callable

import torch
from torch import Tensor

from hardmax.checks import at_least

from . import sampling
from .gumbel_softmax import Temperature
from .straight_through import PulledBack


class GumbelRao(PulledBack):
    r"""Straight-through Gumbel-softmax with its noise, given the draw, averaged out of the Jacobian.

    The Jacobian of the relaxed sample is a mean over ``noises`` draws of the Gumbel noise among those that
    lead to the same category; one evaluation of the objective however many they are. Its expectation is that of
    :class:`StraightThroughGumbelSoftmax`, bias included, and its variance is no larger: use more noises where
    low temperatures are wanted. With a single one it is that estimator, at a higher price. The conditional
    noise is held constant in the backward pass: a gradient through it would change the expectation.

    References:
        | Rao-Blackwellizing the Straight-Through Gumbel-Softmax Gradient Estimator (Paulus et al., 2021)
        | https://arxiv.org/abs/2010.04838

    Arguments:
        noises: Number of conditional noises, at least 1.
        temperature: Of the relaxed sample, above 0; with ``rate``, ``floor`` and ``every`` as in
            :class:`Temperature`.
        rate: Decay of the temperature per optimiser step; 0 keeps it fixed.
        floor: Lowest temperature of the schedule.
        every: Optimiser steps between updates by the rate.
        annealing, over: A number of steps in place of the rate; see :class:`Temperature`.
    """

    worth_trying = ({"temperature": 0.3}, {"temperature": 1.0})  # Paulus et al. tune it, below 1

    def __init__(
        self,
        noises: int = 10,
        temperature: float = 1.0,
        rate: float = 0.0,
        floor: float = 0.5,
        every: int = 500,
        annealing: str = "exponential",
        over: int | None = None,
    ):
        super().__init__()
        self.noises = at_least(1, noises=noises)
        self.temperature = Temperature(temperature, rate, floor, every, False, annealing, over)

    def pullback(self, logits: Tensor, hard: Tensor) -> Callable[[Tensor], Tensor]:
        return mean_jacobian(logits.log_softmax(-1), hard, self.noises, self.temperature())

    def advance(self) -> None:
        self.temperature.advance()


def mean_jacobian(log_p: Tensor, hard: Tensor, noises: int, temperature: Tensor | float) -> Callable[[Tensor], Tensor]:
    r"""Pullback through relaxed samples, averaged over Gumbel noise that leads to the draws ``hard``.

    Arguments:
        log_p: Logarithms of probabilities that sum to 1, ``[*batch, K, C]`` or ``[1, *batch, K, C]``.
        hard: One-hot draws, ``[1, *batch, K, C]``.
        noises: Number of conditional noises.
        temperature: Of the relaxed samples.
    """
    y = behind(log_p, hard, noises).div_(temperature).softmax(1)

    def pullback(g: Tensor) -> Tensor:
        g = g.movedim(-1, 1).contiguous()
        centred = torch.sub(g, (y * g).sum(1, keepdim=True)).mul_(y)  # as through_softmax, in the same memory
        return centred.mean(0, keepdim=True).movedim(1, -1) / temperature

    return pullback


def behind(log_p: Tensor, hard: Tensor, noises: int) -> Tensor:
    r"""``log_p`` + Gumbel noise, minus its maximum, given where that is: ``[noises, C, *batch, K]``.

    With Exp(1) clocks E, the maximum is :math:`-\log E_i`, i the drawn category, and the others are
    :math:`-\log(E_j / p_j + E_i)`, with one :math:`E_i` for all of them; so j lies
    :math:`\log(p_j + E_j / E_i) - \log p_j` behind. The clocks are never 0 nor infinite, so that their ratio needs no
    logarithm. Categories come early, as a softmax over them is then much faster.

    Arguments:
        log_p: Logarithms of probabilities that sum to 1, ``[*batch, K, C]`` or ``[1, *batch, K, C]``.
        hard: One-hot vectors of the maxima, ``[1, *batch, K, C]``.
        noises: Number of draws.
    """
    log_p, drawn = (x.movedim(-1, 0).contiguous() for x in (log_p.expand_as(hard)[0], hard[0].to(log_p.dtype)))
    clock = sampling.uniform(log_p, noises).log_()  # its negative
    first = (clock * drawn).sum(1, keepdim=True)
    return (log_p - clock.div_(first).add_(log_p.exp()).log_()).mul_(1 - drawn)
