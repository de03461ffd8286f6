r"""What a sweep would do, without doing it: its jobs, and how long they take by the machine's own past runs."""

import contextlib
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from .config import device_of, key_of, label_of, plain_config
from .contents import json_of, saved_config
from .folders import remove, runs_of
from .run import summary_of
from .shared import FINISHED
from .tracking import gpu, processor

# What hardly changes how long a step takes.
OF_NO_WEIGHT = ("seed", "steps", "stop_after", "experiment", "budget", "optimizer.lr", "optimizer.estimator_lr")
LIKENESS = ("of the same settings", "of the same task and estimator", "of the same task", "of other tasks")
UNITS = ((86_400, "days"), (3600, "h"), (60, "min"), (1, "s"))


@dataclass
class Speed:
    r"""How long a run took, and for what.

    Attributes:
        settings: Key of all that matters to it.
        task, estimator: Their names.
        step: Seconds of a training step.
        look: Seconds of a measurement or an evaluation, on average.
    """

    settings: str
    task: str
    estimator: str
    step: float
    look: float


def show_jobs(
    overrides: Sequence[Sequence[str]],
    configs: Sequence[DictConfig],
    choices: dict[str, str],
    at_once: int | None = 1,
    trials: int | None = None,
    finals: int = 0,
) -> None:
    r"""Prints jobs, which of them have finished, and how long the others will take.

    Arguments:
        overrides: Of each job.
        configs: Of each job.
        choices: From the groups of configs, where overrides choose no other.
        at_once: How many jobs run at the same time; None if that is not known.
        trials: Of a search, whose jobs are not known yet: how many there are, as the given ones are on average.
        finals: How many of the jobs, the last, run with whichever settings come to be the best.
    """
    plain = [plain_config(cfg) for cfg in configs]
    labels = [labels_of_job(cfg, job, choices) for cfg, job in zip(configs, overrides, strict=True)]
    done = [is_finished(config, *names) for config, names in zip(plain, labels, strict=True)]
    for number, (job, finished) in enumerate(zip(overrides, done, strict=True)):
        if trials is None:
            note = "  (or another setting: the best)" if number >= len(plain) - finals else ""
            print(f"{number:>5}  {' '.join(job)}{note}{'  (finished already)' * finished}")
    count = len(plain) if trials is None else trials
    words = f"{count} job{'s' * (count != 1)}" + f", of which {sum(done)} have finished" * bool(
        sum(done) and not trials
    )
    left = [(config, names) for config, names, finished in zip(plain, labels, done, strict=True) if not finished]
    if not left:
        print(words)
        return
    device = device_of(configs[0])
    place = place_of_past_runs(Path(str(configs[0].output)))
    past = past_speeds(place, gpu(device)["device"] if device.type == "cuda" else processor())
    if not past:
        print(f"{words}; no run below {place} has finished on this machine, by which to forecast how long they take")
        return
    found = [forecast(config, *names, past) for config, names in left]
    seconds = sum(each for each, _ in found) * (1 if trials is None else trials / len(found))
    together = f", {duration(seconds / at_once)} at {at_once} at a time" if at_once and at_once > 1 else ""
    print(f"{words}: about {duration(seconds)} one after the other{together}")
    counts = [(sum(at == level for _, at in found), level) for level in range(4)]
    jobs = lambda n: f"{n} by " if trials is None else "by "  # of a search, those that were looked at are examples
    by = [f"{jobs(n)}runs {LIKENESS[level]}" for n, level in counts if n]
    runs = f"{len(past)} past run{'s' * (len(past) != 1)}"
    print(f"from {runs} on this machine below {place}: {', '.join(by)}")


def labels_of_job(cfg: DictConfig, job: Sequence[str], choices: dict[str, str]) -> tuple[str, str]:
    r"""What task and estimator of a job are called."""
    chosen = {**choices, **dict(line.split("=", 1) for line in job if "=" in line)}
    return label_of(cfg, "task", chosen["task"]), label_of(cfg, "estimator", chosen["estimator"])


def is_finished(config: dict, task: str, estimator: str) -> bool:
    r"""Whether a job would report a finished run rather than make it."""
    before = runs_of(config["output"], task, estimator, config["seed"], key_of(config))
    return not config["fresh"] and bool(before) and summary_of(before[-1]) is not None


def settings_key(config: dict) -> str:
    r"""Stands for what in a plain config matters to the time that a step takes."""
    weighty = {key: dict(part) if isinstance(part, dict) else part for key, part in config.items() if key != "choices"}
    for key in OF_NO_WEIGHT:
        remove(weighty, key)
    return key_of(weighty)


def place_of_past_runs(output: Path) -> Path:
    r"""The folder below which past runs are looked for: the outermost of a relative path."""
    return output if output.is_absolute() or len(output.parts) < 2 or output.parts[0] == ".." else Path(output.parts[0])


def past_speeds(place: Path, machine: str) -> list[Speed]:
    r"""Of the finished runs below a folder that were made on this machine."""
    found = []
    for path in sorted(place.rglob(FINISHED)):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, ZeroDivisionError, AttributeError):
            folder = path.parent
            if json_of(folder / "environment.json")["device"] != machine:
                continue
            summary, config = json_of(path), saved_config(folder)
            task, estimator = (str(config["choices"][key]) for key in ("task", "estimator"))
            steps, seconds = int(summary["steps"]), float(summary["seconds"])
            rest = max(0.0, whole_duration(folder) - seconds)
            found.append(
                Speed(settings_key(config), task, estimator, seconds / steps, rest / times_looked(config, steps))
            )
    return found


def times_looked(config: dict, steps: int) -> int:
    r"""How often a run of so many steps measures gradients and evaluates: before, along and after training."""
    every = [int(config[what]["every"]) for what in ("valid", "measure")]
    return 3 + sum(steps // n for n in every if n) + 2 * bool(every[1])


def whole_duration(folder: Path) -> float:
    r"""Seconds from a run's start to its end; 0 for one that was interrupted."""
    start, again, end = ((folder / name).stat().st_mtime for name in ("environment.json", "config.yaml", FINISHED))
    return end - start if abs(again - start) < 1 else 0.0


def forecast(config: dict, task: str, estimator: str, past: Sequence[Speed]) -> tuple[float, int]:
    r"""Seconds that a job will take, and how much alike the runs are by which that is said, 0 the most."""
    own = settings_key(config)
    steps = config["steps"] if config["stop_after"] is None else config["stop_after"]
    names = (task, estimator)
    alike = [
        [speed for speed in past if speed.settings == own and (speed.task, speed.estimator) == names],
        [speed for speed in past if (speed.task, speed.estimator) == names],
        [speed for speed in past if speed.task == task],
        past,
    ]
    level = next(n for n, found in enumerate(alike) if found)
    count = times_looked(config, steps)
    return statistics.median(speed.step * steps + speed.look * count for speed in alike[level]), level


def duration(seconds: float) -> str:
    r"""A duration in the unit that suits it."""
    size, unit = next(((size, unit) for size, unit in UNITS if seconds >= 1.5 * size), UNITS[-1])
    return f"{seconds / size:.2g} {unit}" if seconds / size < 10 else f"{seconds / size:.0f} {unit}"


def jobs_at_once(launcher: DictConfig) -> int | None:
    r"""How many jobs a launcher runs at the same time; None if that is not known here."""
    name = str(launcher._target_).rpartition(".")[2]
    if name == "Joblib":
        return launcher.n_jobs if launcher.n_jobs > 0 else max(1, (os.cpu_count() or 1) + 1 + launcher.n_jobs)
    return 1 if name == "BasicLauncher" else None
