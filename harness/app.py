r"""The command line: composes the config, refuses what is wrong in one line, runs, and sums up."""

import contextlib
import json
import os
import signal
import sys
import traceback
import warnings
from enum import Enum
from pathlib import Path

import hydra
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override

from hardmax.paths import CONFIGS, ROOT
from hydra_plugins.hardmax_rows import jobs

from . import memory, options
from .checkpoints import Unreadable
from .gradients import forked_random
from .measuring import asked_for
from .options import Refused
from .pause import REQUEUE, Pause, Stopped, end_with_parent
from .refusals import FULL_ERROR, check_arguments, debugging, fail, in_a_job, refusal
from .shared import CHECKPOINT, CHECKPOINT_BEFORE, FAILED, FIGURES, FINISHED, NotWritten, writing
from .sweep import THIS_PROCESS, Sweep
from .tracking import Tracker, changed_since, fill_in_names, locked, new_folder, runs_of
from .train import SHOW, State, prepare, train

warnings.filterwarnings("ignore", r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")


class CheckSweep(Callback):
    r"""Refuses a sweep in which any job's options are refused, before the first job starts.

    Of a search, whose values are not known yet, the ends of its ranges are looked at.
    """

    sweep: Sweep | None = None  # that this process runs, if any

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        loader, sweeper = GlobalHydra.instance().config_loader(), config.hydra.sweeper
        parser, asked = OverridesParser.create(loader), as_asked(config.hydra)
        trials, arguments = sweeper.get("n_trials"), sys.argv[1:]
        try:
            check_plugins(config.hydra)
            overrides = parser.parse_overrides(asked)
            if trials:
                asked = [ends(o) for o in overrides]
            elif found := [o for o in overrides if o.is_interval_sweep()]:
                raise Refused(f"{found[0].input_line} is a range to search: with hydra/sweeper=search")
            batch = jobs(sweeper.get("rows"), None if trials else sweeper.get("params"), asked, parser)
            for arguments in batch:
                cfg = loader.load_sweep_config(config, arguments)
                with flag_override(cfg, ["struct", "readonly"], False):
                    del cfg["hydra"]  # as for a job
                options.check(cfg)
        except Exception as error:  # Hydra would only warn
            fail(error, arguments)
        varied = {o.get_key_element() for o in parser.parse_overrides(asked) if o.is_sweep_override()}
        CheckSweep.sweep = Sweep(Path(config.hydra.sweep.dir))
        CheckSweep.sweep.begin(trials or len(batch), varied, searching=bool(trials))


def check_plugins(cfg: DictConfig) -> None:
    r"""Refuses a launcher or sweeper of an extra that is not installed, and a search that is none."""
    for part, extra in (("launcher", "ray"), ("sweeper", "optuna")):
        if cfg[part].get("_target_") not in Plugins.instance().class_name_to_class:
            choice = cfg.runtime.choices[f"hydra/{part}"]
            raise Refused(f"hydra/{part}={choice} needs an extra: pip install -e '.[{extra}]'")
    direction = cfg.sweeper.get("direction", "maximize")
    if (direction.name if isinstance(direction, Enum) else direction) != "maximize":
        raise Refused("hydra.sweeper.direction must be maximize, as hydra/sweeper=search has it")
    for key in ("n_trials", "n_jobs"):
        value = cfg.sweeper.get(key, 1)
        if not isinstance(value, int) or value < 1:
            raise Refused(f"hydra.sweeper.{key} must be an integer of at least 1, got {value}")


def ends(override: Override) -> str:
    r"""An override of a search with both ends of its range in place of it; others as they are."""
    value = override.value()
    if isinstance(value, IntervalSweep):
        return f"{override.get_key_element()}={value.start},{value.end}"
    return override.input_line


def as_asked(cfg: DictConfig) -> list[str]:
    r"""The overrides of the command line, or of a job, as they were written."""
    return OmegaConf.to_container(cfg.overrides.task, resolve=False)


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


def one_of_many(cfg: DictConfig) -> float | None:
    r"""A job of a sweep: its outcome is noted, and nothing is raised; the merit of a trial that ended well."""
    sweep, number = Sweep(Path(HydraConfig.get().sweep.dir)), HydraConfig.get().job.num
    about, overrides, merit = sweep.about(), as_asked(HydraConfig.get()), None
    if about["process"] != THIS_PROCESS:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches the sweep's process as well
        sys.argv = about["command"]
        end_with_parent()
    try:
        if sweep.stopping():
            outcome = {"status": "stopped", "reason": "not begun"}
        else:
            sweep.note(number, overrides, {"status": "running"})
            status, folder = run(cfg, sweep)
            outcome = {"status": status, "reason": None}
            if about["searching"]:
                merit = merit_of(cfg, folder)
    except Stopped as error:
        outcome = {"status": "stopped", "reason": str(error)}
        if about["process"] == THIS_PROCESS:  # one job after the other: the others are not to begin
            sweep.stop(error.number)
        elif error.number == REQUEUE:
            try:
                signal.raise_signal(error.number)  # the queue starts the job again, and ends this process
            except Exception as why:  # it does not
                outcome["reason"] = options.one_line(why)
    except Elsewhere as error:
        outcome = {"status": "running elsewhere", "reason": str(error)}
    except Exception as error:
        outcome = {"status": "failed", "reason": refusal(error) or f"{type(error).__name__}: {options.one_line(error)}"}
        if not isinstance(error, Refused | NotWritten):
            path = sweep.folder / f"job-{number}.traceback.txt"
            path.write_text(traceback.format_exc())
            outcome["traceback"] = str(path)
    sweep.note(number, overrides, outcome)
    return merit


def merit_of(cfg: DictConfig, folder: Path) -> float:
    r"""What a search maximises, of a finished run: its last value, or minus it, of the first figure with a direction.

    Raises:
        Refused: If there is no such figure on the validation split.
    """
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = {key: value for row in rows for key, value in row.items() if value is not None}
    for name, about in json.loads((folder / FIGURES).read_text()).items():
        if about["better"] and f"valid/{name}" in last:
            return last[f"valid/{name}"] * (1 if about["better"] == "higher" else -1)
    raise Refused(f"{cfg.task._target_} has no figure to search by: its `figures` say of none what is better")


class Elsewhere(Refused):
    r"""Another process works on the run."""


def run(cfg: DictConfig, sweep: Sweep | None = None) -> tuple[str, Path]:
    r"""One run: from a composed config to a folder with its figures; ``done`` or ``finished before``, and folder."""
    options.check(cfg)
    torch.set_num_threads(cfg.threads)
    memory.keep_freed_memory()
    chosen = HydraConfig.get().runtime.choices
    labels = {"task": Path(chosen["task"]).name, "estimator": Path(chosen["estimator"]).name, "seed": cfg.seed}
    config, code = options.plain(cfg), options.code_of(cfg)
    fill_in_names(config, labels, as_asked(HydraConfig.get()), sweep.about() if sweep else None)
    place = (cfg.output, labels["task"], labels["estimator"], cfg.seed, options.key_of(config))
    before = [] if cfg.fresh else runs_of(*place)
    if before and (summary := summary_of(before[-1])):
        return finished_before(before[-1], code, labels, summary)
    device = options.device_of(cfg)
    torch.manual_seed(cfg.seed)
    task = options.build(cfg, "task", labels["task"])
    estimator = options.build(cfg, "estimator", labels["estimator"])
    state = prepare(cfg, task, estimator, device, *asked_for(cfg))
    folder = before[-1] if before else new_folder(*place)
    with locked(folder) as free:
        if not free:
            raise Elsewhere(f"another process works on {folder}")
        if summary := summary_of(folder):  # by that other process, just now
            return finished_before(folder, code, labels, summary)
        sizes = go_on_from(folder, state, code, cfg)
        tracker = Tracker(folder, config, labels, device, code, sizes)
        tracker.describe(task.figures)
        saved = state.step

        def save():
            nonlocal saved
            if state.is_finite():  # else the next row says so, and the last checkpoint stays
                with writing(folder):
                    state.save(folder, tracker.sizes())
                saved = state.step

        exit_code = 1
        try:
            with Pause(save, cfg.checkpoint_every, sweep.stopping if sweep else lambda: False) as pause:
                figures = train(state, cfg, tracker.log, pause)
            with forked_random(device, cfg.seed, state.step, SHOW):
                tracker.keep(task.show())
            summary = {
                "parameters": sum(p.numel() for p in task.parameters()),
                "estimator_parameters": sum(p.numel() for p in estimator.parameters()),
                "steps": state.step,
                "seconds": round(state.seconds, 3),
                "evaluations": state.evaluations,
                **figures,
            }
            tracker.finish(summary)
            (folder / CHECKPOINT_BEFORE).unlink(missing_ok=True)
            exit_code = 0
        except Stopped:
            print(f"\ninterrupted after step {state.step}; the same command goes on in {folder}", file=sys.stderr)
            raise
        except NotWritten as error:
            kept = f"what was saved at step {saved} is kept, and the same command goes on from there"
            gone = "the run's folder is gone, and what was in it is lost; the same command begins anew"
            raise NotWritten(f"{error} (at step {state.step}); {kept if folder.is_dir() else gone}") from error
        except Exception as error:
            with contextlib.suppress(OSError):
                (folder / FAILED).write_text(traceback.format_exc())
                error.add_note(f"traceback: {folder / FAILED}")
            raise
        finally:
            tracker.close(exit_code)
    print_summary(folder, labels, summary, tracker.mode)
    return "done", folder


def summary_of(folder: Path) -> dict | None:
    r"""Final figures of a finished run; None if it has not finished, or has lost them or rows since."""
    try:
        found = json.loads((folder / FINISHED).read_text())
        whole = all(size_of(folder / name) >= size for name, size in found.get("sizes", {}).items())
    except (FileNotFoundError, ValueError, AttributeError):
        return None
    return found if whole else None


def finished_before(folder: Path, code: dict[str, str], labels: dict, summary: dict) -> tuple[str, Path]:
    r"""Shows a finished run again, unless other code would be behind it now."""
    if changed := changed_since(folder, code):
        raise Refused(f"{folder} was finished by other code ({changed}): fresh=true runs it again")
    print(f"finished already: {folder} (fresh=true runs it again, in a new folder)")
    print_summary(folder, labels, summary)
    return "finished before", folder


def go_on_from(folder: Path, state: State, code: dict[str, str], cfg: DictConfig) -> dict[str, int] | None:
    r"""Restores the state of an unfinished run; the sizes of its files then, or None if it has no checkpoint yet.

    Raises:
        Refused: If the code has changed since, a failed run is not to be retried, or no checkpoint can be read.
    """
    saved = [path for name in (CHECKPOINT, CHECKPOINT_BEFORE) if (path := folder / name).is_file()]
    if saved and (changed := changed_since(folder, code)):
        raise Refused(f"{folder} was begun by other code ({changed}): fresh=true begins anew")
    if (folder / FAILED).is_file():
        if not cfg.retry:
            text = (folder / FAILED).read_text(errors="replace").strip().splitlines()
            reason = text[-1] if text else "its reason is lost"
            where = "goes on from its last checkpoint" if saved else "begins it again"
            raise Refused(f"{folder} has failed before ({reason}): retry=true {where}")
        (folder / FAILED).unlink()
    problems = []
    for path in saved:
        try:
            sizes = state.load(path)
            if sizes.keys() != set(Tracker.FILES) or state.step > cfg.steps:
                raise Unreadable(f"{path} is no checkpoint of this run")
            if short := [name for name, size in sizes.items() if size_of(folder / name) < size]:
                raise Unreadable(f"{path} is newer than what is left of {short[0]}")
        except Unreadable as error:
            problems.append(str(error))
            continue
        if problems:
            print(f"{problems[0]}: the one before it is taken", file=sys.stderr)
        print(f"going on from step {state.step} in {folder}")
        return sizes
    if problems:
        raise Refused(f"{'; '.join(problems)}: it cannot go on, and fresh=true begins anew")
    return None


def size_of(path: Path) -> int:
    r"""Bytes of a file, 0 if it is not there."""
    return path.stat().st_size if path.is_file() else 0


def print_summary(folder: Path, labels: dict, summary: dict, mode: str | None = None) -> None:
    r"""One screen about a finished run."""
    rate = summary["steps"] / max(summary["seconds"], 1e-9)
    lines = [
        f"{labels['estimator']} on {labels['task']}, seed {labels['seed']}",
        f"  parameters   {summary['parameters']:,} of the model, {summary['estimator_parameters']:,} of the estimator",
        f"  training     {summary['steps']:,} steps in {summary['seconds']:.1f} s ({rate:.0f} per second), "
        f"{summary['evaluations'] / summary['steps']:g} evaluations of the objective per example and step",
        *(f"  {name:<12} {value:.5g}" for name, value in summary.items() if name.startswith("test/")),
        f"  folder       {folder}",
    ]
    if mode:
        sync = {"offline": "wandb sync {}/offline-run-*", "incomplete": "wandb sync --include-online {}/run-*"}.get(
            mode
        )
        lines.append(f"  W&B          {mode}" + (f" (upload: {sync.format(folder / 'wandb')})" if sync else ""))
    print("\n".join(lines), flush=True)


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
