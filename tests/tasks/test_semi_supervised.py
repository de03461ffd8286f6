"""The semi-supervised autoencoder against sums over its classes."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import cross_entropy, one_hot

from hardmax.estimators import ARSM, Exact, Reinforce
from hardmax.tasks.data import Images
from hardmax.tasks.semi_supervised import SemiSupervised


def small(**options):
    torch.manual_seed(0)
    grey = torch.rand(30, 9)
    classes = torch.arange(30) % 3
    data = Images(grey, grey, grey, labels=lambda: dict.fromkeys(("train", "valid", "test"), classes))
    return SemiSupervised(**{"categories": 4, "labels": 6, "style": 2, "widths": [5], "data": data} | options).double()


def of_class(task, x, noise, c):
    """Negative ELBO of images with a known class, less the prior of the class, from torch's own distributions."""
    y = one_hot(torch.tensor(c), task.C).double().expand(len(x), -1)
    mean, log_scale = task.encoder(torch.cat([x, y], -1)).chunk(2, -1)
    posterior = Normal(mean, log_scale.exp())
    pixels = torch.distributions.Bernoulli(logits=task.decoder(torch.cat([y, mean + log_scale.exp() * noise], -1)))
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    return -pixels.log_prob(x).sum(-1) + kl_divergence(posterior, prior).sum(-1)


def expected(task, x, noise):
    q = task.classifier(x).softmax(-1)
    nats = torch.stack([of_class(task, x, noise, c) for c in range(task.C)], -1)
    return (q * (nats + q.log() + math.log(task.C))).sum(-1)


def parts(task, x):
    """The problem, and the noise that it drew first."""
    torch.manual_seed(1)
    problem = task.problem(x)
    torch.manual_seed(1)
    return problem, torch.randn(len(x), task.style, dtype=torch.float64)


def loss(problem, estimator):
    return estimator(problem.logits, problem.objective, problem.context, problem.log_q) + problem.penalty


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
def test_enumeration_marginalises_the_class(kl):
    task = small(kl=kl)
    task.labelled = lambda: 0.0
    x = task.measurement_batch(5)
    problem, noise = parts(task, x)
    exact, ours = expected(task, x, noise), loss(problem, Exact())
    assert torch.allclose(ours, exact)
    for a, b in zip(*(torch.autograd.grad(v.mean(), [*task.parameters()]) for v in (ours, exact)), strict=True):
        assert torch.allclose(a, b, atol=1e-10)


@pytest.mark.parametrize("estimator", [Reinforce(2, "leave_one_out"), ARSM()])
def test_unbiased_estimators_are_unbiased(estimator):
    task = small()
    problem, _ = parts(task, task.measurement_batch(5))
    gradients = []
    for each, logits in ((Exact(), problem.logits), (estimator, problem.logits.expand(20_000, *problem.logits.shape))):
        logits = logits.detach().requires_grad_()
        gradients.append(torch.autograd.grad(each(logits, problem.objective).sum(), logits)[0])
    exact, draws = gradients
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - exact).abs() <= 4.5 * error + 1e-9).all()


def test_labelled_images_cost_their_class():
    task = small(alpha=0.7)
    assert task.labelled_classes.tolist() == [0, 0, 1, 1, 2, 2]
    assert set(task.labelled_images.unique().tolist()) == {0.0, 1.0}
    torch.manual_seed(1)
    found = task.labelled()
    torch.manual_seed(1)
    x, c = task.labelled_images, task.labelled_classes
    noise = torch.randn(6, 2, dtype=torch.float64)
    nats = torch.stack([of_class(task, x[i : i + 1], noise[i : i + 1], int(c[i]))[0] for i in range(6)])
    assert torch.allclose(found, nats.mean() + math.log(4) + 0.7 * cross_entropy(task.classifier(x), c))


def test_figures():
    task = small(bound_samples=2000)
    x = task.data.held_out("valid")
    torch.manual_seed(1)
    found = task.evaluate("valid")
    with torch.no_grad():
        nats = torch.stack([expected(task, x, torch.randn(30, 2).double()) for _ in range(500)])
        right = task.classifier(x).argmax(-1) == torch.arange(30) % 3
    assert found["elbo"] == pytest.approx(-float(nats.mean()), abs=0.02)
    assert found["accuracy"] == pytest.approx(float(right.double().mean()))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"categories": 2}, "categories must be an integer of at least 3, got 2"),
        ({"labels": 2}, "labels must be an integer of at least 3, got 2"),
        ({"labels": 8}, "labels must be a multiple of the 3 classes, and at most 30, as a class has 10 images, got 8"),
        (
            {"labels": 33},
            "labels must be a multiple of the 3 classes, and at most 30, as a class has 10 images, got 33",
        ),
        ({"alpha": -1}, "alpha must be a number of at least 0, got -1"),
        ({"data": Images(*[torch.rand(5, 4)] * 3)}, "data must have labels, these images have none"),
    ],
)
def test_wrong_options_are_refused(options, line):
    with pytest.raises(ValueError, match=line):
        small(**options)
