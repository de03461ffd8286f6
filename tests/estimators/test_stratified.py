"""Stratified draws: their law, the weights that correct for it, and what comes of plain leave-one-out."""

import pytest
import torch

from hardmax import certification as c
from hardmax.estimators import CARMS, Exact, Reinforce, Stratified
from hardmax.estimators.carms import Strata
from hardmax.estimators.released import CoupledLeaveOneOut
from helpers.laws import enumerated, strata_law

SAMPLES = pytest.mark.parametrize("samples", [2, 3, 4])


@SAMPLES
def test_each_part_of_the_interval_has_one_uniform_and_none_is_drawn_before_others(samples):
    torch.manual_seed(0)
    u = Strata(samples).uniforms(torch.zeros(20_000, dtype=torch.float64))
    assert torch.equal((u * samples).floor().sort(0)[0], torch.arange(samples).double().unsqueeze(-1).expand_as(u))
    for a, b in [(0.3, 0.7), (0.9, 0.9), (0.55, 0.6), (0.1, 1.0)]:
        expected = Strata(samples).both_below(torch.tensor(a).double(), torch.tensor(b).double())
        found = ((u[0] < a) & (u[1] < b)).double().mean()
        assert abs(found - expected) < 4 * (expected * (1 - expected) / 20_000).sqrt() + 1e-12


@SAMPLES
@pytest.mark.parametrize("C", [2, 3, 4])
def test_weights_are_the_ratio_to_independent_pairs_and_bounded(samples, C):
    torch.manual_seed(C)
    p = (2 * torch.randn(C, dtype=torch.float64)).softmax(-1)
    law = strata_law(p, samples)
    law = law.sum([*range(2, samples)]) if samples > 2 else law
    first, second = torch.cartesian_prod(torch.arange(C), torch.arange(C)).T
    ratio = Strata(samples).ratio(p.log().unsqueeze(0), first.unsqueeze(-1), second.unsqueeze(-1)).reshape(C, C)
    assert (ratio * law - torch.outer(p, p)).fill_diagonal_(0).abs().max() < 1e-12
    assert (torch.outer(p, p) / law).fill_diagonal_(0).max() <= C * (C - 1) / 2


def test_weights_of_rare_categories_are_bounded_where_rounding_is_larger_than_their_law():
    """Without a bound, one of these would be 89."""
    log_p = [-14.571368348874518, -0.006488431922395608, -31.36219363, -5.041049467519603]
    log_p = torch.tensor([log_p], dtype=torch.float64)
    first, second = torch.triu_indices(4, 4, 1)
    ratio = Strata(3).ratio(log_p.log_softmax(-1), first.unsqueeze(-1), second.unsqueeze(-1))
    assert ratio.min() >= 0
    assert ratio.max() <= 6


@pytest.mark.parametrize(
    ("samples", "problem"), [(2, c.PROBLEMS[0]), (2, c.PROBLEMS[1]), (3, c.PROBLEMS[2]), (4, c.SMALL)]
)
def test_exact_over_the_law_of_its_tuples(samples, problem):
    laws = [strata_law(row.softmax(-1), samples) for row in problem.logits]
    c.assert_close(enumerated(Stratified(samples), "draws", problem, laws), problem.truth(), "all tuples")


def test_exact_beside_categories_of_probability_zero():
    problem = c.SmallProblem(2, 3)
    problem.logits[0, 1] = problem.logits[1, 0] = -torch.inf
    laws = [strata_law(row.softmax(-1), 2) for row in problem.logits]
    logits, parameters = problem.leaves(1)
    exact = problem.gradients(Exact()(logits, problem.objective(parameters)), logits, parameters)
    c.assert_close(enumerated(Stratified(2), "draws", problem, laws), [t[0] for t in exact], "all tuples")


def test_plain_leave_one_out_of_coupled_draws_is_biased():
    """Also for a linear cost, and by as much as the coupling takes from the probability that both are the same."""
    for problem in (c.SmallProblem(1, 5), c.SmallProblem(1, 3, linear=True)):
        laws = [strata_law(row.softmax(-1), 3) for row in problem.logits]
        found, truth = enumerated(CoupledLeaveOneOut(3), "draws", problem, laws), problem.truth()
        assert (found[0] - truth[0]).abs().max() < 1e-10
        assert 0.1 < (found[1] - truth[1]).norm() / truth[1].norm() < 1
    binary = c.SmallProblem(1, 2)
    p = binary.logits[0].softmax(-1)
    law = strata_law(p, 2)
    found = enumerated(CoupledLeaveOneOut(2), "draws", binary, [law])[1] / binary.truth()[1]
    assert torch.allclose(found, law[0, 1] / (p[0] * p[1]).expand(2)), "too long where draws differ more often"


def test_many_categories_are_refused():
    with pytest.raises(ValueError, match="Stratified takes at most 32 categories, got logits of 33"):
        Stratified()(torch.zeros(1, 33, requires_grad=True), lambda z: pytest.fail("evaluated"))


def test_it_has_less_variance_than_other_draws_where_costs_follow_the_order():
    """With four draws 0.026, where antithetic ones by inversion have 0.060 and independent ones more."""
    costs, variance = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64), []
    for estimator in (Stratified(4), CARMS(4, "inverse_cdf"), Reinforce(4, "leave_one_out")):
        torch.manual_seed(0)
        leaf = torch.zeros(20_000, 1, 3, dtype=torch.float64).requires_grad_()
        (g,) = torch.autograd.grad(estimator(leaf, lambda z: (z @ costs).sum(-1)).sum(), leaf)
        variance.append(float(g.var(0).sum()))
    assert variance[0] < 0.6 * variance[1] < 0.6 * variance[2]
