r"""The command line: composes the config, refuses what is wrong in one line, and starts a run or a sweep."""

import os
import sys
import warnings
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from hardmax.paths import CONFIGS, ROOT

from . import options
from .jobs import CheckSweep, one_of_many
from .pause import Stopped
from .refusals import FULL_ERROR, check_arguments, debugging, fail, in_a_job
from .run import run
from .sweep import Sweep

warnings.filterwarnings("ignore", r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")


def job(cfg: DictConfig) -> float | None:
    r"""One run, or one of a sweep, which goes on with the others whatever becomes of this one.

    What a trial of a search is judged by is returned.
    """
    if HydraConfig.get().mode == RunMode.MULTIRUN and Sweep(Path(HydraConfig.get().sweep.dir)).known():
        return one_of_many(cfg)
    try:
        run(cfg)
    except Stopped as error:
        sys.exit(128 + error.number)
    except KeyboardInterrupt:  # before or after training
        sys.exit(130)
    except Exception as error:
        if not debugging():
            fail(error)
        raise
    return None


def ends_sweep(error: BaseException) -> bool:
    r"""Whether a sweep has begun, of which there is more to say than that it ended with the exception."""
    sweep = CheckSweep.sweep
    if sweep is None or sweep.stopping():
        return sweep is not None
    if FULL_ERROR or not isinstance(error, Exception):
        return False
    print(f"error: {type(error).__name__}: {options.one_line(error)[:500]}", file=sys.stderr)
    if not sweep.outcomes():
        sys.exit(2)  # the launcher began nothing
    return True


def main() -> None:
    r"""Entry point of ``run.py``."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing
    sys.path.append(os.getcwd())  # for estimators and tasks of the user's own
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))  # so that a launcher's jobs run this very code
    options.register()
    CheckSweep.sweep = None
    try:
        try:
            check_arguments(sys.argv[1:])
            hydra.main(config_path=str(CONFIGS), config_name="config", version_base="1.3")(job)()
        except BaseException as error:
            if not ends_sweep(error):
                raise
        finally:
            if CheckSweep.sweep:
                CheckSweep.sweep.over.set()
        if CheckSweep.sweep and (code := CheckSweep.sweep.sum_up()):
            sys.exit(code)
    except Exception as error:
        if FULL_ERROR or (debugging() and in_a_job(error)):
            raise
        fail(error)
