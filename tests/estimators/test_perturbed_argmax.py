"""Perturbed argmax: its formula draw by draw, its means for linear objectives, and its control variates."""

import itertools
import math

import pytest
import torch

from hardmax import certification as c
from hardmax.estimators import PerturbedArgmax, sampling

CURVED = c.SmallProblem(2, 4, extreme=0.5)
LINEAR = c.SmallProblem(2, 3, linear=True, extreme=0.4)
CONTROLS = ("none", "argmax", "leave_one_out")


@pytest.mark.parametrize(("noise", "control"), list(itertools.product(("gumbel", "normal"), CONTROLS)))
def test_every_draw_is_the_published_formula(noise, control):
    noises, seen, (logits, parameters) = [], [], CURVED.leaves(5)
    before = getattr(sampling, noise)

    def noted(*arguments):
        noises.append(before(*arguments))
        return noises[-1]

    def objective(z):
        z.retain_grad()
        seen.append(z)
        return CURVED.objective(parameters)(z)

    setattr(sampling, noise, noted)
    try:
        PerturbedArgmax(6, 0.7, noise, control)(logits, objective).sum().backward()
    finally:
        setattr(sampling, noise, before)
    (e,) = noises
    score = e if noise == "normal" else 1 - torch.exp(-e)
    y = torch.eye(4, dtype=torch.float64)[(CURVED.logits + 0.7 * e).argmax(-1)]
    assert torch.allclose(seen[0][0], y.mean(0))
    for n, k in itertools.product(range(5), range(2)):
        total, g = 0, seen[0].grad[0, n, k]
        for m in range(6):
            others = {
                "none": torch.zeros(4, dtype=torch.float64),
                "argmax": torch.eye(4, dtype=torch.float64)[CURVED.logits[k].argmax()],
                "leave_one_out": sum(y[j, n, k] for j in range(6) if j != m) / 5,
            }
            total = total + torch.outer(score[m, n, k], y[m, n, k] - others[control]) / 0.7 / 6
        assert (logits.grad[n, k] - total @ g).abs().max() < 1e-12


@pytest.mark.parametrize("control", CONTROLS)
def test_for_a_linear_objective_value_and_gradient_are_right_on_average(control):
    c.assert_mean(c.runner(PerturbedArgmax(3, control_variate=control), LINEAR), LINEAR.truth(), control)


@pytest.mark.parametrize("control", CONTROLS)
def test_with_normal_noise_two_categories_are_a_probit(control):
    """The first has the probability of a normal variable below the difference of logits over scale * root(2)."""
    problem, scale = c.SmallProblem(1, 2, linear=True, extreme=0.4), 0.6
    difference = (problem.logits[0, 0] - problem.logits[0, 1]).requires_grad_()
    p = torch.distributions.Normal(0.0, scale * math.sqrt(2)).cdf(difference)
    cost = problem.objective(problem.parameters)(torch.eye(2, dtype=torch.float64).unsqueeze(1))
    value = p * cost[0] + (1 - p) * cost[1]
    (slope,) = torch.autograd.grad(value, difference)
    truths = [value.detach().reshape(1), torch.stack([slope, -slope]), None]
    c.assert_mean(c.runner(PerturbedArgmax(4, scale, "normal", control), problem), truths, control)


def variance(problem, control):
    torch.manual_seed(0)
    return float(c.runner(PerturbedArgmax(10, control_variate=control), problem)(20_000)[1].var(0).sum())


@pytest.mark.parametrize("problem", [LINEAR, *c.PROBLEMS], ids=["linear", "1,5", "2,3", "3,2"])
def test_leaving_one_out_takes_variance_away(problem):
    assert variance(problem, "leave_one_out") < 0.9 * variance(problem, "none")


def test_the_most_probable_category_may_add_some():
    assert variance(LINEAR, "argmax") < 0.8 * variance(LINEAR, "none")
    assert variance(c.PROBLEMS[2], "argmax") > 1.2 * variance(c.PROBLEMS[2], "none")


def test_a_single_noise_has_the_mean_of_a_score_function_of_the_derivative():
    """Given the draw z, the score of Gumbel noise is z - p on average."""
    p = CURVED.logits.softmax(-1)
    z = CURVED.one_hots()
    z = z.clone().requires_grad_()
    (g,) = torch.autograd.grad(CURVED.objective(CURVED.parameters)(z).sum(), z)
    weight = (z.detach() * p).sum(-1).prod(-1)[..., None, None]
    right = (weight * (g * z).sum(-1, keepdim=True) * (z - p)).sum(0).flatten().detach()
    run = c.runner(PerturbedArgmax(1, control_variate="none"), CURVED)
    c.assert_mean(lambda n: run(n)[1:2], [right], "a single noise")


@pytest.mark.parametrize("control", CONTROLS)
def test_in_bfloat16_nothing_but_the_result_is_rounded(control):
    generator = torch.Generator().manual_seed(2)
    logits, weights = torch.randn(2, 200, 2, 5, generator=generator).bfloat16()
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(1)
        x = logits.to(dtype).requires_grad_()
        PerturbedArgmax(7, control_variate=control)(
            x, lambda z: (z * weights.to(z.dtype)).sum((-2, -1))
        ).sum().backward()
        found.append(x.grad)
    assert torch.equal(found[0].bfloat16(), found[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noises": 1}, "noises must be at least 2 with control_variate=leave_one_out, got 1"),
        ({"scale": 0}, "scale must be a number above 0"),
        ({"noise": "uniform"}, "noise must be one of gumbel, normal"),
        ({"control_variate": "mean"}, "control_variate must be one of none, argmax, leave_one_out"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PerturbedArgmax(**options)
