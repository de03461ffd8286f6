r"""What is measured along training: the trained estimator's gradients, and other estimators' at the same parameters."""

import copy
import itertools
import sys
import time
from collections.abc import Callable, Iterator

import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from hardmax.estimators.base import Estimator
from hardmax.estimators.objectives import check_objective
from hardmax.gradients import (
    RunningVariance,
    Stream,
    Truth,
    forked_random,
    frozen,
    measure,
    measure_outcomes,
    noise_by_source,
    outcomes_of,
    truth_of,
)
from hardmax.tasks.base import Problem, Task

from .config import build, estimators_known, plain_value
from .options import EVERY_RIVAL
from .shared import Refused, innermost, one_line
from .sources import located, with_choice


def build_by_name(entry: str | dict) -> tuple[str, Estimator]:
    r"""A label and the estimator for a name such as ``arsm``, or ``{reinforce: {samples: 4}}`` with its options.

    Raises:
        Refused: In one line, if there is no such estimator or it does not accept the options.
    """
    ((name, settings),) = entry.items() if isinstance(entry, dict) else [(entry, {})]
    written = [f"{key}={value}" for key, value in settings.items()]
    loader = GlobalHydra.instance().config_loader()
    try:
        cfg = copy.deepcopy(with_choice(loader, "estimator", name))
        if all(key in cfg.estimator for key in settings):  # many times as fast as composing each
            cfg.estimator.update(settings)
        else:
            asked = [f"estimator={name}", *(f"estimator.{setting}" for setting in written)]
            cfg = loader.load_configuration("config", asked, RunMode.RUN, from_shell=False)
    except HydraException as error:
        raise Refused(f"measure: {name} with {', '.join(written)}: {one_line(innermost(error))}") from error
    return (f"{name}({','.join(written)})" if written else name), build(cfg, "estimator", name)


def reference_and_rivals(cfg: DictConfig) -> tuple[dict[str, Estimator], dict[str, Estimator]]:
    r"""The reference and the rivals that the config names, by label.

    Rivals ``all`` are those of every config, ``worth_trying`` those with all settings that their classes name so.
    """
    named = estimators_known() if cfg.measure.rivals in EVERY_RIVAL else plain_value(cfg.measure.rivals)
    if cfg.measure.rivals == "worth_trying":
        named = [entry for name in named for entry in worth_trying(name)]
    asked = [cfg.measure.reference] if cfg.measure.reference_draws else []
    named = [single for entry in named for single in each_setting(entry)]
    reference, rivals = (dict(build_by_name(entry) for entry in entries) for entries in (asked, named))
    if biased := [name for name, estimator in reference.items() if not estimator.unbiased]:
        raise Refused(f"measure.reference must be an unbiased estimator, got {biased[0]}")
    return reference, rivals


def worth_trying(name: str) -> list[dict]:
    r"""Entries of ``measure.rivals`` for the settings of an estimator that its class says are worth trying."""
    target = with_choice(GlobalHydra.instance().config_loader(), "estimator", name).estimator._target_
    settings: tuple[dict, ...] = getattr(located(target), "worth_trying", ({},))
    return [{name: setting} for setting in settings]


def each_setting(entry: str | dict) -> list[str | dict]:
    r"""An entry of ``measure.rivals`` for each combination of the values that its options list.

    An option whose default is a list lists values where each is a list.
    """
    if isinstance(entry, str):
        return [entry]
    ((name, settings),) = entry.items()
    values = []
    for key, value in settings.items():
        several = isinstance(value, list)
        if several and not all(isinstance(each, list) for each in value):
            default = with_choice(GlobalHydra.instance().config_loader(), "estimator", name).estimator.get(key)
            several = not OmegaConf.is_list(default)
        values.append(value if several else [value])
    return [{name: dict(zip(settings, chosen, strict=True))} for chosen in itertools.product(*values)]


def nest_and_try(task: Task, estimator: Estimator, batch: Tensor) -> None:
    r"""Nests an estimator in a task, and makes one forward pass, in which learned parts take their sizes.

    Raises:
        Refused: If estimator and task do not fit together, or the task's objective closes over its logits
            or couples examples.
    """
    try:
        task.nest(estimator)
    except ValueError as error:
        raise Refused(str(error)) from error
    name, problem = type(estimator).__name__, task.problem(batch)
    if not isinstance(problem, Problem):
        got = f"got {type(problem).__name__}"
        raise Refused(f"{type(task).__name__}.problem must return a hardmax.tasks.base.Problem, {got}")
    if estimator.target == "bound" and (isinstance(problem.penalty, Tensor) or problem.penalty):
        raise Refused(
            f"{name}: what it estimates is no bound once the task adds a penalty outside it "
            "(task.kl=sampled, where the task has it, adds none)"
        )
    try:
        estimator.eval()(problem.logits, problem.objective, problem.context, problem.log_q)
        check_objective(problem.logits, problem.objective)
    except (ValueError, TypeError) as error:
        raise Refused(f"{name}: {error}") from error
    estimator.train()


def check_outcomes(task: Task, estimator: Estimator, batch: Tensor) -> None:
    r"""Raises Refused if the outcomes of an estimator's discrete draws cannot be enumerated."""
    try:
        outcomes_of(task, estimator, task.problem(batch))
    except (ValueError, AssertionError) as error:
        raise Refused(f"measure.outcomes=true: {error}") from error


class Rivals:
    r"""Estimators that are measured beside the trained one; what they learn, they learn without touching the model.

    Before each measurement, those that learn take ``steps`` training steps of their own, at the parameters that the
    model has then, and their schedules move to the training step. In a task of several layers, a rival is used
    in all of them.

    Arguments:
        estimators: By label.
        optimizer: Makes an optimiser of learned parameters.
        steps: Of training before each measurement.
    """

    def __init__(self, estimators: dict[str, Estimator], optimizer: Callable, steps: int):
        self.estimators, self.steps = estimators, steps
        learned = {name: [p for p in e.parameters() if p.requires_grad] for name, e in estimators.items()}
        self.optimizers = {name: optimizer(parameters) for name, parameters in learned.items() if parameters}
        self.advanced = dict.fromkeys(estimators, 0)
        self.learned_at = dict.fromkeys(estimators, -1)

    def learn(self, name: str, task: Task, step: int, batches: Iterator[Tensor]) -> None:
        r"""Brings one of them to where training is after ``step`` optimiser steps, unless it is there already."""
        if self.learned_at[name] == step:
            return
        self.learned_at[name] = step
        estimator, optimizer = self.estimators[name], self.optimizers.get(name)
        learning = self.steps if estimator.learns else 0
        for _ in range(step - learning - self.advanced[name]):
            self.advance(name)
        with frozen(task), task.using(estimator):
            for batch in itertools.islice(batches, learning):
                problem = task.problem(batch)
                leaf = problem.logits.detach().requires_grad_()
                cost = estimator(leaf, problem.objective, problem.context, problem.log_q).mean() / task.nats_divisor
                if optimizer is not None:
                    optimizer.zero_grad()
                    cost.backward()
                    optimizer.step()
                self.advance(name)

    def advance(self, name: str) -> None:
        estimator = self.estimators[name]
        for each in (estimator, *getattr(estimator, "inner", ())):
            each.advance()
        self.advanced[name] += 1

    def state_dict(self) -> dict:
        r"""Everything that they go on from."""
        return {
            "estimators": {name: estimator.state_dict() for name, estimator in self.estimators.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "advanced": dict(self.advanced),
            "learned_at": dict(self.learned_at),
        }

    def load_state_dict(self, state: dict) -> None:
        for part in ("estimators", "optimizers"):
            for name, own in getattr(self, part).items():
                own.load_state_dict(state[part][name])
        self.advanced, self.learned_at = dict(state["advanced"]), dict(state["learned_at"])


class Measuring:
    r"""Takes the gradient statistics that a config asks for, and leaves training as it is.

    Arguments:
        cfg: The whole config.
        task, estimator: On their device; what learns in them has its size.
        batches: Makes an endless iterator over training batches from a seed.
        reference, rivals: From :func:`reference_and_rivals`.
        optimizer: Makes an optimiser of a rival's learned parameters.
        device: Where to compute.

    Raises:
        Refused: If a reference or a rival does not fit the task; with ``rivals=all`` or
            ``worth_trying`` those that do not fit are left out, with a note.
    """

    def __init__(
        self,
        cfg: DictConfig,
        task: Task,
        estimator: Estimator,
        batches: Callable[[int], Iterator[Tensor]],
        reference: dict[str, Estimator],
        rivals: dict[str, Estimator],
        optimizer: Callable,
        device: torch.device,
    ):
        self.cfg, self.seed, self.task, self.estimator, self.device = cfg.measure, cfg.seed, task, estimator, device
        self.batch, self.batches, self.reference = task.measurement_batch(cfg.batch_size), batches, reference
        fitting = {}
        with forked_random(device, self.seed, 0, Stream.FIT):
            if cfg.measure.outcomes:
                check_outcomes(task, estimator, self.batch)
            for name, other in [*reference.items(), *rivals.items()]:
                try:
                    with task.using(estimator):  # afterwards the trained one's nested copies are back in the task
                        nest_and_try(task, other.to(device), self.batch)
                        if cfg.measure.outcomes:
                            check_outcomes(task, other, self.batch)
                    fitting[name] = other
                except Refused as error:
                    if self.cfg.rivals not in EVERY_RIVAL or name in reference:
                        raise Refused(f"measure: {error}") from error
                    print(f"left out of the rivals: {name} ({error})", file=sys.stderr)
        rivals = {name: rival for name, rival in rivals.items() if name in fitting}
        self.rivals = Rivals(rivals, optimizer, self.cfg.rival_steps)
        decay = self.cfg.running_decay
        self.running = RunningVariance(task.encoder_parameters(), decay) if decay else None

    def measure_all(self, step: int) -> tuple[dict, dict]:
        r"""Statistics after ``step`` optimiser steps, and the seconds that one draw took, by name."""
        task, cfg = self.task, self.cfg
        with forked_random(self.device, self.seed, step, Stream.TRUTH):
            # Once: what is random in it is the same for the truth and for all estimators.
            problem = task.problem(self.batch)
            name, reference = next(iter(self.reference.items()), ("", None))
            truth = truth_of(task, problem, name, reference, cfg.reference_draws)
        found, own_seconds = self.measure_one(self.estimator, problem, truth, step)
        seconds = {"seconds": own_seconds}
        if cfg.batches:
            with forked_random(self.device, self.seed, step, Stream.NOISES):
                batches = itertools.islice(self.batches(step), cfg.batches)
                found |= {f"encoder/{k}": v for k, v in noise_by_source(task, self.estimator, batches, 2).items()}
        for name, rival in self.rivals.estimators.items():
            with forked_random(self.device, self.seed, step, Stream.LEARN):
                self.rivals.learn(name, task, step, self.batches(step))
            of_rival, seconds[f"rivals/{name}/seconds"] = self.measure_one(rival, problem, truth, step)
            found |= {f"rivals/{name}/{k}": v for k, v in of_rival.items()}
        return found, seconds

    def measure_one(self, estimator: Estimator, problem: Problem, truth: Truth | None, step: int) -> tuple[dict, float]:
        r"""Statistics of one estimator, and the seconds that one draw took; all of them get the same random stream."""
        with forked_random(self.device, self.seed, step, Stream.MEASURE):
            start = self.now()
            if self.cfg.outcomes:
                found = measure_outcomes(self.task, estimator, problem, self.cfg.draws, truth)
            else:
                found = measure(self.task, estimator, problem, self.cfg.draws, truth, self.cfg.precision)
            seconds, draws = self.now() - start, found["draws"]
            assert draws is not None
            return found, seconds / draws

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def after_step(self) -> None:
        r"""Takes in the gradients of a training step."""
        if self.running is not None:
            self.running.update()

    def running_statistics(self) -> dict:
        r"""Statistics of the training steps so far."""
        return {} if self.running is None else {f"encoder/{k}": v for k, v in self.running.statistics().items()}

    def state_dict(self) -> dict:
        r"""Everything that measuring goes on from."""
        return {"rivals": self.rivals.state_dict()} | ({} if self.running is None else self.running.state_dict())

    def load_state_dict(self, state: dict) -> None:
        self.rivals.load_state_dict(state["rivals"])
        if self.running is not None:
            self.running.load_state_dict(state)
