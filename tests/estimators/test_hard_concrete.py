"""Hard Concrete: the published formula for gates on the same noise, how often a gate is shut, and its limit."""

import math

import pytest
import torch

from hardmax.estimators import GumbelSoftmax, HardConcrete, sampling

LOW, HIGH, BETA = -0.1, 1.1, 2 / 3  # as in the paper


def relaxed_gate(noise, logits):
    """Louizos et al., Equations 10 and 11: a logistic draw, the difference of Gumbel noises, stretched and clipped."""
    log_alpha, logistic = logits[..., 1] - logits[..., 0], noise[..., 1] - noise[..., 0]
    s = ((logistic + log_alpha) / BETA).sigmoid()
    return (s * (HIGH - LOW) + LOW).clamp(0, 1)


def test_two_categories_are_the_published_gate_and_its_gradient(monkeypatch):
    torch.manual_seed(1)
    logits = torch.randn(50, 3, 2, dtype=torch.float64, requires_grad=True)
    noise = sampling.gumbel(logits, 1)
    monkeypatch.setattr(sampling, "gumbel", lambda logits, samples: noise)
    z, gate = HardConcrete().rsample(logits), relaxed_gate(noise, logits)[0]
    assert torch.allclose(z, torch.stack([1 - gate, gate], -1), atol=1e-12)
    assert 0.02 < ((gate == 0) | (gate == 1)).double().mean() < 0.9, "some gates are on a corner and some are not"
    weight = torch.randn(50, 3, dtype=torch.float64)
    ours, theirs = (torch.autograd.grad((weight * x).sum(), logits)[0] for x in (z[..., 1], gate))
    assert torch.allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("log_alpha", [-1.0, 0.0, 2.0])
def test_a_gate_is_shut_as_often_as_published(log_alpha):
    """Equation 12: it is open at all with probability sigmoid(log alpha - beta log(-low / high))."""
    draws = 200_000
    logits = torch.tensor([0.0, log_alpha], dtype=torch.float64).expand(draws, 1, 2)
    shut = (HardConcrete().sample(logits)[..., 1] == 0).double().mean()
    right = 1 - 1 / (1 + math.exp(BETA * math.log(-LOW / HIGH) - log_alpha))
    assert abs(shut - right) < 4 * math.sqrt(right * (1 - right) / draws)  # standard errors


def test_without_margin_it_is_gumbel_softmax():
    logits = torch.randn(20, 2, 5, dtype=torch.float64)
    torch.manual_seed(3)
    near = HardConcrete(temperature=0.8, margin=1e-9).sample(logits)
    torch.manual_seed(3)
    assert torch.allclose(near, GumbelSoftmax(temperature=0.8).sample(logits), atol=1e-8)


def test_points_are_of_the_simplex_and_what_is_impossible_has_no_weight():
    logits = torch.randn(500, 2, 4).index_fill(-1, torch.tensor([2]), -torch.inf).requires_grad_()
    z = HardConcrete(margin=0.3).rsample(logits)
    assert torch.allclose(z.sum(-1), torch.ones(500, 2))
    assert (z >= 0).all()
    assert (z[..., 2] == 0).all()
    on_corner = (z == 1).any(-1)
    (gradient,) = torch.autograd.grad((z * torch.randn_like(z)).sum(), logits)
    assert 0.05 < on_corner.double().mean() < 1
    assert (gradient[on_corner] == 0).all()
    assert (gradient[~on_corner] != 0).any(-1).all()
