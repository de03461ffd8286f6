r"""A task's certificate: whether what it gives the harness is what every task must give, one check after another."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field

import torch

from hardmax.tasks.base import Task

from . import task_checks, task_parameters, task_promises, text
from .certificate import Outcome, first_line

CHECKS_OF_TASKS: dict[str, Callable[[Task], str | None]] = {
    "what the class declares": task_promises.check_declarations,
    "one cost for each draw and example": task_checks.check_costs,
    "examples do not depend on each other": task_checks.check_examples_apart,
    "the objective does not close over the logits": task_checks.check_closing_over_logits,
    "the same z costs the same": task_checks.check_repeated_costs,
    "the expected cost is the sum over all outcomes": task_checks.check_expected_cost,
    "the penalty is one for each example": task_checks.check_penalty,
    "the context is of each example": task_checks.check_context,
    "pinned logits are constant": task_parameters.check_pinned,
    "encoder_parameters make the logits": task_parameters.check_encoder_parameters,
    "training batches depend on their generator alone": task_promises.check_batches,
    "the measurement batch is fixed and held out": task_promises.check_measurement_examples,
    "problems and costs change nothing": task_promises.check_nothing_changes,
    "evaluate gives the declared figures, the same again": task_promises.check_evaluation,
    "what show gives can be shown": task_promises.check_shown,
}


@dataclass
class TaskCertificate:
    r"""What :func:`certify_task` has found.

    Attributes:
        name: Of the task, with its options.
        outcomes: Whether each check holds; the ``remark`` of one that holds says what was not checked, or is special.
        seconds: How long this took.
        torch: Version of PyTorch.
    """

    name: str
    outcomes: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0
    torch: str = str(torch.__version__)

    @property
    def holds(self) -> bool:
        r"""Whether all checks hold."""
        return all(o.holds for o in self.outcomes)

    def to_dict(self) -> dict:
        r"""Everything, of types that JSON has."""
        return asdict(self) | {"holds": self.holds}


def certify_task(
    task: Task, name: str = "", code: str = "", say: Callable[[str], None] = lambda line: None
) -> TaskCertificate:
    r"""Holds a task to the contract that estimators, measuring and the report rely on.

    It takes seconds, most of them in :meth:`~hardmax.tasks.base.Task.evaluate`, which is called three times. Of the
    expectation it can say something for at most 4,096 outcomes: choose small sizes. Not for whether a task is a good
    one, or its figures are right: that is for tests of its own.

    Arguments:
        task: On the processor. It is left as it is.
        name: What to call it; its class by default.
        code: Python that makes it, which reproductions of failures begin with.
        say: Called with each line of the certificate as soon as it is known.
    """
    start, name = time.perf_counter(), name or type(task).__name__
    found = TaskCertificate(name)
    say(f"{name} (torch {found.torch})")
    say("")
    for each in outcomes_of_task(task, code or f"task = ...  # {name}"):
        found.outcomes.append(each)
        for line in text.verdict(each):
            say(line)
    found.seconds = time.perf_counter() - start
    for line in text.ending_of_task(found):
        say(line)
    return found


def task_failures(task: Task, first: bool = False) -> list[str]:
    r"""What a task does not keep of the contract, a line each; empty if it keeps all of it. For tests:

    >>> from hardmax.tasks.toy import Toy
    >>> task_failures(Toy(categories=4))
    []

    Arguments:
        task: On the processor. It is left as it is.
        first: Whether to stop at the first failure.
    """
    found = []
    for each in outcomes_of_task(task, "task = ..."):
        if not each.holds:
            found.append(f"{each.claim}: {each.message}")
            if first:
                break
    return found


def outcomes_of_task(task: Task, code: str) -> Iterator[Outcome]:
    r"""Whether each check holds, one after another."""
    for claim, check in CHECKS_OF_TASKS.items():
        try:
            yield Outcome(claim, True, remark=check(task) or "")
        except task_checks.WrongForm as error:
            made = reproduction_of(check, code)
            yield Outcome(claim, False, first_line(error), made, "no check after it was made, as all need that form")
            return
        except AssertionError as error:
            yield Outcome(claim, False, first_line(error), reproduction_of(check, code))
        except Exception as error:
            message = f"{type(error).__name__}: {first_line(error)}"
            yield Outcome(claim, False, message, reproduction_of(check, code))


def reproduction_of(check: Callable, code: str) -> str:
    r"""Lines of Python that fail as the check does, after those that make ``task``."""
    return f"from hardmax.certification import {check.__name__}\n{code}\n{check.__name__}(task)"
