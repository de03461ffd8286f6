"""Sums of digits: the convolution against enumeration and another computation, groups, figures, refusals."""

import functools
import itertools

import numpy as np
import pytest
import torch

from hardmax.estimators import Exact, Reinforce, Softmax
from hardmax.gradients import truth_of
from hardmax.tasks.addition import Addition, distribution_of_sum, probability_of_another_sum
from hardmax.tasks.data import Images, embedded_digits


def of_digits(digits, binarisation="none", width=8):
    torch.manual_seed(0)
    return Addition(digits, [width], embedded_digits(binarisation)).double()


def gradients(task, cost):
    return torch.autograd.grad(cost.mean(), [*task.parameters()], retain_graph=True)


@pytest.mark.parametrize(("N", "C"), [(1, 4), (3, 4), (4, 2), (2, 1)])
def test_the_distribution_of_the_sum_is_the_enumerated_one(N, C):
    p = torch.randn(2, N, C, generator=torch.Generator().manual_seed(N), dtype=torch.float64).softmax(-1)
    expected = torch.zeros(2, N * (C - 1) + 1, dtype=torch.float64)
    for classes in itertools.product(range(C), repeat=N):
        expected[:, sum(classes)] += p[:, range(N), classes].prod(-1)
    assert torch.allclose(distribution_of_sum(p), expected, rtol=1e-12)


def test_the_distribution_of_sixteen_digits_is_that_of_numpy():
    p = (3 * torch.randn(16, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).softmax(-1)
    expected = functools.reduce(np.convolve, p.numpy())
    assert distribution_of_sum(p).numpy() == pytest.approx(expected, rel=1e-10, abs=1e-300)
    single = distribution_of_sum(p.float())
    assert single.numpy() == pytest.approx(expected, rel=1e-5, abs=1e-30)


def test_expected_cost_and_gradients_are_the_enumerated_ones():
    task = of_digits(2)
    problem = task.problem(task.measurement_batch(7))
    ours, exact = problem.expected_cost(problem.logits), Exact()(problem.logits, problem.objective, problem.context)
    assert torch.allclose(ours, exact)
    for a, b in zip(*(gradients(task, cost) for cost in (ours, exact)), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_sixteen_digits_have_an_exact_truth():
    """The gradient to the logit of class c is p(c) times what knowing c changes of the cost."""
    task = of_digits(16)
    x, sums = task.measurement_batch(2)
    problem = task.problem((x, sums))
    found = truth_of(task, problem)["logits"]
    assert found.name == "exact"
    gradient, p = found.mean.view(2, 16, 10), problem.logits.detach().softmax(-1).numpy()
    for b, total in enumerate(sums.tolist()):
        for k, c in ((0, 0), (7, 3), (15, 9)):
            others = functools.reduce(np.convolve, np.delete(p[b], k, 0))
            right = float(np.convolve(others, p[b, k])[total])
            given = float(others[total - c]) if 0 <= total - c < len(others) else 0.0
            assert float(gradient[b, k, c]) == pytest.approx(p[b, k, c] * (right - given), rel=1e-6)


def test_with_the_extension_to_the_simplex_softmax_would_be_exact():
    task = of_digits(3)
    x, sums = task.measurement_batch(4)
    problem = task.problem((x, sums))
    leaf = problem.logits.detach().requires_grad_()
    relaxed = Softmax()(leaf, lambda z: probability_of_another_sum(z, sums))
    exact = problem.expected_cost(leaf)
    assert torch.allclose(relaxed, exact)
    assert torch.allclose(*(torch.autograd.grad(cost.sum(), leaf)[0] for cost in (relaxed, exact)), atol=1e-12)


def test_every_image_is_in_one_group():
    task = of_digits(5, "dynamic")
    assert task.examples == 1297 // 5
    order = torch.randperm(task.examples, generator=torch.Generator().manual_seed(0))
    x, sums = task.batch(order, torch.Generator().manual_seed(1))
    assert x.shape == (259, 5, 64)
    again = task.data.batch(torch.arange(1295).view(-1, 5)[order].flatten(), torch.Generator().manual_seed(1))
    assert torch.equal(x.flatten(0, 1), again)
    classes = task.data.labels()["train"][:1295]
    assert torch.equal(sums, torch.stack([classes[5 * n : 5 * n + 5].sum() for n in order]))
    x, classes = task.held_out("test")
    assert torch.equal(x.flatten(0, 1), task.data.held_out("test"))
    assert torch.equal(classes.flatten(), task.data.labels()["test"])
    assert of_digits(16).held_out("valid")[0].shape == (15, 16, 64)


def test_figures():
    task = of_digits(2)
    found = task.evaluate("valid")
    x, classes = task.held_out("valid")
    with torch.no_grad():
        p = task.classifier(x).softmax(-1)
    sums = digits = cost = 0
    for each, true in zip(p, classes.tolist(), strict=True):
        read = each.argmax(-1).tolist()
        sums += sum(read) == sum(true)
        digits += sum(a == b for a, b in zip(read, true, strict=True))
        cost += 1 - sum(float(each[0, a] * each[1, sum(true) - a]) for a in range(10) if 0 <= sum(true) - a < 10)
    assert found == pytest.approx({"cost": cost / 125, "accuracy": sums / 125, "digit_accuracy": digits / 250})


def trained(task, loss, steps):
    """Held-out figures before and after some steps down a loss of the problem."""
    before, optimizer = task.evaluate("valid"), torch.optim.Adam(task.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        problem = task.problem(task.batch(torch.randperm(task.examples, generator=generator)[:64], generator))
        optimizer.zero_grad()
        loss(problem).mean().backward()
        optimizer.step()
    return before, task.evaluate("valid")


def test_a_single_digit_is_learned_from_whether_it_is_right():
    estimator = Reinforce(samples=4, baseline="leave_one_out")
    before, after = trained(of_digits(1, width=64), lambda p: estimator(p.logits, p.objective), 120)
    assert before["accuracy"] < 0.3
    assert after["accuracy"] == after["digit_accuracy"] > 0.6


def test_two_digits_are_learned_from_the_logarithm_and_not_from_the_expected_cost():
    """Of the exact gradients of both: the second ends where most sums are wrong and hardly any digit is read."""
    expected = lambda p: p.expected_cost(p.logits)
    _, linear = trained(of_digits(2, width=64), expected, 300)
    _, logarithmic = trained(of_digits(2, width=64), lambda p: -(1 - expected(p)).log(), 300)
    assert logarithmic["digit_accuracy"] > 0.9
    assert linear["digit_accuracy"] < 0.5


def test_extreme_logits_leave_values_and_gradients_finite():
    task = of_digits(4).float()
    with torch.no_grad():
        task.classifier[-1].weight.mul_(1e5)
    problem = task.problem(task.measurement_batch(9))
    for cost in (problem.expected_cost(problem.logits), Reinforce()(problem.logits, problem.objective)):
        assert cost.isfinite().all()
        assert all(g.isfinite().all() for g in gradients(task, cost))


def test_estimators_that_need_a_derivative_are_refused_in_one_line(command):
    for estimator, name in (("gumbel_softmax", "GumbelSoftmax"), ("softmax", "Softmax")):
        code, _, err = command("task=addition", f"estimator={estimator}", "steps=2")
        assert code == 2
        assert f"{name}: objective has no derivative at z, which {name} needs" in err
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"digits": 0}, "digits must be an integer of at least 1, got 0"),
        ({"digits": 251}, "digits must be at most the 250 images of the smallest split, got 251"),
        ({"widths": [0]}, "each of widths must be an integer of at least 1, got 0"),
        ({"data": Images(*[torch.rand(5, 4)] * 3)}, "data must have labels, these images have none"),
    ],
)
def test_wrong_options_are_refused(options, line):
    with pytest.raises(ValueError, match=line):
        Addition(**options)
