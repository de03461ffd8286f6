r"""The checks of how an estimator behaves, whatever its expectation: each raises :class:`Failed` with what is wrong."""

import copy
import re
from collections.abc import Callable

import torch
from torch import Tensor

from hardmax.estimators import Estimator
from hardmax.estimators.claims import AT_MOST
from hardmax.gradients.candidates import claimed_evaluations
from hardmax.gradients.enumeration import COPIES, ContinuousNoise, Failed, enumerate_draws, require

from . import expectations
from .checks import OF_DRAWS, check_expectation, runner
from .expectations import EXACT, MeanOfDraws, assert_close, z_bound, z_scores
from .problems import SMALL, Nested, SmallProblem, fitting, samples_of_bound

BATCHES = [(), (2,), (2, 2), (2, 1, 2)]


def check_call(estimator: Estimator, problem: SmallProblem) -> None:
    r"""A call gives a cost, which every other check begins with."""
    name = type(estimator).__name__
    require("_modules" in vars(estimator), f"{name}.__init__ must begin with super().__init__()")
    samples_of_bound(estimator)
    runner(estimator, problem)(1)


def check_shapes(estimator: Estimator) -> None:
    r"""One cost for each example, whatever the leading dimensions."""
    for batch in BATCHES if fitting(estimator, SMALL) is SMALL else BATCHES[1:]:
        runner(estimator, SmallProblem(1, 2, batch, extreme=0.4))(1)


def check_leading_dimensions(estimator: Estimator) -> None:
    r"""Any number of leading dimensions, in the last of which examples differ.

    Where the same random stream gives the same draws as a shape before, of as many examples, they have been checked.
    """
    checked: list[Tensor] = []
    for batch in BATCHES if fitting(estimator, SMALL) is SMALL else BATCHES[1:]:
        problem = SmallProblem(1, 2, batch, extreme=0.4)
        run = runner(estimator, problem)
        run(1)  # lets learned parts take their sizes
        torch.manual_seed(1)
        draws = run(COPIES)
        if not checked or not all(map(torch.equal, draws, checked)):
            check_expectation(estimator, problem)
        checked = draws


def check_rsample(estimator: Estimator, problem: SmallProblem) -> None:
    r"""The gradient through ``rsample``, for the same noise, is that of a call, with any leading dimensions."""
    for lead in [(), (3,), (2, 3)]:
        results = []
        for drawn in (False, True):
            torch.manual_seed(3)
            logits, parameters = problem.leaves(*lead)
            objective = problem.objective(parameters)
            cost = objective(estimator.rsample(logits)) if drawn else estimator(logits, objective)
            (gradient,) = torch.autograd.grad(cost.sum(), logits)
            results.append((cost.detach(), gradient))
        for a, b in zip(*results, strict=True):
            require(
                (a - b).abs().max() < EXACT, "rsample has another value or gradient than a call, for the same noise"
            )


def check_independent_draws(estimator: Estimator, problem: SmallProblem) -> None:
    r"""Copies along a leading dimension are independent: what one of them costs is nothing to the others."""
    results = []
    for factor in (1.0, 100.0):
        torch.manual_seed(5)
        logits, parameters = problem.leaves(3)
        with torch.no_grad():
            parameters[0][0] *= factor
        cost = estimator(logits, problem.objective(parameters))
        results.append([r[1:] for r in problem.gradients(cost, logits, parameters)])
    for a, b in zip(*results, strict=True):
        require(torch.equal(a, b), "gradient draws along a leading dimension depend on each other's costs")
    check_uncorrelated_draws(estimator, problem)


def check_uncorrelated_draws(estimator: Estimator, problem: SmallProblem) -> None:
    r"""Gradient draws along leading dimensions share no noise."""

    def draws(pairs: int) -> Tensor:
        logits, parameters = problem.leaves(pairs, 2)
        cost = estimator(logits, problem.objective(parameters)).sum()
        return torch.autograd.grad(cost, logits)[0].flatten(2)

    check_no_correlation(draws, "gradients")


def check_no_correlation(draws: Callable[[int], Tensor], name: str, rounds: tuple[int, ...] = (2_000, 20_000)) -> None:
    r"""Copies share no noise: what ``draws(N)`` gives, ``[N, 2, coordinates]``, has no correlation along N and 2."""
    shared = "draws are shared along a leading dimension"
    torch.manual_seed(5)
    first, second = draws(100), draws(100)
    same = bool((first == first[:1, :1]).all())
    require(not same or torch.equal(first, second), f"{shared}: {name} of all copies are equal, those of two calls not")
    for pairs in rounds:
        torch.manual_seed(5)
        centred = draws(pairs)
        centred = centred - centred.mean((0, 1))
        scores = []
        for a, b in ((centred[:, 0], centred[:, 1]), (centred[1:, 0], centred[:-1, 0])):
            moments = MeanOfDraws()
            moments.add(a * b)
            scores.append(z_scores(moments, 0.0))
        z = torch.cat(scores)
        if z.max() < z_bound(len(z)):
            return
    raise Failed(f"{shared}: {name} of copies are correlated, by {z.max():.1f} standard errors")


def evaluations(estimator: Estimator, problem: SmallProblem, enabled: bool = True) -> tuple[int, int]:
    r"""Rows on which the objective is evaluated with and without gradients, per example."""
    rows = {True: 0, False: 0}
    logits, parameters = problem.leaves(1)
    objective = problem.objective(parameters)

    def counted(z: Tensor) -> Tensor:
        rows[torch.is_grad_enabled()] += z.shape[:-2].numel() // logits.shape[:-2].numel()
        return objective(z)

    with torch.set_grad_enabled(enabled):
        estimator(logits, counted)
    return rows[True], rows[False]


def check_evaluations(estimator: Estimator, problem: SmallProblem) -> None:
    r"""The objective is evaluated on as many rows as the class says."""
    claimed, found = claimed_evaluations(estimator, problem.K, problem.C), sum(evaluations(estimator, problem))
    unset = re.search(r"\bS\b", estimator.evaluations) and not hasattr(estimator, "samples")
    require(
        claimed == found or (found < claimed and estimator.evaluations.startswith(AT_MOST)),
        f"{problem.K} variables of {problem.C} categories: {found} evaluations, {claimed} are claimed "
        f"({estimator.evaluations})"
        + f": S is self.samples, which {type(estimator).__name__} does not set, and so 1"
        * bool(unset),
    )


def check_without_gradients(estimator: Estimator, problem: SmallProblem) -> None:
    r"""With gradients disabled: one evaluation, of the target (for a bound, that of one draw), and nothing moves."""
    found = evaluations(estimator, problem, enabled=False)
    require(found == (0, 1), f"{sum(found)} evaluations with gradients disabled, where one draw is to be made")
    if estimator.target not in OF_DRAWS:
        return

    def run(draws: int) -> list[Tensor]:
        logits, parameters = problem.leaves(draws)
        with torch.no_grad():
            return [estimator(logits, problem.objective(parameters)).reshape(draws, -1)]

    truth = problem.truth()[:1]
    try:
        results = enumerate_draws(run, len(problem.batch))
    except ContinuousNoise:
        expectations.assert_mean(run, truth, "value without gradients")
    else:
        assert_close([*results, None, None], [*truth, None, None], "value without gradients")


def check_nested(outer: Estimator, inner: Estimator | None = None) -> None:
    r"""An estimator inside another's (or a copy of its own) objective: expectation, gradients, and evaluations.

    A bound is not linear in its costs, so its expectation is not that of costs without the noise of another layer.
    """
    inner = inner or copy.deepcopy(outer)
    nested = Nested(SmallProblem(1, 3), SmallProblem(1, 2))
    with_gradients, without = evaluations(outer, nested.upper)
    count: list[int] = []
    results = nested.run(outer, inner, count)(1)
    require(all(r.isfinite().all() for r in results), "nested: value or gradients are not finite")
    by_inner = sum(evaluations(inner, nested.lower))
    exact = not any(e.evaluations.startswith(AT_MOST) for e in (outer, inner))
    if not exact:
        with_gradients = claimed_evaluations(outer, nested.upper.K, nested.upper.C)
        by_inner = claimed_evaluations(inner, nested.lower.K, nested.lower.C)
    expected, found = with_gradients * by_inner + without, sum(count)
    require(
        found == expected if exact else found <= expected,
        f"nested: {found} evaluations of the innermost objective, {'' if exact else AT_MOST}{expected} are expected",
    )
    if outer.unbiased and inner.unbiased and outer.target == inner.target == "expectation":
        run, truth = nested.run(outer, inner), nested.truth()
        try:
            means = enumerate_draws(run)
        except ContinuousNoise:
            expectations.assert_mean(run, truth, "nested")
        else:
            error = max((r - t).abs().max() for r, t in zip(means, truth, strict=True))
            require(error < EXACT, f"nested: off by {error:.2e}")


def check_state(estimator: Estimator, problem: SmallProblem) -> None:
    r"""A call moves no state, and learned parts or statistics leave the model's gradients bit-identical."""
    runner(estimator, problem)(1)  # lets learned parts take their sizes
    before = {k: v.clone() if isinstance(v, Tensor) else dict(v) for k, v in estimator.state_dict().items()}
    results = {}
    for mode in (True, False):
        estimator.train(mode)
        torch.manual_seed(3)
        results[mode] = runner(estimator, problem)(4)
    estimator.train()
    with torch.no_grad():
        estimator(problem.logits, problem.objective(problem.parameters))
    after = estimator.state_dict()
    require(before.keys() == after.keys(), "a call added to the state")
    for key, value in before.items():
        same = torch.equal(value, after[key]) if isinstance(value, Tensor) else value == after[key]
        require(same, f"a call moved the state {key}")
    for a, b in zip(results[True], results[False], strict=True):
        require(torch.equal(a, b), "training and evaluation mode, or two calls, have different gradients")


def gradient_draws(
    estimator: Estimator, problem: SmallProblem, objective: Callable | None = None, lead: int = 50
) -> Tensor:
    r"""Gradient draws ``[lead, *batch, K, C]`` to the logits, always from the same random stream."""
    torch.manual_seed(1)
    logits, parameters = problem.leaves(lead)
    cost = estimator(logits, objective or problem.objective(parameters))
    return torch.autograd.grad(cost.sum(), logits)[0]


def check_sum_over_categories(estimator: Estimator, problem: SmallProblem) -> None:
    r"""Every draw sums to zero over the categories, as the softmax does not see a shift of its logits."""
    require(gradient_draws(estimator, problem).sum(-1).abs().max() < 1e-12, "gradients do not sum to 0 over categories")


def check_constants(estimator: Estimator, problem: SmallProblem) -> None:
    r"""A constant has no gradient in any draw, alone or added to an objective."""
    cost = problem.objective(problem.parameters)
    shifted = gradient_draws(estimator, problem, lambda z: cost(z) + 1000)
    difference = (gradient_draws(estimator, problem, cost) - shifted).abs().max()
    require(difference < 1e-9, "a constant added to the objective changes gradients")
    constant = gradient_draws(estimator, problem, lambda z: torch.full(z.shape[:-2], 7.0, dtype=z.dtype))
    require(constant.abs().max() < 1e-12, "a constant objective has a gradient")
