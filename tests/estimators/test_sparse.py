"""Sparsemax and 1.5-entmax: their definitions, their Jacobians, and the estimators made of them."""

import itertools

import pytest
import torch

from hardmax import certification as c
from hardmax.estimators import (
    Entmax,
    Exact,
    IdentityStraightThrough,
    Softmax,
    SparseExpectation,
    Sparsemax,
    StochasticStraightThrough,
    StraightThroughEntmax,
    StraightThroughSparsemax,
    sampling,
)
from hardmax.estimators.sparse import entmax, sparsemax

MAPPINGS = {"sparsemax": (sparsemax, 2.0), "entmax": (entmax, 1.5)}  # and Tsallis's alpha
every_mapping = pytest.mark.parametrize("name", MAPPINGS)


def by_halving(x, alpha):
    """The mapping by its definition: ``[(alpha - 1) x - threshold]_+ ** (1 / (alpha - 1))`` that sums to 1."""
    x = (alpha - 1) * (x - x.amax(-1, keepdim=True))
    low, high = torch.full_like(x[..., :1], -1.0), torch.zeros_like(x[..., :1])
    for _ in range(80):
        middle = (low + high) / 2
        above = (x - middle).clamp(min=0).pow(1 / (alpha - 1)).sum(-1, keepdim=True) >= 1
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (x - low).clamp(min=0).pow(1 / (alpha - 1))


def logits_of(C, scale, dtype=torch.float64, rows=40):
    g = torch.Generator().manual_seed(C)
    return (scale * torch.randn(rows, C, generator=g, dtype=torch.float64)).to(dtype)


@every_mapping
@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0, 1e4])
@pytest.mark.parametrize("C", [1, 2, 5, 300, 4096])
def test_values_are_those_of_the_definition(name, C, scale):
    mapping, alpha = MAPPINGS[name]
    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 1e-6)):
        x = logits_of(C, scale, dtype)
        found = mapping(x)
        assert (found >= 0).all()
        assert (found.double() - by_halving(x.double(), alpha)).abs().max() < tolerance
        assert (found.sum(-1) - 1).abs().max() < 20 * tolerance


@every_mapping
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_jacobians_are_the_published_ones(name, scale):
    """diag(s) - s s' / sum(s), with s the support's indicator for sparsemax and the roots of p for 1.5-entmax."""
    mapping, _ = MAPPINGS[name]
    for x in logits_of(6, scale):
        p = mapping(x)
        s = (p > 0).double() if name == "sparsemax" else p.sqrt()
        right = torch.diag(s) - torch.outer(s, s) / s.sum()
        assert (torch.autograd.functional.jacobian(mapping, x) - right).abs().max() < 1e-12


@every_mapping
def test_ties_and_impossible_categories(name):
    mapping, _ = MAPPINGS[name]
    assert torch.equal(mapping(torch.full((2, 4), 7.0)), torch.full((2, 4), 0.25))
    x = torch.tensor([-torch.inf, 0.5, 0.5, -torch.inf, -9.0], requires_grad=True)
    p = mapping(x)
    assert p.tolist() == pytest.approx([0, 0.5, 0.5, 0, 0])
    assert p[[0, 3, 4]].tolist() == [0, 0, 0]
    (gradient,) = torch.autograd.grad(p[1], x)
    assert gradient.tolist() == pytest.approx(
        [0, 0.5, -0.5, 0, 0] if name == "sparsemax" else [0, 0.3535534, -0.3535534, 0, 0]
    )
    edge = torch.tensor([1.0, 0.0]) * (1 if name == "sparsemax" else 2)  # the second is at the threshold
    assert mapping(edge).tolist() == [1, 0]


def test_sparsemax_is_the_nearest_point_of_the_simplex():
    x = logits_of(5, 1.0)
    others = torch.distributions.Dirichlet(torch.full((5,), 0.3, dtype=torch.float64)).sample((2000, 1))
    nearest = (x - sparsemax(x)).square().sum(-1)
    assert (nearest <= (x - others).square().sum(-1)).all()


@pytest.mark.parametrize(("sparse", "dense"), [(Sparsemax, Entmax), (Entmax, Softmax)], ids=["entmax", "softmax"])
def test_supports_are_nested(sparse, dense):
    x = logits_of(9, 2.0).unsqueeze(-2)
    some, more = (e().draw(x) > 0 for e in (sparse, dense))
    assert (more | ~some).all()
    assert some.sum() < more.sum()


def expected(estimator, problem):
    return c.enumerate_draws(c.runner(estimator, problem))


@pytest.mark.parametrize("make", [StraightThroughSparsemax, StraightThroughEntmax])
def test_straight_through_is_the_jacobian_at_the_tempered_logits(make):
    problem, tau = c.SmallProblem(2, 4, extreme=0.5), 0.4
    name = "sparsemax" if make is StraightThroughSparsemax else "entmax"
    torch.manual_seed(0)
    logits, parameters = problem.leaves(20)
    seen = []

    def objective(z):
        z.retain_grad()
        seen.append(z)
        return problem.objective(parameters)(z)

    make(tau)(logits, objective).sum().backward()
    assert set(seen[0].unique().tolist()) == {0.0, 1.0}
    for n, k in itertools.product(range(20), range(2)):
        J = torch.autograd.functional.jacobian(MAPPINGS[name][0], problem.logits[k] / tau) / tau
        assert (logits.grad[n, k] - J @ seen[0].grad[0, n, k]).abs().max() < 1e-12


def test_where_all_have_weight_straight_through_sparsemax_is_the_centred_identity():
    problem = c.SmallProblem(2, 4, extreme=0.5)
    problem.logits = 0.1 * problem.logits
    one, other = expected(StraightThroughSparsemax(), problem), expected(IdentityStraightThrough(centred=True), problem)
    assert (one[1] - other[1]).abs().max() < 1e-12


@pytest.mark.parametrize("make", [StraightThroughSparsemax, StraightThroughEntmax])
def test_straight_through_is_biased_even_for_a_linear_objective(make):
    problem = c.SmallProblem(2, 3, linear=True)
    truth = problem.truth()[1]
    assert (expected(StochasticStraightThrough(), problem)[1] - truth).norm() < 1e-12
    assert (expected(make(), problem)[1] - truth).norm() > 0.02 * truth.norm()


# ---------------------------------------------------------------- the expectation under sparsemax


def under_sparsemax(problem, log_q=False):
    """Value, logits' and parameters' gradients, by the sum over all configurations of sparsemax's probabilities."""
    logits, parameters = problem.leaves(1)
    support = by_halving(problem.logits, 2.0) > 1e-12
    inside = logits * support
    p = (inside - (inside.sum(-1, keepdim=True) - 1) / support.sum(-1, keepdim=True)) * support
    z = problem.one_hots()
    weight = (z * p).sum(-1).prod(-1)
    cost = problem.objective(parameters)(z.expand(len(z), *logits.shape))
    if log_q:
        cost = cost + torch.where(weight > 0, weight, 1.0).log()
    return [t[0] for t in problem.gradients((weight * cost).sum(0), logits, parameters)]


UNEVEN = c.SmallProblem(2, 4, extreme=0.5)  # supports of 2 and of 4 categories
UNEVEN.logits = torch.tensor([[1.0, 0.3, -0.1, -0.5], [0.1, 0.0, -0.1, 0.2]], dtype=torch.float64)
TWO_EXAMPLES = c.SmallProblem(2, 3, (2,), extreme=0.4)
TWO_EXAMPLES.logits = TWO_EXAMPLES.logits * torch.tensor([5.0, 0.5], dtype=torch.float64).reshape(2, 1, 1)


@pytest.mark.parametrize("log_q", [False, True])
@pytest.mark.parametrize("problem", [*c.PROBLEMS, UNEVEN, TWO_EXAMPLES], ids=["1,5", "2,3", "3,2", "uneven", "batch"])
def test_value_and_gradients_are_the_sum_over_all_configurations(problem, log_q):
    found = [r[0] for r in c.runner(SparseExpectation(), problem, log_q)(1)]
    for result, right in zip(found, under_sparsemax(problem, log_q), strict=True):
        assert (result - right).abs().max() < 1e-12


def test_only_the_supports_are_evaluated():
    assert c.evaluations(SparseExpectation(), UNEVEN) == (8, 0)
    assert c.evaluations(SparseExpectation(), TWO_EXAMPLES) == (6, 0), "of the largest supports of the batch, 2 and 3"
    with pytest.raises(ValueError, match=r"limit is 7 joint configurations, but the supports of 2 variables .* have 8"):
        SparseExpectation(7)(UNEVEN.logits, lambda z: z.sum((-2, -1)))
    nested = SparseExpectation(511)
    nested.inner = torch.nn.ModuleList([SparseExpectation(), SparseExpectation()])
    with pytest.raises(ValueError, match=r"the supports of 6 variables of 4 categories have 8\^3"):
        nested(UNEVEN.logits, lambda z: z.sum((-2, -1)))
    sure = torch.tensor([3.0, 0.0, 1.0]).expand(40, 3)  # 3 ** 40 configurations, of which one has weight
    assert SparseExpectation()(sure, lambda z: z[..., 0].sum(-1)) == 40


def test_its_draws_are_those_of_sparsemax():
    def run(n):
        return [SparseExpectation().sample(UNEVEN.logits.expand(n, 2, 4)).flatten(1)]

    (mean,) = c.enumerate_draws(run)
    assert (mean - by_halving(UNEVEN.logits, 2.0).flatten()).abs().max() < 1e-12


def test_of_equal_logits_it_is_the_exact_expectation_but_for_the_scale_of_the_gradient():
    problem = c.SmallProblem(2, 3)
    problem.logits = torch.full((2, 3), -0.2, dtype=torch.float64)
    (value, gradient, of_parameters), right = (c.runner(e, problem)(1) for e in (SparseExpectation(), Exact()))
    assert torch.allclose(value, right[0])
    assert torch.allclose(gradient, 3 * right[1])
    assert torch.allclose(of_parameters, right[2])


class OtherDraws(SparseExpectation):
    """Draws from the softmax of the logits where gradients are disabled."""

    def draw(self, logits):
        return sampling.draw(logits, 1)


class SoftmaxInSupport(SparseExpectation):
    """The expectation under the softmax, of whatever it draws."""

    def estimate(self, logits, objective, context):
        return Exact().estimate(logits, objective, context)


@pytest.mark.parametrize("mutant", [OtherDraws, SoftmaxInSupport])
def test_a_value_that_is_not_of_its_own_draws_is_rejected(mutant):
    c.check_expectation(SparseExpectation(), UNEVEN)
    with pytest.raises(AssertionError, match="value is off"):
        c.check_expectation(mutant(), UNEVEN)


@pytest.mark.parametrize("make", [Sparsemax, Entmax, StraightThroughSparsemax, StraightThroughEntmax])
def test_a_temperature_of_0_is_refused(make):
    with pytest.raises(ValueError, match="temperature must be a number above 0, got 0"):
        make(0)
