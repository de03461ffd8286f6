"""The one module that all randomness comes from."""

import math

import pytest
import torch

from hardmax.estimators import DisARMIW, DisARMSB, DisARMTree, Reinforce, sampling


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


@pytest.mark.parametrize("u", [0.0, 2**-53, 1 - 2**-24, 1 - 2**-53])
@pytest.mark.parametrize("C", [1, 2, 7, 300])
def test_a_category_of_probability_zero_is_never_drawn(monkeypatch, u, C):
    """Even at the ends of what the uniform can be, with its mass wherever it is."""
    full = lambda like, samples: torch.full((samples, *like.shape), u, dtype=like.dtype)
    monkeypatch.setattr(sampling, "uniform", full)
    torch.manual_seed(C)
    logits = torch.randn(500, 4, C).masked_fill(torch.rand(500, 4, C) < 0.5, -torch.inf)
    logits[..., C // 2] = 0.0
    index = sampling.categorical(logits, 1)
    assert index.shape == (1, 500, 4)
    assert (logits.softmax(-1).gather(-1, index[0].unsqueeze(-1)) > 0).all()


def drawn(estimator, logits):
    """What an estimator evaluates its objective at: category indices ``[S, *batch, K]``."""
    seen = []
    estimator(logits.requires_grad_(), lambda z: (seen.append(z), z.sum((-2, -1)))[1])
    return seen[0].argmax(-1)


@pytest.mark.parametrize("rare", [1e-6, 4e-7, 1e-9, 1e-12])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize(
    ("make", "C"), [(Reinforce, 2), (Reinforce, 20), (DisARMIW, 2), (DisARMSB, 2), (DisARMTree, 2)]
)
def test_a_rare_category_at_either_end_is_drawn_as_often_as_it_should(monkeypatch, make, C, rare, last):
    """By uniforms that are evenly spread over both ends of their interval, three times as wide as the rare part."""
    n = 300
    part = (torch.arange(n, dtype=torch.float64) + 0.5) / n * 3 * rare
    ends = torch.cat([part, 1 - part])

    def spread(like, samples):
        assert like.dtype == torch.float64, "in float32 no uniform is finer than 6e-8"
        return ends.reshape(-1, *[1] * (like.ndim - 1)).expand(samples, *like.shape)

    monkeypatch.setattr(sampling, "uniform", spread)
    logits = torch.zeros(2 * n, 1, C)
    logits[..., -1 if last else 0] = math.log((C - 1) * rare)
    found = (drawn(make(), logits) == (C - 1 if last else 0)).sum((-2, -1))
    assert found.tolist() == pytest.approx([n / 3] * len(found), abs=1)


def test_a_rare_category_is_drawn_by_the_real_sampler():
    torch.manual_seed(0)
    logits, draws = torch.tensor([[0.0, math.log(4e-7)]]), 10_000_000
    found = sum(int(sampling.categorical(logits, draws // 10).sum()) for _ in range(10))
    expected = 4e-7 * draws
    assert 0 < found < expected + 4 * expected**0.5, "half a millionth of the probability was the first category's"


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
