r"""Statistics of an estimator's gradients over every outcome of its discrete draws, in the place of random ones."""

import math
from decimal import Decimal

import torch
from torch import Tensor

from hardmax.estimators.base import Estimator
from hardmax.tasks.base import Problem, Task

from .draws import WHERE, Draws, evaluating, places
from .enumeration import EnumeratedDraws, patched, require
from .moments import TrueGradient, dead_share_, finite_or_none, squared
from .truth import Truth, truth_of

MOST_OUTCOMES = 100_000
ROUNDING_OF_WEIGHTS = 1e-6  # of probabilities that add up to 1, where logits are in single precision


def outcomes_of(task: Task, estimator: Estimator, problem: Problem) -> int:
    r"""How many outcomes the estimator's discrete draws for one example have.

    Raises:
        ValueError: If there is more than one example, there are more than 100,000 outcomes, or the encoder's parameters
            reach the cost otherwise than through the logits, so that every draw needs a backward pass of its own.
    """
    if (examples := problem.logits.shape[:-2].numel()) > 1:
        raise ValueError(f"the outcomes of one example are gone through, so batch_size must be 1, got {examples}")
    count = EnumeratedDraws(1)
    with evaluating(task, estimator):
        making = Draws(task, estimator, problem)
        if making.direct_parameters:
            raise ValueError("the objective itself depends on the encoder's parameters")
        with patched(count):
            making.make(1)
    if count.stride > MOST_OUTCOMES:
        name = type(estimator).__name__
        raise ValueError(
            f"{name} has {Decimal(count.stride):.3g} outcomes, and at most {MOST_OUTCOMES:,} are gone through"
        )
    return count.stride


def measure_outcomes(
    task: Task, estimator: Estimator, problem: Problem, repetitions: int, truth: Truth | None = None
) -> dict[str, float | None]:
    r"""Statistics of an estimator's gradient on the problem of one example, over all outcomes of its discrete draws.

    They are exact, but for other noise, such as Gumbel noise: of that there are R independent draws for each outcome.
    Names and places are those of :func:`hardmax.gradients.measure`, and beside a truth there are two more, of the mean
    gradient scaled to the true norm: ``rescaled_bias2``, its squared distance from the truth, and
    ``rescaled_variance``, the variance times the square of the same factor. An optimiser such as Adam sees no scale,
    and with it these are what counts. ``bias2`` is debiased for the noise of the mean, ``rescaled_bias2`` is not.

    Arguments:
        task, estimator: As trained so far; nested estimators are the estimator's own.
        problem: Of the task, for one example.
        repetitions: Number R, at least 2; without other noise there are 2, which shows that they are equal.
        truth: From :func:`truth_of`; None: the exact one, where it is known.

    Raises:
        ValueError: As :func:`outcomes_of` does.
    """
    if estimator.target == "bound":
        truth = None
    elif truth is None:
        truth = truth_of(task, problem)
    N = outcomes_of(task, estimator, problem)
    with evaluating(task, estimator):
        making = Draws(task, estimator, problem)
        first, second = (outcomes_once(making, N, 1) for _ in range(2))
        noisy = any(not torch.equal(a, b) for (a, b) in zip(first[1], second[1], strict=True))
        more, most = repetitions - 2 if noisy else 0, max(1, making.at_most() // N)
        parts = [min(most, more - start) for start in range(0, more, most)]
        made = [first, second, *(outcomes_once(making, N, R) for R in parts)]
    draws = N * (2 + more)
    rows, differentiated = making.cost.rows / draws, making.cost.differentiated / draws
    weight, by_place = first[0], dict(zip(WHERE, zip(*(g for _, g in made), strict=True), strict=True))
    found: dict[str, float | None] = {}
    for where in places(task):
        g = torch.cat(by_place[where]).double()
        of_one = over_outcomes(weight, g, None if truth is None else truth[where])
        of_one["work_variance"] = of_one["variance"] * rows
        found |= {f"{where}/{name}": finite_or_none(x) for name, x in of_one.items()}
    known = {} if truth is None else {f"truth/{truth['encoder'].name}": truth["encoder"].draws}
    return found | {"draws": draws, **known, "evaluations": rows, "objective_gradients": differentiated}


def outcomes_once(making: Draws, N: int, R: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    r"""Probabilities ``[N]`` of the outcomes, and R gradients of each by place, ``[R, N, D]``."""
    draws = EnumeratedDraws(1, N * R)
    with patched(draws):
        found = making.make(N * R)
    require(abs(draws.log_weight.exp().sum() / R - 1) < ROUNDING_OF_WEIGHTS, "not all outcomes are enumerated")
    return draws.log_weight[:N].exp().to(found[0].device), tuple(g.reshape(R, N, -1) for g in found)


def over_outcomes(weight: Tensor, g: Tensor, truth: TrueGradient | None) -> dict[str, Tensor]:
    r"""Statistics of gradients of N outcomes, R of each; NaN where undefined.

    Arguments:
        weight: Probabilities, ``[N]``.
        g: Gradients, ``[R, N, D]``.
        truth: Of one example.
    """
    R, each = len(g), g.mean(0)
    within = squared(g - each).sum(0) / max(R - 1, 1)  # [N], of one draw
    mean = weight @ each
    noise = (weight.square() @ within) / R  # of the mean
    variance = weight @ squared(each - mean) + weight @ within - (weight @ within) / R + noise
    square = squared(mean)
    found = {
        "norm": square.sqrt(),
        "rms_norm": (square - noise + variance).sqrt(),
        "variance": variance,
        "variance_mean": variance / g.shape[-1],
        "dead_per_draw": weight @ dead_share_(g.abs()).mean(0),
        "snr": (square - noise).clamp(min=0) / variance.masked_fill(variance == 0, math.nan),
    }
    if truth is not None:
        true, bias2 = truth.mean[0, 0], squared(mean - truth.mean[0, 0]) - noise - truth.noise[0, 0]
        norm = truth.norm[0, 0]
        length = norm.masked_fill(norm == 0, math.nan)
        factor = length / square.sqrt()
        along = (g @ true) / torch.linalg.vector_norm(g, dim=-1)
        found |= {
            "true_norm": norm,
            "bias2": bias2,
            "relative_bias": bias2.sign() * bias2.abs().sqrt() / length,
            "mse": bias2 + variance,
            "cosine": weight @ along.masked_fill((g == 0).all(-1), 0.0).mean(0) / length,
            "cosine_mean": mean @ true / (square.sqrt() * length),
            "rescaled_bias2": squared(factor * mean - true),
            "rescaled_variance": factor.square() * variance,
        }
    return found
