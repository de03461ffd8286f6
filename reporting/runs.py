r"""Run folders as they lie on disk, whatever state they are in, each reduced to what a report needs of it."""

import contextlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson
import yaml
from filelock import FileLock, Timeout

from hardmax.harness.shared import FAILED, FIGURES, FINISHED

from .rounding import relative_square
from .words import Words, printable, said_in

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
POINTS = 200  # of a curve that are kept of one run; of more, neighbours are averaged
DEEPEST = 50  # levels of a config
MANY = 64  # runs from which on several processes read them
AXES = ("steps", "evaluations", "seconds")
WHERE = ("logits", "encoder")
CURVES = {f"gradient/{where}/{what}" for where in WHERE for what in ("variance", "snr", "dead")} | {"train/loss"}
NEEDED_OF_RIVALS = ("variance", "bias2", "bias2_error", "evaluations", "seconds")
NUMBERS = {int, float}  # and no truth values
IN_WORDS = {True: "true", False: "false", None: "null"}


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
        environment: Versions, commit and hardware behind it.
        choices: What was chosen from groups of configs, as far as that is known.
        said: What its task says of its figures, by name.
        made: When it was finished, in seconds since 1970.
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
    environment: dict = field(default_factory=dict)
    choices: dict[str, str] = field(default_factory=dict)
    said: dict[str, Words] = field(default_factory=dict)
    made: float = 0.0
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


def find(folders: list[Path]) -> Found:
    r"""All runs below the folders, whatever state they are in."""
    places, measured, notes = {}, {}, []
    for folder in folders:
        for found, names in walk(folder):
            if "measured.csv" in names:
                measured[found.resolve()] = found / "measured.csv"
            if "sweep.json" in names:
                notes += refused_jobs(found)
            elif {"config.yaml", "metrics.jsonl"} & set(names):
                places[found.resolve()] = found
    paths = sorted(places.values())
    if len(paths) < MANY:
        results = [read(path) for path in paths]
    else:
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            results = list(pool.map(read, paths, chunksize=16))
    runs = [result for result in results if isinstance(result, Run)]
    notes += [result for result in results if isinstance(result, str)]
    tasks = {run.folder: run.task for run in runs}
    files = [(tasks.get(path.parent, path.parent.name), path) for path in sorted(measured.values())]
    return Found(runs, files, notes + [note for run in runs for note in run.notes])


def walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    r"""Folders below one and their files; what lies within a run's folder is left out."""
    for place, inner, names in os.walk(folder):
        inner.sort()
        if "metrics.jsonl" in names:
            inner.clear()
        yield Path(place), names


def refused_jobs(sweep: Path) -> list[str]:
    r"""Notes on jobs of a sweep that were refused before they had a folder."""
    notes = []
    for path in sorted(sweep.glob("job-*.json")):
        with contextlib.suppress(ValueError, OSError, KeyError, TypeError):
            job = json_of(path)
            if job["status"] == "failed" and "traceback" not in job:
                notes.append(f"never ran: {' '.join(job['overrides'])} ({job['reason']})")
    return notes


def read(folder: Path) -> Run | str:
    r"""The run of a folder, or a note that says why there is none."""
    try:
        config = saved_config(folder)
        choices = {key: text(choice) for key, choice in config["choices"].items()}
        known = flat(config) | {key: choices[key] for key in ("task", "estimator", "seed")}
        run = Run(folder, known, "unfinished", steps=int(config["steps"]), choices=choices)
    except OSError as error:
        return f"not a run: {folder} (config.yaml: {error.strerror})"
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return f"not a run: {folder} (its config.yaml is not a run's)"
    rows = list(lines(folder / "metrics.jsonl", run.notes))
    run.step = int(max((row["step"] for row in rows), default=0))
    with contextlib.suppress(OSError, ValueError):
        run.environment = json_of(folder / "environment.json")
    with contextlib.suppress(OSError, ValueError):
        run.said = said_in(json_of(folder / FIGURES))
    summary = judge(run)
    if run.finished:
        timings = list(lines(folder / "timings.jsonl", run.notes))
        last = {key: value for row in (*timings, *rows) for key, value in row.items()}
        last, summary = ({k: v for k, v in found.items() if k == printable(k)} for found in (last, summary))
        run.figures = final_figures(last, summary)
        run.curves = curves_of(rows, timings, [key for key in last if key in CURVES or key.startswith("valid/")])
    return run


def saved_config(folder: Path) -> dict:
    r"""The config of a run, whoever made it: none that would take more memory than its file, or much of the stack.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is none.
    """
    content = (folder / "config.yaml").read_text()
    try:
        check_nesting(content)
        return yaml.load(content, LOADER)
    except (yaml.YAMLError, LookupError, AttributeError, TypeError, OverflowError) as error:  # what its tags may raise
        raise ValueError("no config") from error


def check_nesting(content: str) -> None:
    r"""ValueError if YAML is nested deeply, or names parts to have them again, which takes a line and doubles all."""
    depth = 0
    for event in yaml.parse(content, LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST or isinstance(event, yaml.AliasEvent):
            raise ValueError("nested too deeply, or parts named again")


def json_of(path: Path) -> dict:
    r"""The dictionary that a file holds.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it holds none.
    """
    try:
        value = json.loads(path.read_text())
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("no dictionary")
    return value


def judge(run: Run) -> dict:
    r"""Sets the status of a run, and its reason; the final figures, if it has any."""
    try:
        summary = json_of(run.folder / FINISHED)
        run.status, run.made = "finished", (run.folder / FINISHED).stat().st_mtime
        return summary
    except FileNotFoundError:
        pass
    except (OSError, ValueError):
        run.notes.append(f"cannot be read, taken for unfinished: {run.folder / FINISHED}")
    if (run.folder / FAILED).is_file():
        text = (run.folder / FAILED).read_text(errors="replace").strip().splitlines()
        run.status, run.reason = "failed", printable(text[-1]) if text else ""
    elif is_locked(run.folder / "lock"):
        run.status = "running"
    return {}


def is_locked(path: Path) -> bool:
    r"""Whether a process works on the run."""
    if not path.is_file():
        return False
    try:
        FileLock(path).acquire(timeout=0).lock.release()
    except Timeout:
        return True
    except OSError:
        return False
    return False


def flat(config: dict, prefix: str = "") -> dict[str, str]:
    r"""A nested config as one dictionary with dotted keys, and values as text as on the command line."""
    found = {}
    for key, value in config.items():
        if isinstance(value, dict):
            found |= {} if key == "choices" and not prefix else flat(value, f"{prefix}{key}.")
        else:
            found[printable(f"{prefix}{key}")] = text(value)
    return found


def text(value: object) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(text, value))}]"
    return IN_WORDS[value] if value is None or isinstance(value, bool) else printable(str(value))


def lines(path: Path, notes: list[str]) -> Iterator[dict]:
    r"""The rows of a file that can be read and have a step; what is left out is noted."""
    try:
        content = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        notes.append(f"is not there: {path}")
        return
    for number, line in enumerate(content, 1):
        try:
            row = orjson.loads(line) if line else None
            if row and type(row["step"]) in NUMBERS:
                yield row
            elif row is not None:
                raise ValueError("no step")
        except (ValueError, TypeError, KeyError):
            what = "half-written last line" if number == len(content) else f"line {number}, which cannot be read,"
            notes.append(f"{what} left out: {path}")


def is_number(value: object) -> bool:
    return type(value) in NUMBERS


def final_figures(last: dict, summary: dict) -> dict[str, float | None]:
    r"""Figures by metric: of the summary, and for losses and gradients what rows said last."""
    figures = {}
    for key, value in last.items():
        if key.startswith("gradient/rivals/") and not key.endswith(NEEDED_OF_RIVALS):
            continue
        if key.startswith(("gradient/", "train/")) and (value is None or is_number(value)):
            figures[key] = value
    figures |= {key: value for key, value in summary.items() if key.startswith("test/") and is_number(value)}
    steps, seconds, evaluations = (summary.get(key) for key in ("steps", "seconds", "evaluations"))
    if is_number(evaluations):
        figures["cost/evaluations"] = evaluations
        if is_number(steps) and steps:
            figures["cost/evaluations_per_step"] = evaluations / steps
    if is_number(seconds):
        figures["cost/seconds"] = seconds
    return figures


def curves_of(rows: list[dict], timings: list[dict], metrics: list[str]) -> dict[str, np.ndarray]:
    r"""Curves by metric, as in :class:`Run`; of biases, those that have a true norm."""
    found = {metric: column(rows, metric) for metric in metrics}
    cost = max((abs(row["train/loss"]) for row in rows if type(row.get("train/loss")) in NUMBERS), default=None)
    for where in WHERE:
        bias2, error, norm = (f"gradient/{where}/{what}" for what in ("bias2", "bias2_error", "true_norm"))
        known = [row for row in rows if type(row.get(bias2)) in NUMBERS and row.get(norm)]
        both = [relative_square(row[bias2], row.get(error) or 0.0, row[norm], cost) for row in known]
        for key, values in ((bias2, [square for square, _ in both]), (error, [error for _, error in both])):
            points = [(row["step"], value) for row, value in zip(known, values, strict=True)]
            found[key] = np.array(points, float).reshape(-1, 2)
    spent = [np.insert(column(*of), 0, 0, 0) for of in ((rows, "cost/evaluations"), (timings, "cost/seconds"))]
    curves = {}
    for metric, points in found.items():
        if len(points):
            step, value = points[points[:, 0].argsort(kind="stable")].T
            at = [np.interp(step, *known.T, right=np.nan) for known in spent]
            curves[metric] = thinned(np.stack([step, *at, value], 1))
    return curves


def column(rows: list[dict], key: str) -> np.ndarray:
    r"""Steps and values ``[n, 2]`` of the rows that have a number there."""
    points = [(row["step"], row[key]) for row in rows if type(row.get(key)) in NUMBERS]
    return np.array(points, float).reshape(-1, 2)


def thinned(curve: np.ndarray) -> np.ndarray:
    r"""At most POINTS rows of a curve: means of as many neighbours each as that takes."""
    if len(curve) <= POINTS:
        return curve
    starts = np.linspace(0, len(curve), POINTS, endpoint=False).astype(int)
    counts = np.diff([*starts, len(curve)])
    return np.add.reduceat(curve, starts) / counts[:, None]
