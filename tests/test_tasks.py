"""Tasks against closed forms and enumeration."""

import math

import pytest
import torch

from estimators import Exact
from tasks.digits import digits
from tasks.dvae import DiscreteVAE, kl_from_uniform
from tasks.toy import Toy


@pytest.mark.parametrize("objective", ["reward", "quadratic"])
@pytest.mark.parametrize("sizes", [(1, 5), (2, 3), (3, 2), (2, 1)])
def test_toy_expectation_is_the_enumerated_one(objective, sizes):
    toy = Toy(*sizes, objective=objective)
    logits = torch.randn(4, *sizes, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    toy.double()
    exact = Exact()(logits.requires_grad_(), toy.objective)
    assert torch.allclose(exact, toy.expected_cost(logits))
    K, C = sizes
    lowest = min(
        float(toy.objective(torch.nn.functional.one_hot(torch.tensor(z), C).double()))
        for z in torch.cartesian_prod(*[torch.arange(C)] * K).reshape(-1, K).tolist()
    )
    assert toy.optimum() == pytest.approx(lowest)


def test_toy_is_figure_1():
    """Published: expected reward 0.5172222 at the start, 0.5333333 at the optimum."""
    found = Toy().evaluate("valid")
    assert found["cost"] == pytest.approx(-0.5172222, abs=1e-6)
    assert found["optimum"] == pytest.approx(-0.5333333, abs=1e-6)
    assert found["gap"] == pytest.approx(found["cost"] - found["optimum"])


def test_digits_are_split_the_same_every_time():
    first, second = digits(), digits()
    assert {k: tuple(v.shape) for k, v in first.items()} == {"train": (1297, 64), "valid": (250, 64), "test": (250, 64)}
    for split in first:
        assert torch.equal(first[split], second[split])
        assert first[split].min() == 0
        assert first[split].max() == 1
    assert len(torch.cat(list(first.values())).unique(dim=0)) == 1797, "splits do not overlap"


def make(**options):
    torch.manual_seed(0)
    return DiscreteVAE(2, 3, [8], [8], **options)


def log_joint(vae, x):
    """log p(x, z) of all configurations, by enumeration: ``[N, B]``."""
    z = torch.nn.functional.one_hot(torch.cartesian_prod(torch.arange(3), torch.arange(3)), 3).float()
    return -vae.reconstruction(z.unsqueeze(1).expand(9, len(x), 2, 3), x) - 2 * math.log(3)


def test_elbo_and_bound_are_those_of_discrete_draws():
    vae = make(bound_samples=2000)
    x = vae.valid_images
    torch.manual_seed(1)
    found = vae.evaluate("valid")
    with torch.no_grad():
        joint, logits = log_joint(vae, x), vae.logits(x)
        log_q = logits.log_softmax(-1)
        log_q = (log_q[:, 0, :, None] + log_q[:, 1, None, :]).flatten(1).T
        elbo = (log_q.exp() * (joint - log_q)).sum(0).mean()
        evidence = joint.logsumexp(0).mean()
    assert found["elbo"] == pytest.approx(float(elbo), abs=0.02)
    assert found["bound"] == pytest.approx(float(evidence), abs=0.02)
    assert found["elbo"] < found["bound"]


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
def test_both_kl_terms_have_the_elbo_as_expectation(kl):
    vae = make(kl=kl)
    x = vae.valid_images[:20]
    problem = vae.problem(x)
    loss = (Exact()(problem.logits, problem.objective, problem.context, problem.log_q) + problem.penalty).mean()
    with torch.no_grad():
        joint = log_joint(vae, x)
        log_q = vae.logits(x).log_softmax(-1)
        log_q = (log_q[:, 0, :, None] + log_q[:, 1, None, :]).flatten(1).T
        elbo = (log_q.exp() * (joint - log_q)).sum(0).mean()
    assert loss.item() == pytest.approx(-float(elbo), rel=1e-5)


def test_kl_is_finite_and_right_at_extremes():
    logits = torch.tensor([[[0.0, 0.0]], [[-torch.inf, 0.0]], [[1e4, -1e4]]], requires_grad=True)
    kl = kl_from_uniform(logits)
    assert kl.tolist() == pytest.approx([0.0, math.log(2), math.log(2)], abs=1e-6)
    kl.sum().backward()
    assert logits.grad.isfinite().all()


def test_training_images_are_binarised_anew_and_held_out_ones_are_not():
    vae = make()
    generator = torch.Generator().manual_seed(0)
    index = torch.arange(10)
    assert not torch.equal(vae.batch(index, generator), vae.batch(index, generator))
    assert torch.equal(vae.held_aside(10), vae.held_aside(10))
    assert set(vae.batch(index, generator).unique().tolist()) == {0.0, 1.0}
    means = torch.stack([vae.batch(index, generator) for _ in range(2000)]).mean(0)
    assert (means - vae.train_images[index]).abs().max() < 0.06, "five standard errors of a pixel"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variables": 0}, "variables must be an integer of at least 1, got 0"),
        ({"kl": "exact"}, "kl must be one of analytic, sampled, got 'exact'"),
        ({"decoder_widths": [0]}, "width must be an integer of at least 1, got 0"),
        ({"bound_samples": 0}, "bound_samples must be an integer of at least 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DiscreteVAE(**options)
