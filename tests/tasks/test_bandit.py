"""A contextual bandit against sums over its arms."""

import pytest
import torch

from hardmax.estimators import ARSM, Exact
from hardmax.tasks.bandit import Bandit


def small(**options):
    torch.manual_seed(0)
    return Bandit(**{"arms": 4, "features": 3, "widths": (5,), "contexts": 50, **options}).double()


def test_cost_and_gradient_are_sums_over_arms():
    task = small()
    x = task.measurement_batch(7)
    problem = task.problem(x)
    ours = Exact()(problem.logits, problem.objective, problem.context)
    distance = torch.stack([((x - place) ** 2).sum(-1) for place in task.places], -1)
    expected = (task.policy(x).softmax(-1) * distance).sum(-1) / 6
    assert torch.allclose(ours, expected)
    for a, b in zip(*(torch.autograd.grad(v.mean(), [*task.parameters()]) for v in (ours, expected)), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_figures_are_exact_over_the_held_out_contexts():
    task = small()
    found, x = task.evaluate("test"), task.held_out("test")
    costs = torch.cdist(x, task.places).square() / 6
    p = task.policy(x).softmax(-1)
    assert found["cost"] == pytest.approx(float((p * costs).sum(-1).mean()))
    assert found["optimum"] == pytest.approx(float(costs.min(-1).values.mean()))
    assert found["gap"] == pytest.approx(found["cost"] - found["optimum"])
    assert found["best"] == pytest.approx(float(p[torch.arange(50), costs.argmin(-1)].mean()))


def test_a_policy_that_takes_the_nearest_arm_has_no_gap():
    task = small(widths=())
    with torch.no_grad():  # |x - a|^2 less |x|^2 is linear in x
        task.policy[0].weight.copy_(2e4 * task.places)
        task.policy[0].bias.copy_(-1e4 * task.places.square().sum(-1))
    found = task.evaluate("valid")
    assert found["gap"] == pytest.approx(0, abs=1e-6)
    assert found["best"] == pytest.approx(1, abs=1e-6)


def test_contexts_and_arms_come_from_the_seed_alone():
    first, same, other = small(), small(), small(seed=1)
    assert torch.equal(first.contexts, same.contexts)
    assert torch.equal(first.places, same.places)
    assert not torch.equal(first.contexts, other.contexts)
    splits = [first.contexts[i] for i in range(3)]
    assert len(torch.cat(splits).unique(dim=0)) == 150, "splits do not overlap"


def test_a_black_box_estimator_halves_the_gap():
    task, estimator = small(contexts=200), ARSM()
    before, optimizer = task.evaluate("test")["gap"], torch.optim.Adam(task.parameters(), 0.03)
    for step in range(60):
        optimizer.zero_grad()
        problem = task.problem(task.contexts[0, 50 * (step % 4) :][:50])
        estimator(problem.logits, problem.objective).mean().backward()
        optimizer.step()
    assert task.evaluate("test")["gap"] < before / 2


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ({"arms": 0}, "arms must be an integer of at least 1, got 0"),
        ({"features": 0}, "features must be an integer of at least 1, got 0"),
        ({"contexts": 0}, "contexts must be an integer of at least 1, got 0"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"spread": 0}, "spread must be a number above 0, got 0"),
        ({"widths": [0]}, "each of widths must be an integer of at least 1, got 0"),
    ],
)
def test_refusals(option, line):
    with pytest.raises(ValueError, match=line):
        small(**option)
