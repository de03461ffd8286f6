"""Denoising diffusions: their denoisers, their derivatives draw by draw, and what becomes of them with strong noise."""

import contextlib
import itertools

import pytest
import torch

from hardmax import certification as c
from hardmax.estimators import ZGR, ReDGE, ReDGECov, ReinDGE, StochasticStraightThrough, sampling

FAMILY = [ReDGE(), ReDGE(2, 0.8), ReDGECov(), ReDGECov(3, 0.3), ReinDGE(), ReinDGE(4, 0.7)]
every_member = pytest.mark.parametrize("estimator", FAMILY, ids=lambda e: f"{type(e).__name__}-{e.steps}")
CURVED = c.SmallProblem(2, 4, extreme=0.5)


@contextlib.contextmanager
def noise_of(noise):
    """Puts fixed noise ``[K, C]`` in the place of the Gaussian one."""
    kept, sampling.normal = sampling.normal, lambda logits, samples: noise.expand(samples, *logits.shape)
    try:
        yield
    finally:
        sampling.normal = kept


def gaussian_noise(problem, seed=0):
    return torch.randn(problem.K, problem.C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def given_noise(estimator, problem, noise):
    """Mean value and gradients over the draws, given the noise."""
    with noise_of(noise):
        return c.enumerate_draws(c.runner(estimator, problem))


def moments(estimator, p):
    """Mean and variances of the noise, for probabilities p of one variable."""
    if isinstance(estimator, ReDGECov):
        return p, (p * (1 - p)).clamp(min=0.1)
    return torch.zeros_like(p), torch.ones_like(p)


def published(estimator, phi, noise):
    """The last mean for one variable, ``[C]``: densities of x given every category, and noise as predicted from z."""
    C = len(phi)
    m, v = moments(estimator, phi.softmax(-1))
    alphas = [1.0, *torch.linspace(1 - estimator.t_1, 1e-4, estimator.steps - 1, dtype=phi.dtype).tolist()]
    x = m + v.sqrt() * noise
    for t in range(estimator.steps - 1, 0, -1):
        alpha, sigma = alphas[t], 1 - alphas[t]
        of_category = torch.distributions.Normal(alpha * torch.eye(C, dtype=phi.dtype) + sigma * m, sigma * v.sqrt())
        z = (phi + of_category.log_prob(x).sum(-1)).softmax(-1)
        predicted = (x - alpha * z) / sigma
        x = alphas[t - 1] * z + (1 - alphas[t - 1]) * predicted
    return z


@every_member
def test_every_draw_is_the_published_formula(estimator):
    draws, noise, seen = 12, gaussian_noise(CURVED), []
    logits, parameters = CURVED.leaves(draws)

    def objective(z):
        seen.append(z)
        z.retain_grad()
        return CURVED.objective(parameters)(z)

    torch.manual_seed(0)
    with noise_of(noise):
        estimator(logits, objective).sum().backward()
    hard, g = seen[0].detach()[0], seen[0].grad[0]
    assert len(seen) == 1
    assert set(hard.unique().tolist()) == {0.0, 1.0}
    for k in range(CURVED.K):
        phi, e = CURVED.logits[k], noise[k]
        total = torch.autograd.functional.jacobian(lambda x, e=e: published(estimator, x, e), phi)
        p = published(estimator, phi, e)
        J = torch.diag(p) - torch.outer(p, p)  # of the last softmax to the logits themselves
        for n in range(draws):
            right = total.T @ g[n, k]
            if isinstance(estimator, ReinDGE):
                away = hard[n, k] - p
                right = right - J @ g[n, k] + 0.5 * (J @ g[n, k] + away * (away @ g[n, k]))
            assert (logits.grad[n, k] - right).abs().max() < 1e-12


@every_member
def test_draws_given_the_noise_have_the_last_mean(estimator):
    noise = gaussian_noise(CURVED)
    with noise_of(noise):
        (found,) = c.enumerate_draws(lambda n: [estimator.sample(CURVED.logits.expand(n, 2, 4)).flatten(1)])
    right = torch.stack([published(estimator, phi, e) for phi, e in zip(CURVED.logits, noise, strict=True)])
    assert (found - right.flatten()).abs().max() < 1e-12


STRONG = 1 - 1e-9


@pytest.mark.parametrize("steps", [2, 3])
@pytest.mark.parametrize("make", [ReDGE, ReDGECov, ReinDGE])
def test_strong_noise_makes_it_straight_through(make, steps):
    """Of first order, or of second: ZGR."""
    noise, limit = gaussian_noise(CURVED), ZGR() if make is ReinDGE else StochasticStraightThrough()
    right = c.enumerate_draws(c.runner(limit, CURVED))
    tolerance = 1e-7 if steps == 2 else 0.01  # alpha is 1e-4 at the last time, and divided by a variance of 0.1
    for found, of_limit in zip(given_noise(make(steps, STRONG), CURVED, noise), right, strict=True):
        assert (found - of_limit).abs().max() < tolerance * of_limit.abs().max()


class Quadratic(c.SmallProblem):
    """A cost of the second degree."""

    def objective(self, parameters):
        a, b = parameters

        def cost(z):
            u, v = (z * a).sum((-2, -1)), (z * b).sum((-2, -1))
            return u * v + u**2 - v

        return cost


@pytest.mark.parametrize("seed", range(3))
def test_reindge_is_exact_for_quadratic_costs_of_its_own_draws(seed):
    """Given the noise, where the noisy point does not depend on the logits."""
    problem = Quadratic(2, 4, extreme=0.4)
    noise, own = gaussian_noise(problem, seed), Quadratic(2, 4, extreme=0.4)
    own.logits = problem.logits + 0.4 / 0.36 * noise
    for found, right in zip(given_noise(ReinDGE(2, 0.6), problem, noise), own.truth(), strict=True):
        assert (found - right).abs().max() < 1e-12
    assert (given_noise(ReDGE(2, 0.6), problem, noise)[1] - own.truth()[1]).norm() > 0.02 * own.truth()[1].norm()


def test_for_linear_costs_reindge_has_the_mean_of_redge():
    problem, noise = c.SmallProblem(2, 3, linear=True), gaussian_noise(c.SmallProblem(2, 3))
    one, other = (given_noise(make(), problem, noise) for make in (ReDGE, ReinDGE))
    for a, b in zip(one, other, strict=True):
        assert (a - b).abs().max() < 1e-12


def test_probabilities_of_draws_are_the_softmaxs_with_many_steps_only():
    torch.manual_seed(0)
    p = torch.tensor([0.67, 0.24, 0.09], dtype=torch.float64)
    logits = p.log().expand(100_000, 1, 3)

    def distance(estimator):
        return float((estimator.sample(logits).mean((0, 1)) - p).abs().max())

    assert distance(ReDGE(60, 0.9)) < 0.006  # four standard errors
    assert distance(ReDGE(2, 0.5)) > 0.1
    assert 0.015 < distance(ReDGECov()) < 0.045


def test_normal_noise_has_the_normal_law_and_no_infinities():
    torch.manual_seed(0)
    found = sampling.normal(torch.zeros(100, 1000), 5).sort().values.flatten()
    moments = c.MeanOfDraws()
    moments.add(torch.stack([found**k for k in (1, 2, 3, 4)] + [(found < q).float() for q in (-2.0, -0.5, 1.0)], -1))
    below = torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor([-2.0, -0.5, 1.0]))
    assert c.z_scores(moments, torch.tensor([0.0, 1.0, 0.0, 3.0, *below.tolist()])).max() < 4.5
    for u in (0.0, 5e-324, 1 - 2**-53):
        with c.patched(uniform=lambda x, n, u=u: torch.full((n, *x.shape), u, dtype=x.dtype).clamp(min=1e-300)):
            assert sampling.normal(torch.zeros(3), 2).isfinite().all()


@pytest.mark.parametrize(
    ("make", "options"),
    list(itertools.product([ReDGE, ReDGECov, ReinDGE], [{"steps": 1}, {"t_1": 0}, {"t_1": 1.0}])),
)
def test_bad_options_are_refused(make, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        make(**options)
