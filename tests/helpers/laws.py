"""Joint laws of coupled draws and of sets, by their definition, and expectations over them."""

import itertools
import math

import torch

from hardmax import certification as c


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


def comb(order):
    """Sticks as a tree: a category, or else the later ones."""
    return order[0] if len(order) == 1 else (comb(order[1:]), order[0])


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


def law_in_order(p, order, samples):
    """Probabilities ``[C] * S`` of the tuples when the S uniforms are inverted in one order of the categories."""
    edges = torch.cat([p.new_zeros(1), p[order].cumsum(0)]).clamp(max=1.0)
    edges[-1] = 1.0
    roots = edges ** (1 / (samples - 1))
    total = sum(roots.reshape([-1 if d == s else 1 for d in range(samples)]) for s in range(samples))
    law = (total - (samples - 1)).clamp(min=0) ** (samples - 1)
    for dim in range(samples):
        law = law.diff(dim=dim)
    in_order = torch.zeros_like(law)
    in_order[torch.meshgrid(*[torch.tensor(order)] * samples, indexing="ij")] = law
    return in_order


def orders(C):
    return [[i, *[x for x in range(C) if x not in (i, j)], j] for i, j in itertools.combinations(range(C), 2)] or [[0]]


def inverse_law(p, samples):
    return sum(law_in_order(p, order, samples) for order in orders(len(p))) / len(orders(len(p)))


def strata_law(p, samples):
    """The same when each of S equal parts of the unit interval gives one of the uniforms, whichever."""
    total = torch.zeros([len(p)] * samples, dtype=p.dtype)
    for order in orders(len(p)):
        edges = torch.cat([p.new_zeros(1), p[order].cumsum(0)]).clamp(max=1.0)
        within = torch.zeros(samples, len(p), dtype=p.dtype)  # of a category, given the part of the uniform
        for part, (place, category) in itertools.product(range(samples), enumerate(order)):
            low, high = max(edges[place], part / samples), min(edges[place + 1], (part + 1) / samples)
            within[part, category] = samples * max(high - low, 0)
        for parts in itertools.permutations(range(samples)):
            joint = torch.ones((), dtype=p.dtype)
            for part in parts:
                joint = joint.unsqueeze(-1) * within[part]
            total += joint
    return total / len(orders(len(p))) / math.factorial(samples)


def probability_of_set(members, p, without=()):
    """P(the first draws without replacement are ``members``, in any order), once ``without`` have been drawn."""
    total = 0
    for order in itertools.permutations(members):
        left, product = 1 - sum(p[i] for i in without), 1
        for i in order:
            product, left = product * p[i] / left, left - p[i]
        total += product
    return total


def configurations(log_p):
    """All joint configurations ``[N, K]`` of ``[K, C]`` and their log-probabilities ``[N]``."""
    K, C = log_p.shape
    index = torch.tensor(list(itertools.product(range(C), repeat=K)))
    return index, log_p.expand(len(index), K, C).gather(-1, index.unsqueeze(-1)).sum((-2, -1))


def enumerated_sets(estimator, problem):
    """Expected value, logits' and parameters' gradients over the law of all sets; and the sets' own results."""
    index, log_prob = configurations(problem.logits.log_softmax(-1))
    p = log_prob.exp().tolist()
    possible = [i for i, probability in enumerate(p) if probability > 0]
    sets = list(itertools.combinations(possible, min(estimator.samples, len(possible))))
    weight = torch.tensor([probability_of_set(members, p) for members in sets], dtype=torch.float64)
    assert abs(weight.sum() - 1) < 1e-10
    sets = torch.tensor([list(s) + [s[0]] * (estimator.samples - len(s)) for s in sets])
    estimator.members = lambda log_p: index[sets].movedim(1, 0)  # [S, sets, K]
    try:
        results = c.runner(estimator, problem)(len(sets))
    finally:
        del estimator.members
    return [(weight.unsqueeze(-1) * r).sum(0) for r in results], results
