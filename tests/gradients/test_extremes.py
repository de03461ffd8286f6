"""Statistics of gradients of any size: squares are taken in double precision, and what is undefined is null."""

import pytest
import torch

from hardmax.gradients import BLOCKS, Moments, RunningVariance, TrueGradient


def statistics(g, truth=None):
    moments = Moments(truth)
    for n, draw in enumerate(g):
        moments.add(draw.unsqueeze(0).clone(), n % BLOCKS)
    return moments.statistics()


@pytest.mark.parametrize("scale", [1e25, 1e-25, 1e-15])
def test_gradients_of_any_size_have_the_statistics_of_ordinary_ones(scale):
    torch.manual_seed(0)
    g = torch.randn(40, 3, 4) + 0.5
    truth = torch.full((3, 4), 0.4)
    ordinary = statistics(g, TrueGradient("exact", truth))
    found = statistics(g * scale, TrueGradient("exact", truth * scale))
    powers = {"variance": 2, "variance_mean": 2, "bias2": 2, "mse": 2, "norm": 1, "rms_norm": 1, "true_norm": 1}
    for name, value in ordinary.items():
        factor = scale ** powers.get(name.removesuffix("_error"), 0)
        assert found[name] == pytest.approx(value * factor, rel=1e-4, abs=0), name


@pytest.mark.parametrize("scale", [1e25, 1e-25])
def test_an_example_of_any_size_beside_an_ordinary_one(scale):
    torch.manual_seed(0)
    g = torch.randn(40, 1, 4)
    moments = Moments()
    for n, draw in enumerate(torch.cat([g, g * scale], 1)):
        moments.add(draw.unsqueeze(0).clone(), n % BLOCKS)
    ordinary, other = moments.replicates().V[0]
    assert other == pytest.approx(float(ordinary) * scale**2, rel=1e-4, abs=0)


@pytest.mark.parametrize("scale", [1e25, 1.0, 1e-25])
def test_running_variance_of_gradients_of_any_size(scale):
    parameter = torch.nn.Parameter(torch.zeros(3))
    running = RunningVariance([parameter], 0.9)
    torch.manual_seed(0)
    gradients = torch.randn(30, 3)
    for g in gradients:
        parameter.grad = g * scale
        running.update()
    weights = 0.1 * 0.9 ** torch.arange(29, -1, -1).double()
    weights /= weights.sum()
    mean = (weights.unsqueeze(-1) * gradients.double()).sum(0)
    expected = float((weights.unsqueeze(-1) * (gradients.double() - mean) ** 2).sum())
    assert running.statistics()["running_variance"] == pytest.approx(expected * scale**2, rel=1e-4, abs=0)


def test_a_running_variance_that_is_not_finite_is_null():
    parameter = torch.nn.Parameter(torch.zeros(3))
    running = RunningVariance([parameter], 0.9)
    for value in (1.0, float("inf"), 1.0):
        parameter.grad = torch.full((3,), value)
        running.update()
    assert running.statistics() == {"running_variance": None, "running_variance_mean": None}


def test_dead_is_relative_to_the_largest_component():
    found = statistics(torch.tensor([1.0, 1e-13], dtype=torch.float64).expand(20, 1, 2))
    assert (found["dead"], found["dead_per_draw"]) == (0.5, 0.5)
    found = statistics(torch.full((20, 1, 2), 1e-20, dtype=torch.float64))
    assert (found["dead"], found["dead_per_draw"]) == (0, 0)


def test_an_example_without_spread_has_no_say_in_the_signal_to_noise_ratio():
    torch.manual_seed(0)
    g = torch.randn(40, 1, 4, dtype=torch.float64) + 0.5
    both = statistics(torch.cat([torch.ones_like(g), g], 1))
    alone = statistics(g)
    assert both["snr"] == pytest.approx(alone["snr"])
    assert both["snr_error"] == pytest.approx(alone["snr_error"])
    assert both["variance"] == pytest.approx(alone["variance"] / 2)
