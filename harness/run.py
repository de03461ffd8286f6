r"""One run: from a composed config to a folder with its figures."""

import contextlib
import json
import sys
import traceback
from pathlib import Path

import torch
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from hardmax.files import write_whole
from hardmax.gradients import Stream, forked_random
from hardmax.tasks.base import Task, wrong_figures

from . import memory
from .checkpoints import Unreadable
from .config import build, check, device_of, key_of, label_of, plain_config
from .folders import claimed, fill_in_names, keep_hydra, link_by_name, new_folder, runs_of
from .measuring import reference_and_rivals
from .online import upload_command
from .pause import Pause, Stopped
from .refusals import of_a_run
from .shared import CHECKPOINT, CHECKPOINT_BEFORE, FAILED, FINISHED, NotWritten, Refused, one_line, writing
from .sources import Opened, changed_since, code_of, hash_data, versions_since
from .state import State
from .sweep import Sweep
from .tracking import Tracker
from .train import prepare, train

SECONDS_FOR_ANOTHER_RUN = {"run": 10, "sweep": 1}  # to wait for another process that works on the same run


@of_a_run()
def run_from_config(cfg: DictConfig, sweep: Sweep | None = None) -> tuple[str, Path]:
    r"""One run: from a composed config to a folder with its figures; ``done`` or ``finished before``, and folder."""
    check(cfg)
    torch.set_num_threads(cfg.threads)
    memory.keep_freed_memory()
    chosen = HydraConfig.get().runtime.choices
    labels = {group: label_of(cfg, group, chosen[group]) for group in ("task", "estimator")}
    labels["seed"] = cfg.seed
    config, code = plain_config(cfg), code_of(cfg)
    overrides, about = command_line_overrides(HydraConfig.get()), sweep.about() if sweep else None
    fill_in_names(config, labels, overrides, about)
    groups = {group.partition("@")[0]: name for group, name in chosen.items()}
    labels |= {group: Path(groups[group]).name for group in ("data", "optimizer", "schedule") if groups.get(group)}
    place = (cfg.output, labels["task"], labels["estimator"], cfg.seed, key_of(config))
    before = [] if cfg.fresh else runs_of(*place)
    if before and (summary := summary_of(before[-1])):
        return finished_before(before[-1], code, labels, summary)
    device = device_of(cfg)
    if device.index is not None:
        torch.cuda.set_device(device)  # where whatever does not say where goes as well
    torch.manual_seed(cfg.seed)
    with Opened() as opened:
        task = build(cfg, "task", labels["task"], overrides)
        estimator = build(cfg, "estimator", labels["estimator"], overrides)
    state = prepare(cfg, task, estimator, device, *reference_and_rivals(cfg))
    if wrong := wrong_figures(task.figures):
        print(f"warning: task={labels['task']}: {wrong}", file=sys.stderr)
    folder = before[-1] if before else new_folder(*place, cfg.fresh)
    with claimed(folder, SECONDS_FOR_ANOTHER_RUN["sweep" if sweep else "run"]):
        if summary := summary_of(folder):  # by that other process, just now
            return finished_before(folder, code, labels, summary)
        sizes = resume(folder, state, code, cfg)
        sources = {"code": code, "data": hash_data(opened, cfg)}
        with writing(folder):
            keep_hydra(folder, cfg, HydraConfig.get())
        tracker = Tracker(folder, config, labels, device, sources, sizes, task.figures)
        link_by_name(folder, cfg.output, labels, overrides, about)
        saved = state.step

        def save():
            nonlocal saved
            if state.is_finite():  # if not, the last checkpoint is kept, and the next row raises NotFinite
                with writing(tracker.folder):
                    state.save(tracker.folder, tracker.sizes())
                saved = state.step

        again = "without fresh=true the same command" if cfg.fresh else "the same command"
        exit_code, stopping = 1, sweep.stopping if sweep else lambda: False
        try:
            with Pause(save, cfg.checkpoint_every, stopping, lambda: state.step > saved) as pause:
                figures = train(state, cfg, tracker.log, pause)
            with forked_random(device, cfg.seed, state.step, Stream.SHOW):
                keep_examples(task, tracker)
            summary = {
                "parameters": sum(p.numel() for p in task.parameters()),
                "estimator_parameters": sum(p.numel() for p in estimator.parameters()),
                "steps": state.step,
                "seconds": round(state.seconds, 3),
                "evaluations": state.evaluations,
                "nats_divisor": task.nats_divisor,
                **figures,
            }
            tracker.finish(summary)
            folder = tracker.folder
            (folder / CHECKPOINT_BEFORE).unlink(missing_ok=True)
            exit_code = 0
        except Stopped:
            where = tracker.folder
            print(f"\ninterrupted after step {state.step}; {again} goes on in {where}", file=sys.stderr)
            raise
        except NotWritten as error:
            kept = f"what was saved at step {saved} is kept, and {again} goes on from there"
            gone = "the run's folder is gone, and what was in it is lost; the same command begins anew"
            raise NotWritten(f"{error} (at step {state.step}); {kept if tracker.is_there() else gone}") from error
        except Exception as error:
            with contextlib.suppress(OSError):
                path = tracker.folder / FAILED
                write_whole(path, traceback.format_exc())
                error.add_note(f"traceback: {path}")
            raise
        finally:
            tracker.close(exit_code)
    print_summary(folder, labels, summary, tracker.mode)
    return "done", folder


def keep_examples(task: Task, tracker: Tracker) -> None:
    r"""Keeps examples of what a trained model does; a note that there are none is no failure of its training."""
    try:
        tracker.keep(task.show())
    except NotWritten:
        raise
    except Exception as error:
        print(f"no examples of the model were kept: {type(error).__name__}: {one_line(error)}", file=sys.stderr)


def summary_of(folder: Path) -> dict | None:
    r"""Final figures of a finished run; None if it has not, or if they or some rows have been lost since."""
    try:
        found = json.loads((folder / FINISHED).read_text("utf-8"))
        whole = all(size_of(folder / name) >= size for name, size in found.get("sizes", {}).items())
    except (FileNotFoundError, ValueError, AttributeError):
        return None
    return found if whole else None


def finished_before(folder: Path, code: dict[str, str], labels: dict, summary: dict) -> tuple[str, Path]:
    r"""Shows a finished run again, unless other code or data would be behind it now."""
    if changed := changed_since(folder, code):
        raise Refused(f"{folder} was finished by other code or data ({changed}): fresh=true runs it again")
    print(f"finished already: {folder} (fresh=true runs it again, in a new folder)")
    print_summary(folder, labels, summary)
    return "finished before", folder


def resume(folder: Path, state: State, code: dict[str, str], cfg: DictConfig) -> dict[str, int] | None:
    r"""Restores an unfinished run from its newest readable checkpoint.

    Returns:
        The sizes that its files of rows had then; None if it has no checkpoint yet.

    Raises:
        Refused: If code or data have changed since, a failed run is not to be retried, or no checkpoint can be read.
    """
    saved = [path for name in (CHECKPOINT, CHECKPOINT_BEFORE) if (path := folder / name).is_file()]
    if saved and (changed := changed_since(folder, code)):
        raise Refused(f"{folder} was begun by other code or data ({changed}): fresh=true begins anew")
    if (folder / FAILED).is_file():
        if not cfg.retry:
            text = (folder / FAILED).read_text("utf-8", "replace").strip().splitlines()
            reason = text[-1] if text else "its reason is lost"
            where = "goes on from its last checkpoint" if saved else "begins it again"
            raise Refused(f"{folder} has failed before ({reason}): retry=true {where}")
        (folder / FAILED).unlink()
    problems = []
    for path in saved:
        try:
            sizes = state.load(path)
            if sizes.keys() != set(Tracker.FILES) or state.step > (cfg.stop_after or cfg.steps):
                raise Unreadable(f"{path} is no checkpoint of this run")
            if short := [name for name, size in sizes.items() if size_of(folder / name) < size]:
                raise Unreadable(f"{path} is newer than what is left of {short[0]}")
        except Unreadable as error:
            problems.append(str(error))
            continue
        if problems:
            print(f"{problems[0]}: the one before it is taken", file=sys.stderr)
            (folder / CHECKPOINT).unlink()  # else the next checkpoint would move it over the good one
        print(f"going on from step {state.step} in {folder}")
        if versions := versions_since(folder):
            print(f"{versions}: rows from here on may differ from those of an undisturbed run", file=sys.stderr)
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
    if "best_step" in summary:
        lines.insert(3, f"  best         validation at step {summary['best_step']:,}, whose parameters are tested")
    if mode:
        upload = f" (upload: {upload_command(folder)})" if mode in ("offline", "incomplete") else ""
        lines.append(f"  W&B          {mode}{upload}")
    print("\n".join(lines), flush=True)


def command_line_overrides(cfg: DictConfig | HydraConf) -> list[str]:
    r"""The overrides of the command line, or of a job, as they were written."""
    lines = OmegaConf.to_container(cfg.overrides.task, resolve=False)
    assert isinstance(lines, list)
    return lines
