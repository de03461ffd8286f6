r"""The true gradient that draws are compared with."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from hardmax.estimators import sampling
from hardmax.estimators.base import Estimator, copies_in_cache, with_log_q
from hardmax.estimators.exact import Exact
from hardmax.estimators.objectives import Objective, with_shape
from hardmax.estimators.reinforce import Reinforce
from hardmax.tasks.base import Problem, Task

from .draws import WHERE, Draws, add_draws, evaluating, frozen, parameters_the_objective_uses, places
from .moments import Moments, TrueGradient

LOOKS = 4  # draws on which an objective is asked twice
ENUMERATED = 4096  # joint configurations of all layers at most, for an exact gradient by enumeration

Truth = dict[str, TrueGradient]  # by where


def truth_of(
    task: Task, problem: Problem, name: str = "", reference: Estimator | None = None, M: int = 0
) -> Truth | None:
    r"""The exact gradients where the task knows them or its configurations can be enumerated, else a reference.

    Of nested choices the configurations of all layers together are enumerated; an objective that draws anything else
    at random has no exact gradient.

    Arguments:
        task, problem: What the gradients are of.
        name, reference: An unbiased estimator, in all layers; without one, what cannot be exact is None.
        M: Number of its draws, at least 2.
    """
    parameters = task.encoder_parameters()
    if task.parameters_only and (cost := task.expected_cost(problem.logits)) is not None:
        found = torch.autograd.grad(
            cost.mean(), parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return {"encoder": TrueGradient("exact", torch.cat([x.flatten() for x in found]).unsqueeze(0))}
    leaf = problem.logits.detach().requires_grad_()
    known = problem.expected_cost or task.expected_cost
    cost = None if task.parameters_only else known(leaf)
    if cost is None and not task.parameters_only:
        cost = enumerated_cost(task, problem, leaf)
    if cost is not None:
        (g,) = torch.autograd.grad(cost.sum(), leaf)
        B = leaf.shape[:-2].numel()
        to_encoder = torch.autograd.grad(problem.logits, parameters, g / B, retain_graph=True)
        exact = g[..., problem.pinned :].reshape(B, -1), torch.cat([x.flatten() for x in to_encoder]).unsqueeze(0)
        return {where: TrueGradient("exact", x) for where, x in zip(WHERE, exact, strict=True)}
    if reference is None:
        return None
    moments = {where: Moments(coordinates=True) for where in places(task)}
    with evaluating(task, reference):
        add_draws(Draws(task, reference, problem), moments, M)
    return {where: TrueGradient(name, x) for where, x in moments.items()}


def enumerated_cost(task: Task, problem: Problem, leaf: Tensor) -> Tensor | None:
    r"""Expected cost ``[*batch]`` by the sum over all configurations of all layers, None where that cannot be had.

    It cannot where there are too many, where the objective draws at random otherwise than through the task's nested
    estimators, or where it depends on the encoder's parameters itself.

    Arguments:
        leaf: The problem's logits, without their history.
    """
    K, C = leaf.shape[-2:]
    if K * math.log(C) > math.log(ENUMERATED):
        return None
    with task.using(Reinforce(baseline="none")):
        if parameters_the_objective_uses(problem, task.encoder_parameters()):
            return None
    try:
        with task.using(NestedEnumeration(problem, ENUMERATED // C**K)):
            if is_random(problem):
                return None
    except TooMany:
        return None
    exact = NestedEnumeration(problem, ENUMERATED)
    with task.using(exact), frozen(task):
        return exact(leaf, problem.objective, log_q=problem.log_q)


class TooMany(Exception):
    r"""There are more configurations than can be enumerated."""


class NestedEnumeration(Exact):
    r"""Enumerates with gradients disabled as well, so that nested copies enumerate all layers; no gradient beyond z.

    Arguments:
        problem: Whose examples configurations are counted for.
        limit: Rows at most, of z and all that it was called with, for each example.
    """

    def __init__(self, problem: Problem, limit: int):
        super().__init__(max(1, limit))
        self.examples = problem.logits.shape[:-2].numel()

    def forward(
        self, logits: Tensor, objective: Objective, context: Tensor | None = None, log_q: bool = False
    ) -> Tensor:
        K, C = logits.shape[-2:]
        if logits.shape[:-2].numel() // self.examples * C**K > self.limit:
            raise TooMany
        objective = with_shape(objective)
        if log_q:
            objective = with_log_q(objective, logits, False)
        return self.estimate(logits, in_parts(objective, copies_in_cache(logits)), context)


def is_random(problem: Problem) -> bool:
    r"""Whether the objective draws random numbers, PyTorch's or any other: by its costs of some draws, each twice."""
    logits, device = problem.logits.detach(), problem.logits.device
    state = lambda: torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
        for _ in range(LOOKS):
            z = sampling.draw(logits, 1)
            before = state()
            first, again = problem.objective(z), problem.objective(z)
            if not torch.equal(before, state()):
                return True
            size = first.abs().masked_fill(~first.isfinite(), 0.0)
            if ((first - again).abs() > 1e-4 * size + 1e-6 * size.max()).any():
                return True
    return False


def in_parts(objective: Callable[[Tensor], Tensor], rows: int) -> Callable[[Tensor], Tensor]:
    r"""The objective without gradients, evaluated on so many rows at a time."""

    def evaluated(z: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([objective(part) for part in z.split(rows)])

    return evaluated
