"""REINFORCE without replacement: the paper's equations on the same noise, and exactness where all are drawn."""

import pytest
import torch

from hardmax import certification as c
from hardmax.estimators import Exact, ReinforceWithoutReplacement, sampling
from hardmax.estimators.unordered_set import beam
from hardmax.estimators.without_replacement import OF_THE_SET

PROBLEM = c.SmallProblem(2, 3, (2,), extreme=0.5)
ONE = torch.tensor([[0.4, -1.0, 0.9, 0.0, -0.3, -torch.inf]], dtype=torch.float64)
COSTS = torch.tensor([1.0, -2.0, 0.5, 3.0, 1.5, 9.0], dtype=torch.float64)


def gradient_of(estimator, logits, objective):
    logits = logits.clone().requires_grad_()
    cost = estimator(logits, objective)
    return cost, torch.autograd.grad(cost.sum(), logits)[0]


@pytest.mark.parametrize("samples", [9, 12])
@pytest.mark.parametrize("baseline", OF_THE_SET)
def test_as_many_as_there_are_make_it_exact(baseline, samples):
    objective = PROBLEM.objective(PROBLEM.parameters)
    estimator = ReinforceWithoutReplacement(samples, baseline)
    for ours, right in zip(
        gradient_of(estimator, PROBLEM.logits, objective),
        gradient_of(Exact(), PROBLEM.logits, objective),
        strict=True,
    ):
        assert torch.allclose(ours, right, atol=1e-10)


@pytest.mark.parametrize("samples", [2, 3, 4])
@pytest.mark.parametrize("baseline", OF_THE_SET)
def test_equations_9_to_11_on_the_same_noise(baseline, samples, monkeypatch):
    """One variable, whose perturbed log-probabilities follow from the noise: the largest is moved to where it is drawn.

    Times exp(-perturbed) until a category comes are exponential; those between the first and the others remain.
    """
    noise, largest = sampling.gumbel(ONE, samples + 1), sampling.gumbel(ONE[..., 0, 0], 1)
    kept = {ONE.ndim + 1: noise, 1: largest}
    monkeypatch.setattr(sampling, "gumbel", lambda logits, samples: kept[logits.ndim + 1])
    log_p = ONE[0].log_softmax(-1)
    times = (-(log_p + noise[0, 0])).exp()
    times = times - times.min() + float((-largest).exp())
    order = times.argsort()
    threshold, chosen = -times[order[samples]].log(), order[:samples]
    p = log_p.exp()[chosen]
    iw = p / (1 - (-(log_p[chosen] - threshold).exp()).exp())
    f, W = COSTS[chosen], iw.sum()
    weight = {
        "none": iw * f,
        "set": iw * (f * (1 - p + iw) - (iw * f).sum()),
        "normalised": iw / (W - iw + p) * (f - (iw * f).sum() / W),
    }[baseline]
    logits = ONE[0].clone().requires_grad_()
    (right,) = torch.autograd.grad((weight * logits.log_softmax(-1)[chosen]).sum(), logits)
    value, found = gradient_of(ReinforceWithoutReplacement(samples, baseline), ONE, lambda z: (z * COSTS).sum((-2, -1)))
    assert torch.allclose(found[0], right, atol=1e-10)
    assert torch.allclose(value, (iw * f).sum(), atol=1e-10)


def test_values_of_the_beam_are_those_of_all_perturbed_configurations():
    """Of the first S + 1 arrivals of a process of rate 1, thinned without replacement: means of the first two times."""
    draws = 100_000
    log_p = PROBLEM.logits[0].log_softmax(-1).expand(draws, 2, 3)
    largest = sampling.gumbel(log_p[..., 0, 0], 1)[0]
    low = beam(log_p, 2, sampling.gumbel(log_p, 2).movedim(0, -2), -largest)[1].exp()
    joint = (log_p[0, 0].exp().unsqueeze(-1) * log_p[0, 1].exp()).flatten()
    second = 1 + (joint / (1 - joint)).sum()  # after the first, what is left has the rate 1 - p
    for found, right in ((low[:, 0], 1.0), (low[:, 1], second)):
        assert abs(found.mean() - right) < 4 * found.std() / draws**0.5


def test_many_variables_underflow_nothing():
    """Probabilities of 10^-300 and less still have weights whose mean sum is 1."""
    logits = torch.zeros(2_000, 400, 10, dtype=torch.float64, requires_grad=True)
    value = ReinforceWithoutReplacement(3, "none")(logits, lambda z: z[..., 0, 0] * 0 + 1.0)
    assert abs(value.mean() - 1) < 4 * value.std() / 2_000**0.5
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert gradient.isfinite().all()
