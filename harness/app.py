r"""The command line: composes the config, refuses what is wrong in one line, runs, and sums up."""

import os
import re
import signal
import sys
import traceback
from pathlib import Path

import hydra
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from harness import memory, options
from harness.gradients import forked_random
from harness.measuring import asked_for
from harness.options import Refused
from harness.pause import Pause, Stopped, end_with_parent
from harness.shared import CHECKPOINT, FAILED, FINISHED
from harness.sweep import Sweep
from harness.tracking import Tracker, changed_since, locked, new_folder, runs_of
from harness.train import SHOW, NotFinite, State, prepare, train
from hydra_plugins.rows import jobs

FULL_ERROR = os.environ.get("HYDRA_FULL_ERROR") == "1"
CONFIGS = Path(__file__).resolve().parents[1] / "configs"


class CheckSweep(Callback):
    r"""Refuses a sweep in which any job's options are refused, before the first job starts."""

    folder: Path | None = None  # of the sweep that this process runs, if any

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        loader = GlobalHydra.instance().config_loader()
        parser, asked = OverridesParser.create(loader), list(config.hydra.overrides.task)
        if any(o.is_sweep_override() and not o.is_discrete_sweep() for o in parser.parse_overrides(asked)):
            return  # ranges of a search, whose values are not known yet
        try:
            batch = jobs(config.hydra.sweeper.get("rows"), config.hydra.sweeper.get("params"), asked, parser)
            for arguments in batch:
                cfg = loader.load_sweep_config(config, arguments)
                with flag_override(cfg, ["struct", "readonly"], False):
                    del cfg["hydra"]  # as for a job
                options.check(cfg)
        except Exception as error:  # Hydra would only warn
            if refusal(error) is None:
                raise
            fail(error)
        CheckSweep.folder = Path(config.hydra.sweep.dir)
        Sweep(CheckSweep.folder).begin(len(batch))


def job(cfg: DictConfig) -> None:
    r"""One run, or one of a sweep, which goes on with the others whatever becomes of this one."""
    if HydraConfig.get().mode == RunMode.MULTIRUN and Sweep(Path(HydraConfig.get().sweep.dir)).known():
        return one_of_many(cfg)
    try:
        run(cfg)
    except (Refused, NotFinite) as error:
        if not debugging():
            fail(error)
        raise
    except Stopped as error:
        sys.exit(128 + error.number)
    except KeyboardInterrupt:  # before or after training
        sys.exit(130)
    return None


def one_of_many(cfg: DictConfig) -> None:
    r"""A job of a sweep: its outcome is noted, and nothing is raised."""
    sweep, number = Sweep(Path(HydraConfig.get().sweep.dir)), HydraConfig.get().job.num
    if os.getpid() != sweep.about()["process"]:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches the sweep's process as well
        end_with_parent()
    try:
        if sweep.stopping():
            outcome = {"status": "stopped", "reason": "not begun"}
        else:
            outcome = {"status": run(cfg, sweep), "reason": None}
    except Stopped as error:
        outcome = {"status": "stopped", "reason": str(error)}
        if os.getpid() == sweep.about()["process"]:  # one job after the other: the others are not to begin
            sweep.stop(error.number)
    except Elsewhere as error:
        outcome = {"status": "running elsewhere", "reason": str(error)}
    except Exception as error:
        outcome = {"status": "failed", "reason": refusal(error) or f"{type(error).__name__}: {options.one_line(error)}"}
        if not isinstance(error, Refused):
            path = sweep.folder / f"job-{number}.traceback.txt"
            path.write_text(traceback.format_exc())
            outcome["traceback"] = str(path)
    sweep.end_of(number, list(HydraConfig.get().overrides.task), outcome)


class Elsewhere(Refused):
    r"""Another process works on the run."""


def run(cfg: DictConfig, sweep: Sweep | None = None) -> str:
    r"""One run: from a composed config to a folder with its figures; ``done``, or ``finished before``."""
    options.check(cfg)
    torch.set_num_threads(cfg.threads)
    memory.keep_freed_memory()
    chosen = HydraConfig.get().runtime.choices
    labels = {"task": Path(chosen["task"]).name, "estimator": Path(chosen["estimator"]).name, "seed": cfg.seed}
    config, code = options.plain(cfg), options.code_of(cfg)
    place = (cfg.output, labels["task"], labels["estimator"], cfg.seed, options.key_of(config))
    before = [] if cfg.fresh else runs_of(*place)
    if before and (before[-1] / FINISHED).is_file():
        return finished_before(before[-1], code)
    device = options.device_of(cfg)
    torch.manual_seed(cfg.seed)
    task = options.build(cfg, "task", labels["task"])
    estimator = options.build(cfg, "estimator", labels["estimator"])
    state = prepare(cfg, task, estimator, device, *asked_for(cfg))
    folder = before[-1] if before else new_folder(*place)
    with locked(folder) as free:
        if not free:
            raise Elsewhere(f"another process works on {folder}")
        if (folder / FINISHED).is_file():  # by that other process, just now
            return finished_before(folder, code)
        sizes = go_on_from(folder, state, code, cfg.retry)
        tracker = Tracker(folder, config, labels, device, code, sizes)

        def save():
            if state.window.isfinite().all():  # else the next row says so, and the last checkpoint stays
                state.save(folder / CHECKPOINT, tracker.sizes())

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
            exit_code = 0
        except Stopped:
            print(f"\ninterrupted after step {state.step}; the same command goes on in {folder}", file=sys.stderr)
            raise
        except Exception:
            (folder / FAILED).write_text(traceback.format_exc())
            raise
        finally:
            tracker.close(exit_code)
    print_summary(folder, tracker.mode)
    return "done"


def finished_before(folder: Path, code: dict[str, str]) -> str:
    r"""Shows a finished run again, unless other code would be behind it now."""
    if changed := changed_since(folder, code):
        raise Refused(f"{folder} was finished by other code ({changed}): fresh=true runs it again")
    print(f"finished already: {folder} (fresh=true runs it again, in a new folder)")
    print_summary(folder)
    return "finished before"


def go_on_from(folder: Path, state: State, code: dict[str, str], retry: bool) -> dict[str, int] | None:
    r"""Restores the state of an unfinished run; the sizes of its files then, or None if it has no checkpoint yet.

    Raises:
        Refused: If the code has changed since, or the run has failed and is not to be retried.
    """
    if not (folder / CHECKPOINT).is_file():
        return None
    if changed := changed_since(folder, code):
        raise Refused(f"{folder} was begun by other code ({changed}): fresh=true begins anew")
    if (folder / FAILED).is_file():
        if not retry:
            reason = (folder / FAILED).read_text().strip().splitlines()[-1]
            raise Refused(f"{folder} has failed before ({reason}): retry=true goes on from its last checkpoint")
        (folder / FAILED).unlink()
    sizes = state.load(folder / CHECKPOINT)
    print(f"going on from step {state.step} in {folder}")
    return sizes


def print_summary(folder: Path, mode: str | None = None) -> None:
    r"""One screen about a finished run."""
    config, summary = OmegaConf.load(folder / "config.yaml"), OmegaConf.load(folder / FINISHED)
    labels = config.choices
    rate = summary.steps / max(summary.seconds, 1e-9)
    lines = [
        f"{labels.estimator} on {labels.task}, seed {labels.seed}",
        f"  parameters   {summary.parameters:,} of the model, {summary.estimator_parameters:,} of the estimator",
        f"  training     {summary.steps:,} steps in {summary.seconds:.1f} s ({rate:.0f} per second), "
        f"{summary.evaluations / summary.steps:g} evaluations of the objective per example and step",
        *(f"  {name:<12} {value:.5g}" for name, value in summary.items() if name.startswith("test/")),
        f"  folder       {folder}",
    ]
    if mode:
        sync = " (upload: wandb sync " + str(folder / "wandb" / "offline-run-*") + ")" if mode == "offline" else ""
        lines.append(f"  W&B          {mode}{sync}")
    print("\n".join(lines), flush=True)


def debugging() -> bool:
    r"""Whether tracebacks are asked for: by Hydra's own variable, or by debug=fast."""
    return FULL_ERROR or any(argument.startswith("debug=") for argument in sys.argv)


def refusal(error: BaseException) -> str | None:
    r"""The one line for what a user got wrong, or None if the program is at fault."""
    if isinstance(error, Refused | NotFinite):
        return str(error)
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        known = sorted(error.options)
        return f"{group}={choice} does not exist{options.nearest(choice, known)}; there are: {', '.join(known)}"
    if isinstance(error, HydraException | OmegaConfBaseException | ValueError) and not in_a_job(error):
        return composition_error(options.one_line(error), options.one_line(options.innermost(error)))
    return None


def in_a_job(error: BaseException) -> bool:
    r"""Whether the exception left a run, rather than the composition of its config."""
    return any(frame.name == job.__name__ for frame in traceback.extract_tb(error.__traceback__))


def composition_error(text: str, cause: str) -> str:
    r"""Hydra's complaint about an override, with what would be accepted."""
    if match := re.match(r"Could not override '([^']+)'", text):
        if match[1] == "data":
            return "data: this task takes none"
        known, key = known_keys(), match[1]
        group = key.split(".")[0]
        takes = [k.removeprefix(f"{group}.") for k in known if k.startswith(f"{group}.") and "_target_" not in k]
        hint = f"{group} takes: {', '.join(takes)}" if takes else "python run.py --help lists them"
        return f"{key} is no option{options.nearest(key, known)}; {hint}"
    if match := re.match(r"Error merging override (\+*)([^= ]+)=(\S*)", text):
        return f"{match[2]}={match[3]}: {options.expected(match[2]) or cause}"
    return text.split(" See https")[0]


def known_keys() -> list[str]:
    r"""Every option, with dots, of the config with the first choice of each group on the command line."""
    groups = [
        a.split(",")[0] for a in sys.argv[1:] if re.fullmatch(r"(estimator|task|data|optimizer|schedule)=[\w/,]+", a)
    ]
    GlobalHydra.instance().clear()  # within a sweep it is in the way; the program ends with the complaint
    for chosen in (groups, []):
        try:
            with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
                cfg = hydra.compose("config", chosen)
            break
        except HydraException:  # a choice from a folder of the user's own
            continue

    def walk(node, prefix):
        for key in node:
            yield f"{prefix}{key}"
            if not OmegaConf.is_missing(node, key) and OmegaConf.is_dict(node[key]):
                yield from walk(node[key], f"{prefix}{key}.")

    return list(walk(cfg, ""))


def fail(error: BaseException) -> None:
    r"""Ends the program with one line: exit code 1 for a run that failed, 2 for what is refused."""
    print(f"error: {refusal(error)}", file=sys.stderr)
    sys.exit(1 if isinstance(error, NotFinite) else 2)


def main() -> None:
    r"""Entry point of ``run.py``."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing
    sys.path.append(os.getcwd())  # for estimators and tasks of the user's own
    options.register()
    CheckSweep.folder = None
    try:
        try:
            hydra.main(config_path=str(CONFIGS), config_name="config", version_base="1.3")(job)()
        except BaseException:
            if not (CheckSweep.folder and Sweep(CheckSweep.folder).stopping()):
                raise
        if CheckSweep.folder and (code := Sweep(CheckSweep.folder).sum_up()):
            sys.exit(code)
    except Exception as error:
        if FULL_ERROR or refusal(error) is None or (debugging() and in_a_job(error)):
            raise
        fail(error)
