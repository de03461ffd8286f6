r"""What is checked of logits and of an objective, and how its derivative is taken."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from . import sampling

Objective = Callable[[Tensor], Tensor]
WITHOUT_K = "if the logits are [*batch, C], the number K of variables is missing: logits.unsqueeze(-2) gives it"


def check_logits(logits: Tensor) -> None:
    r"""Refuses logits that are not floating point ``[*batch, K, C]`` with K, C and every batch size at least 1."""
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, got {logits.dtype}")
    if logits.ndim < 2 or 0 in logits.shape:
        hint = f"; {WITHOUT_K}" if logits.ndim == 1 else ""
        raise ValueError(f"logits must be [*batch, K, C], all at least 1, got {list(logits.shape)}{hint}")


def check_objective(logits: Tensor, objective: Objective) -> None:
    r"""Refuses an objective that closes over the logits: the gradient of its cost would not be that of the contract.

    It is evaluated once, at a draw that has no gradient, under a random stream of its own: a cost that still has a
    gradient to ``logits`` uses them beside z. Where logits are made by a model, this sees the use of ``logits``
    themselves and of what is computed from them, not of the features or parameters that they come from. Estimators
    within the objective are to be in evaluation mode, or note this evaluation as one of training.

    Arguments:
        logits: ``[*batch, K, C]``; without ``requires_grad`` there is nothing to find.
        objective: ``[S, *batch, K, C] -> [S, *batch]``.

    Raises:
        ValueError: If the cost of given z depends on the logits.
    """
    with torch.random.fork_rng([logits.device] if logits.is_cuda else []), torch.enable_grad():
        cost = with_shape(objective)(sampling.draw(logits, 1))
    if depends_on(cost, logits):
        raise ValueError(
            "objective closes over the logits: its cost has a gradient to them at given z. Take log_q=True for a "
            "sampled KL divergence, and add an analytic one, or whatever else needs no z, to the estimator's cost"
        )


def with_shape(objective: Objective) -> Objective:
    r"""The objective, refusing a result that is not floating point ``[S, *batch]``; others would broadcast silently."""

    def checked(z: Tensor) -> Tensor:
        cost = objective(z)
        if not isinstance(cost, Tensor) or not cost.is_floating_point():
            found = cost.dtype if isinstance(cost, Tensor) else type(cost).__name__
            raise TypeError(f"objective must return a floating-point tensor of costs, got {found}")
        if cost.shape != z.shape[:-2]:
            each = f": this is one for each variable; {WITHOUT_K}" if cost.shape == z.shape[:-1] else ""
            raise ValueError(
                f"objective returned shape {list(cost.shape)} for z of shape {list(z.shape)}: "
                f"one cost per draw and example is expected, {list(z.shape[:-2])}{each}"
            )
        return cost

    return checked


def with_derivative(objective: Objective, estimator: str) -> Objective:
    r"""The objective, refusing a cost that has no derivative with respect to z, which ``estimator`` needs."""

    def checked(z: Tensor) -> Tensor:
        cost = objective(z)
        if z.requires_grad and torch.is_grad_enabled() and not depends_on(cost, z):
            raise ValueError(
                f"objective has no derivative at z, which {estimator} needs: its cost is constant, or it takes z "
                "through argmax, a comparison or detach. Estimators such as Reinforce need only its values"
            )
        return cost

    return checked


def depends_on(result: Tensor, source: Tensor) -> bool:
    r"""Whether a backward pass from ``result`` comes to ``source``; while compiling, whether there is any."""
    if not (result.requires_grad and source.requires_grad) or torch.compiler.is_compiling():
        return result.requires_grad and source.requires_grad
    end, seen, left = get_gradient_edge(source).node, set(), [get_gradient_edge(result).node]
    while left:
        node = left.pop()
        if node is end:
            return True
        if node not in seen:
            seen.add(node)
            left += [before for before, _ in node.next_functions if before is not None]
    return False


def derivative(cost: Tensor, z: Tensor, create_graph: bool = False) -> Tensor:
    r"""The derivative of every cost ``[S, *batch]`` with respect to its z, of the shape of z; 0 where there is none."""
    if not cost.requires_grad:
        return torch.zeros_like(z)
    return torch.autograd.grad(cost.sum(), z, retain_graph=True, create_graph=create_graph, materialize_grads=True)[0]
