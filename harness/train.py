r"""The training loop."""

import inspect
import math
import sys
import time
from collections.abc import Callable

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from tqdm.auto import tqdm

from hardmax.checks import is_number, positive
from hardmax.estimators.base import Estimator
from hardmax.gradients import Evaluations, Stream, forked_random
from hardmax.tasks.base import Task

from .config import build
from .measuring import Measuring, nest_and_try
from .patience import Best
from .shared import Refused, innermost, one_line
from .state import Batches, State


class NotFinite(ArithmeticError):
    r"""A loss, a figure or a parameter became infinite or NaN; the text names step, estimator and tensor."""


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
        reference, rivals: Estimators to measure with, from :func:`hardmax.harness.measuring.reference_and_rivals`.

    Raises:
        Refused: If estimator, task and batch size do not fit together; nothing has been written then.
    """
    task.to(device), estimator.to(device)
    batches = Batches(task.examples, cfg.batch_size, cfg.seed, device)
    index = torch.arange(cfg.batch_size, device=device)
    with forked_random(device, cfg.seed, 0, Stream.TRY):
        nest_and_try(task, estimator, task.batch(index, torch.Generator(device)))
    schedule = build(cfg, "schedule", cfg.schedule._target_.rpartition(".")[2])
    settings = OmegaConf.to_container(cfg.optimizer, resolve=True)
    assert isinstance(settings, dict)
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
    best = Best(cfg.patience, task, estimator) if cfg.patience else None
    return State(task, estimator, optimizer, batches, measuring, window, schedule, best)


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
    r"""Trains to ``steps`` or ``stop_after``, logs rows and timings on the way, and returns the final figures by name.

    ``pause`` is called before every step and the row before it, and before the last row, with True: a state saved
    there goes on with that row. With ``patience`` a run may end earlier, and ``pause`` is called after the last row as
    well: a state saved there has only the final figures left, of the parameters with the best validation.

    Raises:
        NotFinite: If a loss or a parameter is infinite or NaN; noticed when the row it belongs to is due.
    """
    task, estimator, optimizer = state.task, state.estimator, state.optimizer
    device, seed, log_every, steps = state.window.device, cfg.seed, cfg.log_every, cfg.stop_after or cfg.steps
    valid_every, measure_every, anomaly = cfg.valid.every, cfg.measure.every, cfg.detect_anomaly
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    evaluations, last, timings, best = Evaluations(task), {}, {}, state.best
    model, rate = optimizer.param_groups[0], cfg.optimizer.lr
    weight = torch.full((2,), 1 / task.nats_divisor, device=device)
    hidden = False if "ipykernel" in sys.modules else None  # a notebook is no terminal; None: unless it is one
    progress = tqdm(total=steps, initial=state.step, unit="step", disable=hidden, dynamic_ncols=True)

    def due(every):
        return state.step in (0, steps) or (every > 0 and state.step % every == 0)

    def figures(split):
        found = {f"{split}/{k}": v for k, v in evaluated(task, split).items()}
        if bad := [name for name, value in found.items() if not math.isfinite(value)]:
            raise not_finite(state, f"{bad[0]} after step {state.step}")
        return found

    def of_training():
        found = {"train/loss": mean_loss(state, log_every)}
        last["loss"] = found["train/loss"]
        if not state.is_finite():
            raise not_finite(state, f"a parameter after step {state.step}")
        found["cost/evaluations"] = state.evaluations
        return found | {f"gradient/{k}": v for k, v in state.measuring.running_statistics().items()}

    def row():
        found: dict = {}
        if state.step and (state.step % log_every == 0 or state.step == steps):
            found |= of_training()
        if due(valid_every):
            with forked_random(device, seed, state.step, Stream.EVALUATE):
                valid = figures("valid")
            if best and best.is_last(state.step, valid):
                best.over = True
                found = found or of_training()
            found |= valid
        if measure_every and due(measure_every):
            statistics, taken = state.measuring.measure_all(state.step)
            found |= {f"gradient/{k}": v for k, v in statistics.items()}
            timings.update({f"gradient/{k}": v for k, v in taken.items()})
        return found

    def loss(batch):
        problem = task.problem(batch)
        objective = evaluations(problem.objective, problem.logits.shape[:-2].numel())
        cost = estimator(problem.logits, objective, problem.context, problem.log_q)
        return torch.stack([cost, torch.zeros_like(cost) + problem.penalty]).flatten(1).mean(1)

    if cfg.compile:
        for each in (estimator, *task.inner):
            if not each.compiles:
                each.estimate = torch.compiler.disable(each.estimate)  # type: ignore[method-assign]
        graphs = {"triton.cudagraphs": True} if device.type == "cuda" else {}  # one launch in place of many small ones
        loss = torch.compile(loss, options={"fallback_random": True, **graphs})  # the draws of an uncompiled run

    def step():
        evaluations.clear()  # of what measuring made
        for p in parameters:
            p.grad = None  # before a graph runs again, which may have made it
        parts = loss(task.batch(state.batches.next(), state.batches.generator))
        parts.backward(weight)
        model["lr"] = rate * state.schedule(state.step / cfg.steps)
        optimizer.step()
        state.measuring.after_step()
        task.advance()
        for each in (estimator, *task.inner):
            each.advance()
        state.window[state.step % log_every].copy_(parts.detach())
        state.step += 1
        state.evaluations += evaluations.rows

    with progress, evaluations.of_nested():
        clock = time.perf_counter()
        while not (best and best.over):
            now = time.perf_counter()
            state.seconds, clock = state.seconds + now - clock, now  # before it may be saved, which takes time as well
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
            if state.step == steps or (best and best.over):
                if best:
                    best.over = True
                    pause(True)
                break
            with torch.autograd.set_detect_anomaly(anomaly):
                step()
            progress.update()
    if best:
        best.restore()
    with forked_random(device, seed, state.step, Stream.TEST):
        tested = figures("test")
    log(state.step, tested, {"cost/seconds": state.seconds})
    return tested | (best.figures if best else {})


def evaluated(task: Task, split: str) -> dict[str, float]:
    r"""What a task evaluates to; TypeError if it is anything but numbers by name."""
    found = task.evaluate(split)
    wrong = found if not isinstance(found, dict) else next((v for v in found.values() if not is_number(v)), None)
    if not isinstance(found, dict) or wrong is not None:
        must = f"{type(task).__name__}.evaluate must return a dictionary of numbers (of a tensor x, float(x))"
        raise TypeError(f"{must}, got {wrong!r}{' in it' * isinstance(found, dict)}")
    return found


def mean_loss(state: State, log_every: int) -> float:
    r"""Mean loss of the steps since the last row.

    Raises:
        NotFinite: Naming the first bad step, and what was not finite in it.
    """
    count = state.step % log_every or log_every
    window = state.window[:count]
    if window.isfinite().all():
        return float(window.double().sum(-1).mean()) / state.task.nats_divisor
    bad = ~window.isfinite()
    first = int(bad.any(-1).int().argmax())
    step = state.step - count + first + 1
    names = " and ".join(name for name, is_bad in zip(("cost", "penalty"), bad[first], strict=True) if is_bad)
    raise not_finite(state, f"the {names} of step {step}")


def not_finite(state: State, what: str) -> NotFinite:
    r"""An exception that names what is not finite, and the parameters that are not."""
    parts = (("", state.task), ("estimator.", state.estimator))
    broken = [at + name for at, part in parts for name, p in part.named_parameters() if not p.isfinite().all()]
    tail = f"; by step {state.step} so are the parameters {', '.join(broken)}" if broken else ""
    estimator, task = type(state.estimator).__name__, type(state.task).__name__
    return NotFinite(
        f"{what} is not finite (estimator {estimator}, task {task}){tail}: "
        "lower optimizer.lr, or rerun with debug=fast to find the operation"
    )
