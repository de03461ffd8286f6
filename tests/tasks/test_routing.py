"""Routing to experts against sums over the experts."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from hardmax.estimators import Exact, Reinforce
from hardmax.gradients import forked_random, measure
from hardmax.tasks.data import Images, embedded_digits
from hardmax.tasks.routing import Routing


def small(experts=3):
    torch.manual_seed(0)
    return Routing(experts, [4], [], embedded_digits("none")).double()


def test_cost_and_gradients_are_sums_over_experts():
    task = small()
    x, c = task.measurement_batch(7)
    problem = task.problem((x, c))
    ours = Exact()(problem.logits, problem.objective, problem.context)
    p = task.router(x).softmax(-1)
    each = torch.stack([cross_entropy(expert(x), c, reduction="none") for expert in task.experts], -1)
    expected = (p * each).sum(-1)
    assert torch.allclose(ours, expected)
    for a, b in zip(*(torch.autograd.grad(v.mean(), [*task.parameters()]) for v in (ours, expected)), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_only_the_chosen_expert_learns_from_an_image():
    task = small()
    x, c = task.measurement_batch(1)
    with torch.no_grad():
        task.router[-1].bias.copy_(torch.tensor([0.0, 1e4, 0.0]))
    problem = task.problem((x, c))
    Reinforce()(problem.logits, problem.objective).mean().backward()
    learned = [float(expert[0].weight.grad.abs().sum()) for expert in task.experts]
    assert learned[1] > 0
    assert learned[0] == learned[2] == 0


def test_figures():
    task = small()
    x, c = task.data.held_out("test"), task.test_classes
    found = task.evaluate("test")
    with torch.no_grad():
        chosen = task.router(x).argmax(-1).tolist()
        right = [int(task.experts[e](x[n]).argmax()) == int(c[n]) for n, e in enumerate(chosen)]
        problem = task.problem((x, c))
        cost = Exact()(problem.logits, problem.objective).mean()
    assert found["accuracy"] == pytest.approx(sum(right) / len(x))
    shares = [chosen.count(e) / len(x) for e in range(3)]
    assert found["balance"] == pytest.approx(-sum(s * math.log(s) for s in shares if s) / math.log(3), abs=1e-6)
    with torch.enable_grad():
        assert found["cost"] == pytest.approx(float(Exact()(problem.logits, problem.objective).mean()))
    assert cost.isfinite()
    with torch.no_grad():
        task.router[-1].bias.copy_(torch.tensor([1e4, 0.0, 0.0]))
    assert str(task.evaluate("test")["balance"]) == "0.0"
    assert small(1).evaluate("test")["balance"] == 1


def test_gradients_are_measured():
    task = small()
    with forked_random(torch.device("cpu"), 0):
        found = measure(task, Reinforce(2, "leave_one_out"), task.problem(task.measurement_batch(10)), 20)
    assert found["logits/variance"] > 0
    assert found["encoder/variance"] > 0


def test_images_without_classes_are_refused():
    with pytest.raises(ValueError, match="data must have labels"):
        Routing(data=Images(*[torch.rand(5, 4)] * 3))
