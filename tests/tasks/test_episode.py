"""Episodes against gradients from all paths of a tiny environment, and CartPole against gymnasium's own episodes."""

import itertools

import numpy as np
import pytest
import torch

from hardmax.estimators import ARSM, LocalExpectation, Reinforce
from hardmax.tasks.environments import Environment
from hardmax.tasks.episode import Episode
from hardmax.tasks.simulation import Start


class Chain(Environment):
    """Two actions in at most three steps: both paths and rewards branch, and one path ends after two of them."""

    features, actions, limit = 3, 2, 3

    def start(self, episodes, generator):
        return np.zeros((episodes, 3))  # one number for each step: -1 or 1, the actions so far

    def step(self, state, action):
        place = (state != 0).sum(-1)
        state = state.copy()
        state[np.arange(len(state)), np.minimum(place, 2)] = 2 * action - 1
        left = (place == 1) & (state[:, 0] == 1) & (action == 0)
        reward = np.where(left, 2.0, (state * [0.5, -1.0, 1.5]).sum(-1) + state[:, 0] * state[:, 1])
        return state, reward, left | (place == 2)


def gradient_of_all_paths(task, chain):
    """The sum over t of E[ sum over a of Q(s_t, a) d pi(a | s_t) ], as a cost's and over L."""
    parameters, gradient = list(task.policy.parameters()), 0.0

    def value(state):  # discounted return under the policy, a number
        total = 0.0
        p = task.policy(torch.as_tensor(state)).softmax(-1)[0].tolist()
        for action in range(2):
            after, reward, over = chain.step(state, np.array([action]))
            total += p[action] * (reward[0] + (0 if over[0] else task.discount * value(after)))
        return total

    def visit(state, reached):
        nonlocal gradient
        p = task.policy(torch.as_tensor(state)).softmax(-1)[0]
        for action in range(2):
            after, reward, over = chain.step(state, np.array([action]))
            Q = reward[0] + (0 if over[0] else task.discount * value(after))
            found = torch.autograd.grad(p[action], parameters, retain_graph=True)
            gradient = gradient - reached * Q * torch.cat([g.flatten() for g in found]) / chain.limit
            if not over[0]:
                visit(after, reached * p[action].item())

    visit(chain.start(1, None), 1.0)
    return gradient


def small(estimator, discount=1.0, branches=None):
    torch.manual_seed(0)
    task = Episode(Chain(), [4], discount, branches, 1.0).double()
    task.nest(estimator)
    return task


ESTIMATORS = {
    "reinforce": Reinforce(baseline="none"),
    "batch": Reinforce(baseline="batch"),
    "leave_one_out": Reinforce(samples=3, baseline="leave_one_out"),
    "arsm": ARSM(),
    "local_expectation": LocalExpectation(),
}


def mean_and_error(task, estimator, episodes, times=40):
    """Of the gradient, over independent steps of so many episodes each."""
    parameters, draws = list(task.policy.parameters()), []
    torch.manual_seed(1)
    for seed in range(times):
        problem = task.problem(Start(seed, episodes, task.branches))
        cost = estimator(problem.logits, problem.objective, problem.context)
        draws.append(torch.cat([g.flatten() for g in torch.autograd.grad(cost.mean(), parameters)]))
    draws = torch.stack(draws)
    return draws.mean(0), draws.std(0) / times**0.5


@pytest.mark.parametrize("settings", [(1.0, None), (0.8, None), (1.0, 1)], ids=["", "discounted", "one branch"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_mean_gradient_is_that_of_all_paths(name, settings):
    """Within 5 standard errors, at each of 26 parameters; with no discount it is that of the expected return."""
    task = small(ESTIMATORS[name], *settings)
    exact = gradient_of_all_paths(task, task.environment)
    mean, error = mean_and_error(task, ESTIMATORS[name], 500)
    assert error.norm() < 0.1 * exact.norm()
    off = (mean - exact).abs() / (error + 1e-9)
    assert off.max() < 5, f"{off.max():.1f} standard errors"


def test_without_discount_it_is_the_gradient_of_the_expected_return():
    task = small(Reinforce())
    exact = gradient_of_all_paths(task, task.environment)
    parameters, h = list(task.policy.parameters()), 1e-5
    found = []
    for p in parameters:
        for i in range(p.numel()):
            ends = []
            for sign in (1, -1):
                with torch.no_grad():
                    p.view(-1)[i] += sign * h
                    ends.append(gradient_value(task))
                    p.view(-1)[i] -= sign * h
            found.append(-(ends[0] - ends[1]) / (2 * h) / 3)
    assert torch.allclose(torch.tensor(found, dtype=torch.float64), exact, atol=1e-8)


def gradient_value(task):
    """The expected return, over all sequences of three actions."""
    total = 0.0
    for actions in itertools.product(range(2), repeat=3):
        state, p, gained = task.environment.start(1, None), 1.0, 0.0
        for t, action in enumerate(actions):
            p *= float(task.policy(torch.as_tensor(state)).softmax(-1)[0, action])
            state, reward, over = task.environment.step(state, np.array([action]))
            gained += reward[0]
            if over[0]:
                p *= 0.5 ** (2 - t)  # as often as it is listed
                break
        total += p * gained
    return total
