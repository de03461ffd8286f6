r"""Which estimator to take, from what was measured of several: squared errors at equal cost, and a sentence."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from hardmax.numbers import with_error

AVERAGED = 1000  # evaluations of the objective over which a training run averages gradients, unless it is said
APART = 2  # standard errors of a difference beyond which it is one
DISPROVED = 5  # standard errors beyond which a bias is there, whatever a class says
TINY_BIAS = 1e-3  # of the true gradient's norm: smaller ones may be rounding of costs
ROUNDED_ERROR = 1e-10  # of the true gradient's square: below it errors are equal
HARDLY_BETTER = 0.5  # than no gradient at all, in squared error, which is to be said
MOST_TIED = 3  # estimators that a sentence names; more are counted


@dataclass(frozen=True)
class Candidate:
    r"""A setting of an estimator and what was measured of its gradient, per example; None where it is not defined.

    Attributes:
        estimator: What it is called.
        unbiased: Whether its class says so.
        true_norm: Norm of the true gradient g.
        relative_bias: Norm of the bias over that of g, with the sign of ``bias2``.
        bias2: Squared norm of the bias, less what noise adds: it may be negative.
        variance: Trace of the covariance of one draw.
        mse: Squared error of one draw.
        mse_per_evaluation: ``mse`` times the evaluations of one draw: the lower, the better at equal evaluations.
        mse_per_second: ``mse`` times the seconds of one draw.
        evaluations, objective_gradients: Rows on which the objective was evaluated, and differentiated, for one draw.
        seconds: That one draw of all examples takes.
        draws: Behind these figures.
        rms_norm: Root of the mean square norm of one draw.
        relative_bias_error, ...: Standard errors, those of a reference included.
    """

    estimator: str
    unbiased: bool
    true_norm: float | None
    relative_bias: float | None
    relative_bias_error: float | None
    bias2: float
    bias2_error: float | None
    variance: float
    variance_error: float | None
    mse: float
    mse_error: float | None
    mse_per_evaluation: float
    mse_per_second: float
    evaluations: float
    objective_gradients: float
    seconds: float
    draws: int
    rms_norm: float | None = None

    @property
    def moves(self) -> bool:
        r"""Whether any draw was other than 0, or rightly so: else a gradient of 0 has an error, and trains nothing."""
        return self.rms_norm != 0 or self.true_norm == 0

    @property
    def bias2_taken(self) -> tuple[float, float]:
        r"""The squared bias that counts, with its error: 0 for what is unbiased, unless that is disproved."""
        if self.unbiased and not self.disproved:
            return 0.0, 0.0
        return max(self.bias2, 0.0), or_nan(self.bias2_error)

    @property
    def disproved(self) -> bool:
        r"""Whether a bias is there although the class says that there is none, and is more than rounding."""
        least = (TINY_BIAS * (self.true_norm or 0.0)) ** 2
        return self.unbiased and self.bias2 > max(DISPROVED * or_nan(self.bias2_error), least)

    def error_of_mean(self, draws: float) -> tuple[float, float]:
        r"""Squared error of the mean of so many draws, and the standard error of that."""
        bias2, error = self.bias2_taken
        return bias2 + self.variance / draws, math.hypot(error, or_nan(self.variance_error) / draws)


def candidate_of(estimator: str, unbiased: bool, found: Mapping[str, Any], seconds: float) -> Candidate | None:
    r"""A row from statistics by name, as :meth:`Moments.statistics` has them; None without a bias or a variance.

    ``found`` also has ``evaluations``, ``objective_gradients`` and ``draws``.
    """
    figures: dict[str, Any] = {f.name: found.get(f.name) for f in fields(Candidate)}
    if not all(math.isfinite(or_nan(figures[name])) for name in ("bias2", "variance", "mse")):
        return None
    figures |= {"estimator": estimator, "unbiased": unbiased, "seconds": seconds}
    figures["mse_per_evaluation"] = figures["mse"] * figures["evaluations"]
    figures["mse_per_second"] = figures["mse"] * seconds
    return Candidate(**figures)


def or_nan(value: float | None) -> float:
    return math.nan if value is None else value


@dataclass(frozen=True)
class Ranking:
    r"""Candidates by the squared error of their mean gradient at equal cost.

    Attributes:
        order: The best first, by the error plus two standard errors: a small one that is a guess does not lead. Of
            equal ones the unbiased come first, then those of few evaluations; those without any gradient come last.
        tied: Those that cannot be told apart from the best, which is not among them.
        errors: By estimator, each with its standard error.
    """

    order: list[Candidate]
    tied: list[Candidate]
    errors: dict[str, tuple[float, float]]


def ranking(candidates: Sequence[Candidate], draws: Callable[[Candidate], float]) -> Ranking:
    r"""Compares the means of as many draws as the same cost pays for.

    Arguments:
        candidates: At least one.
        draws: How many these are.
    """
    errors = {c.estimator: c.error_of_mean(draws(c)) for c in candidates}
    tiny = {c.estimator: ROUNDED_ERROR * (c.true_norm or 0.0) ** 2 for c in candidates}
    rounded = {name: (0.0, 0.0) if error <= tiny[name] else (error, bar) for name, (error, bar) in errors.items()}

    def at_most(c: Candidate) -> float:
        error, bar = rounded[c.estimator]
        return error + APART * bar if c.moves and not math.isnan(bar) else math.inf

    def is_worse(c: Candidate) -> bool:
        (error, bar), (least, own) = rounded[c.estimator], rounded[best.estimator]
        return error - least > APART * math.hypot(own, bar)

    best, *others = order = sorted(candidates, key=lambda c: (at_most(c), not c.unbiased, c.evaluations))
    tied = [c for c in others if c.moves and not is_worse(c)]
    return Ranking(order, tied, errors)


def by_evaluations(candidates: Sequence[Candidate], averaged: float = AVERAGED, examples: int = 1) -> Ranking:
    r"""At so many evaluations of the objective; a draw has so many examples."""
    return ranking(candidates, lambda c: averaged / (c.evaluations * examples))


def by_seconds(candidates: Sequence[Candidate], averaged: float = AVERAGED, examples: int = 1) -> Ranking:
    r"""In the time in which the fastest makes the draws that so many evaluations are, if each is one draw."""
    fastest = min(c.seconds for c in candidates)
    return ranking(candidates, lambda c: averaged / examples * fastest / c.seconds)


def recommend(
    candidates: Sequence[Candidate], averaged: float = AVERAGED, examples: int = 1, derivative: bool = True
) -> str:
    r"""One sentence: which estimator to take, why, and how sure that is.

    Arguments:
        candidates: All that were compared, in any order, at least one.
        averaged: Evaluations of the objective over which a training run averages gradients: noise falls with them,
            and bias does not.
        examples: Whose mean gradient one draw is of; 1 where gradients are of single examples.
        derivative: Whether the objective has one.
    """
    found = by_evaluations(candidates, averaged, examples)
    best, *others = found.order
    error, bar = found.errors[best.estimator]
    scale, unit = (best.true_norm**2, " of the true gradient's square") if best.true_norm else (1.0, "")
    without = "" if derivative else "of what needs no derivative, which this objective does not have, "
    reason = f"{without}its gradient, averaged over {averaged:,g} evaluations of the objective, has the least squared "
    reason += f"error with {APART} standard errors added ({with_error(error / scale, bar / scale)}{unit}, "
    reason += f"{share_of_bias(best, error)})"
    if found.tied:
        doubt = f"it cannot be told apart from {names_in_words(found.tied)}"
    elif others:
        times = found.errors[others[0].estimator][0] / error if error else math.inf
        doubt = f"next comes {others[0].estimator}"
        doubt += f", with {times:.3g} times as much" if math.isfinite(times) else ""
    else:
        doubt = "nothing else could be compared"
    if best.true_norm and error >= HARDLY_BETTER * scale:
        doubt += "; no gradient at all has 1: average over more"
    elif best.true_norm == 0:
        doubt += "; the true gradient is 0, but for rounding"
    return f"Take {best.estimator}: {reason}; {doubt}; {in_time(best, by_seconds(candidates, averaged, examples))}."


def share_of_bias(best: Candidate, error: float) -> str:
    r"""What a squared error has from bias, in words."""
    bias2, error_of_bias2 = best.bias2_taken
    if best.unbiased and not bias2:
        return "without bias"
    if not bias2 > APART * error_of_bias2:
        return "its bias within the error of 0"
    return f"{min(bias2 / error, 1):.0%} of it bias"


def in_time(best: Candidate, found: Ranking) -> str:
    r"""What is best in equal time, beside the best at equal evaluations."""
    if best is found.order[0]:
        return "it also leads at equal time on this machine"
    if best in found.tied:
        return f"at equal time on this machine it cannot be told apart from the first, {found.order[0].estimator}"
    return f"at equal time on this machine {found.order[0].estimator} comes first"


def names_in_words(candidates: Sequence[Candidate]) -> str:
    r"""Names in words, the last of many counted."""
    names = [c.estimator for c in candidates[:MOST_TIED]]
    if more := len(candidates) - len(names):
        names.append(f"{more} more")
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
