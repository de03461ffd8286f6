"""Episodes against gradients from all paths of a tiny environment, and CartPole against gymnasium's own episodes."""

import itertools
import sys

import numpy as np
import pytest
import torch

from hardmax.estimators import ARSM, LocalExpectation, Reinforce
from hardmax.tasks.environments import CartPole, Environment
from hardmax.tasks.episode import Episode
from hardmax.tasks.simulation import NextDraw, Simulation, Start, by_inversion
from helpers import cases
from helpers.cases import in_part
from helpers.commands import ESTIMATORS as NAMES


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
    if estimator:
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


@pytest.mark.parametrize(
    ("name", "settings"), in_part(itertools.product(ESTIMATORS, [(1.0, None), (0.8, None), (1.0, 1)]), 4)
)
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


def simulated(task, estimator, branches=None):
    """Episodes whose actions the estimator takes, and the cost that it then makes of them."""
    torch.manual_seed(0)
    found = Simulation(task.environment, task.policy, task.discount, Start(3, 4, branches), estimator)
    problem = found.problem()
    return found, problem, estimator(problem.logits, problem.objective, problem.context)


def cartpole(**options):
    torch.manual_seed(0)
    task = Episode(CartPole(), **options)
    with torch.no_grad():
        task.policy[-1].weight.mul_(5)
    return task


@pytest.mark.parametrize("estimator", [Reinforce(baseline="none"), Reinforce()], ids=["none", "running_mean"])
def test_reinforce_is_that_of_the_textbook(estimator):
    """No step but those of its episodes is simulated; discounted returns weigh the scores of the actions taken."""
    task = cartpole()
    found, problem, cost = simulated(task, estimator.train())
    alive, G = torch.as_tensor(found.alive), torch.zeros(4)
    assert (found.steps, found.branches) == (alive.sum(), 0)
    weights = torch.zeros(alive.shape)
    for t in reversed(range(200)):
        G = alive[t] * (1 + task.discount * G)
        weights[t] = -G
    log_p = problem.logits.squeeze(-2).log_softmax(-1).gather(-1, torch.as_tensor(found.actions).unsqueeze(-1))
    surrogate = (weights * alive * log_p.squeeze(-1)).sum() / alive.numel()
    expected = torch.autograd.grad(surrogate, task.policy[0].weight, retain_graph=True)
    ours = torch.autograd.grad(cost.mean(), task.policy[0].weight)
    assert torch.allclose(ours[0], expected[0], atol=1e-4 * float(expected[0].abs().max()))
    assert cost.mean().item() == pytest.approx(float(weights[alive].mean()))


def test_branches_of_arsm_are_those_steps_whose_action_a_swap_changes():
    task = cartpole(branches=2)
    found, problem, cost = simulated(task, ARSM())
    (g,) = torch.autograd.grad(cost.sum(), problem.logits)
    branches = (found.known.all(-1) & found.alive).sum(0)  # by episode
    assert found.branches == branches.sum() > 8
    assert not (g != 0).any(-1).squeeze(-1).numpy()[~found.known.all(-1)].any()
    few, _, _ = simulated(task, ARSM(), 2)
    assert few.branches == np.minimum(branches, 2).sum()
    assert few.steps < found.steps
    assert (few.actions == found.actions).all()


def test_a_branch_with_the_true_action_is_the_true_episode():
    """Common random numbers: of the actions that an estimator took as of those that the task draws."""
    task = cartpole()
    for estimator in (ARSM(), Reinforce(), Reinforce(samples=2), None):
        found = Simulation(task.environment, task.policy, task.discount, Start(3, 4, None), estimator)
        time, episode = found.alive.nonzero()
        again = found.branch(time, episode, found.actions[time, episode])
        assert np.allclose(again, found.true[time, episode])


def test_no_branch_goes_on_beyond_the_limit():
    """Of five steps, in which no pole falls, each action at step t leads to 5 - t rewards."""
    torch.manual_seed(0)
    task = Episode(CartPole(limit=5), discount=1.0)
    found, _, _ = simulated(task, LocalExpectation())
    assert np.allclose(found.costs, np.arange(-5, 0)[:, None, None])
    assert found.known.all()


def test_episodes_are_those_of_gymnasium():
    """The true ones step by step in an environment of its own, and so are its rewards and its end."""
    gymnasium = pytest.importorskip("gymnasium")
    task = cartpole()
    found = Simulation(task.environment, task.policy, task.discount, Start(7, 2, None))
    for b in range(2):
        env = gymnasium.make("CartPole-v1", max_episode_steps=200).unwrapped
        env.reset(seed=0)
        env.state, length = found.states[0, b], found.alive[:, b].sum()
        for t in range(length):
            observed, reward, over, _, _ = env.step(int(found.actions[t, b]))
            assert reward == found.rewards[t, b]
            assert over == (t == length - 1 and length < 200)
            if t + 1 < length:
                assert np.allclose(observed, found.states[t + 1, b], atol=1e-6)
    assert (np.abs(found.states[0]) <= 0.05).all()


@pytest.mark.parametrize("name", [name for name in NAMES if not cases.build((name, {})).differentiates_objective])
def test_what_an_estimator_takes_is_a_draw_from_the_policy(name):
    """Whatever it evaluates first, if that is one draw, is the true action, and comes as often as the policy says."""
    estimator = cases.build((name, {}))
    if estimator.target != "expectation":
        pytest.skip("refused")
    logits, n = torch.tensor([0.4, -1.0, 0.1]), 20_000
    torch.manual_seed(0)
    estimator(logits.expand(1, 2, 1, 3).clone().requires_grad_(), lambda z: z[..., 0, 0], torch.zeros(1, 2, 4))
    draws = NextDraw(estimator, torch.zeros(1, n, 4), 3)
    taken = draws.at(0, logits.expand(n, 3).numpy())
    if taken is None:
        return
    p = logits.softmax(-1).numpy()
    frequency = np.bincount(taken, minlength=3) / n
    assert (np.abs(frequency - p) < 4 * np.sqrt(p * (1 - p) / n)).all()
    seen = []
    estimator(draws.logits.requires_grad_(), lambda z: seen.append(z) or z[..., 0, 0], draws.context)
    assert (seen[0][0, 0, :, 0].argmax(-1).numpy() == taken).all(), "it makes that draw as it is called"


def test_choices_by_inversion_and_their_numbers_agree():
    p = np.array([[0.2, 0.5, 0.3]]).repeat(7, 0)
    assert by_inversion(p, np.array([0.0, 0.19, 0.2, 0.69, 0.7, 0.99, 1 - 1e-16])).tolist() == [0, 0, 1, 1, 2, 2, 2]


class Brief(Chain):
    """Solved as soon as 100 episodes are over."""

    solved = -10.0


def test_counts_are_of_training_alone_and_tell_when_it_is_solved():
    torch.manual_seed(0)
    task, estimator = Episode(Brief(), [4], 1.0, None, 1.0), ARSM()
    task.nest(estimator)
    optimizer, steps, generator = torch.optim.SGD(task.parameters(), 1e-3), [], torch.Generator().manual_seed(0)
    for _ in range(3):
        task.evaluate("valid"), task.problem(task.measurement_batch(5))
        problem = task.problem(task.batch(torch.zeros(50), generator))
        estimator(problem.logits, problem.objective).mean().backward()
        optimizer.step()
        steps.append(task.latest.steps)
        found = task.evaluate("valid")
        assert (found["steps"], found["episodes"]) == (sum(steps), 50 * len(steps))
        assert found["solved"] == (len(steps) >= 2)
    assert (found["steps_to_solve"], found["episodes_to_solve"]) == (sum(steps[:2]), 100)
    last = np.sort(task.latest.returns())
    assert np.allclose(np.sort(task.last[-50:].numpy()), last)


class Early(Chain):
    solved = 1.0


@pytest.mark.parametrize("batches", [[150], [60, 90], [100, 50], [1] * 150])
def test_any_hundred_successive_episodes_count_not_those_at_the_end_of_a_batch(batches):
    task, left = Episode(Early(), [4], 1.0, None, 1.0), [1.0] * 100 + [0.0] * 50
    for episodes in batches:
        task.latest = task.simulation(Start(0, episodes, None))
        task.latest.returns = lambda own=left[:episodes]: np.array(own)
        del left[:episodes]
        task.count()
    found = task.evaluate("valid")
    assert (found["solved"], found["episodes_to_solve"]) == (1, 100)


@pytest.mark.parametrize(
    ("choice", "line"),
    [
        (["estimator=reinmax"], "ReinMax differentiates the cost, and the return of an episode has no derivative"),
        (["estimator=rebar"], "Rebar differentiates the cost, and the return of an episode has no derivative"),
        (["estimator=vimco"], "VIMCO does not estimate the expected cost, which the return of an episode needs"),
        (["estimator.baseline=batch"], "Reinforce: baseline=batch needs at least 2 examples in a batch"),
    ],
    ids=lambda x: x[0] if isinstance(x, list) else "",
)
def test_estimators_that_cannot_be_trained(command, choice, line):
    code, _, err = command("task=episode", "estimator=reinforce", *choice, "batch_size=1", "wandb.mode=disabled")
    assert (code, err.count("\n")) == (2, 1)
    assert line in err


def test_without_gymnasium_one_line_says_what_to_install(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium.envs.classic_control.cartpole", None)
    code, _, err = command("task=episode", "estimator=reinforce", "batch_size=1", "wandb.mode=disabled")
    assert (code, err.count("\n")) == (2, 1)
    assert "CartPole needs an extra: pip install -e '.[episodes]'" in err


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ({"branches": 0}, "branches must be an integer of at least 1, got 0"),
        ({"discount": 1.5}, "discount must be above 0 and at most 1, got 1.5"),
        ({"scale": 0}, "scale must be a number above 0, got 0"),
        ({"widths": [0]}, "each of widths must be an integer of at least 1, got 0"),
    ],
)
def test_refusals(option, line):
    with pytest.raises(ValueError, match=line):
        Episode(Chain(), **option)


def test_relaxed_actions_and_limits_below_1_are_refused():
    with pytest.raises(ValueError, match="limit must be an integer of at least 1, got 0"):
        CartPole(limit=0)
    task = small(None)
    with pytest.raises(ValueError, match="an episode takes one action at each step: z must be one-hot"):
        task.problem(Start(0, 2, None)).objective(torch.full((1, 3, 2, 1, 2), 0.5))


class OneStep(Environment):
    """One step, in which the last of nine actions brings nothing and each other one 1."""

    features, actions, limit = 1, 9, 1

    def start(self, episodes, generator):
        return np.zeros((episodes, 1))

    def step(self, state, action):
        return state, (action < 8) * 1.0, np.ones(len(state), dtype=bool)


def test_branches_that_were_passed_over_have_their_share_in_the_next_evaluation():
    policy, costs = torch.nn.Sequential(torch.nn.Linear(1, 9)), []
    with torch.no_grad():
        policy[0].bias[8] = 99.0  # which is taken
    for seed in range(3000):
        found = Simulation(OneStep(), policy, 1.0, Start(seed, 1, 2))
        for asked in (range(4), range(8)):
            last = found.costs_of(np.isin(np.arange(9), asked)[None, None])
        costs.append(last[0, 0, :8])
    mean, error = np.mean(costs, 0), np.std(costs, 0) / 3000**0.5
    assert (np.abs(mean + 1) < 4 * error).all(), mean
