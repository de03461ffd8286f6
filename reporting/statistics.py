r"""Means over seeds, and which groups are significantly worse than the best."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95  # of intervals
RESAMPLES = 9999
FEWEST = 3  # runs of which an interval says something
ROUNDED = 1e-5  # share of a figure, itself a mean or difference of numbers in single precision

BEST, AS_GOOD, WORSE, UNTESTED = "best", "not significantly worse", "significantly worse", "untested"


@dataclass(frozen=True)
class Mean:
    r"""A mean over runs, its standard error (NaN for a single run), and the number of runs."""

    value: float
    error: float
    runs: int


def mean_of(values: list[float]) -> Mean:
    r"""Mean and standard error, from the unbiased variance, of at least one value."""
    error = np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Mean(float(np.mean(values)), float(error), len(values))


@dataclass(frozen=True)
class Difference:
    r"""A difference of means with its interval.

    Attributes:
        mean: By how much the first is above the second.
        low, high: Ends of the interval.
        paired: Whether seeds were paired.
    """

    mean: float
    low: float
    high: float
    paired: bool


def difference(ours: dict, theirs: dict) -> Difference | None:
    r"""The difference of two groups' means with a bootstrap interval of 95 %; None if either has too few runs.

    Runs are paired by block (seed), where the groups share three or more and more than half of the smaller one's, and
    each pair's difference is resampled; otherwise the runs of both groups are, independently.

    A percentile interval of the bootstrap is too narrow for few runs: two differences of one sign, which chance gives
    every other time, always exclude 0. Its reasons are that n resampled runs vary by (n - 1) / n too little, and that
    quantiles of n values cannot reach those of Student's t. The interval is therefore stretched about the mean by
    both: the ratio of the standard error to that of the plug-in principle, and the quantile of Student's t, with the
    degrees of freedom of the differences or Welch's, over the normal one. Over simulated normal differences without a
    mean, it then excludes 0 in 4.7 to 5.6 % of all cases for three runs and more; as it was, in 25 % for three and
    10 % for ten. For many runs the stretch goes to 1. Of two runs the interval is so wide and so uncertain that the
    worse of two groups may be marked and the better one not: below three runs nothing is said.

    Arguments:
        ours, theirs: Values by block.
    """
    samples, paired = samples_of(ours, theirs)
    if min(map(len, samples)) < FEWEST:
        return None
    mean, variances = mean_and_variances(samples)
    if is_rounding(mean, ours, theirs):
        return Difference(mean, -abs(mean), abs(mean), paired)
    if variances.sum() <= (1e-12 * mean) ** 2:  # all differ by the same, but for rounding
        return Difference(mean, mean, mean, paired)
    found = stats.bootstrap(
        samples,
        difference_of_means,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    by = stretch(variances, [len(sample) for sample in samples])
    low, high = (mean + by * (end - mean) for end in found.confidence_interval)
    return Difference(mean, float(low), float(high), paired)


def samples_of(ours: dict, theirs: dict) -> tuple[list[np.ndarray], bool]:
    r"""The differences of pairs of runs where they can be paired, else the values of both; and whether they are."""
    shared = ours.keys() & theirs.keys()
    if len(shared) >= FEWEST and 2 * len(shared) > min(len(ours), len(theirs)):
        return [np.array([ours[b] - theirs[b] for b in sorted(shared)])], True
    return [np.array(list(values.values()), float) for values in (ours, theirs)], False


def mean_and_variances(samples: list[np.ndarray]) -> tuple[float, np.ndarray]:
    r"""The difference of means, and the squared standard error of each mean, of what :func:`samples_of` gives."""
    mean = float(samples[0].mean() - (samples[1].mean() if len(samples) > 1 else 0))
    return mean, np.array([sample.var(ddof=1) / len(sample) for sample in samples])


def is_rounding(difference: float, ours: dict, theirs: dict) -> bool:
    r"""Whether a difference of figures in single precision is one of their last digits."""
    return abs(difference) <= ROUNDED * max(map(abs, [*ours.values(), *theirs.values()]))


def degrees_of_freedom(variances: np.ndarray, counts: list[int]) -> float:
    r"""Of Student's t: of the differences, or Welch's, given the squared standard errors and numbers of runs."""
    return float(variances.sum() ** 2 / (variances**2 / (np.array(counts) - 1)).sum())


def difference_of_means(first: np.ndarray, second: np.ndarray | float = 0.0, axis: int = -1) -> np.ndarray:
    return first.mean(axis) - (second.mean(axis) if isinstance(second, np.ndarray) else second)


def stretch(variances: np.ndarray, counts: list[int]) -> float:
    r"""By how much an interval is stretched, given the squared standard errors of the means and numbers of runs."""
    n = np.array(counts)
    freedom = degrees_of_freedom(variances, counts)
    too_narrow = math.sqrt(variances.sum() / (variances * (n - 1) / n).sum())
    quantile = (1 + LEVEL) / 2
    return float(too_narrow * stats.t.ppf(quantile, freedom) / stats.norm.ppf(quantile))


@dataclass(frozen=True)
class Verdict:
    r"""How a group compares with the best.

    Attributes:
        word: One of the four above.
        difference: Behind it, if any.
        few: Whether there are too few runs to say so.
    """

    word: str
    difference: Difference | None = None
    few: bool = False

    @property
    def marked(self) -> bool:
        return self.word in (BEST, AS_GOOD) and not self.few

    @property
    def untested(self) -> bool:
        r"""Whether nothing can be said, which a question mark shows."""
        return self.word == UNTESTED or self.few


def verdicts(values: dict[str, dict], better: int) -> dict[str, Verdict]:
    r"""A verdict for each label, given its final figures by block.

    The best has the best mean of those with enough runs, if any has. Another is significantly worse if the whole
    interval of its difference from the best is on the worse side, with no correction for the number of groups; with
    too few runs it is untested, however good its mean.

    Arguments:
        values: By label, then by block; labels without values get no verdict.
        better: 1 if higher values are better, -1 if lower ones are.
    """
    means = {label: better * mean_of(list(found.values())).value for label, found in values.items() if found}
    if not means:
        return {}
    enough = [label for label in means if len(values[label]) >= FEWEST]
    best = max(enough or means, key=means.__getitem__)
    result = {best: Verdict(BEST, few=len(values[best]) < FEWEST)}
    for label in means.keys() - {best}:
        found = difference(values[label], values[best])
        if found is None:
            result[label] = Verdict(UNTESTED)
        else:
            worse = found.high < 0 if better > 0 else found.low > 0
            result[label] = Verdict(WORSE if worse else AS_GOOD, found)
    return result
