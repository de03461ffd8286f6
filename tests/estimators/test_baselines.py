"""What baselines and divisions of REINFORCE do to the expected gradient, exactly: by every outcome of the draws."""

import itertools

import pytest
import torch

from hardmax import certification as c
from hardmax.estimators import Reinforce, sampling
from helpers.wrong import DividedByTheOthers

LOGITS = torch.tensor([[0.55, 0.4, 0.05]], dtype=torch.float64).log()
P = LOGITS[0].softmax(-1)
SKEWED = torch.tensor([0.0, 1.0, 100.0], dtype=torch.float64)  # costs of three categories
EVEN = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)


def truth(costs):
    return P * (costs - P @ costs)


def expected(estimator, costs, logits=LOGITS):
    """Of the gradient to one variable's logits, ``[C]``."""

    def run(draws):
        leaf = logits.expand(draws, *logits.shape).clone().requires_grad_()
        return [torch.autograd.grad(estimator(leaf, lambda z: (z @ costs).sum(-1)).sum(), leaf)[0].flatten(1)]

    return c.enumerate_draws(run)[0]


def by_hand(costs, samples, advantages):
    """The mean over all tuples of draws of ``advantages(costs)`` times the scores."""
    total = torch.zeros(3, dtype=torch.float64)
    for draws in itertools.product(range(3), repeat=samples):
        index = torch.tensor(draws)
        score = torch.eye(3, dtype=torch.float64)[index] - P
        total += P[index].prod() * (advantages(costs[index]).unsqueeze(-1) * score).mean(0)
    return total


def divided(f):
    return (f - f.mean()) / (f.std() + 1e-4)


def cosine(a, b):
    return float(a @ b / a.norm() / b.norm())


@pytest.mark.parametrize("samples", [2, 3, 5])
def test_the_mean_of_the_group_takes_a_share_of_the_gradient(samples):
    found = expected(Reinforce(samples, "group"), SKEWED)
    assert (found - (samples - 1) / samples * truth(SKEWED)).abs().max() < 1e-10
    assert (expected(Reinforce(samples, "leave_one_out"), SKEWED) - truth(SKEWED)).abs().max() < 1e-10


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_the_division_is_the_published_one(samples):
    found = expected(Reinforce(samples, "group", normalise="group"), SKEWED)
    assert (found - by_hand(SKEWED, samples, divided)).abs().max() < 1e-10
    with_leave_one_out = expected(Reinforce(samples, "leave_one_out", normalise="group"), SKEWED)
    assert (with_leave_one_out - samples / (samples - 1) * found).abs().max() < 1e-10


def test_the_division_turns_the_gradient_of_a_skewed_cost():
    """With 2 draws all differences count the same, so that the cost of 100 weighs no more than one of 2 would."""
    found = {S: expected(Reinforce(S, "group", normalise="group"), SKEWED) for S in (2, 4, 8)}
    assert (found[2] - by_hand(SKEWED, 2, lambda f: (f - f.mean()).sign() * 0.5**0.5)).abs().max() < 1e-3
    assert (found[2] - expected(Reinforce(2, "group", normalise="group"), EVEN)).abs().max() < 1e-3
    assert [cosine(g, truth(SKEWED)) for g in found.values()] == pytest.approx([0.323, 0.350, 0.444], abs=5e-4)
    assert cosine(expected(Reinforce(8, "group"), SKEWED), truth(SKEWED)) > 1 - 1e-12


def test_the_division_makes_the_scale_of_the_cost_nothing():
    one, thousand = (expected(Reinforce(3, "group", normalise="group"), k * SKEWED) for k in (1, 1000))
    assert (one - thousand).abs().max() < 1e-3 * one.abs().max()
    small = expected(Reinforce(3, "group", normalise="group"), 1e-8 * SKEWED)
    assert small.abs().max() < 1e-2 * one.abs().max(), "what is added bounds it"


def test_divided_by_the_deviation_of_the_others_the_gradient_is_right_but_for_its_length():
    """Which explodes: where the other costs agree, all that divides is what is added."""
    estimator = DividedByTheOthers(3, "leave_one_out")
    found, agree = expected(estimator, SKEWED), (P**2).sum()
    length = float(found @ truth(SKEWED) / (truth(SKEWED) @ truth(SKEWED)))
    assert (found - length * truth(SKEWED)).abs().max() < 1e-10 * length
    pairs = [(P[i] * P[j], abs(SKEWED[i] - SKEWED[j])) for i, j in itertools.product(range(3), repeat=2)]
    assert length == pytest.approx(float(sum(p / (d / 2**0.5 + 1e-4) for p, d in pairs)))
    assert length > 0.99 * agree / 1e-4 > 3000
    assert expected(Reinforce(3, "leave_one_out", normalise="group"), SKEWED).norm() < 1


def test_a_group_of_equal_costs_has_no_gradient():
    for normalise in ("none", "group"):
        found = expected(Reinforce(3, "group", normalise=normalise), torch.full((3,), 7.0, dtype=torch.float64))
        assert found.abs().max() < 1e-12


def test_another_draw_is_a_baseline():
    problem = c.SmallProblem(2, 3, (2,), extreme=0.4)
    logits, objective = problem.logits.clone().requires_grad_(), problem.objective(problem.parameters)
    torch.manual_seed(2)
    (found,) = torch.autograd.grad(Reinforce(2, "sample")(logits, objective).sum(), logits)
    torch.manual_seed(2)
    z, other = sampling.draw(logits, 2), sampling.draw(logits, 1)
    advantage = (objective(z) - objective(other))[..., None, None]
    assert torch.allclose(found, (advantage * (z - logits.softmax(-1))).mean(0))
    assert c.evaluations(Reinforce(2, "sample"), problem) == (2, 1)


def test_a_division_over_examples_is_by_all_their_costs():
    problem = c.SmallProblem(2, 3, (5, 2), extreme=0.4)
    logits, objective = problem.logits.clone().requires_grad_(), problem.objective(problem.parameters)
    torch.manual_seed(2)
    estimator = Reinforce(3, "leave_one_out", normalise="batch")
    (found,) = torch.autograd.grad(estimator(logits, objective).sum(), logits)
    torch.manual_seed(2)
    z = sampling.draw(logits, 3)
    cost, score = objective(z), z - logits.softmax(-1)
    for i in range(5):
        f = cost[:, i]
        advantage = (f - f.mean(0)) * 3 / 2 / (f.flatten().std() + 1e-4)
        assert torch.allclose(found[i], (advantage[..., None, None] * score[:, i]).mean(0))


def test_who_is_unbiased_says_so():
    biased = [("group", "none"), ("none", "group"), ("leave_one_out", "batch"), ("group", "group")]
    assert not any(Reinforce(2, baseline, normalise=normalise).unbiased for baseline, normalise in biased)
    fine = ("none", "running_mean", "leave_one_out", "batch", "greedy", "sample")
    assert all(Reinforce(2, baseline).unbiased for baseline in fine)
    assert Reinforce.unbiased


def test_a_claim_that_the_group_is_unbiased_is_rejected():
    for options in ({"baseline": "group"}, {"baseline": "leave_one_out", "normalise": "group"}):
        estimator = Reinforce(3, **options)
        estimator.unbiased = True
        assert "logits' gradient is off" in c.failures(estimator, first=True)[0]
