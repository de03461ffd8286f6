r"""One run: from a composed config to a folder with its figures."""

import contextlib
import json
import sys
import traceback
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from hardmax.gradients import Stream, forked_random

from . import memory, options
from .checkpoints import Unreadable
from .folders import fill_in_names, locked, new_folder, runs_of
from .measuring import asked_for
from .options import Refused
from .pause import Pause, Stopped
from .shared import CHECKPOINT, CHECKPOINT_BEFORE, FAILED, FINISHED, NotWritten, writing
from .sweep import Sweep
from .tracking import Tracker, changed_since
from .train import State, prepare, train


class RunIsLocked(Refused):
    r"""Another process works on the run."""


def run(cfg: DictConfig, sweep: Sweep | None = None) -> tuple[str, Path]:
    r"""One run: from a composed config to a folder with its figures; ``done`` or ``finished before``, and folder."""
    options.check(cfg)
    torch.set_num_threads(cfg.threads)
    memory.keep_freed_memory()
    chosen = HydraConfig.get().runtime.choices
    labels = {"task": Path(chosen["task"]).name, "estimator": Path(chosen["estimator"]).name, "seed": cfg.seed}
    config, code = options.plain(cfg), options.code_of(cfg)
    fill_in_names(config, labels, command_line_overrides(HydraConfig.get()), sweep.about() if sweep else None)
    groups = {group.partition("@")[0]: name for group, name in chosen.items()}
    labels |= {group: Path(groups[group]).name for group in ("data", "optimizer", "schedule") if groups.get(group)}
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
            raise RunIsLocked(f"another process works on {folder}")
        if summary := summary_of(folder):  # by that other process, just now
            return finished_before(folder, code, labels, summary)
        sizes = resume(folder, state, code, cfg)
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
            with forked_random(device, cfg.seed, state.step, Stream.SHOW):
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


def resume(folder: Path, state: State, code: dict[str, str], cfg: DictConfig) -> dict[str, int] | None:
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


def command_line_overrides(cfg: DictConfig) -> list[str]:
    r"""The overrides of the command line, or of a job, as they were written."""
    return OmegaConf.to_container(cfg.overrides.task, resolve=False)
