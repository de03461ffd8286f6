"""Identities of the multi-sample bounds, and of log q in the objective; wrong versions of them are rejected."""

import pytest
import torch

from hardmax import certification as c
from hardmax.estimators import (
    ARSM,
    VIMCO,
    Exact,
    GumbelSoftmax,
    MuProp,
    Reinforce,
    ReweightedWakeSleep,
    StochasticStraightThrough,
    StraightThroughGumbelSoftmax,
    sampling,
)
from helpers.wrong import DetachedLogQ

PROBLEM = c.SmallProblem(2, 3, (2,), extreme=0.4)
PRIOR = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
LIKELIHOOD = torch.tensor([0.9, 0.1, 0.4], dtype=torch.float64)
EVIDENCE = PRIOR @ LIKELIHOOD
POSTERIOR = PRIOR * LIKELIHOOD / EVIDENCE
Q = torch.tensor([[0.7, -0.3, 0.1]], dtype=torch.float64)  # logits


def negative_log_joint(z):
    return -(z @ (PRIOR * LIKELIHOOD).log()).sum(-1)


def value_and_gradient(estimator, objective=negative_log_joint, logits=Q, log_q=True):
    """Enumerated expectation of the value ``[1]`` and of the gradient to the logits ``[C]`` of one variable."""

    def run(draws):
        leaf = logits.expand(draws, *logits.shape).clone().requires_grad_()
        cost = estimator(leaf, objective, log_q=log_q)
        (gradient,) = torch.autograd.grad(cost.sum(), leaf)
        return [cost.detach().unsqueeze(-1), gradient.flatten(1)]

    return c.enumerate_draws(run)


def one_draw(estimator, objective, log_q=False, copies=20):
    """Values and logits' gradients of some draws; the seed is always the same."""
    torch.manual_seed(1)
    logits = PROBLEM.logits.expand(copies, *PROBLEM.logits.shape).clone().requires_grad_()
    cost = estimator(logits, objective, log_q=log_q)
    return cost.detach(), torch.autograd.grad(cost.sum(), logits)[0]


# ---------------------------------------------------------------- VIMCO


def check_published_form(estimator, log_q):
    """In every draw, with the bounds without each of the draws computed one by one."""
    S, objective = estimator.samples, PROBLEM.objective(PROBLEM.parameters)
    value, found = one_draw(estimator, objective, log_q)
    torch.manual_seed(1)
    logits = PROBLEM.logits.expand(20, *PROBLEM.logits.shape)
    z, p = sampling.draw(logits, S), logits.softmax(-1)
    weight = -objective(z) - (z * logits.log_softmax(-1)).sum((-2, -1)) * log_q
    bound = weight.exp().mean(0).log()
    expected = torch.zeros_like(found)
    for s in range(S):
        others = weight[[t for t in range(S) if t != s]]
        without = ((others.exp().sum(0) + others.mean(0).exp()) / S).log()
        score = z[s] - p
        expected += (bound - without)[..., None, None] * score
        if log_q:
            expected -= weight.softmax(0)[s][..., None, None] * score
    assert torch.allclose(value, -bound), "the value is not minus the bound"
    assert torch.allclose(found, -expected), "the gradient is not the published one"


class MeanOfExponentials(VIMCO):
    """Replaces a draw's weight by the arithmetic mean of the others' weights: unbiased, but another estimator."""

    def without_each(self, log_weight):
        weight = log_weight.exp()
        return ((weight.sum(0) - weight) / (self.samples - 1)).log()


class MeanOfAll(VIMCO):
    """The mean of the logarithms includes the draw's own."""

    def without_each(self, log_weight):
        weight = log_weight.exp()
        return ((weight.sum(0) - weight + log_weight.mean(0).exp()) / self.samples).log()


class OthersOnly(VIMCO):
    """Leaves the draw out of the sum, but not out of the number that it is divided by."""

    def without_each(self, log_weight):
        weight = log_weight.exp()
        return ((weight.sum(0) - weight) / self.samples).log()


@pytest.mark.parametrize("samples", [2, 3, 5])
@pytest.mark.parametrize("log_q", [False, True])
def test_vimco_is_the_published_form(samples, log_q):
    check_published_form(VIMCO(samples), log_q)


@pytest.mark.parametrize("samples", [3, 4])
@pytest.mark.parametrize("wrong", [MeanOfExponentials, MeanOfAll, OthersOnly])
def test_another_leave_one_out_is_rejected(wrong, samples):
    with pytest.raises(AssertionError, match="not the published one"):
        check_published_form(wrong(samples), False)


def test_the_mean_of_the_logarithms_must_leave_out_the_draw():
    assert "logits' gradient is off" in c.failures(MeanOfAll(2), first=True)[0]


@pytest.mark.parametrize("samples", [2, 3])
def test_log_q_detached_in_vimco_is_rejected(samples):
    c.check_expectation(DetachedLogQ(samples), c.SMALL)
    with pytest.raises(AssertionError, match="log_q: logits' gradient is off"):
        c.check_expectation(DetachedLogQ(samples), c.SMALL, log_q=True)


@pytest.mark.parametrize("samples", [2, 3])
def test_equal_draws_have_no_score(samples):
    with c.patched(categorical=lambda logits, samples: torch.ones(samples, *logits.shape[:-1], dtype=torch.long)):
        _, found = one_draw(VIMCO(samples), PROBLEM.objective(PROBLEM.parameters))
    assert found.abs().max() < 1e-12


@pytest.mark.parametrize("make", [VIMCO, ReweightedWakeSleep])
@pytest.mark.parametrize("log_q", [False, True])
def test_a_constant_shifts_the_bound_and_no_gradient(make, log_q):
    objective = PROBLEM.objective(PROBLEM.parameters)
    value, gradient = one_draw(make(3), objective, log_q)
    shifted_value, shifted = one_draw(make(3), lambda z: objective(z) + 1000, log_q)
    assert torch.allclose(shifted_value - 1000, value)
    assert torch.allclose(shifted, gradient, atol=1e-9)


@pytest.mark.parametrize("make", [VIMCO, ReweightedWakeSleep])
def test_the_bound_is_the_importance_weighted_one(make):
    """It rises towards log p(x) with the number of draws, and is log p(x) in every draw where q is the posterior."""
    bounds = [-value_and_gradient(make(samples))[0].item() for samples in (2, 3, 4, 6)]
    assert bounds == sorted(bounds)
    elbo = -value_and_gradient(Reinforce(baseline="none"))[0].item()
    assert elbo < bounds[0] < bounds[-1] < EVIDENCE.log()
    posterior = POSTERIOR.log().expand(100, 1, 3).clone().requires_grad_()
    values = make(2)(posterior, negative_log_joint, log_q=True)
    assert torch.allclose(-values, EVIDENCE.log())


def test_with_an_analytic_kl_outside_it_is_no_bound():
    prior, likelihood, q = (torch.tensor(x, dtype=torch.float64) for x in ([0.5, 0.5], [1, 0.5], [2 / 3, 1 / 3]))
    kl = (q * (q / prior).log()).sum().item()
    objective = lambda z: -(z @ likelihood.log()).sum(-1)
    evidence, limit = (prior @ likelihood).log().item(), (q @ likelihood).log().item()
    found = [-value_and_gradient(VIMCO(S), objective, q.log().unsqueeze(0), False)[0].item() - kl for S in (2, 8)]
    assert (evidence, found[0], limit - kl) == pytest.approx((-0.2877, -0.2615, -0.2389), abs=1e-4)
    assert evidence < found[0] < found[1] < limit - kl


def test_a_bound_in_the_objective_of_an_expectation():
    nested = c.Nested(c.SmallProblem(1, 3), c.SmallProblem(1, 2))
    for outer in (Reinforce(baseline="none"), MuProp()):
        found = c.enumerate_draws(nested.run(outer, VIMCO(2)))
        truth = c.enumerate_draws(nested.run(Exact(), VIMCO(2)))
        error = max((a - b).abs().max() for a, b in zip(found, truth, strict=True))
        assert error < 1e-10


# ---------------------------------------------------------------- reweighted wake-sleep


def self_normalised(samples, logits=Q, log_q=True):
    """Expectation of -sum_s w_s (z_s - p) for one variable, tuple by tuple."""
    p = logits[0].softmax(-1)
    cost = negative_log_joint(torch.eye(3, dtype=torch.float64).unsqueeze(1)) + (p.log() if log_q else 0)
    total = torch.zeros(3, dtype=torch.float64)
    for draws in torch.cartesian_prod(*[torch.arange(3)] * samples):
        weight = (-cost[draws]).exp() / (-cost[draws]).exp().sum()
        score = torch.eye(3, dtype=torch.float64)[draws] - p
        total -= p[draws].prod() * (weight.unsqueeze(-1) * score).sum(0)
    return total


class WithTheGradientOfTheBound(ReweightedWakeSleep):
    attaches_log_q = True


@pytest.mark.parametrize("samples", [2, 3, 4])
@pytest.mark.parametrize("log_q", [False, True])
def test_the_wake_phase_is_self_normalised_importance_sampling(samples, log_q):
    found = value_and_gradient(ReweightedWakeSleep(samples), log_q=log_q)[1]
    assert (found - self_normalised(samples, log_q=log_q)).abs().max() < 1e-10
    wrong = value_and_gradient(WithTheGradientOfTheBound(samples), log_q=log_q)[1]
    assert not log_q or (wrong - self_normalised(samples)).abs().max() > 1e-2, "attached log q cancels the update"


def test_the_wake_phase_approaches_the_divergence_from_the_posterior():
    truth = Q[0].softmax(-1) - POSTERIOR  # gradient of KL(posterior || q)
    errors = [(self_normalised(samples) - truth).abs().max() for samples in (2, 4, 6)]
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]
    at_posterior = value_and_gradient(ReweightedWakeSleep(3), logits=POSTERIOR.log().unsqueeze(0))[1]
    assert at_posterior.abs().max() < 1e-10


def test_the_wake_phase_gives_all_else_the_gradient_of_the_bound():
    for log_q in (False, True):
        results = []
        for make in (VIMCO, ReweightedWakeSleep):
            torch.manual_seed(1)
            value, _, of_parameters = c.runner(make(3), PROBLEM, log_q)(20)
            results.append(torch.cat([value, of_parameters], -1))
        assert torch.equal(*results)


# ---------------------------------------------------------------- log q in the objective


def divergence_outside(objective):
    """Exact gradient of the expected objective plus the analytic KL divergence from a uniform distribution."""
    leaf = Q.clone().requires_grad_()
    log_q = leaf.log_softmax(-1)
    costs = objective(torch.eye(3, dtype=torch.float64).unsqueeze(1))
    return torch.autograd.grad((log_q.exp() * (costs + log_q)).sum(), leaf)[0].flatten()


SCORE_FUNCTION = [
    lambda: Reinforce(baseline="none"),
    lambda: Reinforce(samples=2, baseline="leave_one_out"),
    MuProp,
]


@pytest.mark.parametrize("make", SCORE_FUNCTION)
@pytest.mark.parametrize("attached", [False, True])
def test_log_q_may_be_detached_in_score_functions(make, attached):
    estimator = make()
    estimator.attaches_log_q = attached
    found = value_and_gradient(estimator)[1]
    assert (found - divergence_outside(negative_log_joint)).abs().max() < 1e-10


def draws_of(estimator, attached, objective):
    def run(draws):
        leaf = Q.expand(draws, *Q.shape).clone().requires_grad_()
        estimator.attaches_log_q = attached
        cost = estimator(leaf, objective, log_q=True)
        return [torch.autograd.grad(cost.sum(), leaf)[0].flatten(1)]

    return run


@pytest.mark.parametrize("attached", [False, True])
def test_log_q_may_be_detached_in_swaps(attached):
    truth = divergence_outside(negative_log_joint)
    c.assert_mean(draws_of(ARSM(), attached, negative_log_joint), [truth], "ARSM")


def test_log_q_attached_is_only_noise_to_straight_through():
    nothing = lambda z: 0 * z.sum((-2, -1))
    truth = divergence_outside(nothing)
    detached, attached = (draws_of(StochasticStraightThrough(), a, nothing)(1000)[0] for a in (False, True))
    assert (detached - truth).abs().max() < 1e-12
    assert attached.var(0).sum() > 0.1
    c.assert_mean(draws_of(StochasticStraightThrough(), True, nothing), [truth], "attached")


@pytest.mark.parametrize("make", [StraightThroughGumbelSoftmax, GumbelSoftmax])
@pytest.mark.parametrize("attached", [False, True])
def test_log_q_through_a_relaxation_is_not_the_discrete_divergence(make, attached):
    nothing = lambda z: 0 * z.sum((-2, -1))
    with pytest.raises(AssertionError, match="standard errors"):
        c.assert_mean(draws_of(make(0.5), attached, nothing), [divergence_outside(nothing)], "relaxed")


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("make", [VIMCO, ReweightedWakeSleep])
@pytest.mark.parametrize("samples", [1, 0, 2.5])
def test_bounds_need_two_draws(make, samples):
    with pytest.raises(ValueError, match=f"samples must be an integer of at least 2, got {samples}"):
        make(samples)
