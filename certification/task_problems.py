r"""What tasks are held to their contract with: few examples, at random parameters, without nested draws."""

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as trees

from hardmax.estimators import Estimator, sampling
from hardmax.estimators.base import graft
from hardmax.estimators.objectives import Objective
from hardmax.tasks.base import Problem, Task

EXAMPLES = 3  # of a batch
OFF = 0.1  # standard deviation of what is added to parameters, so that none of them is 0


class Likeliest(Estimator):
    r"""Stands in for the estimators nested in objectives: evaluates at the most probable categories, so draws nothing.

    Not for anything else: it claims to be unbiased, and to need values alone, so that no task refuses it.
    """

    target, unbiased, differentiates_objective = "expectation", True, False

    def draw(self, logits: Tensor) -> Tensor:
        return sampling.one_hot(logits.argmax(-1), logits).unsqueeze(0)

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        z = self.draw(logits)
        cost = objective(z)[0]
        return graft(cost, logits, z[0] - logits.softmax(-1))


@contextmanager
def at_random_parameters(task: Task) -> Iterator[None]:
    r"""Within it a task's parameters are off by noise and :class:`Likeliest` is nested; afterwards it is as before."""
    before, training = state_of(task), task.training
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), task.using(Likeliest()):
        torch.default_generator.manual_seed(0)
        try:
            with torch.no_grad():
                for p in task.parameters():
                    p.add_(OFF * torch.randn_like(p))
            yield
        finally:
            task.train(training)
            with torch.no_grad():
                for name, x in named_tensors(task):
                    if name in before and before[name].shape == x.shape:
                        x.copy_(before[name])


def named_tensors(task: Task) -> Iterator[tuple[str, Tensor]]:
    r"""Parameters and buffers, those included that no checkpoint has."""
    yield from task.named_parameters()
    yield from task.named_buffers()


def names_of(task: Task) -> dict[int, str]:
    r"""Names of a task's parameters by their ``id``."""
    return {id(p): name for name, p in task.named_parameters()}


def state_of(task: Task) -> dict[str, Tensor]:
    r"""Copies of parameters and buffers, by name."""
    return {name: x.detach().clone() for name, x in named_tensors(task)}


def changes(task: Task, before: dict[str, Tensor]) -> list[str]:
    r"""Names of parameters and buffers that are not what they were."""
    now = dict(named_tensors(task))
    return sorted(
        k for k in before.keys() | now.keys() if k not in before or k not in now or not are_equal(before[k], now[k])
    )


def batch_norms(task: Task) -> list[str]:
    r"""Names of the layers that take statistics over a batch while training."""
    return [name for name, module in task.named_modules() if isinstance(module, _BatchNorm)]


def in_mode_for(task: Task, size: int) -> Task:
    r"""The task in training mode, unless there is one example, of which layers of batch statistics can make nothing."""
    return task.train(size > 1 or not batch_norms(task))


def numbers_of(task: Task, size: int) -> Tensor:
    r"""Numbers ``[size]`` of training examples, as the harness hands them to ``batch``: 0 where all are the same."""
    return torch.arange(size) % task.examples if task.examples else torch.zeros(size, dtype=torch.long)


def training_batch(task: Task, index: Tensor | None = None, seed: int = 0) -> Any:
    r"""The training batch of these examples, or of the first few."""
    index = numbers_of(task, EXAMPLES) if index is None else index
    return task.batch(index, torch.Generator().manual_seed(seed))


def problem_of(task: Task, batch: Any, seed: int = 0) -> Problem:
    r"""The problem of a batch, whatever is random in it being drawn from a stream of that seed."""
    torch.default_generator.manual_seed(seed)
    return task.problem(batch)


def some_problem(task: Task) -> Problem:
    r"""That of a small training batch."""
    return problem_of(task, training_batch(task))


def draws(logits: Tensor, *lead: int) -> Tensor:
    r"""One-hot draws ``[*lead, *batch, K, C]`` that are uniform over the categories, whatever the logits."""
    return sampling.draw(torch.zeros_like(logits).expand(*lead, *logits.shape), 1)[0]


def inner_points(logits: Tensor, *lead: int) -> Tensor:
    r"""Points ``[*lead, *batch, K, C]`` within the simplex."""
    return torch.randn(*lead, *logits.shape, dtype=logits.dtype).softmax(-1)


def are_equal(a: Any, b: Any) -> bool:
    r"""Whether two batches, or tensors, are equal; what cannot be compared is."""
    left, right = trees.tree_leaves(a), trees.tree_leaves(b)
    return len(left) == len(right) and all(map(are_equal_leaves, left, right))


def are_equal_leaves(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        return torch.equal(a.nan_to_num(), b.nan_to_num()) if a.is_floating_point() else torch.equal(a, b)
    return type(a) is type(b) and (not isinstance(a, int | float | str) or a == b)


def selected(batch: Any, rows: list[int], size: int) -> Any:
    r"""A batch of some examples of another, of ``size`` of them; None if it has no tensors ``[size, ...]``."""
    has_rows = lambda x: isinstance(x, Tensor) and x.ndim > 0 and len(x) == size
    if not any(map(has_rows, trees.tree_leaves(batch))):
        return None
    return trees.tree_map(lambda x: x[rows] if has_rows(x) else x, batch)


def close(a: Tensor, b: Tensor, share: float = 1e-4) -> bool:
    r"""Whether two tensors differ by no more than a share of the largest of their numbers."""
    if a.shape != b.shape:
        return False
    largest = torch.cat([a.detach().flatten(), b.detach().flatten()]).abs().max().item() if a.numel() else 0.0
    return bool(torch.allclose(a, b, rtol=share, atol=share * largest, equal_nan=True))


def double(task: Task) -> Task:
    r"""A copy in float64, or the task itself where it cannot be one: it may make tensors in float32 itself."""
    try:
        precise = copy.deepcopy(task).double()
        with at_random_parameters(precise):
            problem = some_problem(precise)
            cost = problem.objective(draws(problem.logits, 1))
        return precise if problem.logits.dtype == cost.dtype == torch.float64 else task
    except Exception:
        return task


@contextmanager
def noting_streams(found: list[str]) -> Iterator[None]:
    r"""Adds to ``found``, in words, which streams of random numbers were drawn from within."""
    states: dict[str, Callable] = {
        "PyTorch's": lambda: torch.get_rng_state().tolist(),
        "NumPy's": lambda: [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
        "Python's": random.getstate,
    }
    before = {name: state() for name, state in states.items()}
    yield
    found += [f"{name} global random numbers" for name, state in states.items() if state() != before[name]]
