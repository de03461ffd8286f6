"""Coupled estimators against the exact joint law of their draws, and estimators that sum over categories."""

import itertools
import math

import certification as c
import pytest
import torch

from estimators import DisARMIW, DisARMSB, DisARMTree, Exact

PROBLEM = c.Problem(2, 3, (2,), extreme=0.4)


def name(value):
    return type(value).__name__ if isinstance(value, torch.nn.Module) else None


def gradient(estimator, objective, problem=PROBLEM, seed=1, lead=50):
    torch.manual_seed(seed)
    logits, parameters = problem.leaves(lead)
    cost = estimator(logits, objective or problem.objective(parameters))
    return torch.autograd.grad(cost.sum(), logits)[0]


# ---------------------------------------------------------------- joint laws, enumerated


def outcomes(laws):
    """All joint outcomes of K variables with laws ``[C] * S`` each: indices ``[S, N, K]`` and weights ``[N]``."""
    index = [torch.cartesian_prod(*[torch.arange(n) for n in law.shape]).reshape(-1, law.ndim) for law in laws]
    rows = torch.cartesian_prod(*[torch.arange(len(i)) for i in index]).reshape(-1, len(laws))
    weight = torch.stack([law.flatten()[rows[:, k]] for k, law in enumerate(laws)]).prod(0)
    return torch.stack([index[k][rows[:, k]] for k in range(len(laws))], -1).movedim(1, 0), weight


def enumerated(estimator, sampler, problem, laws):
    """Expected value, logits' and parameters' gradients when the method ``sampler`` draws from ``laws``."""
    index, weight = outcomes(laws)
    setattr(estimator, sampler, lambda logits: index)
    try:
        results = c.runner(estimator, problem)(index.shape[1])
    finally:
        delattr(estimator, sampler)
    possible = weight > 0  # what is never drawn may be anything
    return [(weight[possible].unsqueeze(-1) * r[possible]).sum(0) for r in results]


def check_law(draw, law, draws=200_000):
    """The frequencies of ``draw(draws) -> [S, draws]`` are those of ``law``, in standard errors."""
    torch.manual_seed(0)
    index = draw(draws)
    shape = law.shape
    flat = sum(index[s] * math.prod(shape[s + 1 :]) for s in range(len(shape)))
    frequency = torch.bincount(flat, minlength=law.numel()) / draws
    law = law.flatten()
    assert abs(law.sum() - 1) < 1e-12
    assert (frequency[law < 1e-15] == 0).all(), "drew what has probability 0"
    z = ((frequency - law).abs() / (law * (1 - law) / draws).sqrt().clamp(min=1e-300))[law > 1e-15]
    assert z.max() < 4.5, f"off by {z.max():.1f} standard errors"


# ---------------------------------------------------------------- DisARM


def comb(order):
    """Sticks as a tree: a category, or else the later ones."""
    return order[0] if len(order) == 1 else (comb(order[1:]), order[0])


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


def leaves(tree):
    return [tree] if isinstance(tree, int) else leaves(tree[0]) + leaves(tree[1])


def within(p, tree):
    """The probabilities of the categories of a subtree, given that one of them is drawn."""
    mask = torch.zeros_like(p)
    mask[leaves(tree)] = 1
    mass = (p * mask).sum()
    return p * mask / mass if mass > 0 else torch.zeros_like(p)


def antithetic_law(p, tree):
    """Probabilities ``[C, C]`` of the pairs that come from u and 1 - u at every node."""
    if isinstance(tree, int):
        law = torch.zeros(len(p), len(p), dtype=p.dtype)
        law[tree, tree] = 1
        return law
    left, right = tree
    here = p[leaves(tree)].sum()
    s = p[leaves(right)].sum() / here if here > 0 else torch.zeros(())
    apart = torch.minimum(s, 1 - s) * torch.outer(within(p, left), within(p, right))
    both = (2 * s - 1).clamp(min=0) * antithetic_law(p, right) + (1 - 2 * s).clamp(min=0) * antithetic_law(p, left)
    return both + apart + apart.T


DISARM = [DisARMIW(), DisARMSB(), DisARMTree()]
LARGER = [c.Problem(1, 7, extreme=0.4), c.Problem(1, 4), c.Problem(2, 5, extreme=0.4)]


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
    problem = c.Problem(2, C, extreme=0.3)
    problem.logits[:, ruled_out] = -torch.inf
    results = enumerated(estimator, "pair", problem, disarm_laws(estimator, problem.logits))
    logits, parameters = problem.leaves(1)
    exact = problem.gradients(Exact()(logits, problem.objective(parameters)), logits, parameters)
    c.assert_close(results, [t[0] for t in exact], "all pairs")


class Unsorted(DisARMIW):
    def order(self, logits):
        return torch.arange(logits.shape[-1]).expand(logits.shape)


class AlwaysScore(DisARMTree):
    """REINFORCE at the decision where the draws part ways, too, though they are not independent there."""

    def direction(self, logits, z):
        one_hot = torch.nn.functional.one_hot(z, logits.shape[-1]).to(logits)
        return one_hot[0] - one_hot[1]


def test_unsorted_sticks_are_rejected():
    """A stick with more than half of the probability loses the pairs of later categories."""
    problem = c.Problem(1, 5)
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
    problem = c.Problem(1, 5)
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


# ---------------------------------------------------------------- what all of them share

ALL = [*DISARM]


@pytest.mark.parametrize("estimator", ALL, ids=name)
def test_gradient_sums_to_zero_over_categories(estimator):
    assert gradient(estimator, None).sum(-1).abs().max() < 1e-12


@pytest.mark.parametrize("estimator", ALL, ids=name)
def test_adding_a_constant_changes_no_draw(estimator):
    cost = PROBLEM.objective(PROBLEM.parameters)
    plain, shifted = gradient(estimator, cost), gradient(estimator, lambda z: cost(z) + 1000)
    assert (plain - shifted).abs().max() < 1e-9


@pytest.mark.parametrize("estimator", ALL, ids=name)
def test_a_constant_objective_has_no_gradient(estimator):
    found = gradient(estimator, lambda z: torch.full(z.shape[:-2], 7.0, dtype=z.dtype))
    assert found.abs().max() < 1e-12


@pytest.mark.parametrize("estimator", ALL, ids=name)
@pytest.mark.parametrize("C", [37, 256])
def test_many_categories_and_confident_logits_stay_finite(estimator, C):
    torch.manual_seed(0)
    logits = (20 * torch.randn(4, 3, C)).requires_grad_()
    weight = torch.randn(C)
    estimator(logits, lambda z: (z @ weight).sum(-1) ** 2, log_q=True).sum().backward()
    assert logits.grad.isfinite().all()
