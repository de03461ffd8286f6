r"""Everything that a run goes on from: restored, it continues bit for bit."""

import io
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hardmax.estimators.base import Estimator
from hardmax.tasks.base import Task

from .checkpoints import check_form, check_optimizer, contents, reading
from .measuring import Measuring
from .patience import Best
from .shared import CHECKPOINT, CHECKPOINT_BEFORE, Refused, write_whole


class Batches:
    r"""Indices of training examples, shuffled anew every epoch; the last incomplete batch of one is left out.

    Arguments:
        examples: Number of examples, or None if every batch is the same problem.
        size: Examples per batch.
        seed: Of the order.
        device: Where the indices are wanted.

    Raises:
        Refused: If a batch is larger than the data.
    """

    def __init__(self, examples: int | None, size: int, seed: int, device: torch.device):
        if examples is not None and size > examples:
            raise Refused(f"batch_size must be at most the {examples} training examples, got {size}")
        self.examples, self.size = examples, size
        self.generator = torch.Generator(device).manual_seed(seed)
        self.order = torch.zeros(size if examples is None else 0, dtype=torch.long, device=device)
        self.position = 0

    def next(self) -> Tensor:
        r"""Indices ``[size]``."""
        if self.examples is None:
            return self.order
        if self.position + self.size > len(self.order):
            device = self.order.device
            self.order = torch.randperm(self.examples, generator=self.generator, device=device)
            self.position = 0
        self.position += self.size
        return self.order[self.position - self.size : self.position]

    def state_dict(self) -> dict:
        return {"order": self.order, "position": self.position, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict) -> None:
        order = state["order"].to(self.order.device)
        if self.examples is not None and len(order):
            everything = torch.arange(self.examples, device=order.device)
            if order.dtype != torch.long or not torch.equal(order.sort().values, everything):
                raise ValueError("`order` is not a permutation of the training examples")
        if not 0 <= state["position"] <= len(order):
            raise ValueError(f"position {state['position']} is not within the order of the examples")
        self.order, self.position = order, state["position"]
        self.generator.set_state(state["generator"].cpu())


@dataclass
class State:
    r"""Everything that a run goes on from: restored, it continues bit for bit.

    Attributes:
        task, estimator, optimizer, batches, measuring: Each with a ``state_dict`` of its own.
        window: Cost and penalty of the steps since the last row, ``[log_every, 2]``, on the device; no more than
            there are steps.
        best: The best validation so far; None in a run that ends with its last step.
        schedule: The factor of the model's learning rate, given the share of the steps that is done.
        step: Optimiser steps done.
        evaluations: Rows on which the objective was evaluated so far, per example: see :class:`Evaluations`.
        seconds: Of training so far, measuring and evaluating left out.
        form: What a checkpoint must look like: the state before the first was read.
    """

    task: Task
    estimator: Estimator
    optimizer: torch.optim.Optimizer
    batches: Batches
    measuring: Measuring
    window: Tensor
    schedule: Callable[[float], float]
    best: Best | None = None
    step: int = 0
    evaluations: int = 0
    seconds: float = 0.0
    form: dict | None = None

    PARTS = ("task", "estimator", "optimizer", "batches", "measuring")
    NUMBERS = ("step", "evaluations", "seconds")

    def state_dict(self) -> dict:
        state = {part: getattr(self, part).state_dict() for part in self.PARTS}
        state |= {number: getattr(self, number) for number in self.NUMBERS}
        cuda = torch.cuda.get_rng_state(self.window.device) if self.window.is_cuda else None
        state["best"] = self.best and self.best.state_dict()
        return state | {"window": self.window, "random": torch.get_rng_state(), "random_cuda": cuda}

    def load_state_dict(self, state: dict) -> None:
        for part in self.PARTS:
            getattr(self, part).load_state_dict(state[part])
        for number in self.NUMBERS:
            setattr(self, number, state[number])
        if self.best:
            self.best.load_state_dict(state["best"])
        self.window.copy_(state["window"])
        torch.set_rng_state(state["random"].cpu())
        if state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"].cpu(), self.window.device)

    def is_finite(self) -> bool:
        r"""Whether losses since the last row and all parameters are finite: else there is nothing to go on from."""
        parts = (self.window, *self.task.parameters(), *self.estimator.parameters())
        return bool(torch.stack([part.isfinite().all() for part in parts]).all())

    def save(self, folder: Path, sizes: dict[str, int]) -> None:
        r"""Writes a checkpoint that is either whole or not there, and keeps the one before it.

        Arguments:
            folder: The run's.
            sizes: Bytes of the files that have been written so far, by name; kept with the checkpoint.
        """
        content = io.BytesIO()
        torch.save({"state": self.state_dict(), "sizes": sizes}, content)
        if (folder / CHECKPOINT).is_file():
            (folder / CHECKPOINT).replace(folder / CHECKPOINT_BEFORE)
        write_whole(folder / CHECKPOINT, content.getbuffer())

    def load(self, path: Path) -> dict[str, int]:
        r"""Goes on from a checkpoint; the sizes that were kept with it.

        Raises:
            Unreadable: If the file is damaged, or of something else.
        """
        with reading(path):
            found = contents(path, self.window.device)
            self.form = self.form or self.state_dict()
            check_form(found["state"], self.form, "state")
            self.load_state_dict(found["state"])
            for optimizer in (self.optimizer, *self.measuring.rivals.optimizers.values()):
                check_optimizer(optimizer)
            for name, number in {**found["sizes"], **{n: getattr(self, n) for n in self.NUMBERS}}.items():
                if type(number) not in (int, type(getattr(self, name, 0))) or not 0 <= number < math.inf:
                    raise ValueError(f"{name} is {number}")
            return found["sizes"]

    def load_parameters(self, path: Path) -> None:
        r"""Takes over parameters and running state of task and estimator, and the step, from a checkpoint.

        They are those of the best validation where the run has waited for it, and is over.

        Raises:
            Unreadable: If the file is damaged, or of something else.
        """
        with reading(path):
            found = contents(path, self.window.device)["state"]
            best = found.get("best")
            over = isinstance(best, dict) and best.get("over") is True
            parts, step = (best["kept"], best["step"]) if over else (found, found["step"])
            for part in ("task", "estimator"):
                check_form(parts[part], getattr(self, part).state_dict(), part)
                getattr(self, part).load_state_dict(parts[part])
            self.step = operator.index(step)
