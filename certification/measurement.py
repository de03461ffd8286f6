r"""What an estimator's gradients are worth on a problem: value, bias and variance, beside REINFORCE's."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hardmax.estimators import Estimator, Reinforce
from hardmax.gradients.candidates import claimed_evaluations
from hardmax.gradients.enumeration import ContinuousNoise, RunOfDraws, all_outcomes

from .behaviour import evaluations
from .checks import OF_DRAWS, another_way, runner, truths_of
from .expectations import DRAWS, EXACT
from .problems import SmallProblem, samples_of_bound

BATCHES_OF_DRAWS = 4  # of DRAWS draws each, where outcomes cannot be enumerated
LEAVE_ONE_OUT = 2  # draws of the leave-one-out REINFORCE to compare with: the fewest


class Summary(NamedTuple):
    r"""Mean and covariance of one draw, and how many draws they are of; infinitely many if enumerated."""

    mean: Tensor
    covariance: Tensor
    draws: float

    def variance(self) -> float:
        r"""Trace of the covariance; 0 if it is rounding."""
        trace = float(self.covariance.trace())
        return trace if trace > EXACT**2 * float(self.mean @ self.mean) else 0.0


@dataclass
class Measurement:
    r"""Figures of one estimator on one problem.

    Attributes:
        problem: Which, as Python.
        draws: Behind means and variances; None for an exact enumeration.
        value: Expected value, a mean over examples.
        value_error: Its standard error.
        target: What it is to estimate, by enumeration, or for a relaxation with noise by as many other draws.
        bias: Norm of the expected gradient's difference from the true one, less what noise adds, over that of the
            true one: the gradient of the discrete expectation, or of the bound for a bound.
        bias_error: Standard error of it.
        parameters_error: The same of the objective's parameters, from the gradient of the estimator's own target.
        parameters_error_error: Standard error of it.
        variance: Trace of the covariance of one gradient draw to the logits.
        reinforce: That of REINFORCE without a baseline, one draw.
        leave_one_out: That of REINFORCE with the other draw's cost as the baseline, two draws.
        claimed: Evaluations of the objective, as the class says.
        evaluations: As counted.
    """

    problem: str
    draws: int | None
    value: float
    value_error: float
    target: float
    bias: float
    bias_error: float
    parameters_error: float
    parameters_error_error: float
    variance: float
    reinforce: float
    leave_one_out: float
    claimed: int
    evaluations: int

    def ratio(self, to: str, work: bool = False) -> float:
        r"""Variance over that of ``reinforce`` or ``leave_one_out``; with ``work``, times evaluations over theirs."""
        times = self.evaluations / {"reinforce": 1, "leave_one_out": LEAVE_ONE_OUT}[to] if work else 1.0
        return self.variance / getattr(self, to) * times


def measure_on(estimator: Estimator, problem: SmallProblem) -> Measurement:
    r"""Value, bias, variance and evaluations, exactly if all outcomes can be enumerated."""
    found = summaries(runner(estimator, problem), len(problem.batch))
    exact = math.isinf(found[0].draws)
    if estimator.target in OF_DRAWS or exact:
        expected = [exactly(truth) for truth in truths_of(estimator, problem) if truth is not None]
    else:
        expected = summaries(another_way(estimator, problem, log_q=False), len(problem.batch), seed=12)
    value, *_, of_parameters = expected  # between them the gradient, where something is claimed of it
    gradient = problem.truth(samples=samples_of_bound(estimator))[1]
    bias, bias_error = relative_distance(found[1], exactly(gradient))
    parameters_error, parameters_error_error = relative_distance(found[2], of_parameters)
    by = [Reinforce(baseline="none"), Reinforce(LEAVE_ONE_OUT, "leave_one_out")]
    examples = len(found[0].mean)
    return Measurement(
        problem=repr(problem),
        draws=None if exact else int(found[0].draws),
        value=float(found[0].mean.mean()),
        value_error=float((found[0].covariance.sum() / found[0].draws).clamp(min=0).sqrt()) / examples,
        target=float(value.mean.mean()),
        bias=bias,
        bias_error=bias_error,
        parameters_error=parameters_error,
        parameters_error_error=parameters_error_error,
        variance=found[1].variance(),
        reinforce=summaries(runner(by[0], problem), len(problem.batch))[1].variance(),
        leave_one_out=summaries(runner(by[1], problem), len(problem.batch))[1].variance(),
        claimed=claimed_evaluations(estimator, problem.K, problem.C),
        evaluations=sum(evaluations(estimator, problem)),
    )


def summaries(run: RunOfDraws, batch_dims: int, seed: int = 11) -> list[Summary]:
    r"""Of value, logits' and parameters' gradients: enumerated if possible, else of seeded draws."""
    try:
        weight, results = all_outcomes(run, batch_dims)
    except ContinuousNoise:
        torch.manual_seed(seed)
        draws = map(torch.cat, zip(*(run(DRAWS) for _ in range(BATCHES_OF_DRAWS)), strict=True))
        return [Summary(d.mean(0), d.T.cov().reshape(d.shape[1], -1), len(d)) for d in draws]
    means = [weight @ r for r in results]
    centred = [r - mean for r, mean in zip(results, means, strict=True)]
    return [Summary(mean, (r * weight.unsqueeze(-1)).T @ r, math.inf) for mean, r in zip(means, centred, strict=True)]


def exactly(truth: Tensor) -> Summary:
    r"""What is known without an error."""
    return Summary(truth, truth.new_zeros(len(truth), len(truth)), math.inf)


def relative_distance(found: Summary, truth: Summary) -> tuple[float, float]:
    r"""Distance of the means over the norm of the true one, without what noise adds; and its standard error.

    The squared distance less the trace of S, the covariance of the means' difference d, has the variance
    2 tr(S S) + 4 d'S d; the error is how far one of its standard errors moves the root upwards.
    """
    d, S = found.mean - truth.mean, found.covariance / found.draws + truth.covariance / truth.draws
    squared = max(0.0, float(d @ d - S.trace()))
    error = max(0.0, float(2 * (S @ S).trace() + 4 * d @ S @ d))
    distance, norm = math.sqrt(squared), float(truth.mean.norm())
    return distance / norm, (math.sqrt(squared + math.sqrt(error)) - distance) / norm
