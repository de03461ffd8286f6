r"""The contract between a task and the harness."""

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hardmax.checks import one_of
from hardmax.estimators.base import Estimator


@dataclass
class Problem:
    r"""One batch as an estimator sees it.

    Attributes:
        logits: Of the categorical variables, ``[*batch, K, C]``.
        objective: Cost in nats, ``[S, *batch, K, C] -> [S, *batch]``; must accept further leading dimensions. What is
            random in it beside its own choices is drawn once, with the problem: a truth is of one objective.
        penalty: Added to the estimator's cost, ``[*batch]`` or a scalar (an analytic KL divergence, say).
        context: Features for learned baselines, ``[*batch, D]``.
        log_q: Whether the estimator is to add log q(z) to the objective (a sampled KL divergence).
        pinned: Number of leading categories whose logits are fixed, and therefore left out of gradient statistics.
        expected_cost: Exact expectation ``[*batch]`` of the objective under any logits ``[*batch, K, C]``, where it is
            known and depends on the batch; None: it is what :meth:`Task.expected_cost` says.
    """

    logits: Tensor
    objective: Callable[[Tensor], Tensor]
    penalty: Tensor | float = 0.0
    context: Tensor | None = None
    log_q: bool = False
    pinned: int = 0
    expected_cost: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Figure:
    r"""What people who read a figure are told of it.

    Attributes:
        title: What it is, in a few words.
        unit: Of its values; empty for plain numbers.
        better: ``higher`` or ``lower``; empty where neither is.
    """

    title: str
    unit: str = ""
    better: str = ""

    def __post_init__(self) -> None:
        if self.better != "":
            one_of(("higher", "lower"), better=self.better)


def wrong_figures(figures: dict[str, Figure]) -> str:
    r"""What is wrong with the figures that a task declares, in one line; empty if nothing is."""
    if not figures:
        return "figures is empty: say Figure(title, unit, better) for each figure of evaluate, by name"
    for name, figure in figures.items():
        if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            return f"figures has {name!r}: names must be of small letters, digits and _, as columns are valid/NAME"
        if not isinstance(figure, Figure):
            return f"figures[{name!r}] must be Figure(title, unit, better), got {figure!r}"
        if not figure.title.strip():
            return f"figures[{name!r}] has no title: say in a few words what it is"
    if not any(figure.better for figure in figures.values()):
        return (
            f"none of the figures {', '.join(figures)} says better='higher' or 'lower', so nothing orders estimators "
            "in a report, nor trials of a search"
        )
    return ""


class Task(nn.Module):
    r"""A model with categorical variables, its data and its figures of merit.

    Attributes:
        examples: Number of training examples; None if every batch is the same problem.
        nats_divisor: What an example's nats are divided by in the loss and in figures (tokens of a sentence, say). The
            estimator works in nats per example, as sums with log q(z) and bounds need; so do gradient statistics.
        history: Buffers that count along training: they stay when parameters of an earlier step are taken up again.
        nested: Number of estimators beside the one that the harness calls, which objectives call themselves.
        inner: These, once :meth:`nest` has made them.
        parameters_only: Whether gradients are measured to :meth:`encoder_parameters` alone, through the objective
            too, because the objective's own choices are the same model's.
        figures: About the figures of :meth:`evaluate`, by name, the one that says most first: the first that can be
            better or worse orders estimators in a report and trials of a search. The unit of ``loss`` is that of the
            training loss, whether there is a figure of this name or not.
    """

    examples: int | None = None
    nats_divisor: float = 1.0
    history: tuple[str, ...] = ()
    nested: int = 0
    inner: tuple[Estimator, ...] = ()
    parameters_only: bool = False
    figures: dict[str, Figure] = {}

    def __init_subclass__(cls, **arguments: object) -> None:
        super().__init_subclass__(**arguments)
        for name, figure in cls.figures.items():
            if not isinstance(figure, Figure):
                raise TypeError(f"{cls.__name__}.figures[{name!r}] must be Figure(title, unit, better), got {figure!r}")

    def nest(self, estimator: Estimator) -> None:
        r"""Makes the nested estimators: copies of the outermost one, of which they then are parts."""
        estimator.inner = nn.ModuleList()  # nothing of a task before
        self.inner = tuple(copy.deepcopy(estimator) for _ in range(self.nested))
        estimator.inner.extend(self.inner)

    @contextmanager
    def using(self, estimator: Estimator) -> Iterator[None]:
        r"""Within it, objectives call the estimators nested in ``estimator``, which are made unless it has them."""
        before = self.inner
        try:
            inner = getattr(estimator, "inner", None)
            if inner is None or len(inner) != self.nested:
                self.nest(estimator)
            else:
                self.inner = tuple(inner)
            yield
        finally:
            self.inner = before

    def batch(self, index: Tensor, generator: torch.Generator) -> Any:
        r"""Training batch of the examples ``index`` ``[B]``; whatever is random in it comes from ``generator``.

        Of any type that :meth:`problem` takes, as a rule the examples ``[B, ...]``.
        """
        raise NotImplementedError

    def measurement_batch(self, size: int) -> Any:
        r"""A fixed batch of at most ``size`` examples that are not trained on, for gradient statistics."""
        raise NotImplementedError

    def problem(self, batch: Any) -> Problem:
        r"""The categorical variables of a batch and what they cost."""
        raise NotImplementedError

    def advance(self) -> None:
        r"""Moves what is learned without a gradient; called once after every optimiser step.

        The problem made last is then the one of that step.
        """

    def encoder_parameters(self) -> list[nn.Parameter]:
        r"""The parameters that produce the logits."""
        raise NotImplementedError

    def evaluate(self, split: str) -> dict[str, float]:
        r"""Figures on the ``valid`` or ``test`` split, always with *discrete* draws, by name."""
        raise NotImplementedError

    def show(self) -> dict[str, list[dict[str, str]] | Tensor]:
        r"""Examples of what the model does now, for people to look at, by name.

        Each is a table, as a list of rows, or a picture: grey levels in [0, 1] ``[height, width]``, or those of red,
        green and blue ``[height, width, 3]``.
        """
        return {}

    def expected_cost(self, logits: Tensor) -> Tensor | None:
        r"""Exact expectation ``[*batch]`` of the objective under the logits, or None where it is not known.

        Where it depends on the batch, the batch's :class:`Problem` says it instead.
        """
        return None
