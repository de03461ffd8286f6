"""Prediction through stochastic layers against enumeration."""

import itertools

import pytest
import torch

from hardmax.estimators import ARSM, Exact, Reinforce
from hardmax.tasks.data import Images
from hardmax.tasks.structured import Structured


def small(layers=2, C=2):
    torch.manual_seed(0)
    grey = torch.rand(30, 9)
    return Structured(2, C, layers, [4], "tanh", 5, Images(grey, grey, grey)).double()


def nested(task, estimator):
    task.nest(estimator.double())
    return estimator


def paths(task):
    """One-hot configurations of all layers."""
    codes = torch.cartesian_prod(*[torch.arange(task.C)] * task.K).reshape(-1, task.K)
    return itertools.product(torch.nn.functional.one_hot(codes, task.C).double(), repeat=task.nested + 1)


def outcomes(task, x):
    """Log-probability and -log-likelihood of every configuration, ``[N, B]`` each."""
    upper, lower = x[:, :3], x[:, 3:]  # one row of three, and two
    found = []
    for path in paths(task):
        below, log_p = upper, torch.zeros(len(x), dtype=torch.float64)
        for layer, z in enumerate(path):
            log_p = log_p + (task.logits(below, layer).log_softmax(-1) * z).sum((-1, -2))
            below = z.flatten().expand(len(x), -1)
        pixels = task.decoder(below).sigmoid()
        found.append((log_p, -torch.where(lower > 0, pixels, 1 - pixels).log().sum(-1)))
    return map(torch.stack, zip(*found, strict=True))


def gradients(task, loss):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(task.parameters()))])


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_cost_and_every_gradient_are_the_enumerated_ones(layers):
    task = small(layers)
    x = task.measurement_batch(3)
    log_p, nats = outcomes(task, x)
    expected = (log_p.exp() * nats).sum(0)
    problem, estimator = task.problem(x), nested(task, Exact())
    cost = estimator(problem.logits, problem.objective, problem.context)
    assert torch.allclose(cost, expected)
    assert torch.allclose(gradients(task, cost.mean()), gradients(task, expected.mean()), atol=1e-10)


@pytest.mark.parametrize("estimator", [Reinforce(2, "leave_one_out"), Reinforce(), ARSM()])
def test_unbiased_estimators_are_unbiased_through_two_layers(estimator):
    task = small(C=3)
    x = task.measurement_batch(1).expand(1000, -1)
    log_p, nats = outcomes(task, x[:1])
    exact = gradients(task, (log_p.exp() * nats).sum(0).mean())
    torch.manual_seed(1)
    estimator, problem = nested(task, estimator), task.problem(x)
    draws = []
    for _ in range(40):
        cost = estimator(problem.logits, problem.objective, problem.context).mean()
        draws.append(
            torch.cat([g.flatten() for g in torch.autograd.grad(cost, [*task.parameters()], retain_graph=True)])
        )
    draws = torch.stack(draws)
    error = draws.std(0) / 40**0.5
    assert ((draws.mean(0) - exact).abs() <= 5 * error + 1e-9).all()


def test_figures_are_those_of_discrete_draws():
    task = small()
    task.draws["valid"] = 4000
    x = task.data.held_out("valid")
    with torch.no_grad():
        log_p, nats = outcomes(task, x)
    torch.manual_seed(1)
    found = task.evaluate("valid")
    assert found["cost"] == pytest.approx(float((log_p.exp() * nats).sum(0).mean()), abs=0.02)
    assert found["nll"] == pytest.approx(float(-(log_p - nats).logsumexp(0).mean()), abs=0.02)
    assert found["nll"] < found["cost"]


def test_pictures_keep_the_upper_half():
    task = Structured()
    picture = task.show()["completions"]
    image = task.data.held_out("test")[0].view(8, 8)
    assert torch.equal(picture[1:9, 1:9], image)
    assert torch.equal(picture[11:15, 1:9], image[:4]), "the completion lies below it"
