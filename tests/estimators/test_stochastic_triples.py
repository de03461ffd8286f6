"""Stochastic triples: jumps are what a change of the logits makes of draws by inversion, and pruning is fair."""

import pytest
import torch

from hardmax import certification as c
from hardmax.estimators import Exact, StochasticTriples, sampling
from hardmax.estimators.stochastic_triples import jumps, neighbours

CHANGE = 1e-6


@pytest.mark.parametrize("C", [2, 3, 6])
def test_rates_are_the_shares_of_draws_that_a_raised_logit_moves(C):
    torch.manual_seed(C)
    logits = torch.randn(C, dtype=torch.float64)
    p, edges = logits.softmax(-1), torch.cat([torch.zeros(1).double(), logits.softmax(-1).cumsum(-1)])
    for j in range(C):
        raised = logits.clone()
        raised[j] += CHANGE
        moved = torch.cat([torch.zeros(1).double(), raised.softmax(-1).cumsum(-1)]) - edges
        for category in range(C):
            down, up = -moved[category + 1], moved[category]  # of the steps above and below the category
            share = [up.clamp(min=0) / p[category] / CHANGE, down.clamp(min=0) / p[category] / CHANGE]
            found = jumps(p.unsqueeze(0), torch.tensor([category]))[0, :, j]
            assert torch.allclose(found, torch.stack(share), atol=2e-5)


def test_every_jump_has_the_gradient_of_its_own_rates_over_its_probability():
    problem = c.SmallProblem(2, 3)
    logits, objective = problem.logits.clone().requires_grad_(), problem.objective(problem.parameters)
    z, p = torch.tensor([1, 2]), problem.logits.softmax(-1)
    of_jump = {}  # by variable and side: rates by logit
    for k, category in enumerate(z.tolist()):
        F = torch.cat([torch.zeros(1).double(), p[k].cumsum(-1)])
        before = [p[k, j] * (1 - F[category]) / p[k, category] if j < category else 0 for j in range(3)]
        after = [p[k, j] * F[category + 1] / p[k, category] if j > category else 0 for j in range(3)]
        of_jump |= {(k, -1): torch.tensor(before).double(), (k, 1): torch.tensor(after).double()}
    total = torch.stack([rates.sum() for rates in of_jump.values()])
    for place, ((k, step), rates) in enumerate(of_jump.items()):
        seen = []

        def drawn(logits, samples, place=place, seen=seen):
            seen.append(logits)
            index = z if len(seen) == 1 else torch.tensor([place])
            return index.expand(samples, *index.shape)

        with c.patched(categorical=drawn):
            (found,) = torch.autograd.grad(StochasticTriples()(logits, objective), logits)
        assert torch.allclose(seen[1].softmax(-1)[0], total / total.sum()), "pruning is in proportion to the rates"
        if not total[place]:
            assert not found.any()
            continue
        other = z.clone()
        other[k] += step
        f = [objective(sampling.one_hot(index, logits).unsqueeze(0))[0] for index in (z, other)]
        expected = torch.zeros_like(p)
        expected[k] = rates * (f[1] - f[0]) * total.sum() / total[place]
        assert torch.allclose(found, expected)


def test_exact_beside_categories_of_probability_zero():
    problem = c.SmallProblem(2, 4)
    problem.logits[0, 1] = problem.logits[1, 3] = problem.logits[1, 0] = -torch.inf
    logits, parameters = problem.leaves(1)
    exact = problem.gradients(Exact()(logits, problem.objective(parameters)), logits, parameters)
    c.assert_close(c.enumerate_draws(c.runner(StochasticTriples(), problem)), [t[0] for t in exact], "beside zeros")


def test_neighbours_are_the_next_possible_categories():
    p = torch.tensor([[0.2, 0.0, 0.0, 0.5, 0.3, 0.0]])
    found = [neighbours(p, torch.tensor([z]))[0].tolist() for z in (0, 3, 4)]
    assert found == [[0, 3], [0, 4], [3, 4]]


def test_certain_draws_have_no_gradient():
    logits = torch.tensor([[0.0, -torch.inf, -torch.inf]], dtype=torch.float64).requires_grad_()
    (found,) = torch.autograd.grad(StochasticTriples()(logits, lambda z: z[..., 0, 0]), logits)
    assert not found.any()


def test_a_constant_has_no_gradient_in_any_draw():
    c.check_constants(StochasticTriples(), c.SmallProblem(2, 3, (2,), extreme=0.4))
