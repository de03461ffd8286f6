"""Implicit maximum likelihood: its forms draw by draw, their means, their noises, and the step that adapts."""

import math

import pytest
import torch

from hardmax import certification as c
from hardmax.estimators import IMLE, AdaptiveIMLE, BlackBox, SumOfGammaIMLE, SymmetricIMLE, sampling
from helpers.wrong import Undivided

CURVED = c.SmallProblem(2, 4, extreme=0.5)
FAMILY = {
    "imle": lambda: IMLE(0.7),
    "symmetric": lambda: SymmetricIMLE(0.7, 3),
    "sum of gamma": lambda: SumOfGammaIMLE(0.7, 2, False, 3, 5),
    "sum of gamma, symmetric": lambda: SumOfGammaIMLE(0.7, 2, True),
    "adaptive": lambda: AdaptiveIMLE(2, beta=0.8),
    "adaptive, one-sided": lambda: AdaptiveIMLE(1, False, beta=0.8),
    "black box": lambda: BlackBox(3.0),
}


def check_formula(estimator, draws=12):
    """Every gradient draw is the mean, over its noises, of a difference of argmaxima over the step."""
    noises, seen, logits_parameters = [], [], CURVED.leaves(draws)
    logits, parameters = logits_parameters
    kept = sampling.gumbel, sampling.sum_of_gamma

    def noted(before):
        def noise(*arguments):
            noises.append(before(*arguments))
            return noises[-1]

        return noise

    def objective(z):
        seen.append(z)
        return CURVED.objective(parameters)(z)

    torch.manual_seed(0)
    sampling.gumbel, sampling.sum_of_gamma = map(noted, kept)
    try:
        cost = estimator(logits, objective)
    finally:
        sampling.gumbel, sampling.sum_of_gamma = kept
    (found,) = torch.autograd.grad(cost.sum(), logits)
    assert len(seen) == 1
    z = seen[0].detach().requires_grad_()
    (g,) = torch.autograd.grad(CURVED.objective(parameters)(z).sum(), z)
    noise = noises[0] if noises else torch.zeros(1, draws, 2, 4)
    phi, unit = CURVED.logits, torch.eye(4, dtype=torch.float64)
    assert torch.equal(z[0], unit[(phi + noise[0]).argmax(-1)]), "the draw has not the first noise"
    for n in range(draws):
        step = estimator.step
        if isinstance(estimator, AdaptiveIMLE):
            step = float(estimator.beta) * float(phi.norm()) / float(g[0, n].norm())
        better = sum(unit[(phi + e[n] - step * g[0, n]).argmax(-1)] for e in noise) / len(noise)
        other = sum(unit[(phi + e[n] + estimator.symmetric * step * g[0, n]).argmax(-1)] for e in noise) / len(noise)
        right = (other - better) / ((1 + estimator.symmetric) * step)
        assert (found[n] - right).abs().max() < 1e-12, f"draw {n} differs from the published formula"


@pytest.mark.parametrize("name", FAMILY)
def test_every_draw_is_the_published_formula(name):
    check_formula(FAMILY[name]())


class NoiseOfItsOwn(SymmetricIMLE):
    """Compares draws with other noise than the one that the better logits get."""

    def change(self, logits, perturbed, g):
        return super().change(logits, logits + sampling.gumbel(logits, self.noises), g)


@pytest.mark.parametrize("mutant", [Undivided(0.7), NoiseOfItsOwn(0.7)], ids=lambda e: type(e).__name__)
def test_mutants_are_rejected(mutant):
    with pytest.raises(AssertionError, match="differs from the published formula"):
        check_formula(mutant)


@pytest.mark.parametrize("noises", [1, 5])
def test_the_mean_of_the_symmetric_form_for_a_linear_objective(noises):
    """(p(logits + step g) - p(logits - step g)) / (2 step), which is nearer to the truth than from one side."""
    problem, step = c.SmallProblem(2, 3, linear=True, extreme=0.4), 0.5
    g = problem.parameters[0] + 0.5 * problem.parameters[1]
    up, down = ((problem.logits + sign * step * g).softmax(-1) for sign in (1, -1))
    right, one_sided = (up - down) / (2 * step), (problem.logits.softmax(-1) - down) / step
    run, truth = c.runner(SymmetricIMLE(step, noises), problem), problem.truth()[1]
    c.assert_mean(lambda n: run(n)[1:2], [right.flatten()], "symmetric")
    assert (right.flatten() - truth).norm() < 0.5 * (one_sided.flatten() - truth).norm()


def test_more_noises_have_less_variance():
    torch.manual_seed(0)
    V = [float(c.runner(SymmetricIMLE(0.3, n), CURVED)(20_000)[1].var(0).sum()) for n in (1, 4, 16)]
    assert V[0] > 2 * V[1] > 2 * V[2]


def test_a_black_box_is_implicit_mle_without_noise():
    with c.patched(gumbel=lambda logits, samples: torch.zeros(samples, *logits.shape, dtype=logits.dtype)):
        one, other = (c.runner(e, CURVED)(5) for e in (IMLE(3.0), BlackBox(3.0)))
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b)
    assert other[1].abs().max() > 0


# ---------------------------------------------------------------- sum-of-gamma noise


@pytest.mark.parametrize(("k", "terms"), [(1, 1), (1, 10), (4, 10)])
def test_sum_of_gamma_noise_has_the_right_moments(k, terms):
    """Of k of them together: those of the largest of so many Exp(1) variables, less log(terms)."""
    torch.manual_seed(0)
    total = sampling.sum_of_gamma(torch.zeros(k, 1, dtype=torch.float64), 200_000, k, terms).sum((-2, -1))
    mean = sum(1 / i for i in range(1, terms + 1)) - math.log(terms)
    central = [sum(math.factorial(m - 1) / i**m for i in range(1, terms + 1)) for m in (2, 3)]  # cumulants
    moments = c.MeanOfDraws()
    moments.add(torch.stack([total, (total - mean) ** 2, (total - mean) ** 3], -1))
    assert c.z_scores(moments, torch.tensor([mean, *central])).max() < 4.5


def test_with_many_terms_and_k_of_1_the_draws_have_the_softmaxs_probabilities():
    torch.manual_seed(0)
    logits = torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)
    moments = c.MeanOfDraws()
    moments.add(SumOfGammaIMLE(terms=1000).sample(logits.expand(10_000, 1, 3))[:, 0])
    assert c.z_scores(moments, logits.softmax(-1)).max() < 4.5
    weaker = SumOfGammaIMLE(k=5, terms=100).sample(logits.expand(10_000, 1, 3))[:, 0].mean(0)
    assert weaker[0] > logits.softmax(-1)[0] + 0.1, "weaker noise, sharper draws"


# ---------------------------------------------------------------- the step that adapts


def called(estimator, logits, scale=1.0):
    torch.manual_seed(1)
    leaf = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(estimator(leaf, lambda z: scale * (z[..., 0] ** 2).sum(-1)).sum(), leaf)
    return gradient


def test_the_size_of_the_objective_does_not_matter():
    logits = torch.randn(50, 3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    one, other = (called(AdaptiveIMLE(), logits, scale) for scale in (1.0, 1e-3))
    assert one.abs().max() > 0
    assert (one - 1e3 * other).abs().max() < 1e-9


@pytest.mark.parametrize(("entries", "sign"), [(100.0, 1), (1e-6, -1)])
def test_beta_grows_while_gradients_are_too_sparse(entries, sign):
    estimator, logits = AdaptiveIMLE(entries=entries, speed=0.25), torch.randn(50, 3, 4)
    found = [float(estimator.beta)]
    for _ in range(6):
        called(estimator, logits)
        estimator.advance()
        found.append(float(estimator.beta))
    assert found == [max(0.0, 1 + sign * 0.25 * i) for i in range(7)]
    again = AdaptiveIMLE()
    again.load_state_dict(estimator.state_dict())
    assert again.beta == estimator.beta
    estimator.eval()
    assert called(estimator, logits).isfinite().all(), "at beta 0 too"
    estimator.advance()
    assert estimator.beta == found[-1], "nothing is noted in evaluation"


def test_what_is_counted_are_entries_of_an_examples_gradient():
    estimator, logits = AdaptiveIMLE(decay=0.0), torch.randn(50, 3, 4)
    gradient = called(estimator, logits)
    estimator.advance()
    assert float(estimator.number()) == pytest.approx(float((gradient != 0).sum() / 50))


def test_logits_of_0_get_no_gradient():
    assert (called(AdaptiveIMLE(), torch.zeros(20, 2, 3)) == 0).all()


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (SymmetricIMLE, {"noises": 0}),
        (SumOfGammaIMLE, {"k": 0}),
        (SumOfGammaIMLE, {"terms": 0}),
        (AdaptiveIMLE, {"decay": 1.0}),
        (AdaptiveIMLE, {"entries": 0}),
        (BlackBox, {"step": 0}),
    ],
)
def test_bad_options_are_refused(make, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        make(**options)
