"""OVIS, the thermodynamic variational objective and VIMCO with the arithmetic mean: forms, limits and biases."""

import math

import pytest
import torch

from hardmax import certification as c
from hardmax.estimators import TVO, VIMCO, ArithmeticVIMCO, OVISAsymptotic, OVISMonteCarlo, Reinforce, sampling

PROBLEM = c.SmallProblem(2, 3, (2,), extreme=0.4)
LOG_Q = pytest.mark.parametrize("log_q", [False, True])
JOINT = torch.tensor([0.18, 0.05, 0.12], dtype=torch.float64)  # p(x, z) of one variable's categories
Q = torch.tensor([[0.7, -0.3, 0.1]], dtype=torch.float64)  # logits


def negative_log_joint(z):
    return -(z @ JOINT.log()).sum(-1)


def one_draw(estimator, log_q, auxiliary=0):
    """Value and gradient, log-weights ``[S, 20, 2]`` and scores ``[S, 20, 2, K, C]``; and those of other draws."""
    torch.manual_seed(1)
    logits = PROBLEM.logits.expand(20, *PROBLEM.logits.shape).clone().requires_grad_()
    objective = PROBLEM.objective(PROBLEM.parameters)
    value = estimator(logits, objective, log_q=log_q)
    (found,) = torch.autograd.grad(value.sum(), logits)
    torch.manual_seed(1)
    draws = [sampling.draw(logits, n) for n in (estimator.samples, auxiliary)]
    log_p = logits.detach().log_softmax(-1)
    weight, other = (-objective(z) - (z * log_p).sum((-2, -1)) * log_q for z in draws)
    return value.detach(), found, weight, draws[0] - log_p.exp(), other


def expected_gradient(estimator, logits=Q, log_q=True):
    def run(draws):
        leaf = logits.expand(draws, *logits.shape).clone().requires_grad_()
        return [torch.autograd.grad(estimator(leaf, negative_log_joint, log_q=log_q).sum(), leaf)[0].flatten(1)]

    return c.enumerate_draws(run)[0]


def check_ascent(found, weight, score, of_score, log_q, direct=True):
    """The gradient is minus the sum of ``of_score`` times scores, and minus what log q(z) adds inside the bound."""
    total = (of_score[..., None, None] * score).sum(0)
    if log_q and direct:
        total = total - (weight.softmax(0)[..., None, None] * score).sum(0)
    assert torch.allclose(found, -total)


# ---------------------------------------------------------------- VIMCO, arithmetic


@pytest.mark.parametrize("samples", [2, 3, 5])
@LOG_Q
def test_the_arithmetic_form_is_the_bound_of_the_other_draws(samples, log_q):
    value, found, weight, score, _ = one_draw(ArithmeticVIMCO(samples), log_q)
    bound = weight.exp().mean(0).log()
    without = []
    for s in range(samples):
        others = weight[[t for t in range(samples) if t != s]].exp()
        without.append(((others.sum(0) + others.mean(0)) / samples).log())
    assert torch.allclose(value, -bound)
    check_ascent(found, weight, score, bound - torch.stack(without), log_q)


def test_the_two_means_are_the_same_for_two_draws_only():
    for samples, same in ((2, True), (3, False)):
        geometric, arithmetic = (one_draw(make(samples), True)[1] for make in (VIMCO, ArithmeticVIMCO))
        assert torch.allclose(geometric, arithmetic) == same


# ---------------------------------------------------------------- OVIS


@pytest.mark.parametrize(("samples", "auxiliary"), [(2, 1), (3, 2), (4, 3)])
@LOG_Q
def test_ovis_by_other_draws_is_the_published_form(samples, auxiliary, log_q):
    """c_k = 1/A sum_a d_k(z_a in the place of z_k), d_k = log Z - v_k: equation 12."""
    value, found, weight, score, other = one_draw(OVISMonteCarlo(samples, auxiliary), log_q, auxiliary)
    d = weight.exp().mean(0).log() - weight.softmax(0) * log_q
    control = torch.zeros_like(d)
    for s in range(samples):
        for a in range(auxiliary):
            replaced = weight.clone()
            replaced[s] = other[a]
            control[s] += (replaced.exp().mean(0).log() - replaced.softmax(0)[s] * log_q) / auxiliary
    assert torch.allclose(value, -weight.exp().mean(0).log())
    check_ascent(found, weight, score, d - control, log_q, direct=False)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("samples", [2, 4])
@LOG_Q
def test_ovis_without_other_draws_is_the_published_form(samples, gamma, log_q):
    """c_k = log Z_-k - gamma v_k + (1 - gamma) log(1 - 1/K): equation 17."""
    _, found, weight, score, _ = one_draw(OVISAsymptotic(samples, gamma), log_q)
    share = weight.softmax(0) * log_q
    others = [weight[[t for t in range(samples) if t != s]].exp().mean(0).log() for s in range(samples)]
    control = torch.stack(others) - gamma * share + (1 - gamma) * math.log(1 - 1 / samples)
    check_ascent(found, weight, score, weight.exp().mean(0).log() - share - control, log_q, direct=False)


def test_ovis_is_biased_by_gamma_times_its_own_share_of_the_weights():
    """With gamma = 1 and even weights it is about S times the gradient of the bound."""
    assert [OVISAsymptotic(4, gamma).unbiased for gamma in (0, 0.5, 1)] == [True, False, False]
    for samples in (2, 3, 5):
        truth = expected_gradient(VIMCO(samples))
        found = {gamma: expected_gradient(OVISAsymptotic(samples, gamma)) for gamma in (0.0, 0.5, 1.0)}
        assert (found[0.0] - truth).abs().max() < 1e-10
        assert torch.allclose(found[0.5], (found[0.0] + found[1.0]) / 2)
        assert (found[1.0] - samples * truth).norm() < 0.1 * found[1.0].norm()
        without_q = expected_gradient(OVISAsymptotic(samples, 1.0), log_q=False)
        assert (without_q - expected_gradient(VIMCO(samples), log_q=False)).abs().max() < 1e-10


def test_ovis_has_less_variance_than_vimco_where_weights_are_even():
    """As a share of the squared mean gradient, with ten draws: 222 of VIMCO, 2.4 with gamma = 0 and 0.98 with 1."""
    problem, share = c.SmallProblem(4, 3, extreme=0.3), []
    objective = lambda z: 0.3 * torch.tanh(problem.objective(problem.parameters)(z))
    for estimator in (VIMCO(10), OVISAsymptotic(10, 0.0), OVISAsymptotic(10, 1.0)):
        torch.manual_seed(0)
        logits = problem.logits.expand(20_000, 4, 3).clone().requires_grad_()
        (g,) = torch.autograd.grad(estimator(logits, objective, log_q=True).sum(), logits)
        share.append(float(g.flatten(1).var(0).sum() / g.mean(0).square().sum()))
    assert share[0] > 30 * share[1] > 60 * share[2]


# ---------------------------------------------------------------- the thermodynamic variational objective


def test_one_step_is_the_evidence_lower_bound():
    truth = expected_gradient(Reinforce(baseline="none"))
    for samples in (2, 3):
        assert (expected_gradient(TVO(samples, steps=1)) - truth).abs().max() < 1e-10


@pytest.mark.parametrize(("steps", "second"), [(1, 0.1), (2, 0.1), (4, 0.05)])
def test_steps_start_at_0_and_are_even_in_their_logarithm(steps, second):
    beta = TVO(4, steps, second).beta
    expected = [0.0, *(second ** (1 - i / (steps - 1)) for i in range(steps))] if steps > 1 else [0.0, 1.0]
    assert beta.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("steps", [1, 2, 3])
@LOG_Q
def test_tvo_is_the_covariance_of_the_paper(steps, log_q):
    """Its surrogate: sum_i step_i (cov of log w and log pi_i under pi_i, and the mean of log w), by autograd."""
    estimator = TVO(3, steps, 0.2)
    value, found, weight, _, _ = one_draw(estimator, log_q)
    assert torch.allclose(value, -weight.exp().mean(0).log())
    logits = PROBLEM.logits.expand(20, *PROBLEM.logits.shape).clone().requires_grad_()
    torch.manual_seed(1)
    z, objective = sampling.draw(logits, 3), PROBLEM.objective(PROBLEM.parameters)
    log_q_of_z = (z * logits.log_softmax(-1)).sum((-2, -1))
    log_weight = -objective(z) - log_q_of_z * log_q
    surrogate = 0
    for start, end in zip(estimator.beta[:-1], estimator.beta[1:], strict=True):
        log_pi = log_q_of_z + start * log_weight  # q e^(beta l)
        w = (start * log_weight).softmax(0).detach()
        centred = (log_weight - (w * log_weight).sum(0)).detach()
        covariance = 3 / 2 * (w * centred * (log_pi - (w * log_pi).sum(0))).sum(0)
        surrogate = surrogate + (end - start) * (covariance + (w * log_weight).sum(0))
    (expected,) = torch.autograd.grad(-surrogate.sum(), logits)
    assert torch.allclose(found, expected)


def test_tvo_approaches_the_gradient_of_the_objective():
    """That of the sum over steps of the mean log-weight under q^(1 - beta) p^beta, in closed form."""
    logits = Q.clone().requires_grad_()
    log_q, estimator = logits[0].log_softmax(-1), TVO(2, 3, 0.2)
    objective = 0
    for start, end in zip(estimator.beta[:-1], estimator.beta[1:], strict=True):
        pi = ((1 - start) * log_q + start * JOINT.log()).softmax(-1)
        objective = objective + (end - start) * (pi * (JOINT.log() - log_q)).sum()
    (truth,) = torch.autograd.grad(-objective, logits)
    errors = [(expected_gradient(TVO(S, 3, 0.2)) - truth[0]).norm() / truth.norm() for S in (2, 4, 8)]
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]
    assert errors[2] < 0.1
    assert float(objective.detach()) < JOINT.sum().log(), "it bounds the evidence"


def test_all_else_follows_the_bound():
    for log_q in (False, True):
        results = []
        for make in (VIMCO, OVISAsymptotic, TVO):
            torch.manual_seed(1)
            value, _, of_parameters = c.runner(make(3), PROBLEM, log_q)(20)
            results.append(torch.cat([value, of_parameters], -1))
        assert torch.equal(results[0], results[1])
        assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("make", [ArithmeticVIMCO, OVISAsymptotic, OVISMonteCarlo, TVO])
@LOG_Q
def test_a_constant_shifts_the_bound_and_no_gradient(make, log_q):
    results = []
    for shift in (0, 1000):
        torch.manual_seed(1)
        logits = PROBLEM.logits.expand(20, *PROBLEM.logits.shape).clone().requires_grad_()
        objective = PROBLEM.objective(PROBLEM.parameters)
        value = make(3)(logits, lambda z, f=objective, shift=shift: f(z) + shift, log_q=log_q)
        results.append((value.detach() - shift, torch.autograd.grad(value.sum(), logits)[0]))
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, atol=1e-9)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (OVISAsymptotic, {"gamma": 1.5}, "gamma must be from 0 to 1, got 1.5"),
        (TVO, {"second": 1.0}, "second must be below 1, got 1.0"),
        (TVO, {"samples": 1}, "samples must be an integer of at least 2, got 1"),
        (OVISMonteCarlo, {"auxiliary": 0}, "auxiliary must be an integer of at least 1, got 0"),
    ],
)
def test_bad_options_are_refused(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
