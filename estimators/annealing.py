r"""How temperatures, and what takes their place, move in a given number of optimiser steps."""

import math

import torch
from torch import Tensor

from hardmax.checks import at_least, one_of

from .base import remind

ANNEALING = ("exponential", "linear", "cosine")


def check_annealing(annealing: str, over: int | None, rate: float, by_rate: str) -> None:
    r"""Refuses options of a schedule that contradict each other.

    Arguments:
        annealing: One of ``ANNEALING``.
        over: Optimiser steps from start to end; None: the rate says how fast it goes.
        rate: Change per optimiser step.
        by_rate: The one of ``ANNEALING`` that a rate means.

    Raises:
        ValueError: For both a rate and a number of steps, and for neither where another annealing is asked for.
    """
    one_of(ANNEALING, annealing=annealing)
    if over is not None and at_least(1, over=over) and rate:
        raise ValueError(
            f"rate must be 0 with over={over}, got {rate}: a number of steps or a rate says how fast it goes"
        )
    if over is None and annealing != by_rate:
        raise ValueError(f"over must be the number of steps from start to end with annealing={annealing}, got None")


def annealed(start: float, end: float, share: Tensor, annealing: str) -> Tensor:
    r"""The value after this share of the way from ``start`` to ``end``, a scalar.

    Arguments:
        start, end: Numbers, both above 0 if ``annealing`` is exponential.
        share: Steps done over all steps, a scalar of at least 0; beyond 1 it stays at the end.
        annealing: In a straight line (``linear``), along half a cosine, slowly at both ends (``cosine``), or by the
            same factor in every step (``exponential``).
    """
    share = share.clamp(max=1)
    if annealing == "exponential":
        return start * (share * math.log(end / start)).exp()
    return start + (end - start) * (share if annealing == "linear" else (1 - torch.cos(math.pi * share)) / 2)


class StandsStill:
    r"""Notices a schedule that does not move, for want of :meth:`Estimator.advance`, and warns once.

    Attributes:
        looks: How often a training step has looked at the schedule since it moved.
    """

    def __init__(self) -> None:
        self.looks = 0

    def look(self, training: bool) -> None:
        r"""Counts a look at the schedule, if it is one of a training step."""
        if training and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            self.looks += 1
            remind(self.looks, "on a schedule that stands still")
