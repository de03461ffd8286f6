import torch
from torch import Tensor, nn

from hardmax.checks import at_least, finite, one_of, positive

from .base import Problem
from .known_cost import KnownCost


class Toy(KnownCost):
    r"""Costs of K variables that have a closed-form expectation, minimised over the logits themselves.

    With categories numbered 1 to C, ``reward`` costs ``-(0.5 + mean(z) / (C * scale))``, the objective of
    Figure 1 in the paper below for one variable and C = scale = 30; ``quadratic`` costs
    ``(mean((z - 1) / (C - 1)) - goal) ** 2``. Each example of a batch is an independent draw of the same
    problem. Figures: ``cost``, the exact expectation; ``optimum``, the lowest cost there is; ``gap``, their
    difference.

    References:
        | ARSM: Augment-REINFORCE-swap-merge estimator for gradient backpropagation through categorical
          variables (Yin, Yue and Zhou, 2019)
        | https://arxiv.org/abs/1905.01413

    Arguments:
        variables: Number K of variables.
        categories: Number C of categories.
        objective: ``reward`` or ``quadratic``.
        scale: R of the reward, above 0; the larger, the smaller the differences between categories.
        goal: What the quadratic wants the mean of z, scaled to [0, 1], to be.
    """

    values: Tensor

    def __init__(
        self, variables: int = 1, categories: int = 30, objective: str = "reward", scale: float = 30, goal: float = 0.45
    ):
        super().__init__()
        K, C = at_least(1, variables=variables), at_least(1, categories=categories)
        self.quadratic = one_of(("reward", "quadratic"), objective=objective) == "quadratic"
        self.goal, scale = finite(goal=goal), positive(scale=scale)
        self.logits = nn.Parameter(torch.zeros(K, C))
        steps = torch.arange(C, dtype=torch.float32)
        values = steps / max(C - 1, 1) if self.quadratic else -(0.5 + (steps + 1) / (C * scale))
        self.register_buffer("values", values, persistent=False)

    def problem(self, batch: Tensor) -> Problem:
        return Problem(self.logits.expand(len(batch), *self.logits.shape), self.objective)

    def objective(self, z: Tensor) -> Tensor:
        r"""Cost ``[...]`` of one-hot or relaxed z ``[..., K, C]``."""
        mean = (z @ self.values).mean(-1)
        return (mean - self.goal) ** 2 if self.quadratic else mean

    def expected_cost(self, logits: Tensor) -> Tensor:
        p = logits.softmax(-1)
        mean = p @ self.values  # [*batch, K]
        if not self.quadratic:
            return mean.mean(-1)
        variance = (p * (self.values - mean.unsqueeze(-1)) ** 2).sum(-1)
        return (mean.mean(-1) - self.goal) ** 2 + variance.mean(-1) / logits.shape[-2]

    def optimum(self) -> float:
        r"""The lowest cost that any draw has."""
        if not self.quadratic:
            return float(self.values.min())
        K, C = self.logits.shape
        reachable = torch.arange(K * (C - 1) + 1, dtype=torch.float64) / max(K * (C - 1), 1)
        return float(((reachable - self.goal) ** 2).min())
