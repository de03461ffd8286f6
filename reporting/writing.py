r"""From folders of runs to the files of a report."""

import dataclasses
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from altair.utils import schemapi

from hardmax.files import write_whole
from hardmax.harness.shared import Refused

from . import charts, tables
from .archives import shown
from .biases import by_problem, comparisons
from .curves import Curve, drawn, group_curves
from .final_figures import results_of
from .groups import Group, chosen, grouped
from .page import OnTask, head_facts, page
from .provenance import changed_files
from .published.join import Comparison, compare_with_runs
from .published.values import Value, read_published
from .runs import Run, find_runs
from .spreadsheets import as_csv
from .tuned_files import SENSITIVITY, TUNED, tuned_files
from .tuning import tuned
from .validation import CostLimit

MOST_DRAWN, MOST_PRINTED = 100, 40  # groups in a chart, and in a picture; the best
MOST_OF_A_NAME = 80  # letters of a task in the names of its files
PICTURE_OF_BIASES = "_bias_variance"


@schemapi.debug_mode(False)  # as checking charts against a schema takes seconds; the tests check each of them
def write(
    folders: list[Path],
    to: Path,
    conditions: list[str],
    by: list[str],
    published: Sequence[Path] = (),
    tune: list[str] | None = None,
    at: CostLimit | None = None,
) -> tuple[str, list[Path], list[str]]:
    r"""Makes a report; what to print, the files, the page last, and notes on what was left out.

    Arguments:
        folders: Below which runs are looked for.
        to: Where the files go.
        conditions: ``KEY=VALUE``, of the runs that are wanted.
        by: Keys of groups; without any, a group is what differs in seeds alone.
        published: Files of published values, beside those of the project.
        tune: Keys among whose values each estimator's best is chosen; empty: all that was swept; None: none is.
        at: The budget at which tuned estimators are compared; None: at the end of their runs.

    Raises:
        Refused: If there are no runs, none that are wanted, a file of published values is wrong, or the files cannot be
            written.
    """
    found = find_runs(folders)
    values = read_published(published, found.runs)
    if not found.runs:
        raise Refused("".join(f"{note}\n" for note in found.notes) + f"no run below {', '.join(map(str, folders))}")
    runs = chosen(found.runs, conditions)
    if not runs:
        raise Refused(f"--only {' '.join(conditions)}: no run has all of them")
    known = sorted({run.estimator for run in found.runs})
    groups = grouped(runs, by, known, found.notes)
    if tune is not None:  # other settings than the best are not meant to have the seeds by which that one is reported
        for group in (group for own in groups.values() for group in own):
            group.missing = []
    for task, own in groups.items():
        if differ := changed_files([run for group in own for run in group.runs], "data"):
            names = ", ".join(differ)
            found.notes.append(f"{task}: not all of its runs can be compared, as their data differ: {names}")
    measured = by_problem(found, groups)
    beside = published_beside(values, groups)
    tasks = [on_task(task, own, measured, found.notes, beside[task]) for task, own in groups.items()]
    for on in tasks if tune is not None else ():
        on.tuned = tuned(on.results.task, groups[on.results.task], tune or [], known, at)
        if on.tuned is None:
            found.notes.append(f"not tuned: {on.results.task}, without a validation figure that can be better or worse")
    about = head_facts(folders, conditions, by, len(runs))
    if to.is_symlink():
        raise Refused(f"--to {to}: is a link; name the folder that it leads to, {to.resolve()}")
    try:
        to.mkdir(parents=True, exist_ok=True)
        written = list(files(tasks, to))
        path = to / "report.html"
        write_whole(path, page(tasks, about, found.notes))
    except OSError as error:
        raise Refused(f"--to {to}: {error.filename or to} cannot be written: {error.strerror}") from error
    text = "\n".join(tables.with_heading(on.results) for on in tasks)
    text += "".join(f"\n{tables.with_heading(on.tuned.results, on.tuned.heading)}" for on in tasks if on.tuned)
    lost = [about_lost(run) for run in runs if not run.finished]
    return text, [*written, path], list(dict.fromkeys(found.notes + lost))


def about_lost(run: Run) -> str:
    reason = f": {run.reason}" if run.reason else ""
    return f"{run.status}, excluded from averages: {shown(run.folder)} (step {run.step} of {run.steps}{reason})"


def on_task(
    task: str, groups: list[Group], measured: list[tuple[str, Path]], notes: list[str], beside: list[Comparison]
) -> OnTask:
    results = results_of(task, groups)
    first, others = drawn(groups)
    shown = [group for group in results.groups if group.finished][:MOST_DRAWN]
    compared = comparisons(task, shown, measured, notes)
    return OnTask(results, first, others, group_curves(shown, first + others), shown, compared, beside)


def published_beside(values: list[Value], groups: dict[str, list[Group]]) -> dict[str, list[Comparison]]:
    r"""Published values by problem, each beside the runs of a whole task, whose best setting may be what counts."""
    found: dict[str, list[Comparison]] = {problem: [] for problem in groups}
    runs = {problem: [run for group in own for run in group.runs] for problem, own in groups.items()}
    for task in dict.fromkeys(run.task for own in runs.values() for run in own):
        problems = [problem for problem, own in runs.items() if own[0].task == task]
        for value in values:
            comparison = compare_with_runs(value, [run for problem in problems for run in runs[problem]])
            taken = {run.folder for run in comparison.runs}
            place = next((p for p in problems if any(run.folder in taken for run in runs[p])), problems[0])
            found[place] += [comparison] if comparison.runs or comparison.notes else []
    return found


def files(tasks: list[OnTask], to: Path) -> Iterator[Path]:
    r"""Writes tables and pictures, and gives their paths."""

    def written(name: str, content: str | bytes) -> Path:
        write_whole(to / name, content)
        return to / name

    every = [on.results for on in tasks]
    yield written("final.csv", as_csv(tables.final_csv(every)))
    yield written("runs.csv", as_csv(tables.runs_csv(every)))
    yield written("curves.csv", as_csv(curves_csv(tasks)))
    for name, content in tuned_files({file_name(on.results.task): on.tuned for on in tasks if on.tuned}):
        yield written(name, content)
    for on in tasks:
        task, table = file_name(on.results.task), tables.final_table(on.results)
        yield written(f"{task}.md", tables.as_markdown(table))
        yield written(f"{task}.tex", tables.as_latex(table))
        for name, spec in pictures(on).items():
            for ending, content in charts.as_files(spec):
                yield written(name + ending, content)


def file_name(task: str) -> str:
    r"""The task's name as that of a file, which lies in no other folder whatever a config says.

    A name that cannot be one gets a digest of what it was, so that no two tasks have the same.
    """
    name = re.sub(r"[^\w-]", "_", task, flags=re.ASCII)[:MOST_OF_A_NAME]
    if name and name == task and not task.endswith((PICTURE_OF_BIASES, TUNED, SENSITIVITY)):
        return name
    return f"{name}-{hashlib.sha256(task.encode('utf-8', 'replace')).hexdigest()[:8]}"


def curves_csv(tasks: list[OnTask]) -> pd.DataFrame:
    r"""Every point of every curve."""
    tables = [
        pd.DataFrame(
            {
                "task": on.results.task,
                "label": curve.label,
                "metric": curve.metric,
                "against": curve.axis,
                "at": curve.x,
                "mean": curve.mean,
                "low": curve.low,
                "high": curve.high,
                "upper_limit": curve.limit,
                "runs": curve.runs,
            }
        )
        for on in tasks
        for curve in on.curves
    ]
    return pd.concat(tables) if tables else pd.DataFrame()


def pictures(on: OnTask) -> dict[str, dict]:
    r"""Specifications of the pictures about a task by the name of the file, for print."""
    task, name, shown = on.results.task, file_name(on.results.task), on.drawn[:MOST_PRINTED]
    looks = {group.label: group.look for group in shown if group.look}
    steps = [curve for curve in on.curves if curve.axis == "steps" and curve.label in looks]
    of = lambda metric: [curve for curve in steps if curve.metric == metric]
    panels = [curves_panel(on, list(looks), metric, of(metric)) for metric in on.first if of(metric)]
    counts = sorted({len(group.finished) for group in shown})
    seeds = "–".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else "0"
    best = f" of the {len(shown)} best" * (len(shown) < len(on.drawn))
    title = f"{task}: mean over {seeds} run{'s' * (seeds != '1')}{best}, band ± one standard error"
    found = {name: charts.curves_picture(panels, title, looks)} if panels else {}
    if on.comparisons:
        first = on.comparisons[0]
        first = dataclasses.replace(first, points=first.points[:MOST_PRINTED])
        own = {point.label: on.looks[point.label] for point in first.points}
        found[f"{name}{PICTURE_OF_BIASES}"] = charts.bias_picture(first, f"{task}: {first.title}", own)
    return found


def curves_panel(on: OnTask, labels: list[str], metric: str, curves: list[Curve]) -> tuple:
    r"""Words, rows and a remark, for a picture."""
    absent = [label for label in labels if label not in {curve.label for curve in curves}]
    words = on.results.words(metric)
    listed = ", ".join(absent[:3]) + f" and {len(absent) - 3} more" * (len(absent) > 3)
    remark = f"{'0 or ' * words.log}undefined: {listed}" if absent else ""
    if any(curve.limit.any() for curve in curves):
        remark = "hollow: an upper limit"
    return words, charts.curve_rows(curves), remark
