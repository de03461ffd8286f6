r"""What estimators cost: how often objectives are evaluated and differentiated."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from hardmax.estimators.objectives import Objective
from hardmax.tasks.base import Task


class Evaluations:
    r"""Counts rows on which objectives are evaluated, and differentiated with respect to z, per example.

    Where objectives call nested estimators, the objective that is evaluated most often counts: as a rule the innermost
    one, each of whose rows is one draw of all layers.

    Arguments:
        task: Whose nested estimators are counted, within :meth:`of_nested`.
        derivatives: Whether to count rows that are differentiated too, which takes a hook for each evaluation.

    Attributes:
        at_once: The most rows that were evaluated at once, for each of the copies of a batch.
    """

    def __init__(self, task: Task, derivatives: bool = False):
        self.task, self.derivatives, self.examples, self.copies, self.at_once = task, derivatives, 1, 1, 1
        self.clear()

    def clear(self) -> None:
        self.evaluated, self.differentiated_by_layer = ([0] * (1 + self.task.nested) for _ in range(2))

    @property
    def rows(self) -> int:
        r"""Rows that were evaluated so far."""
        return max(self.evaluated)

    @property
    def differentiated(self) -> int:
        r"""Rows that were differentiated so far."""
        return max(self.differentiated_by_layer)

    def __call__(self, objective: Objective, examples: int, copies: int = 1) -> Objective:
        r"""The outermost objective of so many examples, each of them copied so many times, counted."""
        self.examples, self.copies = examples, copies
        return self.counted(objective, 0)

    @contextmanager
    def of_nested(self) -> Iterator[None]:
        r"""Within it, the objectives of the task's nested estimators are counted as well."""
        hooks = []
        for layer, inner in enumerate(self.task.inner, 1):

            def count(_: nn.Module, given: tuple, named: dict, layer: int = layer) -> tuple[tuple, dict]:
                if "objective" in named:
                    return given, named | {"objective": self.counted(named["objective"], layer)}
                logits, objective, *others = given
                return (logits, self.counted(objective, layer), *others), named

            hooks.append(inner.register_forward_pre_hook(count, with_kwargs=True))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def counted(self, objective: Objective, layer: int) -> Objective:
        def evaluated(z: Tensor) -> Tensor:
            rows = z.shape[:-2].numel() // self.examples
            self.evaluated[layer] += rows
            if self.derivatives:
                self.at_once = max(self.at_once, rows // self.copies)
                if z.requires_grad:
                    z = z.view_as(z)
                    z.register_hook(lambda _: self.differentiate(rows, layer))
            return objective(z)

        return evaluated

    def differentiate(self, rows: int, layer: int) -> None:
        self.differentiated_by_layer[layer] += rows
