r"""How the model's learning rate changes in the course of a run."""

import math

from hardmax.checks import at_least, fraction

ROUNDING = 1e-9  # of a share of steps, less than a step of any run


class Constant:
    r"""The learning rate stays as it is."""

    def __call__(self, done: float) -> float:
        return 1.0


class WarmupCosine:
    r"""The learning rate rises in a straight line, then falls to 0 along half a cosine.

    Arguments:
        warmup: Share of the steps in which it rises.
        start: What it rises from, as a share of the learning rate.
        moves: Number of parts of equal length, such as epochs, in each of which it stands still; None: it moves with
            every step.
    """

    def __init__(self, warmup: float = 0.02, start: float = 0.001, moves: int | None = None):
        self.warmup, self.start = fraction(warmup=warmup), fraction(start=start)
        self.moves = None if moves is None else at_least(1, moves=moves)

    def __call__(self, done: float) -> float:
        r"""The factor of the learning rate when this share of the steps is done, in [0, 1)."""
        if self.moves is not None:
            done = math.floor(done * self.moves + ROUNDING) / self.moves
        if done < self.warmup:
            return self.start + (1 - self.start) * done / self.warmup
        return 0.5 * (1 + math.cos(math.pi * (done - self.warmup) / (1 - self.warmup)))
