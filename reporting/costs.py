r"""What tuned estimators reach at every budget, and which of them are best there."""

import functools
from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np

from .statistics import Mean, mean_of
from .tuning import Entry, Tuned, chosen_at, figure_of
from .validation import X_AXES, CostLimit

POINTS_OF_BUDGETS = 60
OFFERED = 4  # budgets of an axis among which a page lets its reader choose
ROUND = (1, 2, 5)


@dataclass
class Reached:
    r"""The best validation figure of an entry up to every budget, at the setting that is best up to there.

    Attributes:
        label, axis: Of whom, against what.
        amounts: Budgets ``[n]``.
        means: Over the reported runs, at each.
        settings: What is chosen at each.
    """

    label: str
    axis: str
    amounts: list[float] = field(default_factory=list)
    means: list[Mean] = field(default_factory=list)
    settings: list[dict[str, str]] = field(default_factory=list)


def budget_grid(tuned: Tuned, axis: str) -> np.ndarray:
    r"""Budgets ``[n]``, evenly on a logarithmic axis, from the first row of any run to the last; none without rows."""
    found = [run.validation[tuned.metric] for e in tuned.entries for run in e.runs if tuned.metric in run.validation]
    spent = np.concatenate([[0.0], *(validation.best[:, X_AXES.index(axis)] for validation in found)])
    spent = spent[np.isfinite(spent) & (spent > 0)]
    if not len(spent):
        return np.empty(0)
    return np.geomspace(spent.min(), spent.max(), POINTS_OF_BUDGETS) if spent.min() < spent.max() else spent[:1]


@functools.cache
def reached(tuned: Tuned, axis: str) -> list[Reached]:
    r"""Of every entry, in their order, along an axis; each up to where the last of its runs ends."""
    amounts = budget_grid(tuned, axis)
    found = [reached_by(entry, tuned, axis, amounts) for entry in tuned.entries]
    return [one for one in found if one.amounts]


def reached_by(entry: Entry, tuned: Tuned, axis: str, amounts: np.ndarray) -> Reached:
    ends = [of_run.end(axis) for run in entry.runs if (of_run := run.validation.get(tuned.metric))]
    last, found = max((end for end in ends if np.isfinite(end)), default=0.0), Reached(entry.label, axis)
    for amount in amounts[amounts <= last * (1 + 1e-9)].tolist():
        budget = CostLimit(axis, amount)
        own = chosen_at(entry, tuned.metric, tuned.words.better, budget)
        values = [v for run in own.reported if (v := figure_of(run, tuned.metric, budget)) is not None]
        if own.chosen and values:
            found.amounts.append(amount)
            found.means.append(mean_of(values))
            found.settings.append(own.chosen.values)
    return found


def front(found: list[Reached], better: int) -> list[tuple[float, float, str]]:
    r"""Along the budgets: each, the best figure that any entry reaches up to it, and the label of that entry."""
    amounts = sorted({amount for one in found for amount in one.amounts})
    points: list[tuple[float, float, str]] = []
    for amount in amounts:
        there = [(one, bisect_right(one.amounts, amount) - 1) for one in found]
        scores = [(better * one.means[n].value, one.label) for one, n in there if n >= 0]
        value, label = max(scores, key=lambda score: score[0])
        points.append((amount, better * value, label))
    return points


def leaders(points: list[tuple[float, float, str]]) -> list[tuple[float, str]]:
    r"""Who is best from which budget on, along a front."""
    found: list[tuple[float, str]] = []
    for amount, _, label in points:
        if not found or found[-1][1] != label:
            found.append((amount, label))
    return found


def offered_budgets(tuned: Tuned, axis: str) -> list[CostLimit]:
    r"""A few round budgets of an axis, the largest last, up to what the longest run spent."""
    amounts = budget_grid(tuned, axis)
    if not len(amounts):
        return []
    powers = range(int(np.floor(np.log10(amounts[0]))), int(np.ceil(np.log10(amounts[-1]))) + 1)
    found = [digit * 10.0**power for power in powers for digit in ROUND]
    return [CostLimit(axis, float(f"{a:.1g}")) for a in found if amounts[0] <= a <= amounts[-1] * (1 + 1e-9)][-OFFERED:]
