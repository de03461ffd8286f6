r"""Environments in which episodes take place, many at once."""

from typing import Any

import numpy as np

from hardmax.checks import at_least

Step = tuple[np.ndarray, np.ndarray, np.ndarray]


class Environment:
    r"""What an agent acts in: states of D numbers, C actions and at most L steps, of which no two episodes share any.

    It has no state of its own, so that an episode can be taken up again from any state that it has been in.

    Attributes:
        features: Number D of numbers of a state.
        actions: Number C of actions.
        limit: Number L of steps after which an episode ends at the latest.
        solved: Mean return of 100 successive episodes from which on the environment counts as solved.
    """

    features: int
    actions: int
    limit: int
    solved: float = float("inf")

    def start(self, episodes: int, generator: np.random.Generator) -> np.ndarray:
        r"""States ``[N, D]`` in which so many episodes begin, whatever is random from the generator."""
        raise NotImplementedError

    def step(self, state: np.ndarray, action: np.ndarray) -> Step:
        r"""What actions ``[N]``, integers from 0 to C - 1, lead to from states ``[N, D]``, which are left as they are.

        Returns:
            The next states ``[N, D]``, rewards ``[N]``, and whether the episodes are over, ``[N]``.
        """
        raise NotImplementedError


class CartPole(Environment):
    r"""A pole on a cart that is pushed to the left or to the right at each step; a step brings a reward of 1.

    An episode is over as the pole leans by more than 12 degrees or the cart leaves the track. The physics are those of
    CartPole-v1 in gymnasium; with a limit of 200 steps and solved at 195, as here, papers call it CartPole-v0.

    References:
        | Neuronlike adaptive elements that can solve difficult learning control problems (Barto, Sutton and Anderson,
          1983)
        | https://doi.org/10.1109/TSMC.1983.6313077
        | Gymnasium: A Standard Interface for Reinforcement Learning Environments (Towers et al., 2024)
        | https://arxiv.org/abs/2407.17032

    Arguments:
        limit: Number L of steps after which an episode ends, at least 1.

    Raises:
        ValueError: If gymnasium is not installed.
    """

    features, actions, solved = 4, 2, 195.0

    def __init__(self, limit: int = 200):
        self.limit = at_least(1, limit=limit)
        try:
            from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
        except ImportError:
            raise ValueError("CartPole needs an extra: pip install -e '.[episodes]'") from None
        self.make = CartPoleVectorEnv
        self.carts: Any = self.make(1)

    def of_size(self, count: int) -> None:
        r"""Makes ``carts`` so many carts, none of which is to begin anew at its next step."""
        if self.carts.num_envs != count:
            self.carts = self.make(count)
        self.carts.prev_done[:] = False

    def start(self, episodes: int, generator: np.random.Generator) -> np.ndarray:
        self.of_size(episodes)
        self.carts.np_random = generator
        self.carts.reset()
        return self.carts.state.T

    def step(self, state: np.ndarray, action: np.ndarray) -> Step:
        self.of_size(len(state))
        self.carts.state = state.T
        _, reward, over, _, _ = self.carts.step(action)
        return self.carts.state.T, reward, over
