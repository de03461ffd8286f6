r"""Estimators side by side at given parameters, of a finished run or of a config: what ``measure.py`` measures."""

import os
import sys
from pathlib import Path
from typing import NoReturn

import hydra
import torch
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from hardmax.gradients import WHERE
from hardmax.paths import CONFIGS

from . import memory, options
from .config import build, check, device_of
from .contents import saved_config
from .measuring import reference_and_rivals
from .online import downloaded_model
from .refusals import FULL_ERROR, check_arguments, exit_with, flags_parser, with_flags_first
from .run import command_line_overrides
from .shared import CHECKPOINT, Refused
from .train import prepare

RIVALS = [
    "reinforce",
    {"reinforce": {"samples": 4, "baseline": "leave_one_out"}},
    *("arsm", "rebar", "straight_through", "stochastic_straight_through"),
    *("gumbel_softmax", "st_gumbel_softmax", "gumbel_rao", "reinmax", "zgr"),
]  # unless others are asked for
REFERENCE_DRAWS = 100
WITH_FOLDER = ("measure.", "device=", "threads=")
BUILT_GROUPS = ("estimator", "task", "optimizer", "data")  # of configs that name what is built from a run's folder


def measure_command() -> tuple[list[dict], str, Path] | None:
    r"""What the command line asks for: a row for each estimator and place, the task, and the folder for the figures.

    None if Hydra was asked for something else, such as ``--cfg job``. What is refused, or fails, ends the program with
    one line.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing
    options.register()
    found: list[tuple[list[dict], str, Path]] = []

    def job(cfg: DictConfig) -> None:
        try:
            cfg, chosen = config_to_measure(cfg, folder)
            torch.set_num_threads(cfg.threads)
            memory.keep_freed_memory()
            to = folder or Path(cfg.output) / "measured" / chosen["task"]
            if to.exists() and not os.access(to, os.W_OK):
                raise Refused(f"{to} cannot be written to, and the figures go there")
            found.append((measure_side_by_side(cfg, chosen, folder), chosen["task"], to))
        except Exception as error:
            end_with(error)

    try:
        folder, arguments = folder_apart(with_flags_first(sys.argv[1:]))
        check_arguments(arguments)
        sys.argv[1:] = arguments
        hydra.main(config_path=str(CONFIGS), config_name="config", version_base="1.3")(job)()
    except Exception as error:
        end_with(error)
    return found[0] if found else None


def end_with(error: Exception) -> NoReturn:
    r"""Ends the program with one line, or with the traceback if that is asked for."""
    if FULL_ERROR:
        raise error
    exit_with(error)


def folder_apart(arguments: list[str]) -> tuple[Path | None, list[str]]:
    r"""The run's folder, if one is given or a run at W&B is, and all other arguments.

    Raises:
        Refused: If it is more than one, or a sweep.
    """
    found = flags_parser().parse_args(arguments)
    if found.multirun:
        raise Refused("-m: measure.py puts estimators side by side by itself: measure.rivals=[NAME,NAME]")
    of_wandb = lambda word: word.startswith("wandb:")
    words = [
        word
        for word in found.overrides
        if of_wandb(word) or Path(word).is_dir() or not ("=" in word or word[:1] == "~")
    ]
    if len(words) > 1:
        raise Refused(f"{words[1]}: one run's folder is measured at a time, and {words[0]} is given")
    if not words:
        return None, arguments
    at = len(arguments) - 1 - arguments[::-1].index(words[0])  # flags, which may say the same, come first
    folder = downloaded_model(words[0].removeprefix("wandb:")) if of_wandb(words[0]) else Path(words[0])
    return folder, arguments[:at] + arguments[at + 1 :]


def config_to_measure(cfg: DictConfig, folder: Path | None) -> tuple[DictConfig, dict[str, str]]:
    r"""The config to measure by, and what was chosen from its groups; with a run's folder, those of the run.

    Raises:
        Refused: If the folder holds no finished run, or does not go with an option.
    """
    overrides, choices = command_line_overrides(HydraConfig.get()), HydraConfig.get().runtime.choices
    chosen = {group: Path(str(choice)).name for group, choice in choices.items()}
    OmegaConf.set_readonly(cfg, False)
    OmegaConf.set_struct(cfg, False)
    if not any(o.startswith("measure.rivals=") for o in overrides):
        cfg.measure.rivals = [r for r in RIVALS if folder is not None or r != chosen["estimator"]]
    if not any(o.startswith("measure.reference_draws=") for o in overrides):
        cfg.measure.reference_draws = REFERENCE_DRAWS
    if folder is None:
        sys.path.append(os.getcwd())  # for estimators and tasks of the user's own
    else:
        chosen = use_saved(cfg, folder, overrides)
    check(cfg)
    return cfg, chosen


def use_saved(cfg: DictConfig, folder: Path, overrides: list[str]) -> dict[str, str]:
    r"""Puts into a config what a run's folder says of the run; its ``task`` and ``estimator``.

    Raises:
        Refused: As :func:`config_to_measure`, or if the folder's config names anything to build that no config does.
    """
    if not all((folder / name).is_file() for name in ("config.yaml", CHECKPOINT)):
        raise Refused(f"{folder} is not the folder of a finished run: config.yaml or {CHECKPOINT} is missing")
    if other := [o for o in overrides if not o.startswith(WITH_FOLDER)]:
        raise Refused(f"{other[0]}: beside a run's folder only measure, device and threads can be given")
    try:
        saved = saved_config(folder)
        chosen = {key: str(saved["choices"][key]) for key in ("task", "estimator")}
        parts = {key: saved[key] for key in ("task", "estimator", "optimizer", "seed", "batch_size")}
    except (OSError, ValueError, KeyError, TypeError):
        raise Refused(f"{folder / 'config.yaml'} cannot be read, or is not a run's") from None
    parts["data"] = saved.get("data")
    sources = config_folders()
    check_saved_targets(parts, known_targets(sources), folder)
    if len(sources) > 1 and not holds(folder, chosen, Path.cwd()):
        sys.path.append(os.getcwd())  # for what the user's own configs name
    try:
        for key, part in parts.items():
            cfg[key] = part
    except ValueError:
        raise Refused(f"{folder / 'config.yaml'} cannot be read, or is not a run's") from None
    if cfg.data is not None:
        cfg.task.setdefault("data", cfg.data)  # it is said once, at the top
    return chosen


def config_folders() -> list[Path]:
    r"""Where configs are looked for: in this installation's own, and in those that the command line names."""
    sources = GlobalHydra.instance().config_loader().get_sources()
    return [Path(source.path) for source in sources if source.scheme() == "file"]


def known_targets(folders: list[Path]) -> set[str]:
    r"""What the configs in groups of these folders name as something to build."""

    def targets(node):
        if isinstance(node, dict):
            yield node.get("_target_")
        for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
            yield from targets(part)

    found = set()
    for path in (path for folder in folders for group in BUILT_GROUPS for path in (folder / group).rglob("*.yaml")):
        found.update(targets(yaml.safe_load(path.read_text(encoding="utf-8"))))
    return {target for target in found if isinstance(target, str)}


def check_saved_targets(config: object, known: set[str], folder: Path) -> None:
    r"""Looks at what a saved config would build, as its folder may come from anyone; nothing is imported.

    Raises:
        Refused: If that is not among the ``known``, or the config says in which folder of this machine files lie.
    """
    path = folder / "config.yaml"
    if isinstance(config, str) and "${" in config:  # saved configs are resolved
        raise Refused(f"{path}: {config} is an interpolation, and a saved config has none")
    if isinstance(config, dict):
        if "_target_" in config and str(config["_target_"]) not in known:
            named = "named by no config of this installation or of --config-dir"
            raise Refused(f"{path}: {config['_target_']} is {named}: it is not built")
        if str(config.get("_target_")).startswith("hardmax.") and config.get("folder") is not None:
            raise Refused(f"{path}: folder={config['folder']}: a saved config may not name a folder to read data from")
    for part in config.values() if isinstance(config, dict) else config if isinstance(config, list) else []:
        check_saved_targets(part, known, folder)


def holds(folder: Path, chosen: dict[str, str], place: Path) -> bool:
    r"""Whether a place lies within a run's folder, or within the output folder that has it."""
    folder = folder.resolve()
    whole = folder.parts[-3:-1] == (chosen["task"], chosen["estimator"])  # else it was moved
    return place.resolve().is_relative_to(folder.parents[2] if whole else folder)


def measure_side_by_side(cfg: DictConfig, chosen: dict[str, str], folder: Path | None) -> list[dict]:
    r"""Statistics of the config's estimator and of its rivals: a row for each, and for logits and encoder."""
    device = device_of(cfg)
    torch.manual_seed(cfg.seed)
    task = build(cfg, "task", chosen["task"])
    estimator = build(cfg, "estimator", chosen["estimator"])
    state = prepare(cfg, task, estimator, device, *reference_and_rivals(cfg))
    if folder is not None:
        state.load_parameters(folder / CHECKPOINT)
    found, seconds = state.measuring.measure_all(state.step)
    with torch.random.fork_rng():
        examples = task.problem(state.measuring.batch).logits.shape[:-2].numel()
    rows = []
    for name, of in [(None, estimator), *state.measuring.rivals.estimators.items()]:
        prefix = "" if name is None else f"rivals/{name}/"
        label = name or chosen["estimator"] + (" (trained)" if folder else "")
        of_one = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
        common = {"estimator": label, "where": None, "step": state.step, "seconds": seconds[f"{prefix}seconds"]}
        common |= {"unbiased": of.unbiased, "examples": examples}
        common |= {k: of_one[k] for k in ("draws", "evaluations", "objective_gradients")}
        common |= {k: v for k, v in of_one.items() if k.startswith("truth/")}
        for where in WHERE:
            of_where = {k.removeprefix(f"{where}/"): v for k, v in of_one.items() if k.startswith(f"{where}/")}
            if (mse := of_where.get("mse")) is not None:
                of_where |= {"mse_per_evaluation": mse * common["evaluations"]}
                of_where |= {"mse_per_second": mse * common["seconds"]}
            rows.append(common | {"where": where} | of_where)
    return rows
