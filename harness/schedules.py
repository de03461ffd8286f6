r"""How the model's learning rate changes in the course of a run."""

import math

from hardmax.checks import fraction


class Constant:
    r"""The learning rate stays as it is."""

    def __call__(self, done: float) -> float:
        return 1.0


class WarmupCosine:
    r"""The learning rate rises in a straight line, then falls to 0 along half a cosine.

    Arguments:
        warmup: Share of the steps in which it rises.
        start: What it rises from, as a share of the learning rate.
    """

    def __init__(self, warmup: float = 0.02, start: float = 0.001):
        self.warmup, self.start = fraction(warmup=warmup), fraction(start=start)

    def __call__(self, done: float) -> float:
        r"""The factor of the learning rate when this share of the steps is done, in [0, 1)."""
        if done < self.warmup:
            return self.start + (1 - self.start) * done / self.warmup
        return 0.5 * (1 + math.cos(math.pi * (done - self.warmup) / (1 - self.warmup)))
