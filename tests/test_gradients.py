"""Gradient statistics against their definitions, and softmax's dead gradients."""

import math

import pytest
import torch

from estimators import ARSM, Estimator, Exact, Reinforce, Softmax
from harness.gradients import Moments, forked_random, measure
from tasks.base import Problem, Task
from tasks.toy import Toy


def moments_of(g, parts=(3, 1, 4)):
    moments = Moments()
    for part in g.split([*parts, len(g) - sum(parts)]):
        moments.add(part)
    return moments


def test_statistics_are_their_definitions():
    torch.manual_seed(0)
    g = torch.randn(50, 4, 6, dtype=torch.float64) + 0.3
    truth = torch.full((4, 6), 0.25, dtype=torch.float64)
    found = moments_of(g).statistics(truth)
    mean, M = g.mean(0), 50
    V = g.var(0).sum(-1)
    off = (mean - truth).square().sum(-1)
    bias2 = off - V / M
    expected = {
        "norm": mean.norm(dim=-1),
        "rms_norm": g.square().sum(-1).mean(0).sqrt(),
        "variance": V,
        "variance_mean": V / 6,
        "snr": (mean.square().sum(-1) - V / M).clamp(min=0) / V,
        "dead": torch.zeros(4),
        "dead_per_draw": torch.zeros(4),
        "exact_norm": truth.norm(dim=-1),
        "bias2": bias2,
        "relative_bias": bias2.sign() * bias2.abs().sqrt() / truth.norm(dim=-1),
        "mse": (g - truth).square().sum(-1).mean(0),
        "cosine_mean": torch.cosine_similarity(mean, truth, dim=-1),
    }
    assert found == pytest.approx({k: float(v.mean()) for k, v in expected.items()})


def test_variance_does_not_cancel():
    torch.manual_seed(0)
    g = 1e6 + torch.randn(50, 1, 3, dtype=torch.float64)
    assert moments_of(g).statistics()["variance"] == pytest.approx(float(g.var(0).sum()))
    same = torch.full((50, 1, 3), 0.1).expand(50, 1, 3)
    statistics = moments_of(same).statistics()
    assert statistics["variance"] == 0
    assert statistics["snr"] is None, "undefined is null, never 0"


class Fixed(Task):
    """Three given logits, and a cost that is linear in z."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor([logits]))

    def problem(self, batch):
        return Problem(
            self.logits.expand(len(batch), 1, 3), lambda z: (z * torch.tensor([1.0, -2.0, 0.5])).sum((-2, -1))
        )

    def encoder_parameters(self):
        return [self.logits]


class HardMaximum(Estimator):
    """The largest logit itself: its gradient reaches the chosen category alone."""

    target, unbiased, differentiates_objective = "mode", False, False

    def estimate(self, logits, objective, context):
        return logits.max(-1).values.sum(-1)


@pytest.mark.parametrize(
    ("estimator", "logits", "dead"),
    [
        (HardMaximum(), (1.0, 2.0, 3.0), 2 / 3),
        (Softmax(), (1.0, 2.0, 3.0), 0.0),
        (Softmax(), (0.0, 1.0, 40.0), 1 / 3),
        (Softmax(), (-1e3, 1.0, 1e4), 1.0),
    ],
)
def test_dead_components_of_hard_and_saturated_maxima(estimator, logits, dead):
    found = measure(Fixed(logits), estimator, torch.zeros(2), 5)
    assert found["logits/dead"] == pytest.approx(dead)
    assert found["logits/dead_per_draw"] == pytest.approx(dead)


@pytest.mark.parametrize("estimator", [Reinforce(samples=2, baseline="leave_one_out"), ARSM()])
def test_unbiased_estimators_measure_no_bias(estimator):
    """The debiased squared bias is within 4 standard errors of 0; its error is about V / M * sqrt(2 / D)."""
    toy = Toy(variables=2, categories=4, objective="quadratic")
    with torch.no_grad():
        toy.logits.copy_(torch.tensor([[0.3, -0.2, 0.1, 0.0], [0.5, 0.1, -0.3, 0.2]]))
    M = 4000
    with forked_random(torch.device("cpu"), 1):
        found = measure(toy, estimator, toy.held_aside(20), M)
    error = found["logits/variance"] / M * math.sqrt(2 / 20)
    assert abs(found["logits/bias2"]) < 4 * error
    assert found["encoder/variance"] == pytest.approx(found["logits/variance"] / 20, rel=0.1), "falls as 1 / B"


def test_measuring_is_repeatable_and_leaves_no_trace():
    toy, estimator = Toy(2, 4), Reinforce()
    estimator(toy.problem(torch.zeros(3)).logits, toy.objective)
    estimator.advance()
    before = [v.clone() for v in (*toy.state_dict().values(), *estimator.state_dict().values(), torch.get_rng_state())]
    results = []
    for _ in range(2):
        with forked_random(torch.device("cpu"), 1, 2):
            results.append(measure(toy, estimator, toy.held_aside(3), 10))
    assert results[0] == results[1]
    after = [*toy.state_dict().values(), *estimator.state_dict().values(), torch.get_rng_state()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert estimator.training
    assert not estimator.pending
    assert all(p.grad is None for p in toy.parameters())


def test_memory_of_measuring_is_bounded():
    """No evaluation is larger than one that the estimator asks for anyway, or than the cache."""
    toy = Toy(variables=4, categories=5)
    rows = []
    cost = toy.objective
    toy.objective = lambda z: rows.append(z.numel()) or cost(z)
    measure(toy, Exact(), toy.held_aside(50), 20)
    assert rows == [5**4 * 50 * 20] * 20
    rows.clear()
    measure(toy, Reinforce(), toy.held_aside(50), 1000)
    assert max(rows) <= 2**17


def test_chunked_products_are_a_loop_of_backward_passes():
    from tasks.dvae import DiscreteVAE

    torch.manual_seed(0)
    task, estimator = DiscreteVAE(3, 4, [8], [8], bound_samples=1), Softmax(0.5)
    batch = task.held_aside(5)
    found = measure(task, estimator, batch, 7)
    problem = task.problem(batch)
    cost = estimator(problem.logits, problem.objective).mean()
    g = torch.cat([x.flatten() for x in torch.autograd.grad(cost, task.encoder_parameters())])
    assert found["encoder/norm"] == pytest.approx(float(g.norm()), rel=1e-5)
    assert found["encoder/variance"] == 0, "no noise, no variance"
