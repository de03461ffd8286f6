r"""A leaderboard: what every estimator reaches on a task, beside bias, noise and cost of its gradients in one place."""

import math
from pathlib import Path

import altair as alt
import numpy as np

from hardmax import markdown
from hardmax.files import write_whole
from hardmax.harness.contents import table_of
from hardmax.harness.shared import Refused

from .biases import Point, by_problem, measured_in, truths_in_words
from .charts import as_png, axis_of, picture_of_charts, rounded
from .final_figures import Results, results_of
from .groups import grouped
from .published.experiments import experiment
from .reproduction import as_paragraphs, circumstances_line
from .runs import Found, find_runs
from .tables import NONE, about_runs, cell
from .writing import file_name

PANEL_WIDTH, ROW = 190, 17  # pixels of a panel, and of an estimator in it
COLOUR = "#0072B2"
NEVER_CUT = 4  # estimators at most of which all are drawn to scale
DRAWN_TO = 4  # times the distance of the median from the best, beyond which figures are cut off
LEADERBOARD_HEAD = """\
# Leaderboard

Every estimator with its default settings and one learning rate for all: where it stands without being tuned, not how
far it could get. Written by `make leaderboard` from runs and from `measure.py`, and by nothing else.

The first figure of a table is the mean over seeds ± its standard error; bold is the best and what is not
significantly worse (95 %), and ? below three runs. The others are about one gradient draw to the logits of one example,
all estimators at the same parameters: bias (< is an upper limit) and standard deviation, both over the true gradient's
norm, evaluations of the objective, and time. What an estimator learns was trained for a hundred steps before. A dash:
not measured or not defined, as the bias of bounds, whose gradient is another one. Biases and
deviations below 0.0001 are rounding, and 0.
"""


def write_leaderboard(folders: list[Path], to: Path) -> tuple[list[Path], list[str]]:
    r"""Writes the page, and beside it a picture for each task; their paths, the page last, and notes.

    Raises:
        Refused: If there are no finished runs, or nothing can be written.
    """
    found = find_runs(folders)
    by_task = grouped(found.runs, [], sorted({run.estimator for run in found.runs}), found.notes)
    measured, parts, written = by_problem(found, by_task), [LEADERBOARD_HEAD], []
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        for task, groups in by_task.items():
            results = results_of(task, groups)
            if not ranked_by(results):
                found.notes.append(f"left out: {task}, whose runs have no final figure that can be better or worse")
                continue
            points, about = measured_on(task, measured, found)
            written.append(to.with_name(f"{to.stem}_{file_name(task)}.png"))
            write_whole(written[-1], as_png(drawing(results, points)))
            parts.append(task_section(results, points, about, written[-1].name))
        if not written:
            raise Refused(
                "".join(f"{n}\n" for n in found.notes) + f"no finished run below {', '.join(map(str, folders))}"
            )
        write_whole(to, "\n".join(parts))
    except OSError as error:
        raise Refused(f"--leaderboard {to}: {error.filename or to} cannot be written: {error.strerror}") from error
    return [*written, to], found.notes


def ranked_by(results: Results) -> str | None:
    r"""The final figure by which estimators are ordered."""
    return next((metric for metric in results.shown if results.words(metric).better), None)


def measured_on(task: str, measured: list[tuple[str, Path]], found: Found) -> tuple[dict[str, Point], str]:
    r"""Estimators by name as measured in one place, that where there are most of them, and a sentence about it."""
    files = [(measured_in(path, found.notes).get("logits", []), path) for on, path in measured if on == task]
    points, path = max(files, key=lambda file: len(file[0]), default=([], None))
    found.notes += [
        f"left out, as fewer estimators were measured there: {other}" for _, other in files if other != path
    ]
    if path is None or not points:
        return {}, ""
    rows = table_of(path)
    run = next((run for run in found.runs if run.folder == path.parent), None)
    first = rows.iloc[0]
    place = f"those of {run.estimator} with seed {run.seed} at step {first.get('step')}" if run else "the initial ones"
    about = f"Gradients: parameters are {place}; {first.get('draws')} draws, truth: {truths_in_words(rows)}."
    return {point.label: point for point in points}, markdown.plain_text(about) + "\n"


def task_section(results: Results, points: dict[str, Point], about: str, picture_name: str) -> str:
    r"""Settings, picture and table of a task."""
    merit, runs = ranked_by(results), [run for group in results.groups for run in group.finished]
    assert merit is not None
    names = sorted({run.config.get("experiment", "") for run in runs})
    settings = [as_paragraphs(found.about) for name in names if (found := experiment(name))]
    titles = ["estimator", "runs", results.words(merit).with_unit]
    titles += ["bias / norm", "deviation / norm", "evaluations a draw", "ms a draw"]
    rows = []
    for group in results.groups:
        own = cell(results, group, merit)
        text = f"**{own.text}**" if own.marked else own.text
        rows.append([markdown.plain_text(group.label), about_runs(group), text, *measured(points.get(group.label))])
    task = markdown.plain_text(results.task)
    parts = [
        f"\n## {task}\n",
        *settings,
        about,
        f"![{task}]({picture_name})\n",
        markdown.table(titles, rows),
        circumstances_line(runs),
    ]
    return "\n".join(part for part in parts if part)


def measured(point: Point | None) -> list[str]:
    r"""Cells about gradient draws."""
    if point is None:
        return [NONE] * 4
    deviation = math.nan if math.isnan(point.bias) else point.deviation  # it would be over another gradient's norm
    figures = (point.bias, deviation, point.evaluations, 1e3 * point.seconds)
    bias, *others = (
        NONE if not math.isfinite(x) else f"{float(f'{x:.3g}'):,g}" if x >= 0.01 else f"{x:.1g}" for x in figures
    )
    return ["< " * (point.limit and point.bias > 0) + bias, *others]


def drawing(results: Results, points: dict[str, Point]) -> dict:
    r"""Figure of merit, bias, deviation and time, a panel each and a line for every estimator, for print."""
    merit, order = ranked_by(results), [group.label for group in results.groups if group.finished]
    assert merit is not None
    means = {label: results.means[label][merit] for label in order if merit in results.means[label]}
    own = [points[label] for label in order if label in points]
    figures = {
        results.words(merit).with_unit: [(label, m.value, np.nan_to_num(m.error), False) for label, m in means.items()],
        "bias / |true gradient|": [(p.label, p.bias, 0.0, p.limit) for p in own],
        "standard deviation / |true gradient|": [
            (p.label, p.deviation, 0.0, False) for p in own if not math.isnan(p.bias)
        ],
        "ms a draw": [(p.label, 1e3 * p.seconds, 0.0, False) for p in own],
    }
    edge = edge_of([mean.value for mean in means.values()])
    charts = [
        ranking_panel(order, title, found, None if n else edge)
        for n, (title, found) in enumerate(figures.items())
        if found
    ]
    remark = "Bars: a standard error. Hollow: it lies below this. Empty: unknown, or 0."
    return picture_of_charts(charts, f"{results.task}: every estimator, untuned", len(charts), remark)


def edge_of(values: list[float]) -> float:
    r"""Of values from the best to the worst, the last that is drawn to scale: a few bad ones would hide all others."""
    if len(values) < NEVER_CUT:
        return values[-1]
    inner = abs(values[0] - values[len(values) // 2])
    return next(v for v in reversed(values) if abs(v - values[0]) <= DRAWN_TO * inner)


def ranking_panel(
    order: list[str], title: str, figures: list[tuple[str, float, float, bool]], edge: float | None
) -> alt.LayerChart:
    r"""A figure and its standard error for each label in this order; what is worse than an edge is written there.

    Without an edge the axis is logarithmic.
    """
    rows, log = [], edge is None
    worse = 0 if log else np.sign(figures[-1][1] - figures[0][1])
    for label, value, error, limit in figures:
        if not math.isfinite(value) or (log and value <= 0):
            continue
        row = {"label": label, "value": rounded(value), "limit": limit, "note": ""}
        row |= {"low": rounded(value - error), "high": rounded(value + error)}
        if edge is not None and worse * (value - edge) > 0:
            text = f"{value:.3g}".replace("-", "−")
            row |= dict.fromkeys(("value", "low", "high"), edge) | {"note": f"{text} →" if worse > 0 else f"← {text}"}
        rows.append(row)
    scale = alt.Scale(type="log", nice=False, padding=8) if log else alt.Scale(zero=False, nice=False, padding=8)
    axis = alt.Axis(grid=True, labels=not log, labelLimit=300, ticks=False)
    y = alt.Y("label:N", sort=order, title=None, scale=alt.Scale(domain=order), axis=axis)
    x = lambda name: alt.X(f"{name}:Q", title=title, scale=scale, axis=axis_of(log))
    base = alt.Chart(alt.InlineData(rows)).encode(y=y)
    bar = base.mark_rule(color=COLOUR, strokeWidth=1.5).transform_filter("!datum.note").encode(x=x("low"), x2="high:Q")
    points = [
        base.mark_point(size=45, filled=filled, color=COLOUR, opacity=1).transform_filter(which).encode(x=x("value"))
        for which, filled in (("!datum.note && !datum.limit", True), ("datum.limit", False))
    ]
    beyond = base.mark_text(color=COLOUR, align="right" if worse > 0 else "left").encode(x=x("value"), text="note:N")
    return alt.layer(bar, *points, beyond).properties(width=PANEL_WIDTH, height=ROW * len(order))
