r"""Every pair of groups: the difference of their means, its interval, and whether it outlives Holm's correction."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from .statistics import (
    FEWEST,
    LEVEL,
    Difference,
    degrees_of_freedom,
    difference,
    is_rounding,
    mean_and_variances,
    samples_of,
)


@dataclass(frozen=True)
class Pair:
    r"""Two groups.

    Attributes:
        first, second: Their labels.
        difference: By how much the first is above the second; None if either has too few runs.
        corrected: The probability of a difference as large by chance, of Student's t, after the correction.
    """

    first: str
    second: str
    difference: Difference | None
    corrected: float | None

    @property
    def significant(self) -> bool:
        return self.corrected is not None and self.corrected <= 1 - LEVEL


def pairs_of(values: dict[str, dict]) -> list[Pair]:
    r"""All pairs of labels with their differences, each tested as one of all that can be.

    Intervals are those of :func:`difference`, of single pairs. Tests are Student's t, of the differences where runs can
    be paired, else Welch's: a correction for many pairs needs tails so far out that resampling a few runs cannot reach
    them, and for single pairs both agree.

    Arguments:
        values: By label, then by seed; labels without values have no pairs.
    """
    there = [label for label, found in values.items() if found]
    both = list(combinations(there, 2))
    chances = [chance(values[a], values[b]) for a, b in both]
    corrected = iter(holm([p for p in chances if p is not None]))
    return [
        Pair(a, b, difference(values[a], values[b]), None if p is None else next(corrected))
        for (a, b), p in zip(both, chances, strict=True)
    ]


def chance(ours: dict, theirs: dict) -> float | None:
    r"""The probability of a difference as large, either way, if there were none; None if either has too few runs."""
    samples, _ = samples_of(ours, theirs)
    if min(map(len, samples)) < FEWEST:
        return None
    mean, variances = mean_and_variances(samples)
    if is_rounding(mean, ours, theirs):
        return 1.0
    if variances.sum() <= (1e-12 * mean) ** 2:
        return 0.0
    freedom = degrees_of_freedom(variances, list(map(len, samples)))
    return float(2 * stats.t.sf(abs(mean) / np.sqrt(variances.sum()), freedom))


def holm(chances: list[float]) -> list[float]:
    r"""Probabilities corrected for their number: comparing them with a level errs in any at most as often as that says.

    References:
        | A Simple Sequentially Rejective Multiple Test Procedure (Holm, 1979)
    """
    corrected = [1.0] * len(chances)
    highest = 0.0
    for done, place in enumerate(sorted(range(len(chances)), key=chances.__getitem__)):
        highest = max(highest, min(1.0, (len(chances) - done) * chances[place]))
        corrected[place] = highest
    return corrected
