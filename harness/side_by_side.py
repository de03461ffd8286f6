r"""Estimators side by side at given parameters, of a finished run or of a config: what ``measure.py`` measures."""

import os
import sys
from pathlib import Path

import hydra
import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from hardmax.gradients import WHERE
from hardmax.paths import CONFIGS, HOME
from hardmax.reporting.runs import saved_config

from . import memory, options
from .measuring import asked_for
from .options import Refused
from .refusals import FULL_ERROR, fail
from .shared import CHECKPOINT
from .train import prepare

RIVALS = [
    "reinforce",
    {"reinforce": {"samples": 4, "baseline": "leave_one_out"}},
    *("arsm", "rebar", "straight_through", "gumbel_softmax", "st_gumbel_softmax", "gumbel_rao", "reinmax", "zgr"),
]  # unless others are asked for
REFERENCE_DRAWS = 100
WITH_FOLDER = ("measure.", "device=", "threads=")


def measure(arguments: list[str]) -> tuple[list[dict], str, Path]:
    r"""What the command line asks for: a row for each estimator and place, the task, and the folder for the figures.

    What is refused, or fails, ends the program with one line.
    """
    sys.path.append(os.getcwd())  # for estimators and tasks of the user's own
    options.register()
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        try:
            cfg, chosen, folder = config_of(arguments)
            torch.set_num_threads(cfg.threads)
            memory.keep_freed_memory()
            rows = compare(cfg, chosen, folder)
        except Exception as error:
            if FULL_ERROR:
                raise
            fail(error)
    return rows, chosen["task"], folder or Path(cfg.output) / "measured" / chosen["task"]


def config_of(arguments: list[str]) -> tuple[DictConfig, dict[str, str], Path | None]:
    r"""The config, what was chosen from its groups, and the run's folder, if one is given first.

    Raises:
        Refused: If the folder holds no finished run, or does not go with an option.
    """
    folder = Path(arguments[0]) if arguments and "=" not in arguments[0] else None
    overrides = arguments[folder is not None :]
    cfg = hydra.compose("config", overrides, return_hydra_config=True)
    chosen = {group: Path(str(choice)).name for group, choice in cfg.hydra.runtime.choices.items()}
    OmegaConf.set_readonly(cfg, False)
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    if not any(o.startswith("measure.rivals=") for o in overrides):
        cfg.measure.rivals = [r for r in RIVALS if folder is not None or r != chosen["estimator"]]
    if not any(o.startswith("measure.reference_draws=") for o in overrides):
        cfg.measure.reference_draws = REFERENCE_DRAWS
    if folder is not None:
        if not all((folder / name).is_file() for name in ("config.yaml", CHECKPOINT)):
            raise Refused(f"{folder}: no folder of a finished run (config.yaml and {CHECKPOINT})")
        if other := [o for o in overrides if not o.startswith(WITH_FOLDER)]:
            raise Refused(f"{other[0]}: beside a run's folder only measure, device and threads can be given")
        try:
            saved = saved_config(folder)
            chosen = {key: str(saved["choices"][key]) for key in ("task", "estimator")}
            for key in ("task", "estimator", "optimizer", "seed", "batch_size"):
                cfg[key] = saved[key]
        except (ValueError, KeyError, TypeError):
            raise Refused(f"{folder / 'config.yaml'} cannot be read, or is not a run's") from None
        check_targets([saved.get(key) for key in ("task", "estimator", "optimizer", "data")], folder)
        if saved.get("data") is not None:
            cfg.data = saved["data"]
            cfg.task.setdefault("data", saved["data"])  # it is said once, at the top
    options.check(cfg)
    return cfg, chosen, folder


def check_targets(config: object, folder: Path) -> None:
    r"""Looks at what a saved config would call, as its folder may come from anyone.

    Raises:
        Refused: If that is neither an estimator, a task nor an optimiser, nor of a module of the user's own, which lies
            where the command is given.
    """
    if isinstance(config, list):
        for entry in config:
            check_targets(entry, folder)
    if isinstance(config, str) and "${" in config:  # saved configs are resolved
        raise Refused(f"{folder / 'config.yaml'}: {config} is no value")
    if not isinstance(config, dict):
        return
    if (target := config.get("_target_")) is not None:
        try:
            module = get_object(target).__module__
        except Exception as error:
            raise Refused(f"{folder / 'config.yaml'}: {target}: {options.one_line(error)}") from None
        root = module.partition(".")[0]
        own = any(Path(name).exists() for name in (root, f"{root}.py")) and not (HOME / root).exists()
        if not own and not f"{module}.".startswith(
            ("hardmax.estimators.", "hardmax.tasks.", "torch.optim.", "hardmax.harness.schedules.")
        ):
            raise Refused(f"{folder / 'config.yaml'}: {target} is neither an estimator, a task nor an optimiser")
    for entry in config.values():
        check_targets(entry, folder)


def compare(cfg: DictConfig, chosen: dict[str, str], folder: Path | None) -> list[dict]:
    r"""Statistics of the config's estimator and of its rivals: a row for each, and for logits and encoder."""
    device = options.device_of(cfg)
    torch.manual_seed(cfg.seed)
    task = options.build(cfg, "task", chosen["task"])
    estimator = options.build(cfg, "estimator", chosen["estimator"])
    state = prepare(cfg, task, estimator, device, *asked_for(cfg))
    if folder is not None:
        state.load_parameters(folder / CHECKPOINT)
    found, seconds = state.measuring.take(state.step)
    rows = []
    for name in [None, *state.measuring.rivals.estimators]:
        prefix = "" if name is None else f"rivals/{name}/"
        label = name or chosen["estimator"] + (" (trained)" if folder else "")
        of_one = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
        common = {"estimator": label, "where": None, "step": state.step, "seconds": seconds[f"{prefix}seconds"]}
        common |= {k: of_one[k] for k in ("draws", "evaluations", "objective_gradients")}
        common |= {k: v for k, v in found.items() if k.startswith("truth/")}
        for where in WHERE:
            of_where = {k.removeprefix(f"{where}/"): v for k, v in of_one.items() if k.startswith(f"{where}/")}
            rows.append(common | {"where": where} | of_where)
    return rows
