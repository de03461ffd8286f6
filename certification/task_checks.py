r"""The checks of the problems that a task makes: each raises :class:`Failed` with what is wrong, and what to do.

What a check returns is a remark on what holds, in words; None, or nothing, if there is nothing to remark.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from hardmax.estimators import Exact
from hardmax.estimators.objectives import check_objective, depends_on
from hardmax.gradients.enumeration import Failed, require
from hardmax.gradients.truth import ENUMERATED
from hardmax.tasks.base import Problem, Task

from .task_problems import (
    EXAMPLES,
    at_random_parameters,
    batch_norms,
    close,
    double,
    draws,
    in_mode_for,
    inner_points,
    names_of,
    numbers_of,
    problem_of,
    selected,
    some_problem,
    training_batch,
)

SAME_MEAN = 1e-3  # of a penalty, as a share
SAME_SIGN = 0.5  # share of the entropy's gradient in a penalty's, from which on the penalty has it in it


class WrongForm(Failed):
    r"""Logits or costs are of no form that the other checks could work with."""


def check_costs(task: Task) -> str | None:
    r"""One finite cost for each draw and example, whatever the leading dimensions, of training and measuring alike."""
    with at_random_parameters(task):
        remark = None
        for size, examples in ((EXAMPLES, f"{EXAMPLES} examples"), (1, "1 example")):
            batches = {
                "batch": training_batch(task, numbers_of(task, size)),
                "measurement_batch": task.measurement_batch(size),
            }
            for name, batch in batches.items():
                problem = problem_of(in_mode_for(task, size), batch)
                check_form_of_logits(problem.logits, f"of {examples} from {name}")
                check_leading_dimensions_of(problem, compare=name == "measurement_batch")
                remark = check_within_simplex(problem)
        return remark


def check_form_of_logits(logits: Tensor, of: str) -> None:
    r"""Floating point ``[*batch, K, C]``, without a NaN."""
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise WrongForm(f"the logits {of} must be a tensor of floats")
    if logits.ndim < 3 or 0 in logits.shape:
        raise WrongForm(
            f"the logits {of} have shape {list(logits.shape)}, where [*batch, K, C] is expected: unsqueeze(-2) makes "
            "one variable of [*batch, C]"
        )
    require(not logits.isnan().any(), f"the logits {of} have NaN in them")


def check_leading_dimensions_of(problem: Problem, compare: bool) -> None:
    r"""``[S, *batch, K, C] -> [S, *batch]``, also with more dimensions before S; if compared, the same costs."""
    logits, objective = problem.logits, problem.objective
    z = draws(logits, 2, 3)
    kept = z.clone()
    each = [cost_of(objective, part) for part in z]
    require(torch.equal(z, kept), "objective changes the z it is given: work on z.clone()")
    together = cost_of(objective, z)
    require(
        not compare or close(together, torch.stack(each)),
        "objective gives other costs of the same draws with another leading dimension: it must treat all dimensions "
        "before the batch alike",
    )
    require(bool(together.isfinite().all()), "objective gives a cost that is not finite, of a one-hot z")


def cost_of(objective: Callable, z: Tensor) -> Tensor:
    r"""Costs of z, of the shape that they must have."""
    cost = objective(z)
    if not isinstance(cost, Tensor) or not cost.is_floating_point():
        kind = getattr(cost, "dtype", type(cost).__name__)
        raise WrongForm(f"objective must return a tensor of floats, got {kind}")
    if cost.shape != z.shape[:-2]:
        raise WrongForm(
            f"objective returns shape {list(cost.shape)} for z {list(z.shape)}: one cost for each draw and example, "
            f"{list(z.shape[:-2])}, is expected; sum over the variables, never over the batch"
        )
    return cost


def check_within_simplex(problem: Problem) -> str | None:
    r"""Of points of the simplex as well, unless they are refused; remarks on objectives without a derivative."""
    z = inner_points(problem.logits, 2).requires_grad_()
    try:
        cost = problem.objective(z)
    except (ValueError, TypeError) as error:
        return f"only one-hot z are accepted, so relaxations are refused ({' '.join(str(error).split())[:100]})"
    require(
        cost.shape == z.shape[:-2],
        f"objective returns shape {list(cost.shape)} for points of the simplex {list(z.shape)}",
    )
    require(bool(cost.isfinite().all()), "objective gives a cost that is not finite, of a point of the simplex")
    return None if depends_on(cost, z) else "no derivative at z, so estimators that need one are refused"


def check_examples_apart(task: Task) -> str | None:
    r"""Logits, cost and context of an example do not change when the other examples and their draws do."""
    with at_random_parameters(task):
        found = what_depends(task)
        if not found:
            return None
        if (through := batch_norms(task)) and not what_depends(task.eval()):
            return f"while training, the other examples change the {found} of an example, through {', '.join(through)}"
        raise Failed(
            f"the other examples of a batch change the {found} of an example: take no mean, maximum or other statistic "
            "over the batch"
        )


def what_depends(task: Task) -> str:
    r"""What of the first example differs between two batches that have only that one in common, in words."""
    size = 2 * EXAMPLES - 1
    index, others = numbers_of(task, size), [0, *range(EXAMPLES, size)]
    whole = training_batch(task, index)
    batches = [selected(whole, rows, size) for rows in (list(range(EXAMPLES)), others)]
    if batches[0] is None:
        batches = [training_batch(task, index[:EXAMPLES]), training_batch(task, index[others])]
    a, b = (problem_of(task, batch) for batch in batches)
    z, other = (draws(a.logits, 4) for _ in range(2))
    other[:, 0] = z[:, 0]
    costs = []
    for problem, choice in ((a, z), (b, other)):
        torch.default_generator.manual_seed(1)
        costs.append(problem.objective(choice)[:, 0])
    pairs = {"logits": (a.logits[0], b.logits[0]), "cost": (costs[0], costs[1])}
    if a.context is not None and b.context is not None:
        pairs["context"] = a.context[0], b.context[0]
    if all(isinstance(p.penalty, Tensor) and p.penalty.ndim for p in (a, b)):
        pairs["penalty"] = a.penalty[0], b.penalty[0]  # type: ignore[index]
    return " and ".join(name for name, (x, y) in pairs.items() if not close(x, y))


def check_closing_over_logits(task: Task) -> str | None:
    r"""The cost of given z has no gradient to the logits; remarks on parameters of the encoder that it uses itself."""
    with at_random_parameters(task):
        problem = some_problem(task)
        require(problem.logits.requires_grad, "the logits have no gradient: make them without no_grad and detach")
        try:
            check_objective(problem.logits, problem.objective)
        except ValueError as error:
            raise Failed(str(error)) from None
        cost = problem.objective(draws(problem.logits, 1))
        if task.parameters_only or not cost.requires_grad:
            return None
        names = names_of(task)
        used = [p for p in task.encoder_parameters() if depends_on(cost, p)]
        uses = ", ".join(names.get(id(p), "?") for p in used)
        return f"the objective uses {uses}, which make the logits too, so no gradient is exact" if uses else None


def check_repeated_costs(task: Task) -> str | None:
    r"""The same z costs the same in every call while gradients are measured; remarks on training otherwise."""
    with at_random_parameters(task):
        require(
            costs_the_same_twice(problem_of(task, task.measurement_batch(EXAMPLES))),
            "the same z costs something else in another call of objective: draw what is random in it in `problem`, "
            "once, and let it change nothing",
        )
        return None if costs_the_same_twice(some_problem(task)) else "in training, costs of the same z are random"


def costs_the_same_twice(problem: Problem) -> bool:
    r"""Whether a second call, after one for other z, gives the costs of the first."""
    z = draws(problem.logits, 4)
    first = problem.objective(z)
    problem.objective(draws(problem.logits, 2))
    return close(first, problem.objective(z), 1e-6)


def check_penalty(task: Task) -> None:
    r"""A number, or one for each example; without the entropy where the estimator adds log q."""
    with at_random_parameters(task):
        problem = some_problem(task)
        penalty, batch = problem.penalty, problem.logits.shape[:-2]
        if not isinstance(penalty, Tensor):
            require(
                isinstance(penalty, int | float) and abs(penalty) < float("inf"),
                f"penalty must be a finite number or a tensor of them, got {penalty!r}",
            )
            return
        require(
            penalty.shape in ((), batch),
            f"penalty has shape {list(penalty.shape)}, where one for each example, {list(batch)}, or a scalar is "
            "expected: another shape would be broadcast to more than one for each",
        )
        require(bool(penalty.isfinite().all()), "penalty is not finite")
        if not penalty.ndim:
            check_mean_penalty(task)
        if problem.log_q and share_of_entropy(penalty, problem.logits) > SAME_SIGN:
            raise Failed(
                "log_q=True lets the estimator add log q(z), whose expectation penalty has in it already: say "
                "log_q=False, or leave the entropy out of penalty"
            )


def check_mean_penalty(task: Task) -> None:
    r"""A scalar is that of an example, in the mean: it does not grow with a batch that has every example twice."""
    rows = list(range(EXAMPLES))
    batch = training_batch(task, numbers_of(task, EXAMPLES))
    twice = selected(batch, rows + rows, EXAMPLES)
    if twice is None:
        return
    once, again = (torch.as_tensor(problem_of(task, each).penalty).detach() for each in (batch, twice))
    of_each = f"penalty is {float(once):.4g} for a batch, {float(again):.4g} for one that has each example twice"
    require(close(once, again, SAME_MEAN), f"{of_each}: a scalar must be a mean over the examples")


def share_of_entropy(penalty: Tensor, logits: Tensor) -> float:
    r"""How often the gradient of the negative entropy is in the penalty's, by its projection."""
    if not depends_on(penalty, logits):
        return 0.0
    (of_penalty,) = torch.autograd.grad(penalty.sum(), logits, retain_graph=True)
    leaf = logits.detach().requires_grad_()
    log_p = leaf.log_softmax(-1)
    (of_entropy,) = torch.autograd.grad((log_p.exp() * log_p).sum(), leaf)
    return float((of_penalty * of_entropy).sum() / of_entropy.square().sum().clamp(min=1e-12))


def check_context(task: Task) -> None:
    r"""None, or features of each example ``[*batch, D]``."""
    with at_random_parameters(task):
        problem = some_problem(task)
        context, batch = problem.context, list(problem.logits.shape[:-2])
        if context is None:
            return
        require(
            isinstance(context, Tensor)
            and context.is_floating_point()
            and context.ndim == len(batch) + 1
            and list(context.shape[:-1]) == batch,
            f"context is {getattr(context, 'dtype', type(context).__name__)} {list(getattr(context, 'shape', []))}, "
            f"where floats {[*batch, 'D']} are expected: flatten what an example has, context.flatten({len(batch)})",
        )
        require(bool(context.isfinite().all()), "context is not finite")


def check_expected_cost(task: Task) -> str | None:
    r"""Where it is known, value and gradient are those of the sum over all outcomes; remarks where there is none."""
    task = double(task)
    with at_random_parameters(task):
        problem = some_problem(task)
        K, C = problem.logits.shape[-2:]
        leaf = problem.logits
        if not task.parameters_only:
            leaf = (leaf.detach() + torch.randn_like(leaf)).requires_grad_()
        known = getattr(problem, "expected_cost", None) or task.expected_cost
        expected = known(leaf)
        if expected is None:
            return "not known"
        require(
            expected.shape == leaf.shape[:-2],
            f"expected_cost returns shape {list(expected.shape)} for logits {list(leaf.shape)}: one for each example, "
            f"{list(leaf.shape[:-2])}, is expected",
        )
        if C ** (K * (1 + task.nested)) > ENUMERATED:
            return f"not checked, as {K} variables of {C} categories have too many outcomes: take fewer"
        with task.using(Exact(ENUMERATED)):
            enumerated = Exact(ENUMERATED)(leaf, problem.objective, problem.context, problem.log_q)
            sources = task.encoder_parameters() if task.parameters_only else [leaf]
            of_sum, of_known = (
                torch.cat(
                    [
                        g.flatten()
                        for g in torch.autograd.grad(x.sum(), sources, retain_graph=True, materialize_grads=True)
                    ]
                )
                if x.requires_grad
                else torch.zeros(1)
                for x in (enumerated, expected)
            )
        share = 1e-5 if leaf.dtype == torch.float64 else 1e-3
        require(
            close(expected, enumerated, share),
            f"expected_cost is {first_of(expected)} where the sum over all outcomes is {first_of(enumerated)}",
        )
        require(
            of_known.shape == of_sum.shape and close(of_known, of_sum, share),
            f"the gradient of expected_cost is {first_of(of_known)} where that of the sum over all outcomes is "
            f"{first_of(of_sum)}: compute it from the logits that it is given, without detach",
        )
        return None


def first_of(values: Tensor) -> str:
    r"""The first few numbers, for a message."""
    return (
        "["
        + ", ".join(f"{v:.6g}" for v in values.detach().flatten()[:3].tolist())
        + (", ...]" if values.numel() > 3 else "]")
    )
