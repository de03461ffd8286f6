"""Coupled estimators against the exact joint law of their draws, and estimators that sum over categories."""

import itertools
import math

import pytest
import torch

from hardmax import certification as c
from hardmax.estimators import (
    ARS,
    ARSM,
    CARMS,
    ARSMPlus,
    ARSPlus,
    DisARMIW,
    DisARMSB,
    DisARMTree,
    Exact,
    LocalExpectation,
    RandomLocalExpectation,
    SumAndSample,
    UnorderedSet,
    sampling,
    sum_and_sample,
)
from hardmax.estimators.arsm import Race, Watched
from hardmax.estimators.carms import InverseCDF, copula
from hardmax.estimators.unordered_set import beam_search
from helpers.laws import antithetic_law, comb, enumerated, inverse_law, law_in_order, leaves, orders, outcomes, within
from helpers.wrong import Clipped, FixedOrder, Unsorted

PROBLEM = c.SmallProblem(2, 3, (2,), extreme=0.4)


def name(value):
    if not isinstance(value, torch.nn.Module):
        return None
    return f"{type(value.coupling).__name__}-{value.samples}" if isinstance(value, CARMS) else type(value).__name__


# ---------------------------------------------------------------- joint laws, enumerated


def check_law(draw, law, draws=200_000):
    """The frequencies of ``draw(draws) -> [S, draws]`` are those of ``law``, in standard errors."""
    torch.manual_seed(0)
    index = draw(draws)
    shape = law.shape
    flat = sum(index[s] * math.prod(shape[s + 1 :]) for s in range(len(shape)))
    frequency = torch.bincount(flat, minlength=law.numel()) / draws
    law = law.flatten()
    assert abs(law.sum() - 1) < 1e-12
    assert (frequency[law < 1e-12] == 0).all(), "drew what has probability 0"
    rare = law < 1e-4  # too rare to be normal one by one
    frequency = torch.cat([frequency[~rare], frequency[rare].sum().reshape(1)])
    law = torch.cat([law[~rare], law[rare].sum().clamp(min=1e-4).reshape(1)])
    frequency[-1].clamp_(min=1e-4)
    z = (frequency - law).abs() / (law * (1 - law) / draws).sqrt().clamp(min=1e-9)
    assert z.max() < 4.5, f"off by {z.max():.1f} standard errors"


# ---------------------------------------------------------------- DisARM


def balanced(lo, hi, C):
    """Blocks of powers of two, without what lies beyond C."""
    if hi - lo == 1:
        return lo
    middle = (lo + hi) // 2
    return balanced(lo, middle, C) if middle >= C else (balanced(lo, middle, C), balanced(middle, hi, C))


def tree_of(estimator, logits):
    """The binary tree ``(left, right)`` over the categories of ``logits`` ``[C]`` that the estimator uses."""
    C = len(logits)
    if isinstance(estimator, DisARMTree):
        return balanced(0, 2 ** (C - 1).bit_length(), C)
    return comb(logits.argsort().tolist() if isinstance(estimator, DisARMIW) else list(range(C)))


DISARM = [DisARMIW(), DisARMSB(), DisARMTree()]
LARGER = [c.SmallProblem(1, 7, extreme=0.4), c.SmallProblem(1, 4), c.SmallProblem(2, 5, extreme=0.4)]


def disarm_laws(estimator, logits):
    return [antithetic_law(row.softmax(-1), tree_of(estimator, row)) for row in logits]


@pytest.mark.parametrize("estimator", DISARM, ids=name)
@pytest.mark.parametrize("C", [1, 2, 3, 4, 6, 7])
def test_antithetic_pairs_have_their_law(estimator, C):
    torch.manual_seed(C)
    logits = torch.randn(C, dtype=torch.float64)
    logits[1:2] = -torch.inf if C > 2 else 0.5
    law = disarm_laws(estimator, logits.unsqueeze(0))[0]
    for dim in (0, 1):
        assert torch.allclose(law.sum(dim), logits.softmax(-1)), "each draw alone has the softmax's probabilities"
    check_law(lambda n: estimator.pair(logits.expand(n, 1, C))[..., 0], law)


@pytest.mark.parametrize("estimator", DISARM, ids=name)
@pytest.mark.parametrize("problem", c.PROBLEMS + LARGER, ids=lambda p: f"K={p.K},C={p.C}")
def test_disarm_is_exact_over_the_law_of_its_pairs(estimator, problem):
    results = enumerated(estimator, "pair", problem, disarm_laws(estimator, problem.logits))
    c.assert_close(results, problem.truth(), "all pairs")


@pytest.mark.parametrize("estimator", DISARM, ids=name)
@pytest.mark.parametrize("C", [3, 5, 6])
@pytest.mark.parametrize("ruled_out", [[0], [1], [1, 2], [0, 1]])
def test_disarm_is_exact_beside_categories_of_probability_zero(estimator, C, ruled_out):
    problem = c.SmallProblem(2, C, extreme=0.3)
    problem.logits[:, ruled_out] = -torch.inf
    results = enumerated(estimator, "pair", problem, disarm_laws(estimator, problem.logits))
    logits, parameters = problem.leaves(1)
    exact = problem.gradients(Exact()(logits, problem.objective(parameters)), logits, parameters)
    c.assert_close(results, [t[0] for t in exact], "all pairs")


class AlwaysScore(DisARMTree):
    """REINFORCE at the decision where the draws part ways, too, though they are not independent there."""

    def direction(self, logits, z):
        one_hot = torch.nn.functional.one_hot(z, logits.shape[-1]).to(logits)
        return one_hot[0] - one_hot[1]


def test_unsorted_sticks_are_rejected():
    """A stick with more than half of the probability loses the pairs of later categories."""
    problem = c.SmallProblem(1, 5)
    problem.logits = torch.tensor([[0.6, 0.2, 0.1, 0.07, 0.03]], dtype=torch.float64).log()
    laws = [antithetic_law(row.softmax(-1), comb(list(range(5)))) for row in problem.logits]
    results = enumerated(Unsorted(), "pair", problem, laws)
    assert abs(results[0] - problem.truth()[0]) < 1e-10, "the value is right"
    assert (results[1] - problem.truth()[1]).abs().max() > 0.01, "the gradient should not be"
    with pytest.raises(AssertionError, match="logits' gradient is off"):
        c.assert_close(results, problem.truth(), "unsorted")
    with pytest.raises(AssertionError, match="standard errors"):
        c.check_expectation(Unsorted(), problem)


def test_score_function_where_draws_part_ways_is_rejected():
    problem = c.SmallProblem(1, 5)
    results = enumerated(AlwaysScore(), "pair", problem, disarm_laws(AlwaysScore(), problem.logits))
    with pytest.raises(AssertionError, match="logits' gradient is off"):
        c.assert_close(results, problem.truth(), "score")


def decision_by_decision(p, tree, z, other, active=(True, True)):
    """The published form: a sum over the decisions of DisARM's factor, or REINFORCE's, times their log-odds' gradient.

    Per unit of half the difference in cost; b = 1 goes right.
    """
    if isinstance(tree, int) or not any(active):
        return torch.zeros_like(p)
    left, right = tree
    s = p[leaves(right)].sum() / p[leaves(tree)].sum()
    b, b_ = int(z in leaves(right)), int(other in leaves(right))
    factor = (-1) ** b_ * (b != b_) * torch.maximum(s, 1 - s)
    if not all(active):
        factor = b - s if active[0] else s - b_
    here = factor * (within(p, right) - within(p, left))
    below = [(side, (active[0] and z in leaves(side), active[1] and other in leaves(side))) for side in tree]
    return here + sum(decision_by_decision(p, side, z, other, reached) for side, reached in below)


@pytest.mark.parametrize("estimator", DISARM[1:], ids=name)
@pytest.mark.parametrize("C", [2, 3, 5, 6, 8])
def test_direction_is_the_published_sum_over_decisions(estimator, C):
    torch.manual_seed(C)
    logits = torch.randn(1, C, dtype=torch.float64)
    tree = tree_of(estimator, logits[0])
    for z, other in itertools.product(range(C), repeat=2):
        found = estimator.direction(logits, torch.tensor([[z], [other]]))[0]
        assert torch.allclose(found, decision_by_decision(logits[0].softmax(-1), tree, z, other), atol=1e-12)


@pytest.mark.parametrize("C", [3, 5, 10])
def test_importance_weights_are_the_ratio_to_independent_pairs(C):
    """P(z, z') of the coupled pair times the weight is p(z) p(z'), for every pair of different categories."""
    torch.manual_seed(C)
    logits = torch.randn(1, C, dtype=torch.float64)
    law = disarm_laws(DisARMIW(), logits)[0]
    p = logits[0].softmax(-1)
    for z, other in itertools.permutations(range(C), 2):
        weight = DisARMIW().direction(logits, torch.tensor([[z], [other]]))[0, z]
        assert abs(weight * law[z, other] - p[z] * p[other]) < 1e-14


@pytest.mark.parametrize("estimator", DISARM, ids=name)
def test_two_categories_give_disarm_which_is_arm_given_its_draws(estimator):
    """1/2 (f(b) - f(b')) (-1)^b' [b != b'] sigmoid(|a|): the mean of ARM's (f(b) - f(b')) (1/2 - u) over such u."""
    a, values = 0.7, torch.tensor([2.0, -1.0], dtype=torch.float64)
    logits = torch.tensor([[a, 0.0]], dtype=torch.float64)
    s = torch.sigmoid(torch.tensor(a, dtype=torch.float64))
    u = (torch.arange(1_000_000, dtype=torch.float64) + 0.5) / 1_000_000
    b, b_ = u < s, 1 - u < s
    f = lambda b: torch.where(b, values[0], values[1])
    arm = (f(b) - f(b_)) * (0.5 - u)
    for first, second in itertools.product([True, False], repeat=2):
        same = (b == first) & (b_ == second)
        if not same.any():
            continue
        factor = (-1) ** second * (first != second) * torch.sigmoid(torch.tensor(abs(a), dtype=torch.float64))
        z = torch.tensor([[1 - int(first)], [1 - int(second)]])
        half = 0.5 * (values[z[0, 0]] - values[z[1, 0]])
        found = half * estimator.direction(logits, z)[0, 0]
        assert abs(found - half * factor) < 1e-12
        assert abs(found - arm[same].mean()) < 1e-5


# ---------------------------------------------------------------- CARMS


def sticks_law(p, samples):
    """Probabilities ``[C] * S`` of the tuples from sorted stick-breaking, a stick and a set of survivors at a time."""
    order, law = p.argsort().tolist(), torch.zeros([len(p)] * samples, dtype=p.dtype)

    def go(stick, active, drawn, probability):
        if stick == len(p) - 1:
            law[tuple(order[drawn.get(i, stick)] for i in range(samples))] += probability
            return
        s = p[order[stick]] / p[order[stick:]].sum()
        below = lambda n: max(0.0, 1 - n * (1 - float(s) ** (1 / (samples - 1)))) ** (samples - 1)  # all of n uniforms
        for n in range(len(active) + 1):
            others = len(active) - n
            exactly = sum((-1) ** b * math.comb(others, b) * below(n + b) for b in range(others + 1))
            for stops in itertools.combinations(active, n):
                left = [i for i in active if i not in stops]
                go(stick + 1, left, drawn | dict.fromkeys(stops, stick), probability * exactly)

    go(0, list(range(samples)), {}, torch.ones((), dtype=p.dtype))
    return law


def carms_law(estimator, p):
    law = inverse_law if isinstance(estimator.coupling, InverseCDF) else sticks_law
    return law(p, estimator.samples)


def pair_law(law):
    return law.sum(tuple(range(2, law.ndim))) if law.ndim > 2 else law


CARMSES = [CARMS(samples, coupling) for coupling in ("sticks", "inverse_cdf") for samples in (2, 3, 4)]


@pytest.mark.parametrize("samples", [2, 3, 5])
def test_copula_is_uniform_and_has_its_joint_law(samples):
    torch.manual_seed(0)
    u = copula(torch.zeros(200_000, dtype=torch.float64), samples)
    for a, b in ((0.5, 0.5), (0.9, 0.7), (0.2, 0.95)):
        power = 1 / (samples - 1)
        for found, expected in (
            ((u[0] < a), a),
            ((u[0] < a) & (u[1] < b), max(0, a**power + b**power - 1) ** (samples - 1)),
        ):
            assert abs(found.double().mean() - expected) < 4.5 * math.sqrt(expected * (1 - expected) / 200_000) + 1e-12


@pytest.mark.parametrize("estimator", CARMSES, ids=name)
@pytest.mark.parametrize("C", [1, 2, 3, 4])
def test_tuples_have_their_law(estimator, C):
    torch.manual_seed(C)
    log_p = torch.randn(C, dtype=torch.float64)
    log_p[1:2] = -torch.inf if C > 2 else 0.5
    log_p = log_p.log_softmax(-1)
    law = carms_law(estimator, log_p.exp())
    for dim in range(estimator.samples):
        others = [d for d in range(estimator.samples) if d != dim]
        assert torch.allclose(law.sum(others), log_p.exp()), "each draw alone has the softmax's probabilities"
    check_law(lambda n: estimator.draws(log_p.expand(n, 1, C))[..., 0], law, 100_000)


@pytest.mark.parametrize("estimator", CARMSES, ids=name)
@pytest.mark.parametrize("problem", [*c.PROBLEMS, c.SmallProblem(1, 4)], ids=lambda p: f"K={p.K},C={p.C}")
def test_carms_is_exact_over_the_law_of_its_tuples(estimator, problem):
    laws = [carms_law(estimator, row.softmax(-1)) for row in problem.logits]
    c.assert_close(enumerated(estimator, "draws", problem, laws), problem.truth(), "all tuples")


@pytest.mark.parametrize("estimator", CARMSES, ids=name)
def test_carms_is_exact_beside_categories_of_probability_zero(estimator):
    problem = c.SmallProblem(2, 3)
    problem.logits[0, 1] = problem.logits[1, 0] = -torch.inf
    laws = [carms_law(estimator, row.softmax(-1)) for row in problem.logits]
    logits, parameters = problem.leaves(1)
    exact = problem.gradients(Exact()(logits, problem.objective(parameters)), logits, parameters)
    c.assert_close(enumerated(estimator, "draws", problem, laws), [t[0] for t in exact], "all tuples")


def check_ratio(coupling, p, law):
    """P(a, b) r(a, b) = p(a) p(b) for every pair of different categories."""
    C = len(p)
    first, second = torch.cartesian_prod(torch.arange(C), torch.arange(C)).T
    ratio = coupling.ratio(p.log().unsqueeze(0), first.unsqueeze(-1), second.unsqueeze(-1))
    error = (ratio.reshape(C, C) * law - torch.outer(p, p)).fill_diagonal_(0).abs().max()
    assert error < 1e-12, f"the ratio is off by {error:.1e}"
    return ratio.reshape(C, C)[~torch.eye(C, dtype=torch.bool)]


def pairs_of_inverse_cdf(p, samples, among=None):
    """The law of pairs where tuples are too many: ``[C, C]``, from the bivariate distribution."""
    total = torch.zeros(len(p), len(p), dtype=p.dtype)
    among = among or orders(len(p))
    for order in among:
        edges = torch.cat([p.new_zeros(1), p[order].cumsum(0)]).clamp(max=1.0) ** (1 / (samples - 1))
        law = (edges[:, None] + edges - 1).clamp(min=0) ** (samples - 1)
        total[torch.meshgrid(torch.tensor(order), torch.tensor(order), indexing="ij")] += law.diff(dim=0).diff(dim=1)
    return total / len(among)


@pytest.mark.parametrize("estimator", CARMSES, ids=name)
@pytest.mark.parametrize("C", [2, 3, 4, 10])
def test_ratio_is_that_of_the_joint_law(estimator, C):
    torch.manual_seed(C)
    p = torch.randn(C, dtype=torch.float64).softmax(-1)
    inverse = isinstance(estimator.coupling, InverseCDF)
    if C < 10 or (not inverse and estimator.samples == 2):
        law = pair_law(carms_law(estimator, p))
    elif inverse:
        law = pairs_of_inverse_cdf(p, estimator.samples)
    else:
        pytest.skip("too many tuples")
    ratio = check_ratio(estimator.coupling, p, law)
    if not inverse:
        assert ratio.max() <= 1, "sorted sticks never weight a pair up"


def test_ratios_of_inverse_cdf_are_large():
    """Their price for rare pairs: none of it where there are two categories, twelve times with ten."""
    torch.manual_seed(0)
    p = (0.5 * torch.randn(10, dtype=torch.float64)).softmax(-1)
    assert check_ratio(InverseCDF(2), p, pairs_of_inverse_cdf(p, 2)).max() > 5


def test_one_fixed_order_is_rejected():
    """It loses the share of the pairs that it never draws."""
    problem = c.SmallProblem(1, 5)
    p = problem.logits[0].softmax(-1)
    estimator, law = CARMS(2, "inverse_cdf"), law_in_order(p, list(range(5)), 2)
    assert (law[~torch.eye(5, dtype=torch.bool)] < 1e-15).sum() > 5
    estimator.coupling = FixedOrder(2)
    with pytest.raises(AssertionError, match="logits' gradient is off"):
        c.assert_close(enumerated(estimator, "draws", problem, [law]), problem.truth(), "fixed order")
    with pytest.raises(AssertionError, match="the ratio is off"):
        check_ratio(estimator.coupling, p, law)


def test_clipped_ratios_are_rejected():
    """By the joint law: the bias is small beside any estimate's standard error."""
    problem = c.SmallProblem(1, 5)
    p = problem.logits[0].softmax(-1)
    estimator, law = CARMS(2, "inverse_cdf"), inverse_law(p, 2)
    estimator.coupling = Clipped(2)
    results = enumerated(estimator, "draws", problem, [law])
    relative = (results[1] - problem.truth()[1]).norm() / problem.truth()[1].norm()
    assert 1e-4 < relative < 0.1
    with pytest.raises(AssertionError, match="logits' gradient is off"):
        c.assert_close(results, problem.truth(), "clipped")
    with pytest.raises(AssertionError, match="the ratio is off"):
        check_ratio(estimator.coupling, p, law)


def test_an_order_for_each_draw_is_rejected():
    """As in the released sampler, while the ratio is that of a common order."""
    problem = c.SmallProblem(1, 4)
    p = problem.logits[0].softmax(-1)
    edges = {tuple(o): torch.cat([p.new_zeros(1), p[o].cumsum(0)]).clamp(max=1.0) for o in orders(4)}
    law = torch.zeros(4, 4, dtype=torch.float64)
    for one, other in itertools.product(edges, repeat=2):
        joint = (edges[one][:, None] + edges[other] - 1).clamp(min=0).diff(dim=0).diff(dim=1)
        law[torch.meshgrid(torch.tensor(one), torch.tensor(other), indexing="ij")] += joint / len(edges) ** 2
    estimator = CARMS(2, "inverse_cdf")
    with pytest.raises(AssertionError, match="logits' gradient is off"):
        c.assert_close(enumerated(estimator, "draws", problem, [law]), problem.truth(), "own orders")
    with pytest.raises(AssertionError, match="the ratio is off"):
        check_ratio(estimator.coupling, p, law)


def test_two_draws_by_sticks_are_disarm_with_importance_weights():
    index, _ = outcomes([torch.ones(3, 3)] * 2)
    logits = PROBLEM.logits[0].expand(index.shape[1], 2, 3).clone().requires_grad_()
    found = []
    for estimator, sampler in ((CARMS(2), "draws"), (DisARMIW(), "pair")):
        setattr(estimator, sampler, lambda logits: index)
        cost = estimator(logits, lambda z: (z * PROBLEM.parameters[0]).sum((-2, -1)).exp())
        found.append(torch.autograd.grad(cost.sum(), logits)[0])
    assert torch.allclose(*found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 1}, "samples must be an integer of at least 2, got 1"),
        ({"coupling": "copula"}, "coupling must be one of sticks, inverse_cdf, got 'copula'"),
    ],
)
def test_bad_options_of_carms_are_refused(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        CARMS(**options)


def test_inverse_cdf_refuses_many_categories():
    with pytest.raises(ValueError, match="coupling=inverse_cdf takes at most 32 categories, got logits of 33"):
        CARMS(coupling="inverse_cdf")(torch.zeros(2, 33, requires_grad=True), lambda z: pytest.fail("evaluated"))


# ---------------------------------------------------------------- ARS+ and ARSM+


def pseudo_actions(race):
    """Winners after every swap of the noise of every variable, ``[C, C, *batch, K]``."""
    C = race.logits.shape[-1]
    z = torch.empty(C, C, *race.logits.shape[:-1], dtype=torch.long)
    for m, j in itertools.product(range(C), repeat=2):
        noise = race.log_noise.clone()
        noise[..., [m, j]] = noise[..., [j, m]]
        z[m, j] = (noise - race.logits).argmin(-1)
    return z


def test_plus_forms_leave_out_the_noise_of_settled_variables():
    """Swap by swap, from the definition; and ARSM+ is ARS+ averaged over the reference."""
    problem = c.SmallProblem(3, 3, (40,), extreme=0.3)
    objective = problem.objective(problem.parameters)
    torch.manual_seed(0)
    race = Race(problem.logits)
    z = pseudo_actions(race)
    costs = objective(torch.nn.functional.one_hot(z.flatten(0, 1), 3).double()).unflatten(0, (3, 3))
    settled = (z == z[:1]).all(0)  # [C, batch, K], for each reference
    advantage = costs - costs.mean(0)  # [C, C, batch]: of category c, reference j
    noise = 1 / 3 - race.pi().movedim(-1, 0)  # [C, batch, K]
    assert settled.any()
    assert not settled.all()
    expected = torch.einsum("cjb,jbk->bkc", advantage, noise.masked_fill(settled, 0.0))
    cost = objective(race.winner())[0]
    total = torch.zeros_like(expected)
    for j in range(3):
        with c.patched(categorical=lambda logits, samples, j=j: torch.full((samples, *logits.shape[:-1]), j)):
            found = ARSPlus().gradient(race, cost, objective)
        one = torch.einsum("cb,bk->bkc", advantage[:, j], 3 * noise[j].masked_fill(settled[j], 0.0))
        assert torch.allclose(found, one, atol=1e-12), f"reference {j}"
        total += found / 3
    assert torch.allclose(ARSMPlus().gradient(race, cost, objective), expected, atol=1e-12)
    assert torch.allclose(total, expected, atol=1e-12)


@pytest.mark.parametrize(("plain", "plus"), [(ARS(), ARSPlus()), (ARSM(), ARSMPlus())], ids=name)
def test_plus_forms_have_less_variance_except_with_one_variable(plain, plus):
    one = c.SmallProblem(1, 4)
    assert torch.allclose(c.gradient_draws(plain, one, lead=500), c.gradient_draws(plus, one, lead=500), atol=1e-12)
    three = c.SmallProblem(3, 3, extreme=0.6)
    before, after = (c.gradient_draws(e, three, lead=50_000).var(0).sum() for e in (plain, plus))
    assert after < 0.99 * before


class SettledByOneSwap(ARSPlus):
    """Takes a variable for settled as soon as one swap leaves it as it is."""

    def gradient(self, race, cost, objective):
        swaps = race.order.new_zeros(race.logits.shape[-1] - 1)
        watched = Watched(objective, race.winner(), swaps)
        gradient = ARS.gradient(self, race, cost, watched)
        return torch.where(watched.changes()[..., :1] == len(swaps), gradient, 0.0)


def test_too_few_settled_swaps_are_rejected():
    with pytest.raises(AssertionError, match="standard errors"):
        c.check_expectation(SettledByOneSwap(), c.SmallProblem(2, 3))


# ---------------------------------------------------------------- sums over categories


def test_local_expectation_is_the_softmax_jacobian_of_the_costs_of_all_changes():
    objective = PROBLEM.objective(PROBLEM.parameters)
    logits = PROBLEM.logits.clone().requires_grad_()
    torch.manual_seed(0)
    (found,) = torch.autograd.grad(LocalExpectation()(logits, objective).sum(), logits)
    torch.manual_seed(0)
    z = sampling.categorical(logits, 1)
    p = logits.softmax(-1)
    for k in range(2):
        costs = []
        for category in range(3):
            changed = z.clone()
            changed[..., k] = category
            costs.append(objective(sampling.one_hot(changed, logits))[0])
        costs = torch.stack(costs, -1)
        expected = p[:, k] * (costs - (p[:, k] * costs).sum(-1, keepdim=True))
        assert torch.allclose(found[:, k], expected)


def test_local_expectation_of_one_variable_is_exact_in_every_draw():
    problem = c.SmallProblem(1, 5)
    found = c.gradient_draws(LocalExpectation(), problem, lead=20).flatten(1)
    assert (found - problem.truth()[1]).abs().max() < 1e-12


def test_what_is_never_drawn_may_cost_anything():
    logits = torch.tensor([[0.5, -torch.inf, 1.0]], dtype=torch.float64).requires_grad_()
    cost = LocalExpectation()(logits, lambda z: torch.where(z[..., 0, 1] > 0, torch.inf, z[..., 0, 0]))
    (found,) = torch.autograd.grad(cost, logits)
    p = logits.softmax(-1)[0, 0]
    assert torch.allclose(found[0, 0], p * (1 - p))
    assert found[0, 1] == 0


@pytest.mark.parametrize(("K", "C", "count"), [(1, 5, 2), (2, 3, 1), (2, 3, 4), (3, 2, 7)])
def test_the_rest_is_drawn_in_proportion(K, C, count):
    """Exactly: the probability of each configuration beyond the most probable ones, over what they leave."""
    problem = c.SmallProblem(K, C)
    log_p = problem.logits.log_softmax(-1)
    top = beam_search(log_p, count)
    members = {tuple(row) for row in top.tolist()}
    assert len(members) == count

    def run(draws):
        lead = log_p.expand(draws, K, C)
        z = sum_and_sample.draw_from_rest(lead, top.unsqueeze(1).expand(count, draws, K))
        flat = (z[0] * C ** torch.arange(K - 1, -1, -1)).sum(-1)
        return [torch.nn.functional.one_hot(flat, C**K).double()]

    (found,) = c.enumerate_draws(run)
    expected = problem.one_hots()[:, 0] * log_p
    expected = expected.sum((-2, -1)).exp()
    for n, row in enumerate(itertools.product(range(C), repeat=K)):
        expected[n] *= row not in members
    assert torch.allclose(found, expected / expected.sum(), atol=1e-12)


@pytest.mark.parametrize(
    ("samples", "problem"), [(6, c.SmallProblem(1, 5)), (10, c.SmallProblem(3, 2)), (5, c.SmallProblem(2, 2))]
)
def test_the_sum_over_everything_is_exact_in_every_draw(samples, problem):
    logits, parameters = problem.leaves(20)
    cost = SumAndSample(samples)(logits, problem.objective(parameters))
    for found, true in zip(problem.gradients(cost, logits, parameters), problem.truth(), strict=True):
        assert (found - true).abs().max() < 1e-10


@pytest.mark.parametrize("estimator", [SumAndSample(2), SumAndSample(4), SumAndSample(9), LocalExpectation()], ids=name)
def test_exact_beside_categories_of_probability_zero(estimator):
    problem = c.SmallProblem(2, 3)
    problem.logits[0, 1] = problem.logits[1, 0] = -torch.inf
    logits, parameters = problem.leaves(1)
    exact = problem.gradients(Exact()(logits, problem.objective(parameters)), logits, parameters)
    found = c.enumerate_draws(c.runner(estimator, problem))
    c.assert_close(found, [t[0] for t in exact], "all draws")


@pytest.mark.parametrize("gap", [32.0, 80.0, 1e4])
def test_a_rest_that_underflows_is_left_out(gap):
    logits = torch.tensor([[gap, 0.0, 0.0], [0.0, gap, 0.0]], dtype=torch.float64).requires_grad_()
    cost = SumAndSample(2)(logits, lambda z: torch.where((z[..., 0, 0] > 0) & (z[..., 1, 1] > 0), 3.0, 1e30))
    assert cost == 3.0
    (found,) = torch.autograd.grad(cost, logits)
    assert found.abs().max() < 1e-12


def test_wrong_sums_are_rejected(monkeypatch):
    problem = c.SmallProblem(2, 3)
    with monkeypatch.context() as m:
        m.setattr(sum_and_sample, "draw_from_rest", lambda log_p, top: sampling.categorical(log_p, 1))
        with pytest.raises(AssertionError, match="value is off"):
            c.check_expectation(SumAndSample(3), problem)
    with monkeypatch.context() as m:
        m.setattr(sum_and_sample, "log1mexp", torch.zeros_like)
        with pytest.raises(AssertionError, match="value is off"):
            c.check_expectation(SumAndSample(3), problem)


def test_bad_options_of_sum_and_sample_are_refused():
    with pytest.raises(ValueError, match="samples must be an integer of at least 2, got 1"):
        SumAndSample(1)


# ---------------------------------------------------------------- what all of them share

ALL = [
    *DISARM,
    CARMS(3),
    CARMS(2, "inverse_cdf"),
    ARSPlus(),
    ARSMPlus(),
    LocalExpectation(),
    SumAndSample(),
    UnorderedSet(3),
]


@pytest.mark.parametrize("estimator", ALL, ids=name)
def test_gradient_sums_to_zero_over_categories(estimator):
    c.check_sum_over_categories(estimator, PROBLEM)


@pytest.mark.parametrize("estimator", ALL, ids=name)
def test_constants_have_no_gradient_in_any_draw(estimator):
    c.check_constants(estimator, PROBLEM)


@pytest.mark.parametrize("estimator", ALL, ids=name)
def test_many_categories_and_confident_logits_stay_finite(estimator):
    C = {"ARSMPlus": 256, "InverseCDF-2": 32}.get(name(estimator), 4096)
    torch.manual_seed(0)
    logits = (20 * torch.randn(2, 1, C)).requires_grad_()
    weight = torch.randn(C)
    cost = estimator(logits, lambda z: (z @ weight).sum(-1) ** 2, log_q=True)
    cost.sum().backward()
    assert cost.isfinite().all()
    assert logits.grad.isfinite().all()


# ---------------------------------------------------------------- local expectation of some variables


@pytest.mark.parametrize("variables", [1, 2])
def test_random_local_expectation_is_local_expectation_of_the_drawn_variables_times_k_over_their_number(variables):
    problem = c.SmallProblem(4, 3, (5,), extreme=0.3)
    logits, objective = problem.logits.clone().requires_grad_(), problem.objective(problem.parameters)
    gradients, drawn = [], []
    estimator = RandomLocalExpectation(variables)
    changed = estimator.changed
    estimator.changed = lambda logits: drawn.append(changed(logits)) or drawn[-1]
    for one in (estimator, LocalExpectation()):
        torch.manual_seed(0)
        gradients.append(torch.autograd.grad(one(logits, objective).sum(), logits)[0])
    assert drawn[0].shape == (5, variables)
    assert len({tuple(row) for row in drawn[0].tolist()}) > 1, "each example has variables of its own"
    mask = torch.nn.functional.one_hot(drawn[0], 4).sum(-2)
    assert mask.max() == 1, "without replacement"
    assert torch.allclose(gradients[0], 4 / variables * mask.unsqueeze(-1) * gradients[1])


def test_random_local_expectation_of_all_variables_is_local_expectation():
    draws = [c.gradient_draws(e, PROBLEM) for e in (LocalExpectation(), RandomLocalExpectation(2))]
    assert torch.equal(*draws)
    assert c.evaluations(RandomLocalExpectation(9), PROBLEM) == c.evaluations(LocalExpectation(), PROBLEM)
