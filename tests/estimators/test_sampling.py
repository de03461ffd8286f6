"""The one module that all randomness comes from."""

import math

import pytest
import torch

from hardmax.estimators import sampling


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_have_the_probabilities_of_the_softmax(dtype):
    logits = torch.tensor([[0.5, -1.0, 1.0, 0.0], [0.0, 3.0, 0.0, -torch.inf]], dtype=dtype)
    torch.manual_seed(0)
    draws = 200_000
    frequency = sampling.draw(logits, draws).mean(0)
    p = logits.softmax(-1)
    error = (p * (1 - p) / draws).sqrt()
    assert (frequency[p == 0] == 0).all()
    z = ((frequency - p).abs() / error)[p > 0]
    assert z.max() < 4.1, "seven coordinates, one false alarm in 3,500"


@pytest.mark.parametrize("u", [0.0, 1 - 2**-24])
@pytest.mark.parametrize("C", [1, 2, 7, 300])
def test_a_category_of_probability_zero_is_never_drawn(monkeypatch, u, C):
    """Even at the ends of what the uniform can be, with its mass wherever it is."""
    monkeypatch.setattr(sampling, "uniform", lambda logits, samples: torch.full((samples, *logits.shape), u))
    torch.manual_seed(C)
    logits = torch.randn(500, 4, C).masked_fill(torch.rand(500, 4, C) < 0.5, -torch.inf)
    logits[..., C // 2] = 0.0
    index = sampling.categorical(logits, 1)
    assert index.shape == (1, 500, 4)
    assert (logits.softmax(-1).gather(-1, index[0].unsqueeze(-1)) > 0).all()


def test_gumbel_and_uniform_noise_are_finite_and_right():
    torch.manual_seed(0)
    like = torch.zeros(1000, 1000)
    gumbel, uniform = sampling.gumbel(like, 1), sampling.uniform(like, 1)
    assert gumbel.isfinite().all()
    assert ((uniform > 0) & (uniform < 1)).all()
    assert abs(gumbel.mean() - 0.5772157) < 5 * 1.2825e-3, "five standard errors"
    assert abs(uniform.mean() - 0.5) < 5 * 0.2887e-3, "five standard errors"


@pytest.mark.parametrize("C", [1, 2, 10, 15, 16, 40])
def test_softmax_is_that_of_the_last_dimension(C):
    logits = torch.randn(2, 3, 4, C, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits[0] *= 1e4
    logits[1, 0, 0, 1:] = -torch.inf
    logits.requires_grad_()
    weight = torch.arange(logits.numel(), dtype=torch.float64).view_as(logits).sin()
    for ours, theirs in (
        (sampling.softmax(logits), logits.softmax(-1)),
        (sampling.log_softmax(logits), logits.log_softmax(-1)),
    ):
        assert torch.allclose(ours, theirs, rtol=1e-12, atol=0)
        a, b = (torch.autograd.grad((p * weight).sum(), logits)[0] for p in (ours, theirs))
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-15)


def test_gumbel_noise_is_as_fine_as_its_precision_in_the_upper_tail():
    torch.manual_seed(0)
    noise = sampling.gumbel(torch.zeros(1000, 1000), 4).flatten()
    assert len(noise.topk(40).values.unique()) == 40, "24 random bits would leave some 170 values there"
    expected = len(noise) * -math.expm1(-math.exp(-10))
    assert abs((noise > 10).sum() - expected) < 5 * expected**0.5, "five standard errors"
