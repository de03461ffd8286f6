r"""Whether an estimator is the same on another device, in another precision, as in float64 on the processor."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hardmax.estimators import Estimator
from hardmax.gradients.enumeration import (
    ContinuousNoise,
    Failed,
    RunOfDraws,
    enumerate_draws,
    number_of_outcomes,
    so_many_outcomes,
)

from . import expectations
from .checks import OF_DRAWS, runner, truths_of
from .expectations import RESULT_PARTS
from .problems import SmallProblem

ROUNDINGS = 64  # of one operation each that an enumerated expectation may be off by, of its largest coordinate


@dataclass
class Agreement:
    r"""By what a device was found to agree.

    Attributes:
        exact: Whether all outcomes were enumerated; else means of draws were compared.
        error: The largest error of an enumerated expectation, relative to the largest coordinate of value, gradient
            or parameters' gradient each; of draws, the largest deviation in the bounds of a z-test.
        bound: What the error may not reach.
    """

    exact: bool
    error: float
    bound: float


def check_on_device(
    estimator: Estimator, problem: SmallProblem, device: torch.device | str, precision: str = "float32"
) -> Agreement:
    r"""Value, gradients to the logits and to the parameters, on a device, are those in float64 on the processor.

    Enumerated expectations agree to rounding. Means of draws are tested against enumeration, and where there is no
    exact truth against as many draws on the processor.

    Raises:
        Failed: If they do not.
    """
    batch_dims, run = len(problem.batch), runner(estimator, problem)
    reference = None
    try:
        reference = enumerate_draws(run, batch_dims)
    except ContinuousNoise:
        run(1)  # lets learned parts take their sizes, and random weights that the device shares
    there = copy.deepcopy(estimator).to(device)
    rounding = ROUNDINGS * torch.finfo(getattr(torch, precision)).eps
    on_device = brought_back(runner(there, problem.to(device, getattr(torch, precision))))
    if reference is None:
        truths = truths_of(estimator, problem) if estimator.target in OF_DRAWS else [None]
        against = run if None in truths else None
        what = f"{problem.K} variables of {problem.C} categories in {precision} on {device}"
        return Agreement(False, expectations.assert_mean(on_device, truths, what, against, rounding=rounding), 1.0)
    weight, results = so_many_outcomes(on_device, batch_dims, number_of_outcomes(on_device, batch_dims))
    error, name = largest_error([(weight.unsqueeze(-1) * r).sum(0) for r in results], reference)
    found = Agreement(True, error, rounding)
    if not error < found.bound:  # NaN is not
        raise Failed(
            f"{problem.K} variables of {problem.C} categories in {precision} on {device}: {name} is off by "
            f"{error:.1e} of its largest coordinate (bound {found.bound:.0e})"
        )
    return found


def brought_back(run: RunOfDraws) -> RunOfDraws:
    r"""A run whose results are on the processor, in double precision."""
    return lambda draws: [result.double().cpu() for result in run(draws)]


def largest_error(found: Sequence[Tensor], truths: Sequence[Tensor]) -> tuple[float, str]:
    r"""The largest error relative to the largest coordinate, or of what is to be 0 throughout; and of which part."""
    errors = []
    for name, result, truth in zip(RESULT_PARTS, found, truths, strict=True):
        size = float(truth.abs().max())
        errors.append((float((result - truth).abs().max().nan_to_num(torch.inf)) / (size or 1.0), name))
    return max(errors)
