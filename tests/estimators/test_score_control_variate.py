"""The score function as its own control variate: coefficients by their definition, and what the published one does."""

import pytest
import torch

from hardmax import certification as c
from hardmax.estimators import Reinforce, ScoreControlVariate, sampling

PROBLEM = c.SmallProblem(2, 3, (2,), extreme=0.5)


def gradient_of(estimator, logits, objective):
    logits = logits.clone().requires_grad_()
    torch.manual_seed(1)
    return torch.autograd.grad(estimator(logits, objective).sum(), logits)[0]


@pytest.mark.parametrize("samples", [2, 3, 5])
def test_each_draw_has_the_coefficient_of_the_others(samples):
    objective = PROBLEM.objective(PROBLEM.parameters)
    found = gradient_of(ScoreControlVariate(samples), PROBLEM.logits, objective)
    torch.manual_seed(1)
    z = sampling.draw(PROBLEM.logits, samples)
    f, score = objective(z), z - PROBLEM.logits.softmax(-1)
    expected = torch.zeros_like(found)
    for n in range(2):
        for k in range(2):
            for s in range(samples):
                others = [t for t in range(samples) if t != s]
                size = torch.stack([score[t, n, k] @ score[t, n, k] for t in others])
                b = (size * f[others, n]).sum() / size.sum()
                expected[n, k] += (f[s, n] - b) * score[s, n, k] / samples
    assert torch.allclose(found, expected, atol=1e-12)


def test_with_two_draws_it_is_leave_one_out():
    objective = PROBLEM.objective(PROBLEM.parameters)
    by = (ScoreControlVariate(2), Reinforce(2, "leave_one_out"))
    ours, right = (gradient_of(estimator, PROBLEM.logits, objective) for estimator in by)
    assert torch.allclose(ours, right, atol=1e-12)


@pytest.mark.parametrize("problem", c.PROBLEMS, ids=repr)
def test_the_published_coefficient_biases_by_how_much_the_docstring_says(problem):
    bias = [c.measure_on(ScoreControlVariate(samples, leave_one_out=False), problem).bias for samples in (2, 4)]
    assert 0.1 < bias[1] < bias[0] < 0.7
    assert c.measure_on(ScoreControlVariate(4, leave_one_out=False), c.SMALL).bias == pytest.approx(1.016, abs=1e-3)


def test_nothing_cancels_where_one_draw_is_very_rare():
    """Scores of the others are 1e-9, beside 1: their coefficient is the others' cost none the less."""
    logits = torch.tensor([[0.0, 20.0]], dtype=torch.float64)
    drawn = torch.tensor([[0], [1], [1], [1]])
    with c.patched(categorical=lambda logits, samples: drawn):
        found = gradient_of(ScoreControlVariate(4), logits, lambda z: 1e3 + z[..., 0, 0])
    assert torch.allclose(found, torch.tensor([[0.25, -0.25]], dtype=torch.float64), atol=1e-7)
