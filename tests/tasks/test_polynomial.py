"""Polynomial programming and the quadratic toys against enumeration and published figures."""

import itertools

import pytest
import torch

from hardmax.estimators import Exact, StochasticStraightThrough
from hardmax.gradients import measure
from hardmax.tasks.polynomial import QUADRATICS, Polynomial, Quadratic

TOYS = [toy for toy in QUADRATICS if toy != "titsias"]


@pytest.mark.parametrize("task", [*map(Quadratic, TOYS), Polynomial(3, 4, 1.5), Polynomial(2, 3, 3, 0.7)])
def test_expected_cost_is_the_enumerated_one(task):
    task.double()
    with torch.no_grad():
        task.free.normal_(generator=torch.Generator().manual_seed(0))
    problem = task.problem(torch.zeros(2))
    cost = Exact()(problem.logits, problem.objective)
    assert torch.allclose(cost, task.expected_cost(problem.logits))
    assert cost[0].item() == pytest.approx(task.evaluate("test")["cost"])


@pytest.mark.parametrize("task", [*map(Quadratic, TOYS), Polynomial(3, 4), Polynomial(2, 3, 3, 0.7)])
def test_the_optimum_is_the_lowest_cost_that_is_reachable(task):
    K, C = task.logits().shape
    costs = []
    for index in itertools.product(range(C), repeat=K):
        if len(task.free) == K or len(set(index)) == 1:
            costs.append(float(task.objective(torch.nn.functional.one_hot(torch.tensor(index), C).float())))
    assert task.optimum() == pytest.approx(min(costs))


@pytest.mark.parametrize(("power", "optimum"), [(1.5, 0.3018691769624716), (2, 0.2025), (3, 0.091125)])
def test_published_optima_of_polynomial_programming(power, optimum):
    task = Polynomial(power=power)
    assert task.logits().shape == (128, 2)
    assert task.optimum() == pytest.approx(optimum)
    assert task.logits().abs().max() <= 0.01
    z = torch.tensor([[1.0, 0.0]] * 128)
    assert float(task.objective(z)) == pytest.approx(0.55**power), "x is the first entry of z"


def test_the_integer_embedding():
    task = Polynomial(3, 4, embedding="integer")
    z = torch.nn.functional.one_hot(torch.tensor([0, 1, 3]), 4).float()
    assert float(task.objective(z)) == pytest.approx(sum((x - 0.45) ** 2 for x in (0, 1 / 3, 1)) / 3)
    with pytest.raises(ValueError, match="embedding must be one of drawn, integer"):
        Polynomial(embedding="int")


@pytest.mark.parametrize(("power", "best"), [(1.5, 0.01516), (2, 0.00427)])
def test_the_one_hot_variant_has_its_optimum_just_below_the_published_losses(power, best):
    optimum = Polynomial(categories=4, power=power).optimum()
    assert 0.75 * best < optimum < best


@pytest.mark.parametrize(("toy", "optimum"), [("tucker", 0.2025), ("grathwohl", 0.249001), ("kool", 0.6705)])
def test_published_optima_of_quadratics(toy, optimum):
    assert Quadratic(toy).optimum() == pytest.approx(optimum)


def test_the_mean_of_200():
    task = Quadratic("titsias")
    assert task.free.shape == (200, 1)
    assert task.evaluate("test")["cost"] == pytest.approx((0.499**2 + 0.501**2) / 2)
    assert task.optimum() == pytest.approx(0.249001)


@pytest.mark.parametrize("start", [0.0, -4.0])
def test_the_gradient_of_the_shared_logit(start):
    task = Quadratic("kool", start)
    p = torch.tensor(start).sigmoid()
    problem = task.problem(torch.zeros(5))
    Exact()(problem.logits, problem.objective).mean().backward()
    assert task.free.grad.item() == pytest.approx(float(p * (1 - p)) * (0.6705 - 0.8505), rel=1e-5)
    if start == 0:
        assert task.free.grad.item() == pytest.approx(-0.045, rel=1e-5)
    found = measure(task, Exact(), task.problem(task.measurement_batch(5)), 3)
    assert found["encoder/true_norm"] == pytest.approx(abs(task.free.grad.item()), rel=1e-5)
    assert found["logits/bias2"] == pytest.approx(0, abs=1e-12)
    assert found["logits/variance_mean"] == 0


def test_relaxed_costs_are_not_linear():
    """Else straight-through would be exact, and the problem none."""
    task = Polynomial(1, 2, 3).double()
    middle = torch.full((1, 2), 0.5).double()
    assert float(task.objective(middle)) == pytest.approx(0.05**3)
    problem = task.problem(torch.zeros(100_000))
    torch.manual_seed(0)
    g = torch.autograd.grad(StochasticStraightThrough()(problem.logits, problem.objective).mean(), task.free)[0]
    exact = torch.autograd.grad(task.expected_cost(task.logits()), task.free)[0]
    assert not torch.allclose(g, exact, rtol=0.1)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: Polynomial(power=0.5), "power must be a number of at least 1, got 0.5"),
        (lambda: Polynomial(power="two"), "power must be a number of at least 1, got 'two'"),
        (lambda: Polynomial(categories=1), "categories must be an integer of at least 2, got 1"),
        (lambda: Quadratic("shi"), "toy must be one of tucker, grathwohl, kool, titsias, got 'shi'"),
        (lambda: Quadratic(start="low"), "start must be a finite number, got 'low'"),
    ],
)
def test_wrong_options_are_refused(make, line):
    with pytest.raises((ValueError, TypeError), match=line):
        make()
