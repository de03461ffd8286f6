"""The figures of a certificate: by enumeration and by draws alike, and their errors."""

import math

import numpy as np
import pytest
import torch

from hardmax import certification as c
from hardmax.certification import measurement
from hardmax.estimators import Exact, GumbelSoftmax, Reinforce, sampling
from hardmax.estimators.base import graft
from helpers.wrong import FlippedSign

PROBLEM = c.SmallProblem(2, 3)


class Elsewhere(Reinforce):
    """REINFORCE whose random numbers come from somewhere else than the sampling module."""

    def __init__(self, source):
        super().__init__(baseline="none")
        self.source = source

    def estimate(self, logits, objective, context):
        cdf = logits.detach().softmax(-1).cumsum(-1)[..., :-1]
        index = (cdf < self.source(logits.shape[:-1]).unsqueeze(-1)).sum(-1)
        z = sampling.one_hot(index, logits)
        cost = objective(z.unsqueeze(0))[0]
        return graft(cost, logits, cost[..., None, None] * (z - logits.softmax(-1)))


GENERATOR, NUMPY = torch.Generator().manual_seed(1), np.random.default_rng(1)
SOURCES = {
    "torch": lambda shape: torch.rand(shape, dtype=torch.float64),
    "a generator of its own": lambda shape: torch.rand(shape, dtype=torch.float64, generator=GENERATOR),
    "numpy": lambda shape: torch.from_numpy(NUMPY.random(tuple(shape))),
}


@pytest.mark.parametrize("name", SOURCES)
def test_randomness_from_elsewhere_is_noticed_and_drawn(name):
    estimator = Elsewhere(SOURCES[name])
    with pytest.raises(c.ContinuousNoise):
        c.enumerate_draws(c.runner(estimator, PROBLEM))
    found, exact = c.measure_on(estimator, PROBLEM), c.measure_on(Reinforce(baseline="none"), PROBLEM)
    assert (found.draws, exact.draws) == (200_000, None)
    assert found.bias <= 4 * found.bias_error
    assert found.variance == pytest.approx(exact.variance, rel=0.03)
    assert abs(found.value - exact.value) < 4 * found.value_error
    c.check_expectation(estimator, PROBLEM)


def test_enumerated_figures_are_exact():
    plain, exact = c.measure_on(Reinforce(baseline="none"), PROBLEM), c.measure_on(Exact(), PROBLEM)
    for found in (plain, exact):
        assert found.bias < 1e-9
        assert found.bias_error < 1e-9
        assert found.value == pytest.approx(found.target, abs=1e-10)
    assert plain.ratio("reinforce") == plain.ratio("reinforce", work=True) == 1
    assert plain.ratio("leave_one_out", work=True) == plain.ratio("leave_one_out") / 2
    assert exact.variance == exact.ratio("reinforce") == 0
    assert (exact.claimed, exact.evaluations) == (9, 9)


def test_a_flipped_sign_is_a_bias_of_two_norms():
    assert c.measure_on(FlippedSign(baseline="none"), PROBLEM).bias == pytest.approx(2.0)


def test_the_target_of_a_relaxation_is_its_own():
    found = c.measure_on(GumbelSoftmax(), PROBLEM)
    assert abs(found.value - found.target) < 4 * 2**0.5 * found.value_error
    assert abs(found.value - float(PROBLEM.truth()[0])) > 50 * found.value_error
    assert found.bias > 50 * found.bias_error


@pytest.mark.parametrize("bias", [0.0, 0.02, 1.0])
def test_the_error_of_a_distance_is_how_far_it_strays(bias):
    """Over many sets of draws: the mean distance is right where it can be told from 0, and so is its error."""
    torch.manual_seed(2)
    truth, scale = torch.tensor([3.0, 4.0, 0.0]).double(), torch.tensor([1.0, 2.0, 0.5]).double()
    found = []
    for _ in range(300):
        draws = truth + bias * torch.tensor([0.0, 0.0, 5.0]) + scale * torch.randn(2_000, 3).double()
        summary = measurement.Summary(draws.mean(0), draws.T.cov(), len(draws))
        found.append(measurement.relative_distance(summary, measurement.exactly(truth)))
    distance, error = torch.tensor(found).double().T
    within = float(((distance - bias).abs() <= 2 * error).double().mean())
    assert within > 0.9
    if bias == 1.0:
        assert float(distance.mean()) == pytest.approx(1.0, abs=4 * float(distance.std()) / math.sqrt(300))
        assert float(error.mean()) == pytest.approx(float(distance.std()), rel=0.15)


def test_a_wrong_mean_without_noise_is_said_by_how_much_it_is_off():
    """Not in standard errors, of which there are none: as of a class for two categories on a problem of five."""
    constant = lambda draws: [torch.full((draws, 2), 1.5)]
    with pytest.raises(c.Failed, match=r"^five: off by 5\.00e-01 in all draws: it is 1\.5 times"):
        c.assert_mean(constant, [torch.ones(2)], "five")
