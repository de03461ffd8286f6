r"""Independent gradient draws of an estimator on one batch, and what they cost."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hardmax.estimators.base import Estimator, numbers_at_once
from hardmax.tasks.base import Problem, Task

from .evaluations import Evaluations
from .moments import BLOCKS, Moments

WHERE = ("logits", "encoder")
CACHES = 4  # on a CPU, as what each backward pass costs, however few its draws, weighs more than what the cache misses
COMPONENTS = 2**24  # of all draws at a time, on a CPU: 64 MB in single precision, of which there are a few copies


def places(task: Task) -> tuple[str, ...]:
    r"""Where gradients are measured: nowhere but at the parameters, where the objective makes choices of its own."""
    return ("encoder",) if task.parameters_only else WHERE


class Draws:
    r"""Independent gradient draws of an estimator on one problem, a few at a time, so that memory is bounded.

    The encoder's parameters usually reach the cost through the logits alone; then the gradients to the logits go back
    to them several at a time. Where the objective depends on them as well, every draw has a backward pass of its own.
    """

    def __init__(self, task: Task, estimator: Estimator, problem: Problem):
        self.task, self.estimator, self.problem = task, estimator, problem
        self.parameters = task.encoder_parameters()
        self.examples = self.problem.logits.shape[:-2].numel()
        self.cost = Evaluations(task, derivatives=True)
        self.direct_parameters = parameters_the_objective_uses(self.problem, self.parameters)

    def at_most(self) -> int:
        r"""How many draws to make at a time."""
        if self.direct_parameters:
            return 1
        logits = self.problem.logits
        numbers, of_one = numbers_at_once(logits.device), max(1, logits.numel()) * self.cost.at_once
        if logits.is_cuda:
            return max(1, numbers // of_one)
        P = sum(p.numel() for p in self.parameters)
        return max(1, min(CACHES * numbers // of_one, COMPONENTS // max(1, P)))

    def make(self, m: int) -> tuple[Tensor, Tensor]:
        r"""m draws of the gradient to the logits, ``[m, B, D]``, and of the mean's to the encoder, ``[m, 1, P]``."""
        logits, context = self.problem.logits, self.problem.context
        leaf = logits.detach().expand(m, *logits.shape).clone().requires_grad_()
        context = None if context is None else context.detach().expand(m, *context.shape)
        objective = self.cost(self.problem.objective, self.examples, m)
        with frozen(self.task, self.direct_parameters), frozen(self.estimator), self.cost.of_nested():
            cost = self.estimator(leaf, objective, context, self.problem.log_q)
        g, *to_direct = torch.autograd.grad(
            cost.sum(), [leaf, *self.direct_parameters], retain_graph=bool(self.direct_parameters)
        )
        per_mean = g / self.examples
        to_encoder = torch.autograd.grad(
            logits, self.parameters, per_mean, is_grads_batched=True, retain_graph=True, allow_unused=True
        )
        direct = dict(zip(map(id, self.direct_parameters), to_direct, strict=True))
        parts = []
        for p, x in zip(self.parameters, to_encoder, strict=True):
            x = torch.zeros(m, *p.shape, dtype=p.dtype, device=p.device) if x is None else x
            parts.append((x + direct[id(p)] / self.examples if id(p) in direct else x).flatten(1))
        return g[..., self.problem.pinned :].reshape(m, self.examples, -1), torch.cat(parts, -1).unsqueeze(1)


def parameters_the_objective_uses(problem: Problem, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
    r"""Those of the parameters that the objective itself depends on, other than through the logits."""
    with torch.random.fork_rng([problem.logits.device] if problem.logits.is_cuda else []), torch.enable_grad():
        cost = problem.objective(first_category(problem.logits))
    if not cost.requires_grad:
        return []
    found = torch.autograd.grad(cost.sum(), parameters, retain_graph=True, allow_unused=True)
    return [p for p, g in zip(parameters, found, strict=True) if g is not None]


def first_category(logits: Tensor) -> Tensor:
    r"""One row of z ``[1, *batch, K, C]``: every variable in its first category."""
    z = torch.zeros_like(logits, requires_grad=False).unsqueeze(0)
    z[..., 0] = 1
    return z


def add_draws(draws: Draws, moments: dict[str, Moments], M: int) -> None:
    r"""Adds M gradient draws to moments by where, evenly by block."""
    for block in range(BLOCKS):
        left = M // BLOCKS + (block < M % BLOCKS)
        while left:
            most = draws.at_most() if next(iter(moments.values())).draws else 1
            m = math.ceil(left / math.ceil(left / most))
            made = dict(zip(WHERE, draws.make(m), strict=True))
            for where, each in moments.items():
                each.add(made[where], block)
            left -= m


@contextmanager
def frozen(module: nn.Module, but: Iterable[nn.Parameter] = ()) -> Iterator[None]:
    r"""Within it, no parameter of ``module``, except for those of ``but``, asks for gradients."""
    free = set(map(id, but))
    learned = [p for p in module.parameters() if p.requires_grad and id(p) not in free]
    try:
        for p in learned:
            p.requires_grad_(False)
        yield
    finally:
        for p in learned:
            p.requires_grad_(True)


@contextmanager
def evaluating(task: Task, estimator: Estimator) -> Iterator[None]:
    r"""Within it, objectives call the estimator's own nested ones, and none of them updates anything."""
    training = estimator.training
    with task.using(estimator):
        try:
            estimator.eval()
            yield
        finally:
            estimator.train(training)
