r"""The training loop, and everything it needs to go on from."""

import inspect
import io
import math
import operator
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from tqdm import tqdm

from hardmax.checks import is_number, positive
from hardmax.estimators.base import Estimator
from hardmax.gradients import Stream, forked_random
from hardmax.tasks.base import Problem, Task

from .checkpoints import check_form, check_optimizer, contents, reading
from .measuring import Measuring, fit
from .options import Refused, build, innermost, one_line
from .shared import CHECKPOINT, CHECKPOINT_BEFORE, write_whole


class NotFinite(ArithmeticError):
    r"""The loss became infinite or NaN; the text names step, estimator and tensor."""


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
                raise ValueError("the order of the examples is none")
        if not 0 <= state["position"] <= len(order):
            raise ValueError(f"position {state['position']} is not within the order of the examples")
        self.order, self.position = order, state["position"]
        self.generator.set_state(state["generator"].cpu())


class Counted:
    r"""Counts the rows on which objectives are evaluated, per example."""

    def __init__(self):
        self.rows = 0

    def __call__(self, problem: Problem) -> Callable[[Tensor], Tensor]:
        examples = problem.logits.shape[:-2].numel()

        def objective(z):
            self.rows += z.shape[:-2].numel() // examples
            return problem.objective(z)

        return objective


@dataclass
class State:
    r"""Everything that a run goes on from: restored, it continues bit for bit.

    Attributes:
        task, estimator, optimizer, batches, measuring: Each with a ``state_dict`` of its own.
        window: Cost and penalty of the steps since the last row, ``[log_every, 2]``, on the device; no more than
            there are steps.
        schedule: The factor of the model's learning rate, given the share of the steps that is done.
        step: Optimiser steps done.
        evaluations: Rows on which the objective was evaluated so far, per example.
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
        return state | {"window": self.window, "random": torch.get_rng_state(), "random_cuda": cuda}

    def load_state_dict(self, state: dict) -> None:
        for part in self.PARTS:
            getattr(self, part).load_state_dict(state[part])
        for number in self.NUMBERS:
            setattr(self, number, state[number])
        self.window.copy_(state["window"])
        torch.set_rng_state(state["random"].cpu())
        if state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"].cpu(), self.window.device)

    def is_finite(self) -> bool:
        r"""Whether losses since the last row and all parameters are finite: else there is nothing to go on from."""
        parts = (self.window, *self.task.parameters(), *self.estimator.parameters())
        return all(bool(part.isfinite().all()) for part in parts)

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

        Raises:
            Unreadable: If the file is damaged, or of something else.
        """
        with reading(path):
            found = contents(path, self.window.device)["state"]
            for part in ("task", "estimator"):
                check_form(found[part], getattr(self, part).state_dict(), part)
                getattr(self, part).load_state_dict(found[part])
            self.step = operator.index(found["step"])


def prepare(
    cfg: DictConfig,
    task: Task,
    estimator: Estimator,
    device: torch.device,
    reference: dict[str, Estimator] | None = None,
    rivals: dict[str, Estimator] | None = None,
) -> State:
    r"""A state at step 0, after one forward pass that lets learned parts take their sizes.

    Arguments:
        reference, rivals: Estimators to measure with, from :func:`hardmax.harness.measuring.asked_for`.

    Raises:
        Refused: If estimator, task and batch size do not fit together; nothing has been written then.
    """
    try:
        task.nest(estimator)
    except ValueError as error:
        raise Refused(str(error)) from error
    task.to(device), estimator.to(device)
    batches = Batches(task.examples, cfg.batch_size, cfg.seed, device)
    index = torch.arange(cfg.batch_size, device=device)
    with forked_random(device, cfg.seed, 0, Stream.TRY):
        fit(estimator, task.problem(task.batch(index, torch.Generator(device))))
    schedule = build(cfg, "schedule", cfg.schedule._target_.rpartition(".")[2])
    settings = OmegaConf.to_container(cfg.optimizer, resolve=True)
    rate = settings.pop("estimator_lr", None)
    groups = [{"params": list(task.parameters())}]
    if learned := list(estimator.parameters()):
        groups.append({"params": learned, **({} if rate is None else {"lr": rate})})
    try:
        check_kinds(settings)
        positive(lr=settings["lr"])
        if rate is not None:
            positive(estimator_lr=rate)
        make = instantiate({**settings, "_partial_": True, "_convert_": "all"})
        optimizer = make(groups)
    except Exception as error:
        raise Refused(f"optimizer: {one_line(innermost(error))}") from error

    def training_batches(seed: int):
        others = Batches(task.examples, cfg.batch_size, seed, device)
        while True:
            yield task.batch(others.next(), others.generator)

    of_rival = lambda learned: make([{"params": learned, **({} if rate is None else {"lr": rate})}])
    measuring = Measuring(cfg, task, estimator, training_batches, reference or {}, rivals or {}, of_rival, device)
    window = torch.zeros(min(cfg.log_every, cfg.steps), 2, device=device)
    torch.manual_seed(cfg.seed)
    return State(task, estimator, optimizer, batches, measuring, window, schedule)


def check_kinds(settings: dict) -> None:
    r"""Refuses options of an optimiser, beside its rates, that are not of the kind of its class's own defaults.

    Raises:
        TypeError: Naming the option, and the default as an example.
    """
    for name, parameter in inspect.signature(get_class(settings["_target_"])).parameters.items():
        value, default = settings.get(name, parameter.default), parameter.default
        if name != "lr" and isinstance(default, int | float | tuple) and not alike(value, default):
            example = str(list(default) if isinstance(default, tuple) else default).lower()
            raise TypeError(f"{name} must be finite and of the kind of {example}, got {value!r}")


def alike(value: object, default: bool | float | tuple) -> bool:
    r"""Whether a value is a truth value, a finite number, or a list of as many of them, like the default."""
    if isinstance(default, tuple):
        return value is default or (
            isinstance(value, list) and len(value) == len(default) and all(map(alike, value, default))
        )
    if isinstance(default, bool):
        return isinstance(value, bool)
    return is_number(value) and math.isfinite(value)


def train(
    state: State,
    cfg: DictConfig,
    log: Callable[[int, dict, dict[str, float]], None],
    pause: Callable[[bool], None] = lambda last: None,
) -> dict:
    r"""Trains to ``steps``, logs rows and timings on the way, and returns the final figures by name.

    ``pause`` is called before every step and the row before it, and before the last row, with True: a state saved
    there goes on with that row.

    Raises:
        NotFinite: If a loss is infinite or NaN; noticed when the row it belongs to is due.
    """
    task, estimator, optimizer = state.task, state.estimator, state.optimizer
    device, seed, steps, log_every = state.window.device, cfg.seed, cfg.steps, cfg.log_every
    valid_every, measure_every, anomaly = cfg.valid.every, cfg.measure.every, cfg.detect_anomaly
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    counted, last, timings = Counted(), {}, {}
    model, rate = optimizer.param_groups[0], cfg.optimizer.lr
    weight = torch.full((2,), 1 / task.per, device=device)
    progress = tqdm(total=steps, initial=state.step, unit="step", disable=None, dynamic_ncols=True)

    def due(every):
        return state.step in (0, steps) or (every > 0 and state.step % every == 0)

    def figures(split):
        found = {f"{split}/{k}": v for k, v in task.evaluate(split).items()}
        if bad := [name for name, value in found.items() if not math.isfinite(value)]:
            raise not_finite(state, f"{bad[0]} after step {state.step}")
        return found

    def row():
        found = {}
        if state.step and (state.step % log_every == 0 or state.step == steps):
            found["train/loss"] = last["loss"] = mean_loss(state, log_every)
            found["cost/evaluations"] = state.evaluations
            found |= {f"gradient/{k}": v for k, v in state.measuring.along().items()}
        if due(valid_every):
            with forked_random(device, seed, state.step, Stream.EVALUATE):
                found |= figures("valid")
        if measure_every and due(measure_every):
            statistics, taken = state.measuring.take(state.step)
            found |= {f"gradient/{k}": v for k, v in statistics.items()}
            timings.update({f"gradient/{k}": v for k, v in taken.items()})
        return found

    def loss(batch):
        problem = task.problem(batch)
        cost = estimator(problem.logits, counted(problem), problem.context, problem.log_q)
        return torch.stack([cost, torch.zeros_like(cost) + problem.penalty]).flatten(1).mean(1)

    if cfg.compile:
        for each in (estimator, *task.inner):
            if not each.compiles:
                each.estimate = torch.compiler.disable(each.estimate)
        loss = torch.compile(loss, options={"fallback_random": True})  # the draws of an uncompiled run

    def step():
        parts = loss(task.batch(state.batches.next(), state.batches.generator))
        for p in parameters:
            p.grad = None
        parts.backward(weight)
        model["lr"] = rate * state.schedule(state.step / steps)
        optimizer.step()
        state.measuring.after_step()
        for each in (estimator, *task.inner):
            each.advance()
        state.window[state.step % log_every].copy_(parts.detach())
        state.step += 1
        state.evaluations += counted.rows
        counted.rows = 0

    with progress:
        clock = time.perf_counter()
        while True:
            pause(state.step == steps)
            logging = state.step % log_every == 0 or due(valid_every) or due(measure_every)
            if logging:
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                state.seconds += time.perf_counter() - clock
                timings.clear()
                if found := row():
                    log(state.step, found, {"cost/seconds": state.seconds} | timings)
                progress.set_postfix({k: f"{v:.4g}" for k, v in last.items()}, refresh=False)
                clock = time.perf_counter()
            if state.step == steps:
                break
            with torch.autograd.set_detect_anomaly(anomaly):
                step()
            progress.update()
    with forked_random(device, seed, state.step, Stream.TEST):
        tested = figures("test")
    log(state.step, tested, {"cost/seconds": state.seconds})
    return tested


def mean_loss(state: State, log_every: int) -> float:
    r"""Mean loss of the steps since the last row.

    Raises:
        NotFinite: Naming the first bad step, and what was not finite in it.
    """
    count = state.step % log_every or log_every
    window = state.window[:count]
    if window.isfinite().all():
        return float(window.double().sum(-1).mean()) / state.task.per
    bad = ~window.isfinite()
    first = int(bad.any(-1).int().argmax())
    step = state.step - count + first + 1
    names = " and ".join(name for name, is_bad in zip(("cost", "penalty"), bad[first], strict=True) if is_bad)
    raise not_finite(state, f"the {names} of step {step}")


def not_finite(state: State, what: str) -> NotFinite:
    r"""An exception that names what is not finite, and the parameters that are not."""
    broken = [name for name, p in state.task.named_parameters() if not p.isfinite().all()]
    tail = f"; by step {state.step} so are the parameters {', '.join(broken)}" if broken else ""
    estimator, task = type(state.estimator).__name__, type(state.task).__name__
    return NotFinite(
        f"{what} is not finite (estimator {estimator}, task {task}){tail}: "
        "lower optimizer.lr, or rerun with debug=fast to find the operation"
    )
