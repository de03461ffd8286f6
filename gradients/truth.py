r"""The true gradient that draws are compared with."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from hardmax.estimators.base import Estimator, copies_in_cache
from hardmax.estimators.exact import Exact
from hardmax.tasks.base import Task

from .draws import WHERE, Draws, evaluating, fill, frozen, places, reached_by
from .moments import Known, Moments

ENUMERATED = 4096  # joint configurations at most, for an exact gradient by enumeration

Truth = dict[str, Known]  # by where


def truth_of(task: Task, batch: Tensor, name: str = "", reference: Estimator | None = None, M: int = 0) -> Truth | None:
    r"""The exact gradients where the task knows them or its configurations can be enumerated, else a reference.

    Arguments:
        task, batch: What the gradients are of.
        name, reference: An unbiased estimator; without one, what cannot be exact is None.
        M: Number of its draws, at least 2.
    """
    problem, parameters = task.problem(batch), task.encoder_parameters()
    if task.whole and (cost := task.expected_cost(problem.logits)) is not None:
        found = torch.autograd.grad(cost.mean(), parameters, allow_unused=True, materialize_grads=True)
        return {"encoder": Known("exact", torch.cat([x.flatten() for x in found]).unsqueeze(0))}
    leaf = problem.logits.detach().requires_grad_()
    cost = None if task.whole else task.expected_cost(leaf)
    K, C = leaf.shape[-2:]
    if cost is None and K * math.log(C) <= math.log(ENUMERATED) and not reached_by(problem, parameters):
        with frozen(task):
            cost = Exact(ENUMERATED)(leaf, in_parts(problem.objective, copies_in_cache(leaf)), log_q=problem.log_q)
    if cost is not None:
        (g,) = torch.autograd.grad(cost.sum(), leaf)
        B = leaf.shape[:-2].numel()
        to_encoder = torch.autograd.grad(problem.logits, parameters, g / B, retain_graph=True)
        exact = g[..., problem.pinned :].reshape(B, -1), torch.cat([x.flatten() for x in to_encoder]).unsqueeze(0)
        return {where: Known("exact", x) for where, x in zip(WHERE, exact, strict=True)}
    if reference is None:
        return None
    moments = {where: Moments(coordinates=True) for where in places(task)}
    with evaluating(reference):
        fill(Draws(task, reference, batch), moments, M)
    return {where: Known(name, x) for where, x in moments.items()}


def in_parts(objective: Callable[[Tensor], Tensor], rows: int) -> Callable[[Tensor], Tensor]:
    r"""The objective without gradients, evaluated on so many rows at a time."""

    def evaluated(z):
        with torch.no_grad():
            return torch.cat([objective(part) for part in z.split(rows)])

    return evaluated
