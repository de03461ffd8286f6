r"""The command line: composes the config, refuses what is wrong in one line, and starts a run or a sweep."""

import os
import sys
import warnings

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from hardmax.paths import CONFIGS, ROOT

from . import options
from .jobs import CheckSweep, one_of_many, sweep_of_job
from .output import drop_what_cannot_be_written
from .pause import Stopped
from .refusals import FULL_ERROR, check_arguments, debugging, exit_with, is_of_a_run, with_flags_first
from .run import run_from_config
from .shared import Refused, one_line

warnings.filterwarnings("ignore", r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")


def job(cfg: DictConfig) -> float | None:
    r"""One run, or one of a sweep, which goes on with the others whatever becomes of this one.

    What a trial of a search is judged by is returned.
    """
    if HydraConfig.get().mode == RunMode.MULTIRUN and (sweep := sweep_of_job()):
        return one_of_many(cfg, sweep)
    try:
        refuse_options_of_sweeps()
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


def refuse_options_of_sweeps() -> None:
    r"""Refuses what says how the jobs of a sweep run, where there is none: it would be passed over."""
    of_sweeps = ("hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweeper", "hydra.sweep.")
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.RUN and (
        stray := [o for o in hydra.overrides.hydra if o.lstrip("+").startswith(of_sweeps)]
    ):
        raise Refused(f"{stray[0]} is about the jobs of a sweep: with -m")


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
    drop_what_cannot_be_written()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing
    sys.path.append(os.getcwd())  # for estimators and tasks of the user's own
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))  # so that a launcher's jobs run this very code
    options.register()
    CheckSweep.sweep = None
    try:
        try:
            sys.argv[1:] = with_flags_first(sys.argv[1:])
            check_arguments(sys.argv[1:])
            hydra.main(config_path=str(CONFIGS), config_name="config", version_base="1.3")(job)()
        except BaseException as error:
            if not ends_sweep(error):
                raise
        if CheckSweep.sweep and (code := CheckSweep.sweep.sum_up()):
            sys.exit(code)
    except Exception as error:
        if FULL_ERROR or (debugging() and is_of_a_run(error)):
            raise
        exit_with(error)
    finally:
        if CheckSweep.sweep:
            CheckSweep.sweep.end()
