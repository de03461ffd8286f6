r"""Episodes under a policy, and branches of them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hardmax.estimators.base import Estimator

from .base import Problem
from .environments import Environment


@dataclass
class Start:
    r"""How episodes begin: a batch.

    Attributes:
        seed: Of all that is random in them but the estimator's own draws.
        episodes: Number B of them.
        branches: How many branches of each an evaluation of the objective simulates at most; None for all.
    """

    seed: int
    episodes: int
    branches: int | None


class Simulation:
    r"""Episodes under a policy as it is, and the branches of them that an estimator asks for.

    Arguments:
        environment: What they take place in.
        policy: Linear layers with ReLU between them, from states to logits.
        discount: Of rewards, per step.
        start: How they begin.
        asked: The estimator that takes the true actions, if it can; None for draws from the policy.

    Attributes:
        steps, branches: Simulated so far.
    """

    def __init__(
        self,
        environment: Environment,
        policy: nn.Sequential,
        discount: float,
        start: Start,
        asked: Estimator | None = None,
    ):
        self.environment, self.policy, self.discount, self.start = environment, policy, discount, start
        L, B, C = self.environment.limit, start.episodes, self.environment.actions
        self.generator = generator = np.random.default_rng(start.seed)
        state = self.environment.start(B, generator)
        self.noise = generator.random((L, B))  # the true episode and its branches choose by the same numbers
        self.order = generator.random((L, B, C))  # branches are simulated in it, where they are too many
        self.states, self.rewards = np.zeros((L, B, state.shape[-1])), np.zeros((L, B))
        self.alive = np.zeros((L, B), dtype=bool)
        self.actions = np.zeros((L, B), dtype=np.int64)
        self.steps = self.branches = 0
        linear = [layer for layer in policy if isinstance(layer, nn.Linear)]
        self.layers = [[x.detach().double().cpu().numpy() for x in (layer.weight.T, layer.bias)] for layer in linear]
        with torch.no_grad():
            self.simulate(state, NextDraw(asked, self.context(), C) if asked else None)
        self.true = discounted(self.rewards, discount)
        self.costs = -np.repeat(self.true[..., None], C, -1)
        self.costs[~self.alive] = -self.true[self.alive].mean()
        self.known = ~self.alive[..., None] | (np.arange(C) == self.actions[..., None])

    def simulate(self, state: np.ndarray, draws: "NextDraw | None") -> None:
        r"""The true episodes, from their first states ``[B, D]`` on."""
        alive = np.ones(len(state), dtype=bool)
        for t in range(self.environment.limit):
            self.states[t], self.alive[t] = np.where(alive[:, None], state, 0.0), alive
            logits = self.logits(self.states[t])
            p = of_logits(logits)
            taken = draws.at(t, logits) if draws else None
            if taken is None:
                draws, taken = None, by_inversion(p, self.noise[t])
            else:  # a number by which that is chosen
                drawn = np.arange(len(p)), taken
                self.noise[t] = p.cumsum(-1)[drawn] - p[drawn] * (1 - self.noise[t])
            self.actions[t] = taken
            state, reward, over = self.environment.step(self.states[t], taken)
            self.rewards[t] = reward * alive
            self.steps += int(alive.sum())
            alive = alive & ~over
            if not alive.any():
                break

    def logits(self, state: np.ndarray) -> np.ndarray:
        r"""Of the actions ``[N, C]``, in states ``[N, D]``: the policy in NumPy, several times as fast for so few."""
        for i, (weight, bias) in enumerate(self.layers):
            state = (np.maximum(state, 0) if i else state) @ weight + bias
        return state

    def returns(self) -> np.ndarray:
        r"""Of the true episodes, ``[B]``, not discounted."""
        return self.rewards.sum(0)

    def context(self) -> Tensor:
        r"""The states ``[L, B, D]``, 0 where there are none."""
        weight = next(self.policy.parameters())
        return torch.as_tensor(self.states, dtype=weight.dtype, device=weight.device)

    def problem(self) -> Problem:
        context = self.context()
        alive = torch.as_tensor(self.alive, device=context.device).unsqueeze(-1)
        return Problem(torch.where(alive, self.policy(context), 0.0).unsqueeze(-2), self.objective, context=context)

    @torch.no_grad()
    def objective(self, z: Tensor) -> Tensor:
        r"""Minus the discounted return ``[S, *copies, L, B]`` after the actions z ``[S, *copies, L, B, 1, C]``.

        Raises:
            ValueError: If z is not one-hot.
        """
        if not ((z == 0) | (z == 1)).all():
            raise ValueError("an episode takes one action at each step: z must be one-hot")
        z = z.squeeze(-2)
        asked = z.flatten(0, -4).bool().any(0).cpu().numpy()
        costs = torch.as_tensor(self.costs_of(asked), dtype=z.dtype, device=z.device)
        return costs.expand(z.shape).gather(-1, z.argmax(-1, keepdim=True)).squeeze(-1)

    def costs_of(self, asked: np.ndarray) -> np.ndarray:
        r"""Costs ``[L, B, C]`` of all actions, for which the branches of those that are asked for are simulated."""
        unknown = asked & ~self.known
        order = np.where(unknown, self.order, np.inf)
        flat = order.transpose(1, 0, 2).reshape(order.shape[1], -1)  # [B, L * C]
        most = self.start.branches
        last = np.inf if most is None or most >= flat.shape[1] else np.sort(flat, 1)[:, most, None, None]
        now = (unknown.transpose(1, 0, 2) & (order.transpose(1, 0, 2) < last)).transpose(1, 0, 2)
        self.costs[now] = -self.branch(*now.nonzero())
        self.known |= now
        if unknown.any():  # else what was passed over once would be in the next evaluation as well
            self.order = self.generator.random(self.order.shape)
        share = unknown.sum((0, 2)) / np.maximum(now.sum((0, 2)), 1)  # how many each of them stands for, [B]
        true = -self.true[..., None]
        return np.where(now, true + share[:, None] * (self.costs - true), self.costs)

    @torch.no_grad()
    def branch(self, time: np.ndarray, episode: np.ndarray, action: np.ndarray) -> np.ndarray:
        r"""Discounted returns ``[N]`` from so many steps of episodes on, if these actions are taken in them."""
        state, alive, total = self.states[time, episode], np.ones(len(time), dtype=bool), np.zeros(len(time))
        self.branches += len(time)
        factor = 1.0
        while alive.any():
            state, reward, over = self.environment.step(state, action)
            total += factor * reward * alive
            self.steps += int(alive.sum())
            factor, time = factor * self.discount, time + 1
            alive = alive & ~over & (time < self.environment.limit)
            now = np.minimum(time, self.environment.limit - 1)
            action = by_inversion(of_logits(self.logits(state)), self.noise[now, episode])
        return total


class NextDraw:
    r"""What an estimator will draw as it is called next, as far as the logits are known.

    Its noise does not depend on the logits, and the random stream is left as it was: so a step of an episode can be
    made with the draw that the estimator will make in it, and the next logits follow from that.

    Arguments:
        estimator: Whose draws these are.
        context: ``[L, B, D]``, of which nothing but the shape matters.
        categories: Number C of categories.
    """

    def __init__(self, estimator: Estimator, context: Tensor, categories: int):
        self.estimator, self.context = estimator, context
        self.logits = context.new_zeros(*context.shape[:-1], 1, categories)
        self.devices = [context.device] if context.is_cuda else []

    def at(self, step: int, logits: np.ndarray) -> np.ndarray | None:
        r"""The categories ``[B]`` in a step with logits ``[B, C]``, later than those before.

        None if what the estimator evaluates first is not one draw. Of one draw the cost is its value, which estimates
        the expected cost, so it is a draw from the policy.
        """
        self.logits[step] = torch.as_tensor(logits).unsqueeze(-2)
        with torch.random.fork_rng(self.devices):
            try:
                self.estimator.estimate(self.logits, stop, self.context)
            except FirstDraw as first:
                (z,) = first.args
                return z[0, step].squeeze(-2).argmax(-1).cpu().numpy() if len(z) == 1 else None
            except ValueError:  # the estimator will say so itself
                return None
        return None


class FirstDraw(Exception):
    r"""What an estimator evaluates first."""


def stop(z: Tensor) -> Tensor:
    r"""An objective that evaluates nothing."""
    raise FirstDraw(z)


def of_logits(logits: np.ndarray) -> np.ndarray:
    r"""Probabilities ``[N, C]`` of logits ``[N, C]``."""
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def by_inversion(p: np.ndarray, noise: np.ndarray) -> np.ndarray:
    r"""Actions ``[N]`` with probabilities ``[N, C]``, by inversion of uniform numbers ``[N]``."""
    return (p.cumsum(-1)[:, :-1] <= noise[:, None]).sum(-1)


def discounted(rewards: np.ndarray, discount: float) -> np.ndarray:
    r"""Returns ``[L, B]`` from each step on, of rewards ``[L, B]``."""
    returns = np.zeros_like(rewards)
    following = np.zeros_like(rewards[0])
    for t in range(len(rewards) - 1, -1, -1):
        returns[t] = following = rewards[t] + discount * following
    return returns
