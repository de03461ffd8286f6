r"""The command line: composes the config, refuses what is wrong in one line, and starts a run or a sweep."""

import os
import shlex
import sys
import warnings
from pathlib import Path

import hydra
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from hardmax.paths import CONFIGS, ROOT

from . import options
from .config import check
from .forecast import show_jobs
from .jobs import CheckSweep, first_job, one_of_many, sweep_of_job
from .output import begin_command
from .pause import Stopped
from .refusals import FULL_ERROR, check_arguments, debugging, exit_with, flags_parser, is_of_a_run, with_flags_first
from .run import command_line_overrides, run_from_config
from .shared import Refused, one_line

DRY_RUN, WANDB_SWEEP = "--dry-run", "--wandb-sweep"
SHOWS = {DRY_RUN: "jobs", WANDB_SWEEP: "file"}  # flags in place of a sweep
mode_composed = Hydra.get_mode
warnings.filterwarnings("ignore", r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")


def job(cfg: DictConfig) -> float | None:
    r"""One run, or one of a sweep, which goes on with the others whatever becomes of this one.

    What a trial of a search is judged by is returned.
    """
    if HydraConfig.get().mode == RunMode.MULTIRUN and (sweep := sweep_of_job()):
        return one_of_many(cfg, sweep)
    try:
        refuse_options_of_sweeps()
        if CheckSweep.only_shows == "file":
            raise Refused(f"{WANDB_SWEEP} prints the file of a sweep: with -m")
        if CheckSweep.only_shows:
            check(cfg)
            show_jobs([command_line_overrides(HydraConfig.get())], [cfg], HydraConfig.get().runtime.choices)
        else:
            run_from_config(cfg)
    except Stopped as error:
        sys.exit(128 + error.number)
    except KeyboardInterrupt:  # before or after training
        sys.exit(130)
    except Exception as error:
        if not debugging():
            exit_with(error)
        raise
    return None


def mode_named(hydra: Hydra, config_name: str | None, overrides: list[str]) -> RunMode | None:
    r"""The ``hydra.mode`` that a config names, for which Hydra composes the whole; none of the project's own does."""
    places = [place.path for place in hydra.config_loader.get_search_path().get_path()]
    elsewhere = places != ["pkg://hydra.conf", str(CONFIGS), "structured://"]
    if elsewhere or any(key in override for override in overrides for key in ("hydra.mode", "hydra.searchpath")):
        return mode_composed(hydra, config_name, overrides)
    return None


def refuse_options_of_sweeps() -> None:
    r"""Refuses what says how the jobs of a sweep run, where there is none: it would be passed over."""
    of_sweeps = ("hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweeper", "hydra.sweep.")
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.RUN and (
        stray := [o for o in hydra.overrides.hydra if o.lstrip("+").startswith(of_sweeps)]
    ):
        raise Refused(f"{stray[0]} is about the jobs of a sweep: with -m")


def one_by_one(arguments: list[str]) -> list[str]:
    r"""The arguments with those in ``settings='NAME=VALUE NAME=VALUE'``, which are one to a shell, each by itself.

    Raises:
        Refused: If a quote in such a text is not closed.
    """
    found = []
    for argument in arguments:
        name, _, value = argument.partition("=")
        try:
            found += shlex.split(value) if name == "settings" else [argument]
        except ValueError as error:
            raise Refused(f"{argument} cannot be read: {error}") from error
    return found


def of_experiment(arguments: list[str], flags: list[str]) -> list[str]:
    r"""The arguments with ``-m`` where its jobs are only shown, and for ``--cfg`` of one with its first job's options.

    Arguments:
        arguments: Of the command line, without ``flags``.
        flags: That ask for jobs to be shown only.

    Raises:
        Refused: If several things are to be shown.
    """
    given = flags_parser().parse_args(arguments)
    if len({*flags}) > 1 or (flags and (given.cfg or given.info or given.shell_completion)):
        raise Refused(f"{', '.join(SHOWS)} and --cfg, --info or --shell-completion: one of them at a time")
    if not any(override.startswith("experiment=") for override in given.overrides):
        return arguments
    if given.cfg and not given.multirun:
        place = [f"hydra.searchpath=[{Path(given.config_dir).resolve()}]"] if given.config_dir else []
        with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
            first, replaced = first_job([*given.overrides, *place])
        return [argument for argument in arguments if argument not in replaced] + first
    return ["-m", *arguments] if flags and not given.multirun else arguments


def ends_sweep(error: BaseException) -> bool:
    r"""Whether a sweep has begun, of which there is more to say than that it ended with the exception."""
    sweep = CheckSweep.sweep
    if sweep is None or sweep.stopping():
        return sweep is not None
    if FULL_ERROR or not isinstance(error, Exception):
        return False
    print(f"error: {type(error).__name__}: {one_line(error)[:500]}", file=sys.stderr)
    if not sweep.outcomes():
        sys.exit(2)  # the launcher began nothing
    return True


def main() -> None:
    r"""Entry point of ``run.py``."""
    begin_command()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing
    sys.path.append(os.getcwd())  # for estimators and tasks of the user's own
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))  # so that a launcher's jobs run this very code
    options.register()
    Hydra.get_mode = mode_named  # type: ignore[method-assign,assignment]
    flags = [argument for argument in sys.argv[1:] if argument in SHOWS]
    CheckSweep.sweep, CheckSweep.only_shows = None, SHOWS[flags[0]] if flags else ""
    sys.argv[1:] = [argument for argument in sys.argv[1:] if argument not in SHOWS]
    try:
        try:
            sys.argv[1:] = one_by_one(sys.argv[1:])
            sys.argv[1:] = with_flags_first(sys.argv[1:])
            check_arguments(sys.argv[1:])
            sys.argv[1:] = of_experiment(sys.argv[1:], flags)
            hydra.main(config_path=str(CONFIGS), config_name="config", version_base="1.3")(job)()
        except BaseException as error:
            if not ends_sweep(error):
                raise
        if CheckSweep.sweep:
            if (code := CheckSweep.sweep.sum_up()) in (0, 1):
                print(f"report: {CheckSweep.report}", flush=True)
            if code:
                sys.exit(code)
    except Exception as error:
        if FULL_ERROR or (debugging() and is_of_a_run(error)):
            raise
        exit_with(error)
    finally:
        if CheckSweep.sweep:
            CheckSweep.sweep.end()
