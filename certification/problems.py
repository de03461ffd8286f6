r"""What estimators are held to: small problems whose expectations and gradients can be enumerated."""

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from hardmax.estimators import Estimator
from hardmax.gradients.enumeration import Failed


@dataclass(repr=False)
class SmallProblem:
    r"""K C-way variables, float64, and an objective that is not multilinear and has parameters of its own.

    Arguments:
        K: Number of variables.
        C: Number of categories of each.
        batch: Batch dimensions of the logits. Examples differ in their logits and in the scale of their costs.
        linear: Whether the objective is linear in z.
        extreme: Standard deviation of the logits; no category may become rarer than 0.02.
        seed: Of logits and parameters.
        rare: By how much the logit of the last category, which is then dear, lies below the others.
    """

    K: int
    C: int
    batch: tuple[int, ...] = ()
    linear: bool = False
    extreme: float = 0.7
    seed: int = 0
    rare: float = 0.0

    def __post_init__(self) -> None:
        g = torch.Generator().manual_seed(1000 * self.K + 10 * self.C + self.seed)
        make = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
        self.logits = self.extreme * make(*self.batch, self.K, self.C)
        self.parameters = [make(self.K, self.C), make(self.K, self.C)]
        self.scale = 1 + 0.5 * torch.arange(math.prod(self.batch), dtype=torch.float64).reshape(self.batch)
        if self.logits.softmax(-1).min() <= 0.02:
            raise ValueError(f"{self} has a category rarer than 0.02: lower extreme, or take another seed")
        if self.rare:
            self.logits[..., -1] -= self.rare
            for parameter in self.parameters:
                parameter[..., -1] = 4

    def __repr__(self) -> str:
        told = [(f.name, getattr(self, f.name)) for f in fields(self)[2:] if getattr(self, f.name) != f.default]
        return f"SmallProblem({', '.join([str(self.K), str(self.C), *(f'{k}={v!r}' for k, v in told)])})"

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        r"""The same on another device, in another precision; truths are those of the original."""
        moved = copy.copy(self)
        moved.logits, moved.scale = self.logits.to(device, dtype), self.scale.to(device, dtype)
        moved.parameters = [p.to(device, dtype) for p in self.parameters]
        return moved

    def objective(self, parameters: list[Tensor]) -> Callable[[Tensor], Tensor]:
        r"""Costs ``[S, *lead, *batch]`` of z, with parameters ``[*lead, *1s, K, C]``."""
        a, b = parameters

        def cost(z: Tensor) -> Tensor:
            u, v = (z * a).sum((-2, -1)), (z * b).sum((-2, -1))
            if self.linear:
                return self.scale * (u + 0.5 * v)
            return self.scale * (2 * torch.tanh(u) + v**2 + torch.exp(0.3 * u * v) + 1)

        return cost

    def leaves(self, *lead: int) -> tuple[Tensor, list[Tensor]]:
        r"""Logits and parameters with one independent copy for each of ``lead`` draws."""
        logits = self.logits.expand(*lead, *self.logits.shape).clone().requires_grad_()
        ones = [1] * len(self.batch)
        parameters = [
            p.expand(*lead, *p.shape).reshape(*lead, *ones, *p.shape).clone().requires_grad_() for p in self.parameters
        ]
        return logits, parameters

    def gradients(self, cost: Tensor, logits: Tensor, parameters: list[Tensor]) -> list[Tensor]:
        r"""Value, and gradients to logits and parameters, of every draw, flattened: ``[lead, coordinates]`` each."""
        leaves = [logits, *parameters]
        found: Sequence[Tensor | None] = [None] * len(leaves)
        if cost.requires_grad:
            found = torch.autograd.grad(cost.sum(), leaves, allow_unused=True)
        to_logits, *others = (torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True))
        return [t.detach().flatten(1) for t in (cost.reshape(len(logits), -1), to_logits, torch.stack(others, 1))]

    def one_hots(self) -> Tensor:
        r"""All configurations, ``[C ** K, 1, *1s, K, C]``, by ``itertools``."""
        index = torch.tensor(list(itertools.product(range(self.C), repeat=self.K)))
        z = torch.nn.functional.one_hot(index, self.C).double()
        return z.reshape(len(z), 1, *[1] * len(self.batch), self.K, self.C)

    def truth(self, log_q: bool = False, samples: int = 1) -> list[Tensor]:
        r"""Exact expectation, its gradient to the logits and to the parameters, each ``[coordinates]``.

        With ``samples``, that of minus the bound of so many draws: of one draw, minus the bound is the cost.
        """
        logits, parameters = self.leaves(1)
        z = self.one_hots()
        log_p = (z * logits.log_softmax(-1)).sum((-2, -1))
        cost = self.objective(parameters)(z.expand(len(z), *logits.shape)) + (log_p if log_q else 0)
        tuples = torch.cartesian_prod(*[torch.arange(len(z))] * samples).reshape(-1, samples)
        bound = (-cost[tuples]).logsumexp(1) - math.log(samples)
        return [t[0] for t in self.gradients((log_p[tuples].sum(1).exp() * -bound).sum(0), logits, parameters)]


PROBLEMS = [SmallProblem(1, 5), SmallProblem(2, 3), SmallProblem(3, 2)]
SMALL = SmallProblem(2, 2)
LINEAR = SmallProblem(2, 3, linear=True)


def fitting(estimator: Estimator, problem: SmallProblem) -> SmallProblem:
    r"""The problem, or a smaller one with two examples for a baseline, or a division, over examples."""
    if "batch" in (getattr(estimator, "baseline", None), getattr(estimator, "normalise", None)):
        return SmallProblem(problem.K, 2, (2,), problem.linear, extreme=0.4)
    return problem


def samples_of_bound(estimator: Estimator) -> int:
    r"""Number of draws of the bound that is estimated, and 1 otherwise: minus the bound of one draw is the cost."""
    samples = getattr(estimator, "samples", None) if estimator.target == "bound" else 1
    if not isinstance(samples, int):
        name, has = type(estimator).__name__, f"is {samples!r}" if hasattr(estimator, "samples") else "is not set"
        raise Failed(
            f"target='bound' is that of self.samples draws, which {has}: set it in {name}.__init__, to 1 or more"
        )
    return samples


@dataclass
class Nested:
    r"""Two stochastic layers: the second's logits depend on the first's draw."""

    upper: SmallProblem
    lower: SmallProblem

    def leaves(self, lead: int) -> tuple[Tensor, list[Tensor], Tensor]:
        r"""Logits and parameters of the first layer, and the weight from its draw to the second's logits."""
        g = torch.Generator().manual_seed(7)
        logits, parameters = self.upper.leaves(lead)
        weight = torch.randn(self.upper.K * self.upper.C, self.lower.K * self.lower.C, generator=g).double()
        weight = 0.3 * weight.expand(lead, *weight.shape).clone()
        return logits, parameters, weight.requires_grad_()

    def logits_below(self, z: Tensor, weight: Tensor) -> Tensor:
        r"""The second layer's logits, given the first's draw."""
        return self.lower.logits + (z.flatten(-2).unsqueeze(-2) @ weight).squeeze(-2).unflatten(
            -1, (self.lower.K, self.lower.C)
        )

    def cost(self, z1: Tensor, z2: Tensor, parameters: list[Tensor]) -> Tensor:
        r"""The cost of both layers' draws."""
        return self.upper.objective(parameters)(z1) * (1 + (z2 * self.lower.parameters[0]).sum((-2, -1)).tanh())

    def truth(self) -> list[Tensor]:
        r"""Exact expectation, and its gradients to logits, weight and parameters."""
        logits, parameters, weight = self.leaves(1)
        z1 = self.upper.one_hots()
        z1 = z1.expand(len(z1), 1, *z1.shape[2:])
        z2 = self.lower.one_hots().unsqueeze(1)
        below = self.logits_below(z1, weight)
        log_p = (z1 * logits.log_softmax(-1)).sum((-2, -1)) + (z2 * below.log_softmax(-1)).sum((-2, -1))
        total = (log_p.exp() * self.cost(z1, z2, parameters)).sum()
        gradients = torch.autograd.grad(total, [logits, weight, *parameters])
        return [total.detach().reshape(1), *(g.flatten() for g in gradients)]

    def run(self, outer: Estimator, inner: Estimator, count: list[int] | None = None) -> Callable:
        r"""A run of ``inner`` in the objective of ``outer``; notes in ``count`` on how many rows the cost is."""

        def run(draws: int) -> list[Tensor]:
            logits, parameters, weight = self.leaves(draws)

            def objective(z1: Tensor) -> Tensor:
                def below(z2: Tensor) -> Tensor:
                    if count is not None:
                        count.append(z2.shape[:-2].numel() // draws)
                    return self.cost(z1, z2, parameters)

                return inner(self.logits_below(z1, weight), below)

            cost = outer(logits, objective)
            leaves = [logits, weight, *parameters]
            found = torch.autograd.grad(cost.sum(), leaves, allow_unused=True)
            gradients = [torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)]
            return [cost.detach().unsqueeze(-1), *(g.flatten(1) for g in gradients)]

        return run
