r"""The checks of what the parameters of a task make: the logits, all but the pinned ones."""

import torch
from torch import Tensor, nn

from hardmax.gradients.enumeration import require
from hardmax.tasks.base import Task

from .task_problems import (
    at_random_parameters,
    draws,
    names_of,
    numbers_of,
    problem_of,
    some_problem,
    training_batch,
)

MORE = 16  # examples, where few might leave a parameter without a gradient


def check_pinned(task: Task) -> None:
    r"""The pinned logits are the same whatever the parameters and the example, and no others are."""
    with at_random_parameters(task):
        problem = some_problem(task)
        logits, pinned = problem.logits, problem.pinned
        C = logits.shape[-1]
        require(
            isinstance(pinned, int) and 0 <= pinned < max(C, 1),
            f"pinned must be a number of leading categories below the {C} there are, got {pinned!r}",
        )
        learned = [p for p in task.parameters() if p.requires_grad]
        fixed = [not moves(logits[..., c], learned) for c in range(C)]
        for c in range(pinned):
            require(
                fixed[c] and bool((logits[..., c] == logits[..., c].flatten()[0]).all()),
                f"pinned={pinned}, but the logits of category {c} are not constant: statistics leave them out",
            )
        count = fixed.index(False) if False in fixed else 0
        require(
            count <= pinned,
            f"the logits of the first {count} categories are constant: say pinned={count}, or statistics count "
            "gradients that are always 0",
        )


def moves(column: Tensor, parameters: list[nn.Parameter]) -> bool:
    r"""Whether any parameter moves these logits."""
    if not column.requires_grad:
        return False
    weight = torch.randn_like(column)
    found = torch.autograd.grad((column * weight).sum(), parameters, retain_graph=True, allow_unused=True)
    return any(g is not None and bool(g.any()) for g in found)


def check_encoder_parameters(task: Task) -> str | None:
    r"""They are the ones that the logits depend on; of those that the objective uses too, some may be left out.

    Remarks on these, and on parameters that nothing trains.
    """
    with at_random_parameters(task):
        names, listed = names_of(task), list(task.encoder_parameters())
        require(bool(listed), "encoder_parameters is empty: it must have the parameters that produce the logits")
        for p in listed:
            require(
                isinstance(p, nn.Parameter) and id(p) in names,
                "encoder_parameters has a tensor that is no parameter of the task, so that no optimiser moves it: "
                "register it as nn.Parameter or in a submodule",
            )
            require(p.requires_grad, f"encoder_parameters has {names[id(p)]}, which has no gradient: leave it out")
        require(len({*map(id, listed)}) == len(listed), "encoder_parameters has a parameter twice")
        problem = problem_of(task, training_batch(task, numbers_of(task, MORE)))
        learned = {id(p): p for p in task.parameters() if p.requires_grad}
        logits = problem.logits
        of_logits = gradients_of((logits * torch.randn_like(logits)).sum(), learned)
        cost = problem.objective(draws(logits, 2))
        of_cost = gradients_of(cost.mean(), learned)
        penalty = problem.penalty if isinstance(problem.penalty, Tensor) else logits.new_zeros(())
        of_penalty = gradients_of(penalty.mean(), learned)
        reached = of_logits | of_cost if task.parameters_only else of_logits
        for p in listed:
            require(
                id(p) in reached and bool(reached[id(p)].any()),
                f"encoder_parameters has {names[id(p)]}, which the logits do not depend on: leave it out",
            )
        left_out = [i for i, gradient in of_logits.items() if gradient.any() and i not in {*map(id, listed)}]
        for i in left_out:
            require(i in of_cost, f"the logits depend on {names[i]}, which encoder_parameters leaves out: add it")
        idle = [names[i] for i in learned if not any(i in found for found in (of_logits, of_cost, of_penalty))]
        remarks = [f"nothing trains {', '.join(idle)}"] * bool(idle)
        shared = ", ".join(names[i] for i in left_out)
        remarks += [f"{shared}, of the objective and of the logits, is left out of what is measured"] * bool(left_out)
        return "; ".join(remarks) or None


def gradients_of(scalar: Tensor, learned: dict[int, nn.Parameter]) -> dict[int, Tensor]:
    r"""Gradients to those parameters that a scalar depends on, by their ``id``."""
    if not scalar.requires_grad:
        return {}
    found = torch.autograd.grad(scalar, [*learned.values()], retain_graph=True, allow_unused=True)
    return {i: g for i, g in zip(learned, found, strict=True) if g is not None}
