r"""What is done with a composed config: it is checked, identified and built from."""

import hashlib
import importlib.util
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, overload

import torch
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hardmax.estimators import Estimator
from hardmax.paths import CONFIGS
from hardmax.tasks.base import Task

from .names import meant
from .online import wandb_mode
from .options import EVERY_RIVAL, Budget, Options, what_is_expected
from .shared import (
    NEW_OPTIONS,
    NOT_RESULTS,
    Refused,
    innermost,
    nearest,
    one_line,
    said_once,
    some_of,
    without_new_settings,
)
from .sources import CODE_GROUPS, config_of, located, targets_in, why_not_located

LARGEST_VALUES = {"threads": 1024, "seed": 2**32 - 1}  # of options; other integers: sys.maxsize


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
    lowest |= {"patience": 0, "checkpoint_every": 0, "valid.every": 0, "measure.every": 0, "measure.draws": 2}
    lowest |= {"measure.reference_draws": 0, "measure.batches": 0, "measure.rival_steps": 0}
    for key, low in lowest.items():
        if not low <= (value := OmegaConf.select(cfg, key)):
            kind = "a number" if isinstance(value, float) else "an integer"
            raise Refused(f"{key} must be {kind} of at least {low}, got {value}")
        if isinstance(value, int) and value > (most := LARGEST_VALUES.get(key, sys.maxsize)):
            raise Refused(f"{key} must be at most {most}, got {value}")
    if cfg.budget == Budget.small and cfg.experiment is None:
        raise Refused("budget=small is for experiments: choose one with experiment=NAME")
    if cfg.stop_after is not None and not 1 <= cfg.stop_after <= cfg.steps:
        raise Refused(f"stop_after must be a step from 1 to the {cfg.steps} of steps, or null, got {cfg.stop_after}")
    if cfg.patience and not cfg.valid.every:
        raise Refused(f"patience={cfg.patience} counts validations, and valid.every=0 has none along training")
    check_measure(cfg.measure)
    check_own_targets(cfg)
    check_loggers(cfg)
    wandb_mode(cfg.wandb.mode and cfg.wandb.mode.value)
    if not cfg.output:
        raise Refused("output must name a folder, got nothing")
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
    check_device(cfg.device)


def check_device(device: str) -> None:
    r"""Refuses a device that does not exist, or is not there."""
    if device in ("auto", "cpu"):
        return
    if not re.fullmatch(r"cuda(:\d{1,3})?", device):
        raise Refused(f"device must be auto, cpu, cuda or a GPU such as cuda:1, got {device}")
    if not torch.cuda.is_available():
        raise Refused(f"device={device}: no CUDA device was found; accepted here: auto, cpu")
    if (torch.device(device).index or 0) >= (count := torch.cuda.device_count()):
        there = ", ".join(f"cuda:{i}" for i in range(count))
        raise Refused(f"device={device} is not there; accepted here: auto, cpu, cuda, {there}")


def check_own_targets(cfg: DictConfig) -> None:
    r"""Refuses a ``_target_`` that is no class or function, and a choice without one."""
    for group in CODE_GROUPS:
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
                raise Refused(f"{key}={target}: {why_not_located(target, error)}") from error
            if not callable(found):
                raise Refused(f"{key}={target}: it is no class or function")


def check_loggers(cfg: DictConfig) -> None:
    r"""Refuses a logger that is none, or whose extra is not installed."""
    chosen = plain_value(cfg.logger)
    for name, settings in chosen.items() if isinstance(chosen, dict) else [(str(chosen), None)]:
        if name == "wandb":
            continue
        target = settings.get("_target_") if isinstance(settings, dict) else None
        if target is None:
            raise Refused(f"logger={name}: the name of one choice, or a list of such, is expected")
        try:
            needed = located(target).needs
        except Exception as error:
            raise Refused(f"logger.{name}._target_={target}: {why_not_located(target, error)}") from error
        if needed and importlib.util.find_spec(needed) is None:
            raise Refused(f"logger={name} needs an extra: pip install -e '.[{name}]'")


def check_interpolations(cfg: DictConfig) -> None:
    r"""Refuses ``${...}`` that stands for nothing, or for itself."""
    try:
        OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise Refused(f"{error.full_key or 'an option'}: {what_is_expected(one_line(error))}") from error
    except RecursionError as error:
        raise Refused("circular interpolation: an option refers to itself through ${...}") from error


def check_measure(cfg: DictConfig) -> None:
    r"""Refuses what :func:`check` does, among the options of gradient statistics."""
    for key in ("batches", "reference_draws"):
        if cfg[key] == 1:
            raise Refused(f"measure.{key} must be 0 or at least 2, got 1")
    if cfg.precision is not None and not 0 < cfg.precision < float("inf"):
        raise Refused(f"measure.precision must be a number above 0, or null, got {cfg.precision}")
    if not 0 <= cfg.running_decay < 1:
        raise Refused(f"measure.running_decay must be from 0 up to but not including 1, got {cfg.running_decay}")
    rivals = [] if cfg.rivals in EVERY_RIVAL else plain_value(cfg.rivals)
    names = [name_of_rival(rival) for rival in rivals] if isinstance(rivals, list) else [None]
    if None in names:
        accepted = f"{' or '.join(EVERY_RIVAL)}, or a list such as [arsm,{{reinforce:{{samples:4}}}}]"
        raise Refused(f"measure.rivals must be {accepted}, got {rivals}")
    for key, name in [("reference", cfg.reference), *(("rivals", name) for name in names)]:
        if name not in estimators_of_ours() and name not in (known := estimators_known()):
            hint = f"{meant(name, known, rival=True)}; there are: {some_of(known)}"
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
    for key in map(str, cfg.keys() - known.keys()):
        raise Refused(f"{prefix}{key} is no option{nearest(key, list(known), prefix)}")
    for key, kind in known.items():
        if isinstance(kind, type) and is_dataclass(kind):
            check_names(cfg[key], kind, f"{prefix}{key}.")


def device_of(cfg: DictConfig) -> torch.device:
    r"""The device that ``device`` stands for on this machine.

    Of several GPUs the jobs of a sweep take one each, in turns; which there are, ``CUDA_VISIBLE_DEVICES`` may say.
    """
    if cfg.device == "cpu" or (cfg.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if cfg.device not in ("auto", "cuda"):
        return torch.device(cfg.device)
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    if hydra is None or hydra.mode != RunMode.MULTIRUN or OmegaConf.is_missing(hydra.job, "num"):
        return torch.device("cuda")
    return torch.device("cuda", hydra.job.num % torch.cuda.device_count())


def label_of(cfg: DictConfig, group: str, choice: str) -> str:
    r"""What the estimator or task of a run is called: what its config file is, and no two are the same.

    Of a file of the user's own in a folder, the folder is part of it; where something else than what the file names is
    the ``_target_``, that is.
    """
    ours = (CONFIGS / group / f"{choice}.yaml").is_file()
    label = Path(choice).name if ours else choice.replace("/", ".")
    loader = GlobalHydra.instance().config_loader()
    assert isinstance(loader, ConfigLoaderImpl)
    own = loader.repository.load_config(f"{group}/{choice}")  # with no other's to compose
    if own is None:
        said = "--config-dir FOLDER, or config_dir=FOLDER in Python"
        raise Refused(f"{group}={choice}: in a folder of hydra.searchpath alone; name that with {said}")
    assert isinstance(own.config, DictConfig)
    named = own.config.get("_target_")
    target = named or config_of(loader, group, choice).get("_target_")
    if (given := cfg[group].get("_target_")) == target:
        return label
    return f"{label}-{str(given).removeprefix(f'hardmax.{group}s.')}"


def plain_config(cfg: DictConfig) -> dict:
    r"""The resolved config as plain dictionaries, lists, strings and numbers, from which the run's parts can be built.

    The folder in which the files of one of the project's own data sets were found is left out: they are the same
    wherever they lie.
    """
    config = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    assert isinstance(config, dict)
    config["device"] = device_of(cfg).type
    for data in (config["data"], config["task"].get("data")):
        if isinstance(data, dict) and str(data.get("_target_")).startswith("hardmax.tasks."):
            data.pop("folder", None)
    return config


def key_of(config: dict) -> str:
    r"""Eight hexadecimal digits that stand for everything in a plain config that can change results."""
    told = without_new_settings(said_once(config))
    identity = {k: as_numbers(v) for k, v in told.items() if k not in NOT_RESULTS and not is_new(k, v)}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]


def is_new(key: str, value: Any) -> bool:
    r"""Whether a setting is one that came after the first runs, and has the value at which they are what they were."""
    return key in NEW_OPTIONS and value == NEW_OPTIONS[key]


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


@overload
def build(cfg: DictConfig, group: Literal["task"], choice: str, given: Sequence[str] = ()) -> Task: ...
@overload
def build(cfg: DictConfig, group: Literal["estimator"], choice: str, given: Sequence[str] = ()) -> Estimator: ...
@overload
def build(cfg: DictConfig, group: Literal["schedule"], choice: str) -> Callable[[float], float]: ...
def build(cfg: DictConfig, group: str, choice: str, given: Sequence[str] = ()) -> object:
    r"""The estimator, task or schedule that a config node describes, chosen and set by the overrides ``given``.

    Raises:
        Refused: In one line, if the class is not there or does not accept the arguments.
    """
    try:
        return instantiate(cfg[group], _convert_="all")
    except Exception as error:
        raise Refused(why_not_built(cfg, group, choice, given, error)) from error


def why_not_built(cfg: DictConfig, group: str, choice: str, given: Sequence[str], error: Exception) -> str:
    r"""Why :func:`build` failed, with the name of the option if the error has it, else with what was given."""
    cause, node, place = innermost(error), cfg[group], f"{group}={choice}"
    text = one_line(cause)
    if group == "task" and re.search(r"full_key: (task\.)?data$", str(error)):
        prefix, node = "data" if OmegaConf.is_interpolation(node, "data") else "task.data", node.data
        if re.match(r"\w*", text)[0] in node:  # type: ignore[index]
            text = f"{prefix}.{text}"
        elif isinstance(cause, TypeError):  # of its arguments; all else says itself what it is about
            place += f": {prefix}"
    elif not any(re.search(rf"\b{re.escape(str(key))}\b", text) for key in node):
        settings = [o.lstrip("+").removeprefix(f"{group}.") for o in given if o.lstrip("+").startswith(f"{group}.")]
        place += f" with {', '.join(settings)}" * bool(settings)
    return f"{place}: {text}" + f"; it takes: {arguments_of(node)}" * isinstance(cause, TypeError)


def arguments_of(node: DictConfig) -> str:
    r"""The arguments that the class behind a config node takes, as a list in words."""
    try:
        return ", ".join(inspect.signature(located(node._target_)).parameters) or "no arguments"
    except Exception:
        return "what its class takes"
