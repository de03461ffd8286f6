"""Identities of the relaxations and of the straight-through family."""

import functools

import numpy as np
import pytest
import torch

from hardmax import certification as c
from hardmax.estimators import (
    GumbelSoftmax,
    Softmax,
    StochasticStraightThrough,
    StraightThrough,
    StraightThroughGumbelSoftmax,
    sampling,
)
from hardmax.estimators.exact import Exact
from hardmax.estimators.gumbel_softmax import log_concrete

LINEAR = c.SmallProblem(2, 3, linear=True)


def expected(estimator, problem):
    return c.enumerate_draws(c.runner(estimator, problem))


def test_straight_through_is_exact_for_a_linear_objective_only():
    estimator = StochasticStraightThrough()
    c.assert_close(expected(estimator, LINEAR), LINEAR.truth(), "linear")
    curved = c.SmallProblem(2, 3)
    assert (expected(estimator, curved)[1] - curved.truth()[1]).abs().max() > 0.05, "exact for a curved objective?"


def test_straight_through_adds_the_exact_kl_without_variance():
    """The gradient of a detached log q through a hard draw is that of the analytic negative entropy, in every draw."""
    logits = LINEAR.logits.expand(10, *LINEAR.logits.shape).clone().requires_grad_()
    cost = StochasticStraightThrough()(logits, lambda z: 0 * z.sum((-2, -1)), log_q=True)
    (found,) = torch.autograd.grad(cost.sum(), logits)
    entropy = (logits.softmax(-1) * logits.log_softmax(-1)).sum()
    (exact,) = torch.autograd.grad(entropy, logits)
    assert torch.allclose(found, exact)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("make", [StraightThrough, StochasticStraightThrough])
def test_straight_through_keeps_one_over_the_temperature(temperature, make):
    logits = c.SmallProblem(2, 3).logits.clone().requires_grad_()
    weight = c.SmallProblem(2, 3).parameters[0]
    cost = make(temperature)(logits, lambda z: (z * weight).sum((-2, -1)))
    (found,) = torch.autograd.grad(cost, logits)
    p = (logits / temperature).softmax(-1)
    assert torch.allclose(found, p * (weight - (p * weight).sum(-1, keepdim=True)) / temperature)


def test_st_gumbel_softmax_draw_by_draw():
    """The derivative at the hard draw, through the Jacobian of the soft sample of the same noise, over tau."""
    problem, tau = c.SmallProblem(2, 3), 0.7
    logits, parameters = problem.leaves(100)
    objective = problem.objective(parameters)
    torch.manual_seed(4)
    (found,) = torch.autograd.grad(StraightThroughGumbelSoftmax(tau)(logits, objective).sum(), logits)
    torch.manual_seed(4)
    perturbed = logits.detach() + sampling.gumbel(logits, 1)[0]
    hard = sampling.one_hot(perturbed.argmax(-1), logits).requires_grad_()
    (g,) = torch.autograd.grad(objective(hard.unsqueeze(0)).sum(), hard)
    y = (perturbed / tau).softmax(-1)
    assert torch.allclose(found, y * (g - (y * g).sum(-1, keepdim=True)) / tau)


@functools.cache
def quadrature_nodes(nodes=2000):
    """Two Gumbel variables matter through their difference, logit(u): Gauss-Legendre nodes in u."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    return torch.tensor((x + 1) / 2).logit(), torch.tensor(w / 2)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_gumbel_softmax_is_the_integral_over_its_noise(temperature):
    """Value, and gradient against a central difference, by quadrature for two categories."""
    noise, weight = quadrature_nodes()
    problem = c.SmallProblem(1, 2)

    def gumbel(logits, samples):
        return torch.stack([noise, torch.zeros_like(noise)], -1).reshape(1, -1, 1, 2)

    def integral(shift):
        y = ((problem.logits[0, 0] - problem.logits[0, 1] + shift + noise) / temperature).sigmoid()
        z = torch.stack([y, 1 - y], -1).reshape(1, -1, 1, 2)
        return (weight * problem.objective(problem.parameters)(z)[0]).sum()

    with c.patched(gumbel=gumbel):
        value, gradient, _ = c.runner(GumbelSoftmax(temperature), problem)(len(noise))
    assert abs((weight * value[:, 0]).sum() - integral(0.0)) < 1e-10
    slope = (integral(1e-5) - integral(-1e-5)) / 2e-5
    assert abs((weight * gradient[:, 0]).sum() - slope) < 1e-7
    assert gradient.sum(-1).abs().max() < 1e-12


@pytest.mark.parametrize("make", [GumbelSoftmax, StraightThroughGumbelSoftmax])
def test_learned_temperature_trains_on_the_loss(make):
    problem = c.SmallProblem(2, 3, linear=make is StraightThroughGumbelSoftmax)
    objective = problem.objective(problem.parameters)

    def relaxed(estimator):
        torch.manual_seed(6)
        perturbed = problem.logits + sampling.gumbel(problem.logits, 1)[0]
        return objective(estimator.relaxed(perturbed).unsqueeze(0))[0]

    estimator = make(0.8, learned=True).double()
    torch.manual_seed(6)
    estimator(problem.logits.clone().requires_grad_(), objective).backward()
    with torch.no_grad():
        values = []
        for shift in (1e-6, -2e-6):
            estimator.temperature.log_value.add_(shift)
            values.append(relaxed(estimator))
    slope = (values[0] - values[1]) / 2e-6
    assert estimator.temperature.log_value.grad == pytest.approx(float(slope), abs=1e-7)


@pytest.mark.parametrize("make", [GumbelSoftmax, StraightThroughGumbelSoftmax])
def test_learned_temperature_beside_a_ruled_out_category(make):
    estimator = make(0.8, learned=True)
    logits = torch.tensor([[0.0, 1.0, -torch.inf]]).expand(50, 1, 3).clone().requires_grad_()
    estimator(logits, lambda z: z[..., 0].sum(-1)).sum().backward()
    assert logits.grad.isfinite().all()
    assert estimator.temperature.log_value.grad.isfinite()


def test_schedule_of_the_temperature():
    estimator = GumbelSoftmax(temperature=1.0, rate=0.01, floor=0.5, every=10)
    seen = []
    for _ in range(100):
        seen.append(float(estimator.temperature()))
        estimator.advance()
    assert seen[:10] == [1.0] * 10
    assert seen[10:20] == pytest.approx([np.exp(-0.1)] * 10)
    assert seen[69] == pytest.approx(np.exp(-0.6))
    assert seen[70:] == pytest.approx([0.5] * 30), "not below the floor"
    again = GumbelSoftmax(temperature=1.0, rate=0.01, floor=0.5, every=10)
    again.load_state_dict(estimator.state_dict())
    assert again.temperature.steps == 100
    assert float(again.temperature()) == pytest.approx(0.5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_softmax_is_the_objective_at_the_tempered_probabilities(temperature):
    problem = c.SmallProblem(2, 3)
    objective = problem.objective(problem.parameters)
    logits = problem.logits.clone().requires_grad_()
    cost = Softmax(temperature)(logits, objective)
    (found,) = torch.autograd.grad(cost, logits)
    odds = (problem.logits / temperature).exp()
    p = (odds / odds.sum(-1, keepdim=True)).requires_grad_()
    (g,) = torch.autograd.grad(objective(p.unsqueeze(0))[0], p)
    assert torch.allclose(cost, objective(p.unsqueeze(0))[0])
    assert torch.allclose(found, p * (g - (p * g).sum(-1, keepdim=True)) / temperature)


@pytest.mark.parametrize("make", [Softmax, lambda t: GumbelSoftmax(t)])
def test_log_q_of_a_relaxation_has_its_direct_gradient_too(make):
    """That of the logits in log q(z), beside that through z: as finite differences of the value have both."""
    problem, estimator = c.SmallProblem(2, 3), make(0.5)
    objective = problem.objective(problem.parameters)

    def value(logits):
        torch.manual_seed(1)
        return estimator(logits, objective, log_q=True)

    logits = problem.logits.clone().requires_grad_()
    (found,) = torch.autograd.grad(value(logits), logits)
    steps = 1e-6 * torch.eye(6, dtype=torch.float64).reshape(6, 2, 3)
    differences = torch.stack([value(problem.logits + h) - value(problem.logits - h) for h in steps]) / 2e-6
    assert torch.allclose(found.flatten(), differences.detach(), atol=1e-8)


def test_softmax_values():
    """Softmax's own traps: known values, and no overflow."""
    relaxed = Softmax().sample
    assert relaxed(torch.tensor([[1.0, 2.0, 3.0]]))[0].tolist() == pytest.approx([0.09, 0.24, 0.67], abs=0.005)
    assert relaxed(torch.tensor([[1.0, 2.0, 5.0]]))[0].tolist() == pytest.approx([0.02, 0.05, 0.94], abs=0.005)
    for logits in ([1e3, 2e3, 3e3], [-1e3, 1.0, 1e4]):
        assert relaxed(torch.tensor([logits]))[0].tolist() == [0.0, 0.0, 1.0]
        assert torch.tensor(logits).log_softmax(-1).isfinite().all()


def test_exact_takes_as_many_configurations_as_its_limit():
    cost = Exact(limit=125)(torch.zeros(2, 3, 5, requires_grad=True), lambda z: z[..., 0].sum(-1))
    assert torch.allclose(cost, torch.full((2,), 0.6))


def test_exact_is_refused_beyond_its_limit():
    with pytest.raises(
        ValueError, match=r"limit is 100 joint configurations, but 3 variables of 5 categories have 5\^3"
    ):
        Exact(limit=100)(torch.zeros(2, 3, 5, requires_grad=True), lambda z: pytest.fail("evaluated"))


@pytest.mark.parametrize("make", [Softmax, StraightThrough, GumbelSoftmax, StraightThroughGumbelSoftmax])
@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf"), "warm", True])
def test_bad_temperatures_are_refused(make, temperature):
    with pytest.raises((ValueError, TypeError), match="temperature must be a number above 0, got"):
        make(temperature=temperature)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": -0.1}, "rate must be a number above 0"),
        ({"floor": 0}, "floor must be a number above 0"),
        ({"every": 0}, "every must be an integer of at least 1"),
        ({"learned": True, "rate": 0.1}, "a temperature is scheduled or learned"),
        ({"rate": 0.1, "floor": 2.0}, "floor must be at most the initial temperature"),
        ({"learned": "yes"}, "learned must be one of True, False"),
    ],
)
def test_bad_schedules_are_refused(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        GumbelSoftmax(**options)


# ---------------------------------------------------------------- the relaxed density


def logistic(x):
    """Log-density of the difference of two Gumbel variables."""
    return -x - 2 * np.logaddexp(0, -x)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_concrete_density_of_two_categories(temperature):
    """log y_1 - log y_2 is a logistic variable, moved and scaled: a closed form, which integrates to 1."""
    logits = torch.tensor([0.8, -0.5], dtype=torch.float64)
    x = torch.linspace(-80, 80, 400_001, dtype=torch.float64) / temperature
    log_y = torch.nn.functional.logsigmoid(torch.stack([x, -x], -1))
    found = log_concrete(log_y, logits, torch.tensor(temperature, dtype=torch.float64))
    right = logistic(temperature * x.numpy() - 1.3) + np.log(temperature)
    assert np.abs(found.numpy() - right).max() < 1e-9
    assert torch.trapezoid(found.exp(), x) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("temperature", [0.5, 1.5])
def test_concrete_density_of_three_categories_integrates_to_one(temperature):
    logits = torch.tensor([0.8, -0.5, 0.1], dtype=torch.float64)
    x = torch.linspace(-40, 40, 1601, dtype=torch.float64) / temperature
    differences = torch.stack([*torch.meshgrid(x, x, indexing="ij"), torch.zeros(1601, 1601)], -1)
    density = log_concrete(differences.log_softmax(-1), logits, torch.tensor(temperature, dtype=torch.float64)).exp()
    assert torch.trapezoid(torch.trapezoid(density, x), x) == pytest.approx(1, abs=1e-6)


def relaxed_kl(estimator, logits, objective=None):
    """Draws of the cost with a sampled KL in it, without any other cost."""
    objective = objective or (lambda z: 0 * z.sum((-2, -1)))
    return estimator(logits, objective, log_q=True)


def test_relaxed_kl_of_the_prior_is_zero():
    """In every draw, but for K log C, which a task with a uniform prior adds."""
    for C in (1, 2, 5):
        logits = torch.full((7, 3, C), 0.4, dtype=torch.float64, requires_grad=True)
        cost = relaxed_kl(GumbelSoftmax(0.7, relaxed_kl=True, prior_temperature=0.7), logits)
        assert torch.allclose(cost, torch.full_like(cost, -3 * np.log(C)))


@pytest.mark.parametrize(("temperature", "prior"), [(0.5, 0.5), (1.0, 0.6), (0.6, 1.5)])
def test_relaxed_kl_is_the_integral(temperature, prior):
    """Value, and gradient against a central difference, by quadrature for two categories."""
    noise, weight = quadrature_nodes()

    def gumbel(logits, samples):
        return torch.stack([noise, torch.zeros_like(noise)], -1).reshape(1, -1, 1, 2)

    def integral(shift):
        """KL divergence of one logistic variable from another one."""
        difference = (1.3 + shift + noise.numpy()) / temperature
        log_q = logistic(noise.numpy()) + np.log(temperature)
        log_p = logistic(prior * difference) + np.log(prior)
        return float((weight.numpy() * (log_q - log_p)).sum())

    logits = torch.tensor([0.8, -0.5], dtype=torch.float64).expand(len(noise), 1, 2).clone().requires_grad_()
    with c.patched(gumbel=gumbel):
        cost = relaxed_kl(GumbelSoftmax(temperature, relaxed_kl=True, prior_temperature=prior), logits)
    value = float((weight * cost.detach()).sum()) + np.log(2)
    assert value == pytest.approx(integral(0.0), abs=1e-6)
    assert value > -1e-6
    (found,) = torch.autograd.grad((weight * cost).sum(), logits)
    slope = (integral(1e-5) - integral(-1e-5)) / 2e-5
    assert found[..., 0].sum() == pytest.approx(slope, abs=1e-6)
    assert found.sum(-1).abs().max() < 1e-12


def test_relaxed_kl_lets_gradients_through_the_sample_and_the_density():
    """The two cancel in log q, draw by draw: what is left is the prior's, at the moving sample."""
    logits = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(1)
    cost = relaxed_kl(GumbelSoftmax(0.7, relaxed_kl=True, prior_temperature=0.6), logits)
    torch.manual_seed(1)
    log_y = ((logits + sampling.gumbel(logits, 1)) / 0.7).log_softmax(-1)
    log_p = log_concrete(log_y, torch.zeros(2, 3, dtype=torch.float64), torch.tensor(0.6, dtype=torch.float64))
    found, of_prior = (torch.autograd.grad(x.sum(), logits)[0] for x in (cost, -log_p))
    assert torch.allclose(found, of_prior)


def test_relaxed_kl_of_three_categories_by_the_score_of_the_noise():
    """Value and gradient to the logits against f(noise) times the Gumbel score, an objective included."""
    problem = c.SmallProblem(1, 3)
    tau, prior = 0.8, torch.tensor(0.6, dtype=torch.float64)
    estimator = GumbelSoftmax(tau, relaxed_kl=True, prior_temperature=0.6)

    def ours(draws):
        logits, parameters = problem.leaves(draws)
        return problem.gradients(relaxed_kl(estimator, logits, problem.objective(parameters)), logits, parameters)

    def theirs(draws):
        logits, parameters = problem.leaves(draws)
        noise = sampling.gumbel(logits, 1)
        log_y = ((logits + noise) / tau).log_softmax(-1).detach()
        log_p = log_concrete(log_y, torch.zeros(1, 3, dtype=torch.float64), prior)
        log_q = log_concrete(log_y, logits, torch.tensor(tau, dtype=torch.float64))
        cost = problem.objective(parameters)(log_y.exp())[0] + (log_q - log_p).sum(-1)[0] - np.log(3)
        value, gradient, of_parameters = problem.gradients(cost, logits, parameters)
        score = (cost.detach() - cost.detach().mean())[..., None, None] * (1 - (-noise[0]).exp())
        return [value, gradient + score.flatten(1), of_parameters]

    c.assert_mean(ours, [0.0] * 3, "relaxed KL", theirs)


def test_relaxed_kl_is_one_evaluation_at_the_relaxed_sample():
    seen = []
    logits = torch.randn(4, 2, 3, dtype=torch.float64)

    def objective(z):
        seen.append(z)
        return z.square().sum((-2, -1))

    estimator = GumbelSoftmax(0.7, relaxed_kl=True)
    torch.manual_seed(3)
    with torch.no_grad():
        relaxed_kl(estimator, logits, objective)
    torch.manual_seed(3)
    assert torch.allclose(seen[0], estimator.draw(logits))
    assert len(seen) == 1
    torch.manual_seed(3)
    without = estimator(logits, objective)
    assert torch.allclose(without, seen[0].square().sum((-2, -1))[0]), "without log_q there is no KL"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("logits", [(1.0, 2.0, 3.0), (1e3, 2e3, 3e3), (-1e3, 1.0, 1e4), (0.0, 0.0, -torch.inf)])
def test_relaxed_kl_of_extreme_logits_stays_finite(dtype, logits):
    leaf = torch.tensor(logits, dtype=dtype).expand(200, 2, 3).clone().requires_grad_()
    estimator = GumbelSoftmax(0.1, learned=True, relaxed_kl=True, prior_temperature=0.5)
    cost = relaxed_kl(estimator, leaf, lambda z: z.square().sum((-2, -1)))
    cost.sum().backward()
    assert cost.dtype == torch.promote_types(dtype, torch.float32)
    assert cost.isfinite().all()
    assert leaf.grad.isfinite().all()
    assert estimator.temperature.log_value.grad.isfinite()
    assert (leaf.grad[leaf == -torch.inf] == 0).all()


def test_a_ruled_out_category_leaves_the_relaxed_kl_as_it_was():
    """Up to K log C of the prior, like the analytic KL: the variables are those without the category."""
    results = []
    for columns in ((0.3, -0.4), (0.3, -0.4, -torch.inf)):
        logits = torch.tensor(columns, dtype=torch.float64).expand(2, len(columns)).clone().requires_grad_()
        noise = torch.tensor([[0.2, 1.1, 0.5], [-0.3, 0.4, 0.1]], dtype=torch.float64)[None, :, : len(columns)]
        with c.patched(gumbel=lambda logits, samples, noise=noise: noise):
            cost = relaxed_kl(GumbelSoftmax(0.5, relaxed_kl=True), logits)
        results.append((cost.detach(), torch.autograd.grad(cost, logits)[0][:, :2]))
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relaxed_kl": "yes"}, "relaxed_kl must be one of True, False"),
        ({"prior_temperature": 0}, "prior_temperature must be a number above 0, got 0"),
    ],
)
def test_bad_options_of_the_relaxed_kl_are_refused(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        GumbelSoftmax(**options)
