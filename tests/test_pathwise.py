"""Identities of the relaxations and of the straight-through family."""

import certification as c
import numpy as np
import pytest
import torch

from estimators import GumbelSoftmax, Softmax, StraightThrough, StraightThroughGumbelSoftmax, sampling
from estimators.exact import Exact

LINEAR = c.Problem(2, 3, linear=True)


def expected(estimator, problem):
    return c.enumerate_draws(c.runner(estimator, problem))


def test_straight_through_is_exact_for_a_linear_objective_only():
    estimator = StraightThrough(stochastic=True)
    c.assert_close(expected(estimator, LINEAR), LINEAR.truth(), "linear")
    curved = c.Problem(2, 3)
    assert (expected(estimator, curved)[1] - curved.truth()[1]).abs().max() > 0.05, "exact for a curved objective?"


def test_straight_through_adds_the_exact_kl_without_variance():
    """The gradient of a detached log q through a hard draw is that of the analytic negative entropy, in every draw."""
    logits = LINEAR.logits.expand(10, *LINEAR.logits.shape).clone().requires_grad_()
    cost = StraightThrough(stochastic=True)(logits, lambda z: torch.zeros(z.shape[:-2], dtype=z.dtype), log_q=True)
    (found,) = torch.autograd.grad(cost.sum(), logits)
    entropy = (logits.softmax(-1) * logits.log_softmax(-1)).sum()
    (exact,) = torch.autograd.grad(entropy, logits)
    assert torch.allclose(found, exact)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("stochastic", [True, False])
def test_straight_through_keeps_one_over_the_temperature(temperature, stochastic):
    logits = c.Problem(2, 3).logits.clone().requires_grad_()
    weight = c.Problem(2, 3).parameters[0]
    cost = StraightThrough(temperature, stochastic)(logits, lambda z: (z * weight).sum((-2, -1)))
    (found,) = torch.autograd.grad(cost, logits)
    p = (logits / temperature).softmax(-1)
    assert torch.allclose(found, p * (weight - (p * weight).sum(-1, keepdim=True)) / temperature)


def test_st_gumbel_softmax_draw_by_draw():
    """The derivative at the hard draw, through the Jacobian of the soft sample of the same noise, over tau."""
    problem, tau = c.Problem(2, 3), 0.7
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


def quadrature_nodes(nodes=2000):
    """Two Gumbel variables matter through their difference, logit(u): Gauss-Legendre nodes in u."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    return torch.tensor((x + 1) / 2).logit(), torch.tensor(w / 2)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_gumbel_softmax_is_the_integral_over_its_noise(temperature):
    """Value, and gradient against a central difference, by quadrature for two categories."""
    noise, weight = quadrature_nodes()
    problem = c.Problem(1, 2)

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
    problem = c.Problem(2, 3, linear=make is StraightThroughGumbelSoftmax)
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
    problem = c.Problem(2, 3)
    objective = problem.objective(problem.parameters)
    logits = problem.logits.clone().requires_grad_()
    cost = Softmax(temperature)(logits, objective)
    (found,) = torch.autograd.grad(cost, logits)
    odds = (problem.logits / temperature).exp()
    p = (odds / odds.sum(-1, keepdim=True)).requires_grad_()
    (g,) = torch.autograd.grad(objective(p.unsqueeze(0))[0], p)
    assert torch.allclose(cost, objective(p.unsqueeze(0))[0])
    assert torch.allclose(found, p * (g - (p * g).sum(-1, keepdim=True)) / temperature)


def test_softmax_values():
    """Softmax's own traps: known values, and no overflow."""
    relaxed = Softmax().sample
    assert relaxed(torch.tensor([[1.0, 2.0, 3.0]]))[0, 0].tolist() == pytest.approx([0.09, 0.24, 0.67], abs=0.005)
    assert relaxed(torch.tensor([[1.0, 2.0, 5.0]]))[0, 0].tolist() == pytest.approx([0.02, 0.05, 0.94], abs=0.005)
    for logits in ([1e3, 2e3, 3e3], [-1e3, 1.0, 1e4]):
        assert relaxed(torch.tensor([logits]))[0, 0].tolist() == [0.0, 0.0, 1.0]
        assert torch.tensor(logits).log_softmax(-1).isfinite().all()


def test_exact_is_refused_beyond_its_limit():
    with pytest.raises(
        ValueError, match=r"limit is 100 joint configurations, but 3 variables of 5 categories have 5\^3"
    ):
        Exact(limit=100)(torch.zeros(2, 3, 5, requires_grad=True), lambda z: pytest.fail("evaluated"))


@pytest.mark.parametrize("make", [Softmax, StraightThrough, GumbelSoftmax, StraightThroughGumbelSoftmax])
@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf"), "warm", True])
def test_bad_temperatures_are_refused(make, temperature):
    with pytest.raises(ValueError, match="temperature must be a number above 0, got"):
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
    with pytest.raises(ValueError, match=message):
        GumbelSoftmax(**options)
