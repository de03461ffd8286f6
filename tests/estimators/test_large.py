"""Costs with a large offset, and more categories or variables than an estimator is for."""

import subprocess
import sys

import pytest
import torch

from hardmax.estimators import (
    AR,
    ARS,
    ARSM,
    MVE,
    Exact,
    LocalExpectation,
    RandomLocalExpectation,
    Reinforce,
    SparseExpectation,
)

TABLE = torch.tensor([[1.0, 3.0, 2.0, 5.0], [4.0, 0.0, 2.0, 7.0]])


def gradient(estimator, logits, offset):
    logits = logits.clone().requires_grad_()
    torch.manual_seed(0)
    cost = estimator(logits, lambda z: offset + (z * TABLE.to(z)).sum((-2, -1)) / 512)
    return cost, torch.autograd.grad(cost.sum(), logits)[0]


@pytest.mark.parametrize("make", [Exact, LocalExpectation, lambda: RandomLocalExpectation(2), SparseExpectation])
def test_what_all_costs_share_leaves_no_gradient(make):
    """All costs here are exact in float32: all that the offset may take is in what is made of them."""
    logits = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(24))
    cost, found = gradient(make(), logits, 8192.0)
    value, right = gradient(make(), logits.double(), 0.0)
    assert (found - right).abs().max() < 1e-5 * right.abs().max()
    assert (cost - 8192 - value).abs().max() < 1e-3


@pytest.mark.parametrize("make", [Exact, SparseExpectation])
def test_an_infinite_cost_stays_infinite(make):
    logits = torch.zeros(1, 2, 3)
    assert make()(logits, lambda z: torch.where(z[..., 0, 0] > 0, torch.inf, 1.0)).item() == torch.inf


@pytest.mark.parametrize("make", [AR, ARS, ARSM, Reinforce], ids=lambda make: make.__name__)
def test_a_variable_of_one_possible_category_gets_no_gradient(make):
    """Not even noise of mean 0: what makes its logits is left alone."""
    logits = torch.zeros(100, 2, 4)
    logits[:, 0, 1:] = -torch.inf
    logits.requires_grad_()
    (found,) = torch.autograd.grad(make()(logits, lambda z: 1 + z[..., 1, 0]).sum(), logits)
    assert not found[:, 0].any()
    assert found[:, 1].any()


def test_so_many_categories_are_refused_before_anything_is_solved():
    logits = torch.zeros(1, 1, 10_001, requires_grad=True)
    with pytest.raises(ValueError, match="at most 10,000 categories, got logits of 10,001: take ReinMax"):
        MVE()(logits, lambda z: z[..., 0].sum(-1))


def test_a_number_of_configurations_that_has_no_name_is_a_power_of_ten():
    with pytest.raises(ValueError, match=r"limit is 4096 .* have 10\^5097: raise limit"):
        SparseExpectation()(torch.zeros(2, 3000, 50), lambda z: z[..., 0].mean(-1))


MANY_EVALUATIONS = """
import resource, torch
from hardmax.estimators import RandomLocalExpectation
logits = torch.zeros(32, 1, 8_000, requires_grad=True)
weight, asked = torch.randn(8_000), []
def cost(z):
    asked.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    if len(asked) == 400:
        raise KeyboardInterrupt
    return (z @ weight).sum(-1)
try:
    RandomLocalExpectation()(logits, cost)
except KeyboardInterrupt:
    print(asked[-1] - asked[20])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="units of memory")
def test_memory_does_not_grow_with_the_number_of_evaluations():
    done = subprocess.run([sys.executable, "-c", MANY_EVALUATIONS], capture_output=True, text=True, timeout=300)
    assert int(done.stdout) < 30_000, done.stderr  # kB
