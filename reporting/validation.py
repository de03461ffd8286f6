r"""Validation figures of runs: what a run ends with, and the best up to any budget of steps, evaluations or seconds."""

from dataclasses import dataclass

import numpy as np

from hardmax.harness.contents import is_figure
from hardmax.harness.shared import Refused

from .words import AXES

X_AXES = tuple(AXES)


@dataclass
class Validation:
    r"""One validation figure of a run.

    Attributes:
        final: Of the parameters that the run ended with; None if undefined.
        best: The best so far, rows ``[n, 4]`` of steps, evaluations per example, seconds of training, and the figure: a
            line through them is, anywhere, the best of the interpolated curve up to there.
    """

    final: float | None
    best: np.ndarray

    def best_until(self, axis: str, amounts: np.ndarray) -> np.ndarray:
        r"""The best up to each of these amounts; NaN before the first row, and the best of all after the last."""
        known = self.best[np.isfinite(self.best[:, X_AXES.index(axis)])]
        if not len(known):
            return np.full(np.shape(amounts), np.nan)
        return np.interp(amounts, known[:, X_AXES.index(axis)], known[:, -1], left=np.nan)

    def end(self, axis: str) -> float:
        r"""How much of it the run spent up to its last validation; NaN if that is not known."""
        spent = self.best[:, X_AXES.index(axis)]
        return float(max(spent[np.isfinite(spent)], default=np.nan))


def best_so_far(curve: np.ndarray, better: int) -> np.ndarray:
    r"""The best up to any point of a curve through ``[n, 4]``, as such rows: where it begins, ends, and turns.

    Arguments:
        better: 1 if higher values are better, -1 if lower ones are.
    """
    if not len(curve):
        return curve
    value = better * curve[:, -1]
    highest = np.maximum.accumulate(value)
    rises = np.flatnonzero(value[1:] > highest[:-1])
    below, above = curve[rises], curve[rises + 1]
    share = (highest[rises] - value[rises]) / (value[rises + 1] - value[rises])
    meets = below + share[:, None] * (above - below)  # where the curve is back at the best before
    rows = np.stack([meets, above], 1).reshape(-1, curve.shape[1])
    rows = np.concatenate([curve[:1], rows, curve[-1:]])
    rows[:, -1] = better * np.maximum.accumulate(better * rows[:, -1])
    return rows


def validation_of(final: object, curve: np.ndarray, better: int) -> Validation:
    return Validation(float(final) if is_figure(final) else None, best_so_far(curve, better))


@dataclass(frozen=True)
class CostLimit:
    r"""So many steps, evaluations per example, or seconds, that each run may spend."""

    axis: str
    amount: float

    def __str__(self) -> str:
        return f"{self.amount:,.10g} {AXES[self.axis]}"


def budget_of(text: str) -> CostLimit:
    r"""The budget that ``AXIS=AMOUNT`` says.

    Raises:
        Refused: If it says none.
    """
    axis, _, amount = text.partition("=")
    try:
        number = float(amount)
    except ValueError:
        number = -1.0
    if axis not in X_AXES or not (number > 0 and is_figure(number)):
        raise Refused(f"--at {text}: steps=N, evaluations=N or seconds=N is expected, N above 0")
    return CostLimit(axis, number)
