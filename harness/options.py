r"""The options at the top level of the config: their types, what they mean, and which values are accepted."""

import hashlib
import inspect
import json
import os
import sys
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, get_args

import torch
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from hardmax.paths import CONFIGS

from .shared import NOT_RESULTS, Refused, nearest, said_once
from .sources import GROUPS, config_of, located, targets_in

MOST = {"threads": 1024, "seed": 2**32 - 1}  # values of options; of other integers, what a machine's word holds


class Device(Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class WandbMode(Enum):
    online = "online"
    offline = "offline"
    disabled = "disabled"


class Budget(Enum):
    full = "full"
    small = "small"


def option(default: Any, help: str) -> Any:
    return field(default_factory=lambda: default, metadata={"help": help})


@dataclass
class Valid:
    every: int = option(500, "steps between evaluations on the validation split; 0: only before and after training")


@dataclass
class Measure:
    every: int = option(500, "steps between gradient statistics; 0: none")
    draws: int = option(100, "independent gradient draws M behind each statistic, at least 2")
    precision: float | None = option(
        None, "go on beyond draws, until the standard error of variances is at most this share of them"
    )
    reference: str = option("local_expectation", "unbiased estimator behind biases where no gradient is exact")
    reference_draws: int = option(0, "draws of the reference; 0: no bias where no gradient is exact")
    batches: int = option(0, "minibatches behind minibatch and total noise, two draws each, at least 2; 0: none")
    running_decay: float = option(0.0, "decay of running moments along training, 0.999 in papers; 0: none")
    rivals: Any = option([], "other estimators to measure: a list such as [arsm,{reinforce:{samples:4}}], or all")
    rival_steps: int = option(100, "training steps of rivals that learn, before each measurement")


@dataclass
class Wandb:
    mode: WandbMode | None = option(None, "online, offline or disabled; null: WANDB_MODE, else online where possible")
    project: str = option("hardmax", "W&B project")
    entity: str | None = option(None, "W&B user or team; null: your default")
    group: str | None = option(None, "W&B group; null: one for the runs that differ in their seed alone")
    tags: list[str] = option([], "W&B tags, such as [first,second]; task and estimator are added")


@dataclass
class Options:
    experiment: str | None = option(None, "published experiment whose settings these are; experiment=NAME chooses one")
    budget: Budget = option(Budget.full, "of an experiment: full, as published, or small, a stated share of the steps")
    seed: int = option(0, "seed of the model, the data order and the draws")
    steps: int = option(5000, "optimiser steps")
    batch_size: int = option(100, "examples per step")
    device: Device = option(Device.auto, "auto, cpu or cuda")
    threads: int = option(1, "CPU threads; results differ in the last bits between thread counts")
    output: str = option("output", "folder under which every run makes its own")
    fresh: bool = option(False, "run again, in a new folder, what has already finished")
    retry: bool = option(False, "go on with a run that has failed, from its last checkpoint")
    checkpoint_every: float = option(60.0, "seconds between checkpoints")
    name: str | None = option(None, "name of the run; null: task, estimator, seed, key and what a sweep varies")
    notes: str | None = option(None, "free text kept with the run")
    log_every: int = option(50, "steps between rows of the training loss")
    compile: bool = option(False, "compile the training step with torch.compile, for long runs")
    detect_anomaly: bool = option(False, "let PyTorch look for the operation that made a NaN (slow)")
    valid: Valid = field(default_factory=Valid)
    measure: Measure = field(default_factory=Measure)
    wandb: Wandb = field(default_factory=Wandb)
    estimator: Any = MISSING
    task: Any = MISSING
    optimizer: Any = MISSING
    schedule: Any = MISSING
    data: Any = None  # chosen by the tasks that take data


def help_lines(schema: type = Options, prefix: str = "") -> list[str]:
    r"""One line for each option: its name, default and meaning."""
    lines = []
    for f in fields(schema):
        if isinstance(f.type, type) and is_dataclass(f.type):
            lines += help_lines(f.type, f"{prefix}{f.name}.")
        elif "help" in f.metadata:
            default = f.default_factory()
            default = "null" if default is None else default.value if isinstance(default, Enum) else default
            default = str(default).lower() if isinstance(default, bool) else default
            lines.append(f"  {f'{prefix}{f.name}={default}':<38} {f.metadata['help']}")
    return lines


HELP = """\
hardmax: gradients through categorical choices. One run, or with -m a sweep:

  python run.py estimator=arsm task=dvae seed=3
  python run.py -m estimator=reinforce,arsm seed=1,2,3 hydra/launcher=joblib
  python run.py -m experiment=yin2019_figure1      (a published experiment; budget=small for a part of its steps)
  python run.py --cfg job --resolve      (every option, without running)

Groups (write group=choice, and group.option=value for what a choice takes):

$APP_CONFIG_GROUPS
Where the jobs of a sweep run, and a search in place of one:

hydra/launcher: joblib, ray, serial, slurm, submitit_local
hydra/sweeper: search

Options:

{options}
  optimizer.lr                           learning rate of the model
  optimizer.estimator_lr                 learning rate of an estimator's learned parts; null: the model's
  schedule.*                             how the model's learning rate changes in the course of a run
  data.*                                 binarisation, folder of the files, number of validation images (valid)
  task.variables, task.categories        latent size: K variables of C categories
"""


def register() -> None:
    r"""Makes the schema and the help text known to Hydra."""
    OmegaConf.register_new_resolver("by_budget", by_budget, replace=True)
    store = ConfigStore.instance()
    store.store(name="options", node=Options)
    template = HELP.format(options="\n".join(help_lines()))
    store.store(group="hydra/help", name="hardmax", node={"app_name": "hardmax", "template": template})


def by_budget(full: Any, small: Any, *, _root_: DictConfig) -> Any:
    r"""What ``${by_budget:FULL,SMALL}`` in a config stands for, according to ``budget``."""
    return small if _root_.budget == Budget.small else full


def check(cfg: DictConfig) -> None:
    r"""Refuses unknown options, missing values, and numbers out of range, by the name of the option.

    Raises:
        Refused: With the option, its value and what is accepted.
    """
    check_interpolations(cfg)
    check_names(cfg)
    if missing := sorted(OmegaConf.missing_keys(cfg)):
        raise Refused(f"{missing[0]} must be given: {missing[0]}=VALUE")
    lowest = {"seed": 0, "steps": 1, "batch_size": 1, "threads": 1, "log_every": 1}
    lowest |= {"checkpoint_every": 0, "valid.every": 0, "measure.every": 0, "measure.draws": 2}
    lowest |= {"measure.reference_draws": 0, "measure.batches": 0, "measure.rival_steps": 0}
    for key, low in lowest.items():
        if not low <= (value := OmegaConf.select(cfg, key)):
            kind = "a number" if isinstance(value, float) else "an integer"
            raise Refused(f"{key} must be {kind} of at least {low}, got {value}")
        if isinstance(value, int) and value > (most := MOST.get(key, sys.maxsize)):
            raise Refused(f"{key} must be at most {most}, got {value}")
    if cfg.budget == Budget.small and cfg.experiment is None:
        raise Refused("budget=small is for experiments: choose one with experiment=NAME")
    check_measure(cfg.measure)
    check_targets(cfg)
    wandb_mode(cfg.wandb.mode)
    place = next(p for p in (Path(cfg.output), *Path(cfg.output).parents) if p.exists())
    if not place.is_dir():
        raise Refused(f"output={cfg.output}: {place} is a file, where a folder is needed")
    if not os.access(place, os.W_OK):
        raise Refused(f"output={cfg.output}: {place} cannot be written to")
    project = cfg.wandb.project
    if not 1 <= len(project) <= 128 or set(project) & set("/\\#?%:"):
        raise Refused(
            f"wandb.project must be 1 to 128 characters long and have none of / \\ # ? % : in it, got {project!r}"
        )
    for tag in cfg.wandb.tags:
        if not 1 <= len(tag) <= 64:
            raise Refused(f"wandb.tags must be 1 to 64 characters long each, got {tag!r}")
    if cfg.device == Device.cuda and not torch.cuda.is_available():
        raise Refused("device=cuda: no CUDA device was found; accepted here: auto, cpu")


def check_targets(cfg: DictConfig) -> None:
    r"""Refuses a ``_target_`` that is no class or function, and a choice without one."""
    for group in GROUPS:
        node = plain_value(cfg[group])
        if not isinstance(node, dict):
            if group != "data" or node is not None:
                raise Refused(f"{group}={node}: the name of one choice is expected")
            continue
        if "_target_" not in node:
            raise Refused(f"{group}._target_ must be given: {group}._target_=CLASS")
        for key, target in targets_in(node, group):
            if isinstance(target, str) and "${" in target:
                continue  # it stands for one that is looked at elsewhere
            if not isinstance(target, str) or not target:
                raise Refused(f"{key} must be the name of a class, such as module.Class, got {target!r}")
            try:
                found = located(target)
            except Exception as error:
                raise Refused(f"{key}={target}: {one_line(innermost(error))}") from error
            if not callable(found):
                raise Refused(f"{key}={target}: it is no class or function")


def wandb_mode(asked: WandbMode | str | None) -> str | None:
    r"""What ``wandb.mode`` says, or else ``WANDB_MODE``, in the words of the former; None if neither does.

    Raises:
        Refused: If ``WANDB_MODE`` is none, whatever the option, as W&B itself looks at it.
    """
    words = {"": None, "dryrun": "offline", "run": "online", **{name: name for name in WandbMode.__members__}}
    given = os.environ.get("WANDB_MODE", "")
    if given not in words:
        raise Refused(f"WANDB_MODE={given}: one of {', '.join(WandbMode.__members__)} is expected")
    return words[given] if asked is None else getattr(asked, "value", asked)


def check_interpolations(cfg: DictConfig) -> None:
    r"""Refuses ``${...}`` that stands for nothing, or for itself."""
    try:
        OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise Refused(f"{error.full_key or 'an option'}: {one_line(error)}") from error
    except RecursionError as error:
        raise Refused("an option stands for something that it is itself a part of: ${...}") from error


def check_measure(cfg: DictConfig) -> None:
    r"""Refuses what :func:`check` does, among the options of gradient statistics."""
    for key in ("batches", "reference_draws"):
        if cfg[key] == 1:
            raise Refused(f"measure.{key} must be 0 or at least 2, got 1")
    if cfg.precision is not None and not 0 < cfg.precision < float("inf"):
        raise Refused(f"measure.precision must be a number above 0, or null, got {cfg.precision}")
    if not 0 <= cfg.running_decay < 1:
        raise Refused(f"measure.running_decay must be from 0 up to but not including 1, got {cfg.running_decay}")
    rivals = [] if cfg.rivals == "all" else plain_value(cfg.rivals)
    names = [name_of_rival(rival) for rival in rivals] if isinstance(rivals, list) else [None]
    if None in names:
        raise Refused(f"measure.rivals must be all, or a list such as [arsm,{{reinforce:{{samples:4}}}}], got {rivals}")
    for key, name in [("reference", cfg.reference), *(("rivals", name) for name in names)]:
        if name not in estimators_of_ours() and name not in (known := estimators_known()):
            hint = f"{nearest(name, known)}; there are: {', '.join(known)}"
            raise Refused(f"measure.{key}: {name} does not exist{hint}")


def name_of_rival(entry: Any) -> str | None:
    r"""The estimator's name in an entry of ``measure.rivals``, ``NAME`` or ``{NAME: {option: value}}``; else None."""
    if isinstance(entry, dict) and len(entry) == 1:
        ((name, settings),) = entry.items()
        return name if isinstance(settings, dict) else None
    return entry if isinstance(entry, str) else None


def plain_value(value: Any) -> Any:
    r"""A part of a config as plain lists and dictionaries."""
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def estimators_known() -> list[str]:
    r"""Names of all estimators that have a config, the user's own included."""
    if GlobalHydra.instance().is_initialized():
        return sorted(GlobalHydra.instance().config_loader().get_group_options("estimator"))
    return estimators_of_ours()


@cache
def estimators_of_ours() -> list[str]:
    r"""Names of the project's own estimators that have a config."""
    return sorted(p.stem for p in (CONFIGS / "estimator").glob("*.yaml"))


def check_names(cfg: DictConfig, schema: type = Options, prefix: str = "") -> None:
    r"""Refuses options that the schema does not have, and the absence of one that it has."""
    known = {f.name: f.type for f in fields(schema)}
    for key in known.keys() - cfg.keys():
        raise Refused(f"{prefix}{key} must be given: {prefix}{key}=VALUE")
    for key in cfg.keys() - known.keys():
        raise Refused(f"{prefix}{key} is no option{nearest(key, list(known), prefix)}")
    for key, kind in known.items():
        if is_dataclass(kind):
            check_names(cfg[key], kind, f"{prefix}{key}.")


def device_of(cfg: DictConfig) -> torch.device:
    r"""The device that ``device`` stands for on this machine."""
    if cfg.device == Device.auto:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(cfg.device.value)


def label_of(cfg: DictConfig, group: str, choice: str) -> str:
    r"""What the estimator or task of a run is called: what its config file is, and no two are the same.

    Of a file of the user's own in a folder, the folder is part of it; where something else than what the file names is
    the ``_target_``, that is.
    """
    ours = (CONFIGS / group / f"{choice}.yaml").is_file()
    label = Path(choice).name if ours else choice.replace("/", ".")
    loader = GlobalHydra.instance().config_loader()
    named = loader.repository.load_config(f"{group}/{choice}").config.get("_target_")  # with no other's to compose
    target = named or config_of(loader, group, choice).get("_target_")
    if (given := cfg[group].get("_target_")) == target:
        return label
    return f"{label}-{str(given).removeprefix(f'hardmax.{group}s.')}"


def plain(cfg: DictConfig) -> dict:
    r"""The resolved config as plain dictionaries, lists, strings and numbers, from which the run's parts can be built.

    The folder in which the files of one of the project's own data sets were found is left out: they are the same
    wherever they lie.
    """
    config = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True) | {"device": device_of(cfg).type}
    for data in (config["data"], config["task"].get("data")):
        if isinstance(data, dict) and str(data.get("_target_")).startswith("hardmax.tasks."):
            data.pop("folder", None)
    return config


def key_of(config: dict) -> str:
    r"""Eight hexadecimal digits that stand for everything in a plain config that can change results."""
    identity = {k: as_numbers(v) for k, v in said_once(config).items() if k not in NOT_RESULTS}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]


def as_numbers(value: Any) -> Any:
    r"""A part of a plain config in which whole numbers are integers: 1.0 is 1."""
    match value:
        case dict():
            return {key: as_numbers(part) for key, part in value.items()}
        case list():
            return [as_numbers(part) for part in value]
        case float() if value.is_integer():
            return int(value)
    return value


def build(cfg: DictConfig, group: str, choice: str) -> nn.Module:
    r"""The estimator or task that a config node describes.

    Raises:
        Refused: In one line, if the class is not there or does not accept the arguments.
    """
    try:
        return instantiate(cfg[group], _convert_="all")
    except Exception as error:
        cause = innermost(error)
        arguments = arguments_of(cfg[group])
        hint = f"; it takes: {arguments}" if isinstance(cause, TypeError) else ""
        raise Refused(f"{group}={choice}: {one_line(cause)}{hint}") from error


def arguments_of(node: DictConfig) -> str:
    r"""The arguments that the class behind a config node takes, as a list in words."""
    try:
        return ", ".join(inspect.signature(located(node._target_)).parameters) or "no arguments"
    except Exception:
        return "what its class takes"


def expected(key: str) -> str | None:
    r"""What an option of the schema accepts, in words; None for one of a group."""
    schema = Options
    for part in key.split("."):
        found = {f.name: f.type for f in fields(schema)} if is_dataclass(schema) else {}
        schema = found.get(part)
    if is_dataclass(schema):
        return f"it has options of its own: {', '.join(f'{key}.{f.name}' for f in fields(schema))}"
    types = [schema, *get_args(schema)]
    for kind in types:
        if isinstance(kind, type) and issubclass(kind, Enum):
            return f"one of {', '.join(kind.__members__)} is expected"
    words = {
        int: "an integer",
        float: "a number",
        bool: "true or false",
        str: "text",
        list[str]: "a list such as [first,second]",
    }
    return next((f"{words[kind]} is expected" for kind in types if kind in words), None)


def innermost(error: BaseException) -> BaseException:
    r"""The exception at the bottom of a chain of causes."""
    while (cause := error.__cause__ or (None if error.__suppress_context__ else error.__context__)) is not None:
        error = cause
    return error


def one_line(error: BaseException) -> str:
    r"""The first paragraph of an exception's text in one line."""
    paragraph = str(error).strip().split("\n\n")[0].split("\n    full_key: ")[0]  # the rest is OmegaConf's internals
    return " ".join(paragraph.split()) or type(error).__name__
