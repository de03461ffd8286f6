r"""What is checked of logits and of an objective, and how its derivative is taken."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from . import sampling

Objective = Callable[[Tensor], Tensor]
TOLERANCE = 1e-5  # of costs that are the same
WITHOUT_K = "if the logits are [*batch, C], the number K of variables is missing: logits.unsqueeze(-2) gives it"


def check_logits(logits: object) -> None:
    r"""Refuses logits that are not floating point ``[*batch, K, C]`` with K, C and every batch size at least 1."""
    if not isinstance(logits, Tensor):
        raise TypeError(f"logits must be a tensor [*batch, K, C], got {type(logits).__name__}")
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, got {logits.dtype}")
    if logits.ndim < 2 or 0 in logits.shape:
        hint = f"; {WITHOUT_K}" if logits.ndim == 1 else ""
        raise ValueError(f"logits must be [*batch, K, C], all at least 1, got {list(logits.shape)}{hint}")


def check_objective(logits: Tensor, objective: Objective) -> None:
    r"""Refuses an objective that closes over the logits, or whose cost of one draw or example depends on another's z.

    The gradient of its cost would not be that of the contract. It is evaluated at draws that have no gradient, under a
    random stream of its own: a cost that still has a gradient to ``logits`` uses them beside z. Where logits are made
    by a model, this sees the use of ``logits`` themselves and of what is computed from them, not of the features or
    parameters that they come from. Estimators within the objective are to be in evaluation mode, or note these
    evaluations as ones of training. Whether draws and examples are told apart is not asked of random costs.

    Arguments:
        logits: ``[*batch, K, C]``; without ``requires_grad`` nothing can close over them.
        objective: ``[S, *batch, K, C] -> [S, *batch]``.

    Raises:
        ValueError: If the cost of given z depends on the logits, or on the z of other draws or examples.
    """
    devices = [logits.device] if logits.is_cuda else []
    with torch.random.fork_rng(devices), torch.enable_grad():
        objective = with_shape(objective)
        cost = objective(sampling.draw(logits, 1))
    if depends_on(cost, logits):
        raise ValueError(
            "objective closes over the logits: its cost has a gradient to them at given z. Take log_q=True for a "
            "sampled KL divergence, and add an analytic one, or whatever else needs no z, to the estimator's cost"
        )
    if couples_examples(logits, objective):
        raise ValueError(
            "objective lets the cost of one draw or example depend on the z of another: gradients would miss that "
            "part, each estimator's another share of it. Keep means over draws or a batch out of it, and BatchNorm in "
            "training mode; a term that is about the whole batch takes its choices as the K variables of one example"
        )


@torch.no_grad()
def couples_examples(logits: Tensor, objective: Objective) -> bool:
    r"""Whether a cost that is not random depends on the z of other draws or examples: seen at two of three looks."""
    devices, found, not_found = [logits.device] if logits.is_cuda else [], 0, 0
    while found < 2 and not_found < 2:
        with torch.random.fork_rng(devices):
            for _ in range(found + not_found + 1):
                z = sampling.draw(logits, 2)
            every, one = torch.ones(logits.shape[-2]), torch.zeros(logits.shape[-2])
            one[(found + not_found) % len(one)] = 1
            changed = [with_other(z, logits, at, variables > 0) for variables in (every, one) for at in (0, -1)]

            def costs(*where: Tensor) -> list[Tensor]:
                noted = []
                for x in where:
                    with torch.random.fork_rng(devices):  # the same noise for all
                        noted.append(objective(x).flatten())
                return noted

            before, *after = costs(z, *changed)
            least = TOLERANCE * before.abs().max()
            kept = (slice(1, None), slice(None, -1)) * 2
            if not any(((x - before)[others].abs() > least).any() for x, others in zip(after, kept, strict=True)):
                not_found += 1
                continue
            again = zip((before, *after), costs(z, *changed), strict=True)
            in_other_noise = ((objective(z).flatten(), before) for _ in range(8))
            if any(((x - y).abs() > least).any() for pairs in (again, in_other_noise) for x, y in pairs):
                return False  # it is random, or moves from call to call
            found += 1
    return found == 2


def with_other(z: Tensor, logits: Tensor, example: int, variables: Tensor) -> Tensor:
    r"""z ``[S, *batch, K, C]``, one draw of one example with other categories in ``variables`` ``[K]``, if any."""
    others = (logits > -torch.inf) & (z == 0)
    moved = torch.where(others.any(-1, keepdim=True), sampling.one_hot(others.long().argmax(-1), z), z)
    here = torch.zeros(z.shape[:-2], dtype=torch.bool, device=z.device)
    here.view(-1)[example] = True
    return torch.where(here[..., None, None] & variables.to(z.device).unsqueeze(-1), moved, z)


def with_shape(objective: Objective) -> Objective:
    r"""The objective, refusing a result that is not floating point ``[S, *batch]``; others would broadcast silently.

    What is made of costs, such as the mean of all but one, is made in float32 at least: rounded, it would depend on
    the one. z and costs are copied: an objective may change its z, and write its next costs where it wrote these.

    Raises:
        TypeError: If the objective is no function; at the call, if it does not return floating-point numbers.
        ValueError: At the call, if it returns another shape.
    """

    if not callable(objective):
        raise TypeError(f"objective must be a function of z, [S, *batch, K, C] -> [S, *batch], got {objective!r}")

    def checked(z: Tensor) -> Tensor:
        cost = objective(z.clone())
        if not isinstance(cost, Tensor) or not cost.is_floating_point():
            found = cost.dtype if isinstance(cost, Tensor) else type(cost).__name__
            raise TypeError(f"objective must return a floating-point tensor of costs, got {found}")
        if cost.shape != z.shape[:-2]:
            each = f": this is one for each variable; {WITHOUT_K}" if cost.shape == z.shape[:-1] else ""
            raise ValueError(
                f"objective returned shape {list(cost.shape)} for z of shape {list(z.shape)}: "
                f"one cost per draw and example is expected, {list(z.shape[:-2])}{each}"
            )
        return cost.to(torch.promote_types(cost.dtype, torch.float32), copy=not cost.requires_grad)

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
