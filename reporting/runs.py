r"""Run folders as they lie on disk, whatever state they are in, each reduced to what a report needs of it."""

import contextlib
import math
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from hardmax.files import open_regular, read_text
from hardmax.harness.contents import (
    LARGEST,
    MOST_ENTRIES,
    NUMBER_TYPES,
    SMALLEST,
    bounded_text,
    flat,
    is_figure,
    json_of,
    lines,
    reason_of,
    saved_config,
    text,
)
from hardmax.harness.shared import BY_NAME, FAILED, FIGURES, FINISHED, said_once, with_new_settings

from .archives import is_archive, shown, unpacked_runs
from .rounding import relative_square
from .validation import Validation, validation_of
from .words import Words, said_in

POINTS = 200  # of a curve that are kept of one run; of more, neighbours are averaged
MOST_FIGURES = 200  # held-out ones of a run
IN_PARALLEL_FROM = 64  # runs from which on several processes read them
MEASURED_AT = ("logits", "encoder")
CURVES = {f"gradient/{where}/{what}" for where in MEASURED_AT for what in ("variance", "snr", "dead")} | {"train/loss"}
NEEDED_OF_RIVALS = ("variance", "bias2", "bias2_error", "evaluations", "seconds")


@dataclass
class Run:
    r"""One run folder.

    Attributes:
        folder: Where it lies.
        config: Every key of its config with dots, and ``task``, ``estimator`` and ``seed``, as text.
        status: ``finished``, ``failed``, ``running`` or ``unfinished``.
        reason: Of a failure, in one line.
        step, steps: How far it is, and how far it is to go.
        figures: Final figures by metric; None where undefined.
        curves: By metric, rows ``[n, 4]`` of steps, evaluations per example, seconds of training, and the value. Those
            of ``gradient/<where>/bias2`` are over the squared true norm, and ``.../bias2_error`` is their error.
        validation: Validation figures that can be better or worse, by metric.
        environment: Versions, commit and hardware behind it.
        choices: What was chosen from groups of configs, as far as that is known.
        said: What its task says of its figures, by name.
        made: When it was finished, in seconds since 1970.
        largest_cost: Of an example in training, in nats, not divided by anything; NaN where it is not known.
        notes: On what could not be read.
    """

    folder: Path
    config: dict[str, str]
    status: str
    reason: str = ""
    step: int = 0
    steps: int = 0
    figures: dict[str, float | None] = field(default_factory=dict)
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    validation: dict[str, Validation] = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    choices: dict[str, str] = field(default_factory=dict)
    said: dict[str, Words] = field(default_factory=dict)
    made: float = 0.0
    largest_cost: float = math.nan
    notes: list[str] = field(default_factory=list)

    @property
    def task(self) -> str:
        return self.config["task"]

    @property
    def estimator(self) -> str:
        return self.config["estimator"]

    @property
    def seed(self) -> str:
        return self.config["seed"]

    @property
    def finished(self) -> bool:
        return self.status == "finished"


def said_by(runs: list[Run]) -> dict[str, Words]:
    r"""What their task says of its figures, by name: as the last of them has it."""
    return max(runs, key=lambda run: (bool(run.said), run.made), default=Run(Path(), {}, "")).said


@dataclass
class Found:
    r"""What lies below folders: runs by path, files of ``measure.py`` with their tasks, and notes on all else."""

    runs: list[Run]
    measured: list[tuple[str, Path]]
    notes: list[str]


def find_runs(folders: list[Path]) -> Found:
    r"""All runs below the folders, whatever state they are in; what cannot be read costs a note and nothing else."""
    places, measured = {}, {}
    notes: list[str] = []
    for folder in folders:
        for found, names in walk_with_archives(folder, notes):
            if "measured.csv" in names:
                measured[found.resolve()] = found / "measured.csv"
            if "sweep.json" in names:
                notes += refused_jobs(found, names)
            elif {"config.yaml", "metrics.jsonl"} & names:
                places[found.resolve()] = found
    paths = sorted(places.values())
    if len(paths) < IN_PARALLEL_FROM:
        results = [read(path) for path in paths]
    else:
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            results = list(pool.map(read, paths, chunksize=16))
    runs = [result for result in results if isinstance(result, Run)]
    notes += [result for result in results if isinstance(result, str)]
    tasks = {run.folder: run.task for run in runs}
    files = [(tasks.get(path.parent, path.parent.name), path) for path in sorted(measured.values())]
    return Found(runs, files, [shown(note) for note in notes + [note for run in runs for note in run.notes]])


def walk_with_archives(folder: Path, notes: list[str]) -> Iterator[tuple[Path, set[str]]]:
    r"""As :func:`walk`, and the unpacked runs of archives, of which ``folder`` may be one itself."""
    for place, names in [(folder.parent, {folder.name})] if is_archive(folder) else walk(folder, notes):
        yield place, names
        for path in sorted(place / name for name in names if is_archive(Path(name))):
            try:
                for run in unpacked_runs(path):
                    yield run, {entry.name for entry in run.iterdir()}
            except (OSError, ValueError) as error:
                notes.append(f"left out, from here on: {path} ({reason_of(error)})")


def walk(folder: Path, notes: list[str]) -> Iterator[tuple[Path, set[str]]]:
    r"""A folder and those below it with the names of their files; what lies within a run's folder is left out.

    A link to a folder is not followed, as it may lead anywhere; it is noted, as a folder that cannot be read is.
    """
    left = [folder]
    while left:
        place = left.pop()
        try:
            with os.scandir(place) as entries:
                found = sorted(entries, key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            notes.append(f"cannot be read: {place} ({error.strerror})")
            continue
        inner = [entry for entry in found if entry.is_dir(follow_symlinks=False) and entry.name != BY_NAME]
        names = {entry.name for entry in found} - {entry.name for entry in inner}
        if "metrics.jsonl" not in names:
            left += [Path(entry.path) for entry in inner]
            notes += [f"a link, not followed: {e.path}" for e in found if e.is_symlink() and os.path.isdir(e.path)]
        yield place, names


def refused_jobs(sweep: Path, names: set[str]) -> list[str]:
    r"""Notes on jobs of a sweep that were refused before they had a folder."""
    notes = []
    for name in sorted(name for name in names if name.startswith("job-") and name.endswith(".json")):
        with contextlib.suppress(ValueError, OSError, KeyError, TypeError):
            job = json_of(sweep / name)
            if job["status"] == "failed" and "traceback" not in job:
                notes.append(bounded_text(f"never ran: {' '.join(job['overrides'])} ({job['reason']})"))
    return notes


def read(folder: Path) -> Run | str:
    r"""The run of a folder, or a note that says why there is none."""
    try:
        run = with_config(folder)
    except OSError as error:
        return f"not a run: {folder} ({reason_of(error)})"
    except Exception:  # anything may be in a file of anyone's
        return f"not a run: {folder} (its config.yaml is not a run's)"
    try:
        add_results(run)
    except Exception as error:
        return f"left out: {folder} ({reason_of(error)})"
    return run


def with_config(folder: Path) -> Run:
    r"""The run of a folder, of which nothing is known but its config.

    Raises:
        Exception: Of any kind, if that cannot be read or is not a run's.
    """
    config = saved_config(folder)
    choices = {key: text(choice) for key, choice in config["choices"].items()}
    settings = flat(said_once(with_new_settings(config))) | {key: choices[key] for key in ("task", "estimator", "seed")}
    steps = int(config["steps"] if config.get("stop_after") is None else config["stop_after"])
    if len(settings) > MOST_ENTRIES or not is_figure(steps):
        raise ValueError("too many settings, or steps")
    return Run(folder, settings, "unfinished", steps=int(steps), choices=choices)


def add_results(run: Run) -> None:
    r"""Reads how far a run is, and what came out if it is finished.

    Raises:
        Exception: Of any kind, if something cannot be read.
    """
    rows = list(lines(run.folder / "metrics.jsonl", run.notes))
    run.step = int(max((row["step"] for row in rows), default=0))
    with contextlib.suppress(FileNotFoundError, ValueError):
        run.environment = json_of(run.folder / "environment.json")
    with contextlib.suppress(FileNotFoundError, ValueError):
        run.said = said_in(json_of(run.folder / FIGURES))
    summary = read_summary(run)
    read_status(run, summary)
    if summary is None:
        return
    timings = list(lines(run.folder / "timings.jsonl", run.notes))
    last = {key: value for row in (*timings, *rows) for key, value in row.items()}
    last, summary = ({k: v for k, v in found.items() if k == bounded_text(k)} for found in (last, summary))
    if sum(key.startswith(("valid/", "test/")) for key in (*last, *summary)) > MOST_FIGURES:
        raise ValueError(f"it has more than {MOST_FIGURES} figures")
    run.figures = final_figures(last, summary, run)
    divisor = summary.get("nats_divisor")
    losses = [abs(row["train/loss"]) for row in rows if is_figure(row.get("train/loss"))]
    run.largest_cost = max(losses, default=math.nan) * (divisor if is_figure(divisor) else 1)
    drawn = [key for key in last if key in CURVES or key.startswith("valid/")]
    whole = run_curves(rows, timings, drawn, run.largest_cost)
    run.curves = {metric: thinned(curve) for metric, curve in whole.items()}
    ends = last | summary  # which has the figures of parameters that were kept, if those are not the last
    for metric in [f"valid/{name}" for name, about in run.said.items() if about.better]:
        if metric in whole:
            better = run.said[metric.removeprefix("valid/")].better
            run.validation[metric] = validation_of(ends.get(metric), whole[metric], better)


def read_summary(run: Run) -> dict | None:
    r"""The final figures of a run, None if it has none.

    Raises:
        OSError: If they are there and cannot be read.
    """
    try:
        return json_of(run.folder / FINISHED)
    except FileNotFoundError:
        return None
    except ValueError:
        run.notes.append(f"cannot be read, taken for unfinished: {run.folder / FINISHED}")
        return None


def read_status(run: Run, summary: dict | None) -> None:
    r"""Sets the status of a run with these final figures, if any, and its reason.

    Raises:
        OSError: If a file of it is there and cannot be read.
    """
    if summary is not None:
        run.status, run.made = "finished", (run.folder / FINISHED).lstat().st_mtime
        return
    try:
        said = read_text(run.folder / FAILED).strip().splitlines()
        run.status, run.reason = "failed", bounded_text(said[-1]) if said else ""
    except FileNotFoundError:
        if is_locked(run.folder / "lock"):
            run.status = "running"


def is_locked(path: Path) -> bool:
    r"""Whether a process works on the run."""
    try:
        open_regular(path).close()
        FileLock(path).acquire(timeout=0).lock.release()
    except Timeout:
        return True
    except OSError:
        return False
    return False


def final_figures(last: dict, summary: dict, run: Run) -> dict[str, float | None]:
    r"""Figures by metric: of the summary, and for losses and gradients what rows said last; odd ones are noted."""
    found = {key: value for key, value in last.items() if key.startswith(("gradient/", "train/"))}
    found |= {key: value for key, value in summary.items() if key.startswith("test/")}
    steps, seconds, evaluations = (summary.get(key) for key in ("steps", "seconds", "evaluations"))
    found |= {"cost/evaluations": evaluations} if type(evaluations) in NUMBER_TYPES else {}
    if is_figure(evaluations) and is_figure(steps) and steps:
        found["cost/evaluations_per_step"] = evaluations / steps
    found |= {"cost/seconds": seconds} if type(seconds) in NUMBER_TYPES else {}
    figures = {}
    for key, value in found.items():
        if key.startswith("gradient/rivals/") and not key.endswith(NEEDED_OF_RIVALS):
            continue
        if value is None or is_figure(value):
            figures[key] = value
        elif type(value) in NUMBER_TYPES:
            figures[key] = None
            run.notes.append(bounded_text(f"{key} is no number to reckon with, taken for undefined: {run.folder}"))
    return figures


def run_curves(rows: list[dict], timings: list[dict], metrics: list[str], cost: float) -> dict[str, np.ndarray]:
    r"""Curves by metric, as in :class:`Run`; of biases, those that have a true norm; 0 below rounding."""
    found = {metric: series_of(rows, metric) for metric in metrics}
    for where in MEASURED_AT:
        bias2, error, norm = (f"gradient/{where}/{what}" for what in ("bias2", "bias2_error", "true_norm"))
        both = []
        for row in rows:
            if relative := relative_square(row.get(bias2), row.get(error), row.get(norm), cost):
                both.append((row["step"], *relative))
        for key, place in ((bias2, 1), (error, 2)):
            points = [(entry[0], entry[place]) for entry in both]
            found[key] = np.array(points, float).reshape(-1, 2)
    spent = [np.insert(series_of(*of), 0, 0, 0) for of in ((rows, "cost/evaluations"), (timings, "cost/seconds"))]
    curves = {}
    for metric, curve in found.items():
        if len(curve):
            step, value = curve[curve[:, 0].argsort(kind="stable")].T
            at = [np.interp(step, known[:, 0], known[:, 1], right=np.nan) for known in spent]
            curves[metric] = np.stack([step, *at, value], 1)
    return curves


def series_of(rows: list[dict], key: str) -> np.ndarray:
    r"""Steps and values ``[n, 2]`` of the rows that have a number there."""
    pairs = [(row["step"], row[key]) for row in rows if type(row.get(key)) in NUMBER_TYPES]
    points = np.array(pairs, float).reshape(-1, 2)
    size = np.abs(points[:, 1])
    return points[(size == 0) | ((size >= SMALLEST) & (size <= LARGEST))]


def thinned(curve: np.ndarray) -> np.ndarray:
    r"""At most POINTS rows of a curve: means of as many neighbours each as that takes."""
    if len(curve) <= POINTS:
        return curve
    starts = np.linspace(0, len(curve), POINTS, endpoint=False).astype(int)
    counts = np.diff([*starts, len(curve)])
    return np.add.reduceat(curve, starts) / counts[:, None]
