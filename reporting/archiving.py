r"""Adding finished runs to archives: the texts of their files, and their rows, thinned."""

import lzma
import math
from collections.abc import Iterator
from pathlib import Path

import orjson
from filelock import FileLock

from hardmax.files import read_text, write_whole
from hardmax.harness.contents import is_figure, lines, reason_of
from hardmax.harness.shared import Refused

from .archives import ENDING, NAME, ROWS_OF_A_RUN, TEXTS, checked, read_archive, shown
from .runs import Run

MOST_ARCHIVED_ROWS = 200  # of a run
DIGITS = 8  # of its numbers
LOCK = ".lock"  # in the folder of archives, while one is written


def add_runs(runs: list[Run], to: Path) -> tuple[list[Path], list[str]]:
    r"""Adds finished runs to the archives of a folder; what the same code made of the same config is there once.

    Arguments:
        runs: From folders, or from other archives; what has not finished is passed over.
        to: Folder of the archives; made if it is not there.

    Returns:
        The archives that have changed, and notes on runs that were left out.

    Raises:
        Refused: If an archive that is there cannot be read, or nothing can be written.
    """
    by_name: dict[str, list[dict]] = {}
    notes = []
    for run in filter(lambda run: run.finished, runs):
        experiment = run.config.get("experiment", "null")
        name = run.task if experiment == "null" else experiment
        try:
            if not NAME.fullmatch(name):
                raise ValueError(f"{name} is no name of a file")
            by_name.setdefault(name, []).append(checked(archived(run), 0))
        except (OSError, ValueError) as error:
            notes.append(f"not archived: {shown(run.folder)} ({reason_of(error)})")
    written = []
    for name, found in sorted(by_name.items()):
        path = to / f"{name}{ENDING}"
        try:
            to.mkdir(parents=True, exist_ok=True)
            with FileLock(to / LOCK):  # what others add meanwhile would be lost
                entries = {archived_identity(entry): entry for entry in (read_archive(path) if path.exists() else ())}
                new = {archived_identity(entry): entry for entry in found}
                if new.keys() - entries.keys():
                    ordered = sorted((new | entries).values(), key=lambda entry: (entry["key"], entry["made"]))
                    content = b"".join(orjson.dumps(entry) + b"\n" for entry in ordered)
                    write_whole(path, lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
                    written.append(path)
        except (OSError, ValueError) as error:
            raise Refused(f"--archive {to}: {path.name}: {reason_of(error)}") from error
    return written, notes


def archived_identity(entry: dict) -> bytes:
    r"""What no two lines of an archive have in common: the run's key, and the code and data behind it."""
    environment = orjson.loads(entry["files"].get("environment.json", "{}"))
    sources = {part: environment.get(part) for part in ("code", "data")} if isinstance(environment, dict) else {}
    return orjson.dumps([entry["key"], sources], option=orjson.OPT_SORT_KEYS)


def archived(run: Run) -> dict:
    r"""The line of a finished run."""
    files = {name: read_text(run.folder / name) for name in TEXTS if (run.folder / name).is_file()}
    metrics, timings = (list(lines(run.folder / name, [])) for name in ROWS_OF_A_RUN)
    kept = steps_to_keep(metrics)
    for name, rows in zip(ROWS_OF_A_RUN, (metrics, timings), strict=True):
        files[name] = "".join(orjson.dumps(row).decode() + "\n" for row in thinned_rows(rows, kept))
    return {"key": f"{run.task}/{run.estimator}/{run.folder.name}", "made": int(run.made), "files": files}


def steps_to_keep(rows: list[dict]) -> set[float]:
    r"""At most 200 steps: those of validations come first, then those of measurements, then others in between."""
    trained = [row for row in rows if any(key.startswith("train/") for key in row)]
    kept = {row["step"] for row in rows[:1] + rows[-1:] + trained[-2:]}  # the last training figures average nothing
    for telling in (is_held_out, is_measured, lambda key: True):
        left = [row["step"] for row in rows if row["step"] not in kept and any(map(telling, row))]
        kept |= set(evenly(left, MOST_ARCHIVED_ROWS - len(kept)))
    return kept


def is_held_out(key: str) -> bool:
    return key.startswith(("valid/", "test/"))


def is_measured(key: str) -> bool:
    return key.startswith("gradient/") and "/running_" not in key  # which every row has


def evenly(steps: list[float], most: int) -> list[float]:
    r"""So many of the steps at most, evenly spread."""
    if len(steps) <= most:
        return steps
    return [steps[math.ceil((n + 1) * len(steps) / most) - 1] for n in range(most)]


def thinned_rows(rows: list[dict], kept: set[float]) -> Iterator[dict]:
    r"""The rows at these steps, with numbers of 8 digits, and of standard errors those that are drawn or the last.

    Training figures, which are means since the row before, are so over what is left out too.
    """
    since: dict[str, list[float]] = {}
    measured_last = max((row["step"] for row in rows if any(key.endswith("_error") for key in row)), default=None)
    for row in rows:
        for key, value in row.items():
            if key.startswith("train/") and is_figure(value):
                since.setdefault(key, []).append(value)
        if row["step"] in kept:
            row = row | {key: math.fsum(found) / len(found) for key, found in since.items()}
            drawn = lambda key: not key.endswith("_error") or key.endswith("bias2_error")
            told = {key: value for key, value in row.items() if row["step"] == measured_last or drawn(key)}
            yield {key: float(f"{v:.{DIGITS}g}") if isinstance(v, float) else v for key, v in told.items()}
            since = {}
