r"""The jobs of a sweep: all are looked at before the first starts, and each goes on whatever becomes of the others."""

import json
import os
import shutil
import signal
import sys
import traceback
from enum import Enum
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, Quote, QuotedString
from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from hydra_plugins.hydra_joblib_launcher.config import JobLibLauncherConf
from omegaconf import DictConfig, OmegaConf, flag_override
from tqdm import tqdm

from hardmax.files import write_whole
from hydra_plugins.hardmax_rows import Composed, best_of_each, final_jobs, jobs

from .config import check
from .folders import RunIsLocked
from .forecast import jobs_at_once, show_jobs
from .online import report_command
from .output import drop_what_cannot_be_written
from .pause import REQUEUE, Stopped, end_with_parent, stopped_by_queue
from .refusals import exit_with, user_error_line
from .run import command_line_overrides, run_from_config
from .shared import FIGURES, FINISHED, NotWritten, Refused, one_line
from .sweep import THIS_PROCESS, Sweep
from .wandb_sweep import sweep_file

OPTUNA = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"
SEARCH = "hydra_plugins.hardmax_search.Search"
A_COUNT, A_DICT = "an integer of at least 1", 'a dictionary such as {seed:"2,3"}'
DICTS = "a list of dictionaries such as [{estimator:arsm,optimizer.lr:0.001}]"
OPTION_NAMES = "a list of options such as [estimator.temperature]"
SWEEPERS_TAKE = {  # what, and whether null is taken too
    "n_trials": (A_COUNT, False),
    "n_jobs": (A_COUNT, False),
    "max_batch_size": (A_COUNT, True),
    "params": (A_DICT, True),
    "finals": (A_DICT, True),
    "rows": (DICTS, True),
    "optional": (OPTION_NAMES, False),
}
SLURM = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"


class CheckSweep(Callback):
    r"""Refuses a sweep in which any job's options are refused, before the first job starts.

    Of a search, whose values are not known yet, the ends of its ranges are looked at.
    """

    sweep: Sweep | None = None  # that this process runs, if any
    only_shows = ""  # jobs, or the file of a sweep run by W&B; empty where jobs run
    report = ""  # the command that reports on the sweep

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        loader, sweeper = GlobalHydra.instance().config_loader(), config.hydra.sweeper
        parser, asked = OverridesParser.create(loader), command_line_overrides(config.hydra)
        trials, arguments = sweeper.get("n_trials"), sys.argv[1:]
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray hides the GPUs from its jobs
        assert isinstance(loader, ConfigLoaderImpl)
        try:
            check_plugins(config.hydra, bool(CheckSweep.only_shows))
            overrides = parser.parse_overrides(asked)
            if trials:
                asked = [range_endpoints(o) for o in overrides]
            elif found := [o for o in overrides if o.is_interval_sweep()]:
                raise Refused(f"{found[0].input_line} is a range to search: with hydra/sweeper=search")
            sweep = Sweep(fixed_folder(config))
            composed, params = Composed(loader, config), None if trials else sweeper.get("params")
            rows, optional, finals = sweeper.get("rows"), sweeper.get("optional", ()), sweeper.get("finals")
            batch = jobs(asked, composed, rows, params, optional, sweeper.get("space"))
            after = final_jobs(best_of_each(batch, [0.0] * len(batch)), finals, parser) if finals else []
            searches = len({tuple(line for line in job if line.startswith("estimator=")) for job in batch})
            batch += after  # with whichever settings come to be the best
            configs = []
            for arguments in tqdm(batch, "checking", unit="job", leave=False, disable=None):
                cfg = composed.config(arguments)
                check(cfg)
                configs += [cfg] * bool(CheckSweep.only_shows)
            if CheckSweep.only_shows == "file":
                if trials or after:
                    raise Refused("--wandb-sweep takes a grid: without hydra/sweeper=search and hydra.sweeper.finals")
                print(sweep_file(batch, configs[0]), end="")
                sys.exit(0)
            if CheckSweep.only_shows:
                at_once, count = jobs_at_once(config.hydra.launcher), trials and trials * searches + len(after)
                if trials:
                    over = " ".join(command_line_overrides(config.hydra))
                    last = f", and {len(after)} runs of the best," * bool(after)
                    print(f"{trials} trials of each of {searches} searches{last} over {over}")
                show_jobs(batch, configs, config.hydra.runtime.choices, at_once, count, len(after))
                sys.exit(0)
            tune = ["--tune"] * bool(trials or finals or sweeper.get("space"))
            CheckSweep.report = report_command(str(config.output), *tune)
            varied = {o.get_key_element() for o in parser.parse_overrides(asked) if o.is_sweep_override()}
            varied |= set() if trials else varied_among(batch)
            sweep.begin(
                trials * searches + len(after) if trials else len(batch),
                varied,
                searching=bool(trials),
                finals=bool(finals),
            )
        except Exception as error:  # Hydra would only warn
            exit_with(error, arguments)
        CheckSweep.sweep = sweep


def varied_among(batch: list[list[str]]) -> set[str]:
    r"""Options in which jobs of one task and estimator differ."""
    seen: dict[tuple, list[dict]] = {}
    for job in batch:
        settings = dict(line.split("=", 1) for line in job if "=" in line)
        seen.setdefault((settings.get("task"), settings.get("estimator")), []).append(settings)
    keys = {key for alike in seen.values() for settings in alike for key in settings}
    return {key for key in keys if any(len({settings.get(key) for settings in alike}) > 1 for alike in seen.values())}


def first_job(overrides: list[str]) -> tuple[list[str], list[str]]:
    r"""The overrides of the first job of a sweep, and those of its command line that they replace.

    There are none of a search, whose values are not known. To be called where Hydra has been initialised.
    """
    loader = GlobalHydra.instance().config_loader()
    assert isinstance(loader, ConfigLoaderImpl)
    config = loader.load_configuration("config", overrides, RunMode.MULTIRUN)
    sweeper, asked = config.hydra.sweeper, command_line_overrides(config.hydra)
    if sweeper.get("n_trials"):
        return [], []
    rows, params, optional, space = (sweeper.get(key) for key in ("rows", "params", "optional", "space"))
    return jobs(asked, Composed(loader, config), rows, params, optional or (), space)[0], asked


def fixed_folder(config: DictConfig) -> Path:
    r"""The folder of a sweep, fixed for its jobs: else they could take another, as where they vary ``output``."""
    folder = str(config.hydra.sweep.dir)
    quoted = QuotedString(folder, Quote.single).with_quotes()
    with flag_override(config.hydra, ["struct", "readonly"], False):
        config.hydra.sweep.dir = folder
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted}")
    return Path(folder)


def check_plugins(cfg: DictConfig, only_shows: bool = False) -> None:
    r"""Refuses a launcher or sweeper of an extra that is not installed, what is not honoured, a search that is none.

    Where jobs are only shown, a launcher that could not start them here is none the worse for it.
    """
    known = Plugins.instance().class_name_to_class
    for part, extra, needed in (("launcher", "ray", None), ("sweeper", "optuna", OPTUNA)):
        target = cfg[part].get("_target_")
        if target not in known or (target == SEARCH and needed not in known):
            choice = cfg.runtime.choices[f"hydra/{part}"]
            raise Refused(f"hydra/{part}={choice} needs an extra: pip install -e '.[{extra}]'")
    if cfg.launcher._target_ == "hydra_plugins.hardmax_joblib.Joblib":
        unchanged = JobLibLauncherConf(_target_=cfg.launcher._target_, n_jobs=cfg.launcher.n_jobs)
        if changed := [name for name, value in vars(unchanged).items() if cfg.launcher[name] != value]:
            raise Refused(f"hydra.launcher.{changed[0]} is not used: n_jobs alone says how many jobs run at once")
        if cfg.launcher.n_jobs == 0:
            few = "or negative: -1 for as many as there are cores, -2 for all but one"
            raise Refused(f"hydra.launcher.n_jobs must be an integer of at least 1, {few}; got 0")
    if cfg.launcher._target_ == SLURM and not only_shows and not shutil.which("srun"):
        others = "hydra/launcher=joblib, serial and submitit_local need no cluster"
        choice = cfg.runtime.choices["hydra/launcher"]
        raise Refused(f"hydra/launcher={choice} needs Slurm, whose srun was not found here; {others}")
    check_sweeper(cfg.sweeper)


def check_sweeper(sweeper: DictConfig) -> None:
    r"""Refuses a value that the sweeper can't take."""
    direction = sweeper.get("direction", "maximize")
    if (direction.name if isinstance(direction, Enum) else direction) != "maximize":
        raise Refused("hydra.sweeper.direction must be maximize, as hydra/sweeper=search has it")
    every = {key: sweeper[key] for key in SWEEPERS_TAKE if key in sweeper}
    texts = lambda value: OmegaConf.is_list(value) and all(isinstance(each, str) for each in value)
    for key, value in every.items():
        kind, optional = SWEEPERS_TAKE[key]
        fits = {
            A_COUNT: isinstance(value, int) and value >= 1,
            A_DICT: OmegaConf.is_dict(value),
            DICTS: OmegaConf.is_list(value) and all(OmegaConf.is_dict(row) for row in value),
            OPTION_NAMES: isinstance(value, str) or texts(value),
        }
        if not (fits[kind] or (optional and value is None)):
            raise Refused(f"hydra.sweeper.{key} must be {kind}{' or null' * optional}, got {value}")


def range_endpoints(override: Override) -> str:
    r"""An override of a search with both ends of its range in place of it; others as they are."""
    value = override.value()
    if isinstance(value, IntervalSweep):
        return f"{override.get_key_element()}={value.start},{value.end}"
    return str(override.input_line)


def sweep_of_job() -> Sweep | None:
    r"""The sweep that this process works for, or None if nothing is known of one."""
    sweep = CheckSweep.sweep or Sweep(Path(HydraConfig.get().sweep.dir))
    return sweep if sweep.known() or sweep.begun else None


def one_of_many(cfg: DictConfig, sweep: Sweep) -> float | None:
    r"""A job of a sweep: its outcome is noted, and nothing is raised; the merit of a trial that ended well."""
    number = HydraConfig.get().job.num
    about, overrides, merit = sweep.about(), command_line_overrides(HydraConfig.get()), None
    if about["process"] != THIS_PROCESS:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches the sweep's process as well
        sys.argv = about["command"]
        drop_what_cannot_be_written()
        end_with_parent()
    outcome: dict[str, str | None]
    try:
        if sweep.stopping():
            outcome = {"status": "stopped", "reason": "not begun"}
        else:
            sweep.note(number, overrides, {"status": "running"})
            with stopped_by_queue():
                status, folder = run_from_config(cfg, sweep)
            outcome = {"status": status, "reason": None}
            if about["searching"] or about["finals"]:
                merit = merit_of(cfg, folder)
    except Stopped as error:
        outcome = {"status": "stopped", "reason": str(error)}
        if about["process"] == THIS_PROCESS:  # one job after the other: the others are not to begin
            sweep.stop(error.number)
        elif error.number == REQUEUE:
            try:
                signal.raise_signal(error.number)  # the queue starts the job again, and ends this process
            except Exception as why:  # it does not
                outcome["reason"] = one_line(why)
    except RunIsLocked as error:
        outcome = {"status": "running elsewhere", "reason": str(error)}
    except Exception as error:
        outcome = {"status": "failed", "reason": user_error_line(error) or f"{type(error).__name__}: {one_line(error)}"}
        if not isinstance(error, Refused | NotWritten):
            path = sweep.folder / f"job-{number}.traceback.txt"
            write_whole(path, traceback.format_exc())
            outcome["traceback"] = str(path)
    sweep.note(number, overrides, outcome)
    return merit


def merit_of(cfg: DictConfig, folder: Path) -> float:
    r"""What a search maximises, of a finished run: the last value, or minus it, of its first figure with a direction.

    Raises:
        Refused: If there is no such figure on the validation split.
    """
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    last = {key: value for row in rows for key, value in row.items() if value is not None}
    last |= {k: v for k, v in json.loads((folder / FINISHED).read_text("utf-8")).items() if k.startswith("valid/")}
    for name, about in json.loads((folder / FIGURES).read_text("utf-8")).items():
        if about["better"] and f"valid/{name}" in last:
            return last[f"valid/{name}"] * (1 if about["better"] == "higher" else -1)
    raise Refused(
        f"{cfg.task._target_} has no figure to search by: `figures` declares none of the validation split's as better "
        "when higher or lower"
    )
