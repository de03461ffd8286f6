r"""Whether expectations are those that they should be: to rounding where enumerated, in standard errors elsewhere."""

from collections.abc import Sequence
from statistics import NormalDist

import torch
from torch import Tensor

from hardmax.gradients.enumeration import Failed, RunOfDraws

FALSE_ALARM = 1e-3  # probability that a z-test of a right estimator asks for more draws
DRAWS = 50_000  # of a z-test's first round; the second takes ten times as many
HOPELESS = 20.0  # standard errors which more draws would not take back
BEYOND_NOISE = 1e6  # standard errors that are rounding: the draws do not differ
EXACT = 1e-10  # error of an enumerated expectation that is rounding
RESULT_PARTS = ("value", "logits' gradient", "parameters' gradient")

Truths = Sequence[Tensor | float | None]


class MeanOfDraws:
    r"""Mean and standard error of the mean, over draws ``[M, *shape]`` that come in parts."""

    def __init__(self) -> None:
        self.n, self.mean, self.m2 = 0, torch.zeros(()), torch.zeros(())

    def add(self, draws: Tensor) -> None:
        r"""Takes in more draws."""
        n, mean = len(draws), draws.mean(0)
        delta, total = mean - self.mean, self.n + n
        self.m2 = self.m2 + ((draws - mean) ** 2).sum(0) + delta**2 * self.n * n / total
        self.mean, self.n = self.mean + delta * n / total, total

    def error(self) -> Tensor:
        r"""Standard error of the mean, ``[*shape]``."""
        return (self.m2 / (self.n - 1) / self.n).sqrt()


def z_scores(moments: MeanOfDraws, truth: MeanOfDraws | Tensor | float, rounding: float = 1e-9) -> Tensor:
    r"""Deviations in standard errors; 0 within ``rounding``, to which a coordinate without variance must be right.

    Infinite where it is not.
    """
    true_mean, true_error = (truth.mean, truth.error()) if isinstance(truth, MeanOfDraws) else (truth, 0.0)
    error = (moments.error() ** 2 + true_error**2) ** 0.5
    deviation = (moments.mean - true_mean).abs()
    score = torch.where(deviation < rounding, 0.0, deviation / error)
    return score.nan_to_num(nan=torch.inf)


def z_bound(coordinates: int) -> float:
    r"""What the largest of so many z-scores exceeds with probability :data:`FALSE_ALARM`."""
    return -NormalDist().inv_cdf(FALSE_ALARM / 2 / coordinates)


def assert_mean(
    run: RunOfDraws,
    truths: Truths,
    what: str,
    against: RunOfDraws | None = None,
    seed: int = 0,
    rounds: Sequence[int] = (DRAWS, 10 * DRAWS),
    rounding: float = 1e-9,
) -> float:
    r"""z-tests the mean of ``run(M) -> list of [M, coordinates]`` against ``truths`` in every coordinate.

    On a failure ten times more draws are added, never a new seed, unless it is beyond :data:`HOPELESS`.
    ``against(M)`` is another random way to the truth, in the place of exact ones. Comparisons whose truth is None are
    left out. Gives the largest z-score, in bounds: below 1. Deviations below ``rounding`` count as none.
    """
    torch.manual_seed(seed)
    ours = [MeanOfDraws() for _ in run(1)]
    theirs = [MeanOfDraws() for _ in ours] if against else []
    expected: Sequence[MeanOfDraws | Tensor | float | None] = theirs or truths
    for draws in rounds:
        for _ in range(draws // DRAWS):
            for m, r in zip(ours, run(DRAWS), strict=True):
                m.add(r)
            if against:
                for m, r in zip(theirs, against(DRAWS), strict=True):
                    m.add(r)
        scores = [None if t is None else z_scores(m, t, rounding) for m, t in zip(ours, expected, strict=True)]
        bound = z_bound(sum(len(s) for s in scores if s is not None))
        worst = [0.0 if s is None else float(s.max()) for s in scores]
        if max(worst) < bound:
            return max(worst) / bound
        if max(worst) > HOPELESS:
            break
    i = worst.index(max(worst))
    truth, error = truths[i], ours[i].error()
    if against:
        truth, error = theirs[i].mean, (error**2 + theirs[i].error() ** 2).sqrt()
    name = f"{RESULT_PARTS[i]} is " if len(ours) == len(RESULT_PARTS) else ""
    said = multiple(ours[i].mean, truth, bound * error)
    if worst[i] > BEYOND_NOISE:
        assert truth is not None
        raise Failed(f"{what}: {name}off by {float((ours[i].mean - truth).abs().max()):.2e} in all draws{said}")
    raise Failed(f"{what}: {name}off by {worst[i]:.1f} standard errors (bound {bound:.1f}){said}")


def assert_close(results: Sequence[Tensor | None], truths: Truths, what: str) -> None:
    r"""Compares enumerated value, logits' and parameters' gradients with the truths that are not None."""
    for name, result, truth in zip(RESULT_PARTS, results, truths, strict=True):
        if truth is not None:
            assert result is not None, f"{what}: {name} is missing"
            error = (result - truth).abs().max()
            if not error < EXACT:  # NaN is not
                raise Failed(f"{what}: {name} is off by {error:.2e}{multiple(result, truth, EXACT)}")


def multiple(found: Tensor, truth: Tensor | float | None, tolerance: Tensor | float) -> str:
    r"""By what the truth was multiplied, if it was, in words: a wrong sign or scale, or a missing gradient."""
    if not isinstance(truth, Tensor):
        return ""
    if found.isfinite().all() and len(truth) > 1 and (truth != 0).any():
        factor = float(found @ truth / (truth @ truth))
        if (found - factor * truth).abs().le(torch.as_tensor(tolerance) + 1e-9).all():
            sign = ", its sign is flipped" if abs(factor + 1) < 0.05 else ""
            return f": it is {factor:.3g} times what it should be{sign}"
    return f": {list_of(found)}, not {list_of(truth)}"


def list_of(x: Tensor, most: int = 6) -> str:
    r"""The first numbers of a vector."""
    return "[" + ", ".join(f"{v:.3g}" for v in x[:most].tolist()) + (", ...]" if len(x) > most else "]")
