r"""Curves of groups: runs brought to a common grid, and averaged there."""

from dataclasses import dataclass

import numpy as np

from .groups import Group
from .rounding import ROUNDED_BIAS
from .runs import MEASURED_AT, Run, said_by
from .validation import X_AXES
from .words import by_importance, words

MOST_POINTS = 50_000  # of all curves of a task together, so that a page stays light


@dataclass
class Curve:
    r"""A group's mean along an axis, and the band of one standard error; all are ``[n]``.

    Attributes:
        metric, label, axis: What of which group against what.
        x: Where.
        mean, low, high: There, NaN where a mean of 0 has no place on a logarithmic axis; of biases see
            :func:`with_limits`.
        limit: Whether nothing but an upper limit is known; only for biases.
        runs: Number of runs behind every point.
    """

    metric: str
    label: str
    axis: str
    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    limit: np.ndarray
    runs: int


def drawn(groups: list[Group]) -> tuple[list[str], list[str]]:
    r"""Metrics worth a curve: those that matter most, and the others.

    First the loss, the held-out figure that says most, and variance and bias of the gradient to the logits; where a
    task measures only the one to the parameters, that one and its dead components.
    """
    there = {metric for group in groups for run in group.finished for metric in run.curves}
    said = said_by([run for group in groups for run in group.runs])
    held_out = by_importance({metric for metric in there if metric.startswith("valid/")}, said)
    where = next((w for w in MEASURED_AT if f"gradient/{w}/variance" in there), MEASURED_AT[0])
    first = ["train/loss", *held_out[:1], f"gradient/{where}/variance", f"gradient/{where}/bias2"]
    first += [f"gradient/{where}/dead"] * (where == "encoder")
    first = [metric for metric in first if metric in there]
    gradients = sorted(m for m in there if m.startswith("gradient/") and not m.endswith("_error"))
    others = [metric for metric in held_out + gradients if metric not in first and varies(metric, groups)]
    return first, others


def varies(metric: str, groups: list[Group]) -> bool:
    r"""Whether any run's curve is more than a constant that all share."""
    curves = [run.curves[metric][:, -1] for group in groups for run in group.finished if metric in run.curves]
    return len({value for curve in curves for value in (curve.min(), curve.max())}) > 1


def group_curves(groups: list[Group], metrics: list[str]) -> list[Curve]:
    r"""The curves of all groups against all axes; a group without one has no defined value, or none above 0."""
    most = max(10, MOST_POINTS // max(1, len(groups) * len(metrics) * len(X_AXES)))
    found = [curve_of(group, metric, axis, most) for metric in metrics for axis in X_AXES for group in groups]
    return [curve for curve in found if curve is not None]


def curve_of(group: Group, metric: str, axis: str, most: int) -> Curve | None:
    r"""One curve on at most so many points, or None where nothing can be drawn.

    A run without a value of its own keeps the group from having a mean, as one of the others alone would be another.
    Means along a logarithmic axis are geometric, and plain ones where any value is 0: those of 0 are gaps (NaN).
    """
    biased = metric.endswith("/bias2")
    runs = [known_part(run, metric, axis) for run in group.finished]
    if not runs or min(map(len, runs)) == 0:
        return None
    positive = words(metric, {}).log and not biased
    log = positive and min(run[:, 1].min() for run in runs) > 0
    x = common_grid([run[:, 0] for run in runs], most)
    values = np.stack([np.interp(x, run[:, 0], np.log10(run[:, 1]) if log else run[:, 1]) for run in runs])
    mean, error = mean_and_error(values)
    limit = np.zeros(len(x), bool)
    if biased:
        errors = [np.interp(x, *known_part(run, f"{metric}_error", axis).T) for run in group.finished]
        error = np.maximum(error, np.sqrt(np.square(errors).sum(0)) / len(runs))
        mean, low, high, limit = with_limits(mean, error)
        if not (above := mean > 0).any():
            return None
        x, mean, low, high, limit = (values[above] for values in (x, mean, low, high, limit))
    else:
        low, high = mean - error, mean + error
    if log:
        mean, low, high = 10**mean, 10**low, 10**high
    elif positive:
        if not (above := mean > 0).any():
            return None
        mean = np.where(above, mean, np.nan)
        factor = np.exp(error / mean)  # an error that is as large as the mean would reach to 0
        low, high = mean / factor, mean * factor
    return Curve(metric, group.label, axis, x, mean, low, high, limit, len(runs))


def known_part(run: Run, metric: str, axis: str) -> np.ndarray:
    r"""Rows ``[n, 2]`` of a run's curve: positions on an axis, and values, where both are known."""
    curve = run.curves.get(metric, np.empty((0, 1 + len(X_AXES))))[:, [X_AXES.index(axis), -1]]
    return curve[np.isfinite(curve).all(1)]


def common_grid(positions: list[np.ndarray], most: int) -> np.ndarray:
    r"""Where all runs are compared: at their own positions if they share them, else evenly over what all cover."""
    first = positions[0]
    if len(first) <= most and all(np.array_equal(first, other) for other in positions):
        return first
    start, end = max(p[0] for p in positions), min(p[-1] for p in positions)
    return np.linspace(start, max(start, end), min(most, max(map(len, positions))))


def mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Mean and standard error ``[n]`` of values ``[runs, n]``; a single run has an error of 0."""
    runs = len(values)
    error = values.std(0, ddof=1) / np.sqrt(runs) if runs > 1 else np.zeros(values.shape[1])
    return values.mean(0), error


def with_limits(square: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    r"""Bias from its debiased square and that one's standard error: the value, its band, and whether it is a limit.

    The square is averaged before the root is taken, as the roots of noise would not average out. A bias that is within
    two standard errors of 0 cannot be told from it: its upper limit takes its place, two errors above. One that is
    rounding is 0.

    Arguments:
        square, error: Both over the squared norm of the true gradient.
    """
    rounding = np.maximum(square, np.nan_to_num(error)) <= ROUNDED_BIAS**2
    square, error = np.where(rounding, 0.0, square), np.where(rounding, 0.0, error)
    limit = ~(square > 2 * np.nan_to_num(error)) & ~rounding
    highest = np.maximum(square, 0) + 2 * error
    value = np.sqrt(np.where(limit, highest, square))
    low, high = np.sqrt(np.maximum(square - error, 0)), np.sqrt(np.maximum(square, 0) + error)
    return value, np.where(limit, value, low), np.where(limit, value, high), limit
