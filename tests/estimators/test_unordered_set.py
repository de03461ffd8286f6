"""The unordered set estimator against the exact law of its sets, and its weights against their definition."""

import itertools
import math
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
import torch

from hardmax import certification as c
from hardmax.estimators import Exact, Reinforce, UnorderedSet, unordered_set
from hardmax.estimators.unordered_set import SetWeights, beam_search, log1mexp, log_prob_of_members
from helpers.cases import in_part
from helpers.laws import configurations, enumerated_sets, probability_of_set

# ---------------------------------------------------------------- sets, by their definition


def weights_by_definition(members, p):
    """p(s) R(S, s), and the baseline's p(t) R without s (S, t)."""
    weight = []
    mixing = []
    for s in members:
        rest = [t for t in members if t != s]
        without_s = probability_of_set(rest, p, [s])
        weight.append(p[s] * without_s / probability_of_set(members, p))
        mixing.append(
            [
                p[t] * (1 if t == s else probability_of_set([u for u in rest if u != t], p, [s, t]) / without_s)
                for t in members
            ]
        )
    return weight, mixing


def truth(problem):
    logits, parameters = problem.leaves(1)
    exact = problem.gradients(Exact()(logits, problem.objective(parameters)), logits, parameters)
    return [t[0] for t in exact]


SETTINGS = [(1, False), (2, False), (2, True), (3, True), (4, False), (4, True)]


@pytest.mark.parametrize(("samples", "baseline"), SETTINGS)
@pytest.mark.parametrize("problem", c.PROBLEMS, ids=lambda p: f"K={p.K},C={p.C}")
def test_exact_over_the_law_of_all_sets(samples, baseline, problem):
    expected, _ = enumerated_sets(UnorderedSet(samples, baseline), problem)
    c.assert_close(expected, problem.truth(), "all sets")


@pytest.mark.parametrize("baseline", [True, False])
@pytest.mark.parametrize(
    ("samples", "problem"), [(5, c.SmallProblem(1, 5)), (8, c.SmallProblem(3, 2)), (8, c.SmallProblem(2, 2))]
)
def test_the_set_of_everything_is_exact_in_every_draw(samples, baseline, problem):
    """Also where the set has more members than there are configurations."""
    logits, parameters = problem.leaves(20)
    cost = UnorderedSet(samples, baseline)(logits, problem.objective(parameters))
    for found, true in zip(problem.gradients(cost, logits, parameters), problem.truth(), strict=True):
        assert (found - true).abs().max() < 1e-10


@pytest.mark.parametrize("samples", [2, 3, 4, 8])
def test_exact_beside_categories_of_probability_zero(samples):
    """Fewer configurations than members, too: two times one are possible."""
    problem = c.SmallProblem(2, 3)
    for ruled_out in ([[0, 1]], [[0, 1], [1, 2]], [[0, 1], [1, 2], [1, 0]], [[0, 1], [0, 0], [1, 2], [1, 0]]):
        for k, category in ruled_out:
            problem.logits[k, category] = -torch.inf
        expected, _ = enumerated_sets(UnorderedSet(samples), problem)
        c.assert_close(expected, truth(problem), "all sets")
        logits, parameters = problem.leaves(5)
        cost = UnorderedSet(samples)(logits, problem.objective(parameters))
        assert all(r.isfinite().all() for r in problem.gradients(cost, logits, parameters))


def test_one_member_is_reinforce():
    problem = c.SmallProblem(2, 3)
    logits, parameters = problem.leaves(7)
    estimator = UnorderedSet(1, baseline=False)
    estimator.members = lambda log_p: torch.randint(3, (1, 7, 2), generator=torch.Generator().manual_seed(0))
    found = problem.gradients(estimator(logits, problem.objective(parameters)), logits, parameters)
    with c.patched(categorical=lambda logits, samples: estimator.members(logits)):
        cost = Reinforce(baseline="none")(logits, problem.objective(parameters))
    for ours, theirs in zip(found, problem.gradients(cost, logits, parameters), strict=True):
        assert torch.allclose(ours, theirs)


@pytest.mark.parametrize("samples", [2, 4])
def test_baseline_removes_a_constant_from_every_draw(samples):
    problem = c.SmallProblem(2, 3)
    logits = problem.leaves(50)[0]
    estimator = UnorderedSet(samples)
    (found,) = torch.autograd.grad(estimator(logits, lambda z: torch.full(z.shape[:-2], 7.0)).sum(), logits)
    assert found.abs().max() < 1e-12


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_weights_are_their_definition_and_sum_to_one_in_every_set(size):
    torch.manual_seed(size)
    log_p = torch.randn(7, dtype=torch.float64).log_softmax(-1)
    p = log_p.exp().tolist()
    for members in itertools.combinations(range(7), size):
        weight, mixing = SetWeights(len(members))(log_p[list(members)])
        expected = [torch.tensor(x, dtype=torch.float64) for x in weights_by_definition(members, p)]
        assert torch.allclose(weight, expected[0], rtol=0, atol=1e-13)
        assert torch.allclose(mixing, expected[1], rtol=0, atol=1e-13)
        assert abs(weight.sum() - 1) < 1e-14
        if size > 1:
            assert (mixing.sum(-1) - 1).abs().max() < 1e-13


@pytest.mark.parametrize("level", [-200.0, -2000.0])
@pytest.mark.parametrize("size", [2, 4, 8])
def test_weights_of_tiny_probabilities(level, size):
    """Where 1 - p is 1 in floating point, every order is as likely as any other: all weights are equal."""
    torch.manual_seed(0)
    weight, mixing = SetWeights(size)(level + 5 * torch.randn(10, size, dtype=torch.float64))
    assert (weight.sum(-1) - 1).abs().max() < 1e-12
    assert (weight - 1 / size).abs().max() < 1e-12
    others = mixing[:, ~torch.eye(size, dtype=torch.bool)]
    assert (others - 1 / (size - 1)).abs().max() < 1e-12


def test_with_tiny_probabilities_the_estimator_is_leave_one_out():
    """87 variables of 10 categories, log-probabilities around -200: draws that would not repeat anyway."""
    torch.manual_seed(0)
    logits = (0.1 * torch.randn(3, 87, 10)).requires_grad_()
    weight, rows = torch.randn(87, 10), []

    def objective(z):
        rows.append(z)
        return (z * weight).sum((-2, -1))

    (found,) = torch.autograd.grad(UnorderedSet(4)(logits, objective).sum(), logits)
    f = (rows[0] * weight).sum((-2, -1))[..., None, None]
    expected = ((f - f.mean(0)) * (rows[0] - logits.softmax(-1))).sum(0) / 3
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("rest", [1e-3, 1e-8, 1e-12])
def test_weights_beside_one_member_of_almost_all_probability(rest):
    """Against rational arithmetic: what is left for the others is small, and matters in proportion."""
    shares = [Fraction(1, 2), Fraction(1, 4), Fraction(1, 1000)]
    p = [1 - Fraction(rest), *(Fraction(rest) * share for share in shares)]
    p.append(1 - sum(p))
    log_p = torch.tensor([math.log1p(-rest), *(math.log(x) for x in p[1:])], dtype=torch.float64)
    for members in itertools.combinations(range(5), 3):
        weight, mixing = SetWeights(len(members))(log_p[list(members)])
        expected = weights_by_definition(members, p)
        for found, true in ((weight, expected[0]), (mixing, expected[1])):
            true = torch.tensor([[float(x) for x in row] if isinstance(row, list) else float(row) for row in true])
            assert ((found / true.double() - 1).abs() < 1e-15 / rest + 1e-6).all()


def test_weights_stay_finite_at_the_ends():
    for log_p in ([0.0, -torch.inf], [0.0, -800.0, -900.0], [-1e4, -2e4, -torch.inf], [-1e-20, -50.0, -60.0]):
        weight, mixing = SetWeights(len(log_p))(torch.tensor(log_p, dtype=torch.float64))
        assert weight.isfinite().all()
        assert mixing.isfinite().all()
        assert abs(weight.sum() - 1) < 1e-12


MUTATIONS = {
    "sign of log(1 - p)": lambda x, right: -right(x),
    "1 + p for 1 - p": lambda x, right: x.exp().log1p(),
    "no division": lambda x, right: torch.zeros_like(x),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize(("samples", "baseline"), [(2, False), (3, True), (4, True)])
def test_wrong_signs_in_the_weights_are_rejected(mutation, samples, baseline, monkeypatch):
    right = unordered_set.log1mexp
    monkeypatch.setattr(unordered_set, "log1mexp", lambda x: MUTATIONS[mutation](x, right))
    problem = c.SmallProblem(1, 5)
    expected, _ = enumerated_sets(UnorderedSet(samples, baseline), problem)
    with pytest.raises(AssertionError, match="all sets: value is off"):
        c.assert_close(expected, problem.truth(), "all sets")
    if samples == 2:  # the suite sees it as well
        with pytest.raises(AssertionError, match="standard errors"):
            c.check_expectation(UnorderedSet(samples, baseline), problem)


@pytest.mark.parametrize("x", [-1e-300, -1e-12, -1e-3, -0.69, -0.7, -5.0, -40.0, -700.0])
def test_log_of_one_minus_a_probability_is_exact_at_both_ends(x):
    with localcontext(prec=400):
        right = float((1 - Decimal(x).exp()).ln())
    found = float(log1mexp(torch.tensor(x, dtype=torch.float64)))
    assert found == pytest.approx(right, rel=1e-14, abs=0)


# ---------------------------------------------------------------- the search


@pytest.mark.parametrize(("K", "C", "samples"), [(1, 5, 3), (2, 3, 2), (3, 2, 3), (3, 2, 8)])
def test_members_are_drawn_without_replacement(K, C, samples):
    """In order: the first has the probabilities of the softmax, the next those of what is left, and so on."""
    torch.manual_seed(3)
    log_p = torch.randn(K, C, dtype=torch.float64).log_softmax(-1)
    index, log_prob = configurations(log_p)
    draws = 100_000
    z = UnorderedSet(samples).members(log_p.expand(draws, K, C))  # [S, draws, K]
    flat = (z * C ** torch.arange(K - 1, -1, -1)).sum(-1).T.contiguous()  # [draws, S]
    assert (flat.sort(-1).values.diff(dim=-1) > 0).all(), "a member is repeated"
    seen = flat[:, : min(2, samples)]
    count = torch.zeros(len(index), len(index))
    count.index_put_(tuple(seen.T), torch.ones(draws), accumulate=True)
    p = log_prob.exp()
    law = torch.outer(p, p) / (1 - p).unsqueeze(-1)
    law.fill_diagonal_(0)
    z = ((count / draws - law).abs() / (law * (1 - law) / draws).sqrt().clamp(min=1e-300))[law > 0]
    assert z.max() < 4.5
    sets = {}
    for members in flat.sort(-1).values.tolist():
        sets[tuple(members)] = sets.get(tuple(members), 0) + 1
    for members, n in sets.items():
        expected = min(1.0, probability_of_set(members, p.tolist()))
        assert abs(n / draws - expected) < 5 * math.sqrt(expected * (1 - expected) / draws) + 1e-9


@pytest.mark.parametrize("width", [1, 3, 8, 40])
@pytest.mark.parametrize(("K", "C"), [(1, 5), (3, 3), (5, 2)])
def test_without_noise_the_search_finds_the_most_probable(width, K, C):
    torch.manual_seed(K)
    log_p = torch.randn(6, K, C, dtype=torch.float64)
    log_p[:, 0, 0] = -torch.inf
    log_p = log_p.log_softmax(-1)
    found = log_prob_of_members(log_p, beam_search(log_p, width))
    for n in range(6):
        expected = configurations(log_p[n])[1].sort(descending=True).values[:width]
        expected = torch.nn.functional.pad(expected, (0, width - len(expected)), value=-torch.inf)
        assert torch.allclose(found[:, n], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", in_part([0.3, 5.0], 2))
def test_twenty_variables(dtype, scale):
    """10^20 configurations, log-probabilities around -46: members differ, and the gradient is right, not near 0."""
    torch.manual_seed(0)
    draws = 20_000 if scale < 1 else 5_000
    logits = (scale * torch.randn(20, 10, dtype=dtype)).requires_grad_()
    weight = torch.randn(20, 10, dtype=dtype)
    (exact,) = torch.autograd.grad((logits.softmax(-1) * weight).sum(), logits)
    expanded = logits.detach().expand(draws, 20, 10).clone().requires_grad_()
    z = []

    def objective(one_hot):
        z.append(one_hot)
        return (one_hot * weight).sum((-2, -1))

    estimator = UnorderedSet(4)
    (found,) = torch.autograd.grad(estimator(expanded, objective).sum(), expanded)
    moments = c.MeanOfDraws()
    moments.add(found.double())
    scores = c.z_scores(moments, exact.double())
    p = logits.softmax(-1)
    common = (p > 1e-3) & (p < 1 - 1e-3)  # what is rarer is not normal in so few draws
    assert scores[common].max() < 4.5
    first, others = z[0][:1], z[0][1:]
    assert ((first * others).sum((-2, -1)) < 20).all(), "a member is repeated"


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples must be an integer of at least 1, got 0"),
        ({"samples": 9}, "samples must be at most 8, got 9"),
        ({"samples": 1}, "samples must be at least 2 with baseline=true, got 1"),
        ({"baseline": "yes"}, "baseline must be one of True, False, got 'yes'"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        UnorderedSet(**options)
