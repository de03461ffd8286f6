r"""What every estimator is held to: exact enumeration where its randomness is finite, seeded z-tests elsewhere.

Each ``check_*`` function takes an estimator and raises an AssertionError if it breaks the contract, so that
the suite can be turned on deliberately wrong estimators as well.
"""

import contextlib
import copy
import itertools
import math
from dataclasses import dataclass

import torch
from scipy.stats import norm

from hardmax.estimators import sampling

FALSE_ALARM = 1e-3  # probability that a z-test of a right estimator asks for more draws
OF_DRAWS = ("expectation", "bound")  # targets of estimators that evaluate the objective at discrete draws
DRAWS = 50_000  # of a z-test's first round; the second takes ten times as many


class ContinuousNoise(Exception):
    """The estimator uses noise that cannot be enumerated."""


# ---------------------------------------------------------------- enumeration of the sampling module


class Enumeration:
    """Stands in for ``sampling.categorical`` and returns outcome n in position n of a leading dimension.

    That dimension is the one before the ``batch_dims`` last batch dimensions; whatever lies left of it is
    enumerated jointly. The first pass, with one outcome, only counts; the second returns all of them.
    """

    def __init__(self, batch_dims: int, outcomes: int = 1):
        self.batch_dims, self.outcomes = batch_dims, outcomes
        self.stride = 1
        self.log_weight = torch.zeros(outcomes, dtype=torch.float64)

    def __call__(self, logits, samples):
        shape = (samples, *logits.shape[:-1])  # [S, *extra, N, *batch, K]
        axis = len(shape) - 2 - self.batch_dims
        assert shape[axis] == self.outcomes, "the dimension of outcomes is not where it should be"
        C, others = logits.shape[-1], [n for i, n in enumerate(shape) if i != axis]
        digits = math.prod(others)
        n = torch.arange(self.outcomes).unsqueeze(-1) // self.stride
        index = n // C ** torch.arange(digits) % C  # [N, digits]
        self.stride *= C**digits
        index = index.reshape(self.outcomes, *others).movedim(0, axis)
        log_p = logits.log_softmax(-1).expand(*shape, C).gather(-1, index.unsqueeze(-1)).squeeze(-1)
        self.log_weight += log_p.detach().movedim(axis, 0).reshape(self.outcomes, -1).sum(-1)
        return index


@contextlib.contextmanager
def patched(categorical=None, gumbel=None, uniform=None):
    """Puts other functions in the place of the sampling module's own."""
    before = sampling.categorical, sampling.gumbel, sampling.uniform
    ours = categorical, gumbel, uniform
    sampling.categorical, sampling.gumbel, sampling.uniform = (f or b for f, b in zip(ours, before, strict=True))
    try:
        yield
    finally:
        sampling.categorical, sampling.gumbel, sampling.uniform = before


def forbid(logits, samples):
    raise ContinuousNoise


# ---------------------------------------------------------------- problems


@dataclass
class Problem:
    """K C-way variables, float64, and an objective that is not multilinear and has parameters of its own."""

    K: int
    C: int
    batch: tuple[int, ...] = ()
    linear: bool = False
    extreme: float = 0.7
    seed: int = 0

    def __post_init__(self):
        g = torch.Generator().manual_seed(1000 * self.K + 10 * self.C + self.seed)
        make = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
        self.logits = self.extreme * make(*self.batch, self.K, self.C)
        self.parameters = [make(self.K, self.C), make(self.K, self.C)]
        self.scale = 1 + 0.5 * torch.arange(math.prod(self.batch), dtype=torch.float64).reshape(self.batch)
        assert self.logits.softmax(-1).min() > 0.02, "no category may be rarer than 0.02"

    def objective(self, parameters):
        """Costs ``[S, *lead, *batch]`` of z, with parameters ``[*lead, *1s, K, C]``."""
        a, b = parameters

        def cost(z):
            u, v = (z * a).sum((-2, -1)), (z * b).sum((-2, -1))
            if self.linear:
                return self.scale * (u + 0.5 * v)
            return self.scale * (2 * torch.tanh(u) + v**2 + torch.exp(0.3 * u * v) + 1)

        return cost

    def leaves(self, lead: int):
        """Logits and parameters with one independent copy for each of ``lead`` draws."""
        logits = self.logits.expand(lead, *self.logits.shape).clone().requires_grad_()
        ones = [1] * len(self.batch)
        parameters = [
            p.expand(lead, *p.shape).reshape(lead, *ones, *p.shape).clone().requires_grad_() for p in self.parameters
        ]
        return logits, parameters

    def gradients(self, cost, logits, parameters):
        """Value and gradients of every draw, flattened: ``[lead, coordinates]`` each."""
        leaves = [logits, *parameters]
        found = torch.autograd.grad(cost.sum(), leaves, allow_unused=True)
        found = [torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)]
        return [t.detach().flatten(1) for t in (cost.reshape(len(logits), -1), found[0], torch.stack(found[1:], 1))]

    def one_hots(self):
        """All configurations, ``[C ** K, 1, *1s, K, C]``, by ``itertools``."""
        index = torch.tensor(list(itertools.product(range(self.C), repeat=self.K)))
        z = torch.nn.functional.one_hot(index, self.C).double()
        return z.reshape(len(z), 1, *[1] * len(self.batch), self.K, self.C)

    def truth(self, log_q=False, samples=1):
        """Exact expectation, its gradient to the logits and to the parameters, each ``[coordinates]``.

        With ``samples``, that of minus the bound of so many draws: of one draw, minus the bound is the cost.
        """
        logits, parameters = self.leaves(1)
        z = self.one_hots()
        log_p = (z * logits.log_softmax(-1)).sum((-2, -1))
        cost = self.objective(parameters)(z.expand(len(z), *logits.shape)) + (log_p if log_q else 0)
        tuples = torch.cartesian_prod(*[torch.arange(len(z))] * samples).reshape(-1, samples)
        bound = (-cost[tuples]).logsumexp(1) - math.log(samples)
        return [t[0] for t in self.gradients((log_p[tuples].sum(1).exp() * -bound).sum(0), logits, parameters)]


PROBLEMS = [Problem(1, 5), Problem(2, 3), Problem(3, 2)]
SMALL = Problem(2, 2)


def fitting(estimator, problem):
    """The problem, or a smaller one with two examples for a baseline over examples."""
    if getattr(estimator, "baseline", None) == "batch":
        return Problem(problem.K, 2, (2,), extreme=0.4)
    return problem


# ---------------------------------------------------------------- expectations


def enumerate_draws(run, batch_dims=0):
    """The weighted sum over all outcomes of ``run(N) -> list of [N, coordinates]``; raises ContinuousNoise."""
    count = Enumeration(batch_dims)
    with patched(count, forbid, forbid):
        run(1)
    outcomes = Enumeration(batch_dims, count.stride)
    with patched(outcomes, forbid, forbid):
        results = run(count.stride)
    weight = outcomes.log_weight.exp().unsqueeze(-1)
    assert abs(weight.sum() - 1) < 1e-10, "the probabilities of the outcomes do not sum to 1"
    return [(weight * r).sum(0) for r in results]


class Moments:
    """Mean and standard error of the mean, over draws that come in parts."""

    def __init__(self):
        self.n, self.mean, self.m2 = 0, 0.0, 0.0

    def add(self, draws):
        n, mean = len(draws), draws.mean(0)
        delta, total = mean - self.mean, self.n + n
        self.m2 = self.m2 + ((draws - mean) ** 2).sum(0) + delta**2 * self.n * n / total
        self.mean, self.n = self.mean + delta * n / total, total

    def error(self):
        return (self.m2 / (self.n - 1) / self.n).sqrt()


def z_scores(moments, truth):
    """Deviations in standard errors; a coordinate without variance must be right to 1e-9."""
    true_mean, true_error = (truth.mean, truth.error()) if isinstance(truth, Moments) else (truth, 0.0)
    error = (moments.error() ** 2 + true_error**2) ** 0.5
    deviation = (moments.mean - true_mean).abs()
    return torch.where(deviation < 1e-9, 0.0, deviation / error.clamp(min=1e-300))


def assert_mean(run, truths, what, against=None, seed=0, rounds=(DRAWS, 10 * DRAWS)):
    """z-tests the mean of ``run(M) -> list of [M, coordinates]`` against ``truths`` in every coordinate.

    On a failure ten times more draws are added, never a new seed. ``against(M)`` is another random way to the
    truth, in the place of exact ones. Comparisons whose truth is None are left out.
    """
    torch.manual_seed(seed)
    ours = [Moments() for _ in run(1)]
    theirs = [Moments() for _ in ours] if against else truths
    for draws in rounds:
        for _ in range(draws // DRAWS):
            for m, r in zip(ours, run(DRAWS), strict=True):
                m.add(r)
            if against:
                for m, r in zip(theirs, against(DRAWS), strict=True):
                    m.add(r)
        scores = [z_scores(m, t) for m, t in zip(ours, theirs, strict=True) if t is not None]
        z = torch.cat(scores)
        bound = norm.isf(FALSE_ALARM / 2 / len(z))
        if z.max() < bound:
            return
    raise AssertionError(f"{what}: off by {z.max():.1f} standard errors (bound {bound:.1f})")


def assert_close(results, truths, what):
    for name, result, truth in zip(("value", "logits' gradient", "parameters' gradient"), results, truths, strict=True):
        if truth is not None:
            error = (result - truth).abs().max()
            assert error < 1e-10, f"{what}: {name} is off by {error:.2e}"


# ---------------------------------------------------------------- the checks


def runner(estimator, problem, log_q=False):
    def run(draws):
        logits, parameters = problem.leaves(draws)
        cost = estimator(logits, problem.objective(parameters), log_q=log_q)
        assert cost.shape == logits.shape[:-2], f"cost has shape {list(cost.shape)}, logits {list(logits.shape)}"
        return problem.gradients(cost, logits, parameters)

    return run


def score_function_of_noise(estimator, problem, log_q):
    """The relaxed expectation's gradient without any pathwise derivative: f(sample) times the Gumbel score."""

    def run(draws):
        logits, parameters = problem.leaves(draws)
        noises = []

        def recorded(logits, samples, gumbel=sampling.gumbel):
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


def check_expectation(estimator, problem, log_q=False):
    """Value against the target; gradients to the logits (if unbiased for it) and to the parameters."""
    what = f"{problem.K} variables of {problem.C} categories{', log_q' if log_q else ''}"
    run = runner(estimator, problem, log_q)
    if estimator.target in OF_DRAWS:
        samples = estimator.samples if estimator.target == "bound" else 1
        value, gradient, of_parameters = problem.truth(log_q, samples)
        truths = [value, gradient if estimator.unbiased else None, of_parameters]
    else:
        assert not estimator.unbiased, "only an estimator of the discrete expectation is unbiased for it"
        truths = relaxed_truth(estimator, problem, log_q)
    try:
        results = enumerate_draws(run, len(problem.batch))
    except ContinuousNoise:
        against = None if estimator.target in OF_DRAWS else score_function_of_noise(estimator, problem, log_q)
        assert_mean(run, truths, what, against)
    else:
        assert_close(results, truths, what)


def relaxed_truth(estimator, problem, log_q):
    """Truths of an estimator without noise at the point where it evaluates: a mode or a relaxation."""
    logits, parameters = problem.leaves(1)
    z = estimator.draw(logits)
    if estimator.target == "mode":
        expected = torch.nn.functional.one_hot(logits.argmax(-1), problem.C).double()
        assert torch.equal(z[0], expected), "the mode is not the most probable categories"
    log_p = logits.log_softmax(-1) if estimator.attaches_log_q else logits.log_softmax(-1).detach()
    cost = problem.objective(parameters)(z)[0] + ((z[0] * log_p).sum((-2, -1)) if log_q else 0)
    value, gradient, of_parameters = [t[0] for t in problem.gradients(cost, logits, parameters)]
    return [value, gradient if estimator.target == "relaxed" else None, of_parameters]


def check_leading_dimensions(estimator):
    """Any number of leading dimensions, in the last of which examples differ."""
    batches = [(), (2,), (2, 2), (2, 1, 2)]
    for batch in batches if fitting(estimator, SMALL) is SMALL else batches[1:]:
        check_expectation(estimator, Problem(1, 2, batch, extreme=0.4))


def check_independent_draws(estimator, problem):
    """Copies along a leading dimension are independent: what one of them costs is nothing to the others."""
    results = []
    for factor in (1.0, 100.0):
        torch.manual_seed(5)
        logits, parameters = problem.leaves(3)
        with torch.no_grad():
            parameters[0][0] *= factor
        cost = estimator(logits, problem.objective(parameters))
        results.append([r[1:] for r in problem.gradients(cost, logits, parameters)])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b), "gradient draws along a leading dimension depend on each other"


def evaluations(estimator, problem, enabled=True):
    """Rows on which the objective is evaluated with and without gradients, per example."""
    rows = {True: 0, False: 0}
    logits, parameters = problem.leaves(1)
    objective = problem.objective(parameters)

    def counted(z):
        rows[torch.is_grad_enabled()] += len(z)
        return objective(z)

    with torch.set_grad_enabled(enabled):
        estimator(logits, counted)
    return rows[True], rows[False]


def check_without_gradients(estimator, problem):
    """With gradients disabled: one evaluation, of the target (for a bound, that of one draw), and nothing moves."""
    assert evaluations(estimator, problem, enabled=False) == (0, 1), "more than one evaluation without gradients"
    if estimator.target in OF_DRAWS:

        def run(draws):
            logits, parameters = problem.leaves(draws)
            with torch.no_grad():
                return [estimator(logits, problem.objective(parameters)).reshape(draws, -1)]

        truth = problem.truth()[:1]
        try:
            results = enumerate_draws(run, len(problem.batch))
        except ContinuousNoise:
            assert_mean(run, truth, "value without gradients")
        else:
            assert_close([*results, None, None], [*truth, None, None], "value without gradients")


@dataclass
class Nested:
    """Two stochastic layers: the second's logits depend on the first's draw."""

    upper: Problem
    lower: Problem

    def leaves(self, lead):
        g = torch.Generator().manual_seed(7)
        logits, parameters = self.upper.leaves(lead)
        weight = torch.randn(self.upper.K * self.upper.C, self.lower.K * self.lower.C, generator=g).double()
        weight = 0.3 * weight.expand(lead, *weight.shape).clone()
        return logits, parameters, weight.requires_grad_()

    def logits_below(self, z, weight):
        return self.lower.logits + (z.flatten(-2).unsqueeze(-2) @ weight).squeeze(-2).unflatten(
            -1, (self.lower.K, self.lower.C)
        )

    def cost(self, z1, z2, parameters):
        return self.upper.objective(parameters)(z1) * (1 + (z2 * self.lower.parameters[0]).sum((-2, -1)).tanh())

    def truth(self):
        logits, parameters, weight = self.leaves(1)
        z1 = self.upper.one_hots()
        z1 = z1.expand(len(z1), 1, *z1.shape[2:])
        z2 = self.lower.one_hots().unsqueeze(1)
        below = self.logits_below(z1, weight)
        log_p = (z1 * logits.log_softmax(-1)).sum((-2, -1)) + (z2 * below.log_softmax(-1)).sum((-2, -1))
        total = (log_p.exp() * self.cost(z1, z2, parameters)).sum()
        return [total.reshape(1), *(g.flatten() for g in torch.autograd.grad(total, [logits, weight, *parameters]))]

    def run(self, outer, inner, count=None):
        def run(draws):
            logits, parameters, weight = self.leaves(draws)

            def objective(z1):
                def below(z2):
                    if count is not None:
                        count.append(z2.shape[:-2].numel() // draws)
                    return self.cost(z1, z2, parameters)

                return inner(self.logits_below(z1, weight), below)

            cost = outer(logits, objective)
            leaves = [logits, weight, *parameters]
            found = torch.autograd.grad(cost.sum(), leaves, allow_unused=True)
            found = [torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)]
            return [cost.detach().unsqueeze(-1), *(g.flatten(1) for g in found)]

        return run


def check_nested(outer, inner):
    """An estimator inside another's objective: expectation, all gradients, and the number of evaluations.

    A bound is not linear in its costs, so its expectation is not that of costs without the noise of another layer.
    """
    nested = Nested(Problem(1, 3), Problem(1, 2))
    with_gradients, without = evaluations(outer, nested.upper)
    count = []
    results = nested.run(outer, inner, count)(1)
    assert all(r.isfinite().all() for r in results)
    expected = with_gradients * sum(evaluations(inner, nested.lower)) + without
    assert sum(count) == expected, f"{sum(count)} evaluations of the innermost objective, not {expected}"
    if outer.unbiased and inner.unbiased and outer.target == inner.target == "expectation":
        run, truth = nested.run(outer, inner), nested.truth()
        try:
            found = enumerate_draws(run)
        except ContinuousNoise:
            assert_mean(run, truth, "nested")
        else:
            error = max((r - t).abs().max() for r, t in zip(found, truth, strict=True))
            assert error < 1e-10, f"nested: off by {error:.2e}"


def check_state(estimator, problem):
    """A call moves no state, and learned parts or statistics leave the model's gradients bit-identical."""
    runner(estimator, problem)(1)  # lets learned parts take their sizes
    before = {k: v.clone() if isinstance(v, torch.Tensor) else dict(v) for k, v in estimator.state_dict().items()}
    results = {}
    for mode in (True, False):
        estimator.train(mode)
        torch.manual_seed(3)
        results[mode] = runner(estimator, problem)(4)
    estimator.train()
    for a, b in zip(results[True], results[False], strict=True):
        assert torch.equal(a, b), "training and evaluation mode give the model different gradients"
    with torch.no_grad():
        estimator(problem.logits, problem.objective(problem.parameters))
    after = estimator.state_dict()
    assert before.keys() == after.keys()
    for key, value in before.items():
        same = torch.equal(value, after[key]) if isinstance(value, torch.Tensor) else value == after[key]
        assert same, f"a call moved the state {key}"


def gradient_draws(estimator, problem, objective=None, lead=50):
    """Gradient draws ``[lead, *batch, K, C]`` to the logits, always from the same random stream."""
    torch.manual_seed(1)
    logits, parameters = problem.leaves(lead)
    cost = estimator(logits, objective or problem.objective(parameters))
    return torch.autograd.grad(cost.sum(), logits)[0]


def check_sum_over_categories(estimator, problem):
    """Every draw sums to zero over the categories, as the softmax does not see a shift of its logits."""
    assert gradient_draws(estimator, problem).sum(-1).abs().max() < 1e-12


def check_constants(estimator, problem):
    """A constant has no gradient in any draw, alone or added to an objective."""
    cost = problem.objective(problem.parameters)
    shifted = gradient_draws(estimator, problem, lambda z: cost(z) + 1000)
    assert (gradient_draws(estimator, problem, cost) - shifted).abs().max() < 1e-9
    constant = gradient_draws(estimator, problem, lambda z: torch.full(z.shape[:-2], 7.0, dtype=z.dtype))
    assert constant.abs().max() < 1e-12


def certify(estimator):
    """Everything above."""
    for problem in PROBLEMS:
        check_expectation(estimator, fitting(estimator, problem))
    small = fitting(estimator, SMALL)
    check_expectation(estimator, small, log_q=True)
    check_without_gradients(estimator, small)
    check_leading_dimensions(estimator)
    check_independent_draws(estimator, small)
    check_state(estimator, small)
    if not small.batch:
        check_nested(estimator, copy.deepcopy(estimator))
