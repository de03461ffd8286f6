r"""The checks of what an estimator's expectation is claimed to be: each raises :class:`Failed` with what is wrong."""

from collections.abc import Callable

import torch
from torch import Tensor

from hardmax.estimators import Estimator, sampling
from hardmax.gradients.enumeration import ContinuousNoise, RunOfDraws, enumerate_draws, patched, require

from . import expectations
from .expectations import EXACT, assert_close
from .problems import SmallProblem, samples_of_bound

OF_DRAWS = ("expectation", "bound")  # targets of estimators that evaluate the objective at discrete draws
OWN_DRAWS = "draws"  # target of those who evaluate it at draws of another law
STEP = 1e-4  # of differences of the relaxed expectation: their error is its square


def runner(estimator: Estimator, problem: SmallProblem, log_q: bool = False) -> RunOfDraws:
    r"""Draws of value, logits' and parameters' gradients, ``[N, coordinates]`` each."""

    def run(draws: int) -> list[Tensor]:
        logits, parameters = problem.leaves(draws)
        cost = estimator(logits, problem.objective(parameters), log_q=log_q)
        expected = list(logits.shape[:-2])
        require(
            isinstance(cost, Tensor) and list(cost.shape) == expected,
            f"cost has shape {list(getattr(cost, 'shape', [type(cost).__name__]))} for logits {list(logits.shape)}: "
            f"{expected} is expected",
        )
        return problem.gradients(cost, logits, parameters)

    return run


def with_own_value(run: RunOfDraws) -> RunOfDraws:
    r"""Value and parameters' gradients alone, for an estimator whose value is of draws of its own."""
    return lambda draws: run(draws)[::2]


def check_claims(estimator: Estimator) -> None:
    r"""What is claimed fits together: unbiased for the discrete expectation is only who estimates it."""
    require(
        estimator.target in OF_DRAWS or not estimator.unbiased,
        f"unbiased is claimed with target={estimator.target}: only an estimator of the discrete expectation can be",
    )


def check_rare_category(estimator: Estimator, problem: SmallProblem) -> None:
    r"""As :func:`check_expectation`, where all draws can be enumerated: others hardly ever draw what is rare."""
    try:
        enumerate_draws(runner(estimator, problem), len(problem.batch))
    except ContinuousNoise:
        return
    check_expectation(estimator, problem)


def check_expectation(estimator: Estimator, problem: SmallProblem, log_q: bool = False) -> None:
    r"""Value against the target; gradients to the logits (if unbiased for it) and to the parameters."""
    what = f"{problem.K} variables of {problem.C} categories{', log_q' if log_q else ''}"
    check_claims(estimator)
    run, truths = runner(estimator, problem, log_q), truths_of(estimator, problem, log_q)
    try:
        results = enumerate_draws(run, len(problem.batch))
    except ContinuousNoise:
        against = None if estimator.target in OF_DRAWS else another_way(estimator, problem, log_q)
        if estimator.target == OWN_DRAWS:
            run, truths = with_own_value(run), [None, None]
        expectations.assert_mean(run, truths, what, against)
    else:
        assert_close(results, truths, what)


def check_downhill(estimator: Estimator, problem: SmallProblem) -> None:
    r"""The expected gradient to the logits, biased as it may be, does not point away from the exact one."""
    run, gradient = runner(estimator, problem), problem.truth()[1]
    along: RunOfDraws = lambda draws: [run(draws)[1] @ gradient.unsqueeze(-1) / (gradient @ gradient)]
    try:
        (share,), noise = enumerate_draws(along, len(problem.batch)), 0.0
    except ContinuousNoise:
        torch.manual_seed(0)
        moments = expectations.MeanOfDraws()
        moments.add(along(expectations.DRAWS)[0])
        share, noise = moments.mean, expectations.z_bound(1) * float(moments.error())
    require(
        float(share) > -noise - EXACT,
        f"the logits' gradient points uphill: along the exact one, it is {float(share):.3g} times that",
    )


def truths_of(estimator: Estimator, problem: SmallProblem, log_q: bool = False) -> list[Tensor | None]:
    r"""Expected value, logits' and parameters' gradients as claimed; None for a gradient without a claim.

    Of an estimator without noise that does not evaluate at draws they are those at the point where it evaluates, a
    mode or a relaxation; with noise see :func:`another_way`.
    """
    if estimator.target in OF_DRAWS:
        value, gradient, of_parameters = problem.truth(log_q, samples_of_bound(estimator))
        return [value, gradient if estimator.unbiased else None, of_parameters]
    logits, parameters = problem.leaves(1)
    z = estimator.draw(logits)
    if estimator.target == OWN_DRAWS:
        try:
            value, of_parameters = enumerate_draws(at_own_draws(estimator, problem, log_q), len(problem.batch))
        except ContinuousNoise:
            return [None, None, None]
        return [value, None, of_parameters]
    if estimator.target == "mode":
        expected = torch.nn.functional.one_hot(logits.argmax(-1), problem.C).double()
        right = (z[0] - expected).abs().max() < EXACT
        require(right, "target is the mode, but z is not one-hot at the most probable categories")
    log_p = logits.log_softmax(-1) if estimator.attaches_log_q else logits.log_softmax(-1).detach()
    cost = problem.objective(parameters)(z)[0] + ((z[0] * log_p).sum((-2, -1)) if log_q else 0)
    value, gradient, of_parameters = [t[0] for t in problem.gradients(cost, logits, parameters)]
    return [value, gradient if estimator.target == "relaxed" else None, of_parameters]


def another_way(estimator: Estimator, problem: SmallProblem, log_q: bool) -> RunOfDraws:
    r"""Draws of a relaxation's expected value and gradients without its pathwise derivative.

    Of who claims nothing of its gradient, of the value and of the parameters' gradients alone.
    """
    if estimator.target == OWN_DRAWS:
        return at_own_draws(estimator, problem, log_q)
    noises = []

    def recorded(logits: Tensor, samples: int, gumbel: Callable[[Tensor, int], Tensor] = sampling.gumbel) -> Tensor:
        noises.append(gumbel(logits, samples))
        return noises[-1]

    with patched(gumbel=recorded), torch.no_grad():
        estimator.draw(problem.leaves(1)[0])
    return (score_of_noise if len(noises) == 1 else differences)(estimator, problem, log_q)


def at_own_draws(estimator: Estimator, problem: SmallProblem, log_q: bool) -> RunOfDraws:
    r"""The value without gradients, which is that of a single draw, and the parameters' gradients at the same draw."""

    def run(draws: int) -> list[Tensor]:
        logits, parameters = problem.leaves(draws)
        cost, at = problem.objective(parameters), []

        def noted(z: Tensor) -> Tensor:
            at.append(z)
            return cost(z)

        with torch.no_grad():
            value = estimator(logits, noted, log_q=log_q)
        _, _, of_parameters = problem.gradients(cost(at[0])[0], logits, parameters)
        return [value.reshape(draws, -1), of_parameters]

    return run


def score_of_noise(estimator: Estimator, problem: SmallProblem, log_q: bool) -> RunOfDraws:
    r"""The relaxed expectation's gradient by the score function: f(sample) times that of its Gumbel noise."""

    def run(draws: int) -> list[Tensor]:
        logits, parameters = problem.leaves(draws)
        noises = []

        def recorded(logits: Tensor, samples: int, gumbel: Callable[[Tensor, int], Tensor] = sampling.gumbel) -> Tensor:
            noises.append(gumbel(logits, samples))
            return noises[-1]

        with patched(gumbel=recorded), torch.no_grad():
            z = estimator.draw(logits)
        cost = problem.objective(parameters)(z)[0]
        if log_q:  # attached: its own dependence on the logits, beside that of the sample
            cost = cost + (z[0] * logits.log_softmax(-1)).sum((-2, -1))
        value, gradient, of_parameters = problem.gradients(cost, logits, parameters)
        score = (cost.detach() - cost.detach().mean())[..., None, None] * (1 - (-noises[0][0]).exp())
        return [value, gradient + score.flatten(1), of_parameters]

    return run


def differences(estimator: Estimator, problem: SmallProblem, log_q: bool) -> RunOfDraws:
    r"""The relaxed expectation's gradient by central differences of the sample's cost, with the same noise."""

    def cost_at(logits: Tensor, parameters: list[Tensor], state: Tensor) -> Tensor:
        torch.set_rng_state(state)
        with torch.no_grad():
            z = estimator.draw(logits)
        log_p = logits.detach().log_softmax(-1)
        return problem.objective(parameters)(z)[0] + ((z[0] * log_p).sum((-2, -1)) if log_q else 0)

    def run(draws: int) -> list[Tensor]:
        logits, parameters = problem.leaves(draws)
        state = torch.get_rng_state()
        value, gradient, of_parameters = problem.gradients(cost_at(logits, parameters, state), logits, parameters)
        flat = logits.detach().flatten(1)
        with torch.no_grad():
            for i in range(flat.shape[1]):
                moved = []
                for step in (STEP, -STEP):
                    at = flat.clone()
                    at[:, i] += step
                    moved.append(cost_at(at.reshape(logits.shape), parameters, state).reshape(draws, -1).sum(-1))
                gradient[:, i] = (moved[0] - moved[1]) / (2 * STEP)
        return [value, gradient, of_parameters]

    return run
