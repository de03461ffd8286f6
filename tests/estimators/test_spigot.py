"""SPIGOT: its three updates against projections by search, their limits, and what cannot be chosen."""

import itertools

import pytest
import torch

from hardmax import certification as c
from hardmax.estimators import SPIGOT, StraightThrough, sampling
from hardmax.estimators.spigot import UPDATES

CURVED = c.SmallProblem(2, 4, extreme=0.5)


def nearest(x):
    """The point of the simplex nearest to x ``[..., C]``: of all supports' candidates, the nearest that is one."""
    C, best, least = x.shape[-1], torch.zeros_like(x), torch.full(x.shape[:-1], torch.inf, dtype=x.dtype)
    for support in itertools.product([0.0, 1.0], repeat=C):
        on = torch.tensor(support, dtype=x.dtype)
        if on.sum():
            y = (x - ((x * on).sum(-1, keepdim=True) - 1) / on.sum()) * on
            distance = (x - y).square().sum(-1).masked_fill((y < 0).any(-1), torch.inf)
            best = torch.where((distance < least).unsqueeze(-1), y, best)
            least = torch.minimum(distance, least)
    return best


def gradient_of(estimator, logits, objective):
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(estimator(logits, objective).sum(), logits)[0]


@pytest.mark.parametrize("step", [0.05, 1.0, 7.0])
@pytest.mark.parametrize("update", UPDATES)
def test_the_gradient_is_one_step_over_its_length(update, step):
    phi, objective = CURVED.logits, CURVED.objective(CURVED.parameters)
    z = sampling.one_hot(phi.argmax(-1), phi).unsqueeze(0).requires_grad_()
    (g,) = torch.autograd.grad(objective(z).sum(), z)
    g, z, p = g[0], z.detach()[0], phi.softmax(-1)
    before, better = {
        "projected": (z, nearest(z - step * g)),
        "cross_entropy": (p, nearest(p - step * g)),
        "exponentiated": (p, (p.log() - step * g).softmax(-1)),
    }[update]
    found = gradient_of(SPIGOT(step, update), phi, objective)
    assert torch.allclose(found, (before - better) / step, atol=1e-10)
    assert found.abs().max() > 1e-3


@pytest.mark.parametrize(("update", "right"), [("exponentiated", "straight-through"), ("cross_entropy", "centred")])
def test_small_steps(update, right):
    """To the softmax's Jacobian times g, and inside the simplex to g less its mean."""
    phi, objective = CURVED.logits, CURVED.objective(CURVED.parameters)
    found = gradient_of(SPIGOT(1e-6, update), phi, objective)
    if right == "straight-through":
        assert torch.allclose(found, gradient_of(StraightThrough(), phi, objective), atol=1e-4)
    else:
        z = sampling.one_hot(phi.argmax(-1), phi).unsqueeze(0).requires_grad_()
        (g,) = torch.autograd.grad(objective(z).sum(), z)
        assert torch.allclose(found, (g - g.mean(-1, keepdim=True))[0], atol=1e-4)


@pytest.mark.parametrize("update", UPDATES)
def test_what_is_impossible_takes_no_weight_from_the_others(update):
    """However good it would be: the gradient is that without it."""
    logits = torch.tensor([[0.5, -0.2, 0.1, -torch.inf]], dtype=torch.float64)
    weight = torch.tensor([1.0, 0.3, -0.6, -50.0], dtype=torch.float64)
    found = gradient_of(SPIGOT(0.7, update), logits, lambda z: (z * weight).sum((-2, -1)))
    right = gradient_of(SPIGOT(0.7, update), logits[..., :3], lambda z: (z * weight[:3]).sum((-2, -1)))
    assert torch.allclose(found, torch.nn.functional.pad(right, (0, 1)), atol=1e-12)


def test_projection_never_lowers_a_category_that_is_not_chosen():
    logits = torch.randn(200, 2, 5, dtype=torch.float64)
    weight = torch.randn(200, 2, 5, dtype=torch.float64)
    found = gradient_of(SPIGOT(0.5), logits, lambda z: (z * weight).sum((-2, -1)))
    others = sampling.one_hot(logits.argmax(-1), logits) == 0
    assert (found[others] <= 0).all()
    assert (found[others] < 0).any()
