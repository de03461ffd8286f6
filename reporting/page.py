r"""One page of HTML that needs nothing else: a list of sections, with charts that a reader can change."""

import contextlib
import datetime
import functools
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import altair as alt
import pooch
import vl_convert
from markupsafe import Markup

from hardmax.files import write_whole

from . import charts
from .biases import BiasComparison
from .curves import Curve
from .examples import exhibits
from .final_figures import Results
from .groups import Group
from .looks import Look, looks
from .provenance import provenance
from .published.join import Comparison
from .published.texts import HEADS, by_table, cells
from .sections import HERE, Charts, Section, rendered
from .tables import answer, final_table
from .tuned_sections import tuned_sections
from .tuning import Tuned
from .words import AXES, Words

MOST_LISTED = 50  # runs or notes of one kind


@dataclass
class OnTask:
    r"""Everything about one task that a page shows.

    Attributes:
        results: Final figures.
        first, others: Metrics that have curves: those that matter most, and the others.
        curves: Of the groups in ``drawn``.
        drawn: Groups that charts show.
        comparisons: Bias, variance and cost.
        published: Published values beside those of the runs.
        tuned: Estimators at their best settings, if that is asked for.
    """

    results: Results
    first: list[str]
    others: list[str]
    curves: list[Curve]
    drawn: list[Group]
    comparisons: list[BiasComparison]
    published: list[Comparison] = field(default_factory=list)
    tuned: Tuned | None = None

    @functools.cached_property
    def looks(self) -> dict[str, Look]:
        r"""The look of every label in a chart; one that was measured beside the groups has its estimator's colour."""
        own = {group.label: group for group in self.results.groups}
        measured = {point.label: point.estimator for each in self.comparisons for point in each.points}
        known = [group.estimator for group in own.values()]
        found = looks({label: group.estimator for label, group in own.items()} | measured, known)
        tuned = {group.label: group.look for group in self.tuned.results.groups if group.look} if self.tuned else {}
        return found | tuned | {label: group.look for label, group in own.items() if group.look}


def page(tasks: list[OnTask], about: dict[str, str], notes: list[str]) -> str:
    r"""The page.

    Arguments:
        tasks: What it is about.
        about: Facts for its head, by name.
        notes: On what was left out.
    """
    drawn = Charts()
    parts = []
    for on in tasks:
        first = tuned_sections(on.tuned, drawn) if on.tuned else []
        rest = [section(on, drawn, notes) for section in SECTIONS]
        parts.append((on, [*first, *filter(None, rest)]))
    names = "; ".join(on.results.task for on in tasks)
    return rendered(
        "page.html",
        title=f"hardmax report: {names}",
        parts=parts,
        about=about,
        notes=list(dict.fromkeys(notes)),
        most=MOST_LISTED,
        data={"charts": drawn.all, "config": charts.CONFIG, "tasks": [looks_of(on) for on in tasks], "axes": AXES},
        style=Markup((HERE / "page.css").read_text("utf-8")),
        script=Markup((HERE / "page.js").read_text("utf-8")),
        library=library(),
    )


@functools.cache
def library() -> Markup:
    r"""The code that draws charts in a browser, which takes seconds to bundle, and is kept in the user's cache."""
    kept = Path(pooch.os_cache("hardmax"), f"charts_{VEGA_LITE}_{version('vl-convert-python')}.js")
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if code := kept.read_text("utf-8"):
            return Markup(code)
    code = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", VEGA_LITE)
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_whole(kept, code)
    return Markup(code)


def looks_of(on: OnTask) -> dict[str, list]:
    r"""The labels in the charts of a task, and how they look."""
    return {"label": list(on.looks), **charts.ranges(on.looks)}


VEGA_LITE = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])


# ---------------------------------------------------------------- sections: each gives one, or None without content


def final_figures_section(on: OnTask, drawn: Charts, notes: list[str]) -> Section:
    table = final_table(on.results)
    lost = [run for group in on.results.groups for run in group.runs if not run.finished]
    missing = [group for group in on.results.groups if group.missing]
    verdicts = [verdict for found in on.results.verdicts.values() for verdict in found.values()]
    html = rendered(
        "figures.html", table=table, answer=answer(on.results), lost=lost, missing=missing, most=MOST_LISTED,
        untested=any(verdict.untested for verdict in verdicts), results=on.results,
    )  # fmt: skip
    return Section("Final figures", html)


def training_curves(on: OnTask, drawn: Charts, notes: list[str]) -> Section | None:
    if not on.curves:
        return None
    looks = {group.label: group.look for group in on.drawn}
    lists = [[add_curves(on, metric, drawn) for metric in part] for part in (on.first, on.others)]
    left_out = len([group for group in on.results.groups if group.finished]) - len(on.drawn)
    html = rendered(
        "curves.html", looks=looks, first=lists[0], others=lists[1], axes=AXES, left_out=left_out, over=on.results.over
    )
    return Section("Along training", html)


def add_curves(on: OnTask, metric: str, drawn: Charts) -> dict:
    r"""Adds a chart of curves; what its figure says."""
    words = on.results.words(metric)
    curves = {axis: [c for c in on.curves if (c.metric, c.axis) == (metric, axis)] for axis in AXES}
    chart = drawn.add(
        kind="curves",
        log=words.log,
        better=words.better,
        spec=charts.specification(charts.curve_chart(words)),
        columns={axis: as_columns(charts.curve_rows(curves[axis]), list(on.looks)) for axis in AXES},
    )
    there = {curve.label for curve in curves["steps"]}
    absent = [group.label for group in on.drawn if group.label not in there]
    limits = any(curve.limit.any() for curve in curves["steps"])
    return {"chart": chart, "words": words, "absent": absent, "limits": limits, "caption": caption(metric, words)}


def as_columns(rows: list[dict], labels: list[str]) -> dict[str, list]:
    r"""Rows as columns, which take less space; labels as their numbers, truth as 0 and 1."""
    names = ("x", "mean", "low", "high", "runs")
    number = {label: n for n, label in enumerate(labels)}
    found = {name: [row[name] for row in rows] for name in names} | {"label": [number[row["label"]] for row in rows]}
    return found | {name: [int(row[name]) for row in rows] for name in ("limit", "mark")}


def caption(metric: str, words: Words) -> str:
    what = metric.rpartition("/")[2]
    if metric == "train/loss":
        return "Mean since the last row. Each estimator minimises its own loss: a relaxed one is not the discrete one."
    if metric.startswith("valid/"):
        return "On data that is not trained on."
    return {
        "variance": "Trace of the covariance of single draws on a fixed batch. Geometric mean, logarithmic axis.",
        "bias2": "Distance of the mean gradient from the true one, over the true one's norm. Logarithmic axis.",
        "snr": "Squared norm of the mean gradient over its variance. Geometric mean, logarithmic axis.",
        "dead": "Share of components that are zero, but for rounding, in all draws.",
    }.get(what, "")


def bias_and_noise(on: OnTask, drawn: Charts, notes: list[str]) -> Section | None:
    if not on.comparisons:
        return None
    entries = [
        {"title": each.title, "charts": [add_bias(each, equal, drawn) for equal in (False, True)]}
        for each in on.comparisons
    ]
    labels = {point.label: on.looks[point.label] for each in on.comparisons for point in each.points}
    return Section("Bias, variance and cost of the gradient", rendered("biases.html", entries=entries, looks=labels))


def add_bias(comparison: BiasComparison, at_equal_cost: bool, drawn: Charts) -> int:
    spec = charts.specification(charts.bias_chart(comparison))
    return drawn.add(kind="points", spec=spec, rows=charts.bias_rows(comparison, at_equal_cost))


def side_by_side(on: OnTask, drawn: Charts, notes: list[str]) -> Section | None:
    shown = exhibits(on.results.groups, notes, drawn.pictures)
    return Section("Side by side", rendered("examples.html", exhibits=shown)) if shown else None


def published_figures(on: OnTask, drawn: Charts, notes: list[str]) -> Section | None:
    if not on.published:
        return None
    tables = [(*head, [cells(beside) for beside in group]) for *head, group in by_table(on.published)]
    return Section("Published figures", rendered("published.html", tables=tables, heads=HEADS))


def where_from(on: OnTask, drawn: Charts, notes: list[str]) -> Section:
    groups = on.results.groups
    return Section("Where the figures come from", rendered("provenance.html", found=provenance(groups), groups=groups))


SECTIONS: list[Callable[[OnTask, Charts, list[str]], Section | None]] = [
    final_figures_section,
    published_figures,
    training_curves,
    bias_and_noise,
    side_by_side,
    where_from,
]


# ---------------------------------------------------------------- small things


def head_facts(folders: list[Path], conditions: list[str], by: list[str], runs: int) -> dict[str, str]:
    r"""What the head of a page says about it."""
    found = {"made": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"), "runs found": f"{runs:,}"}
    found["folders"] = ", ".join(map(str, folders))
    found |= {"only": " ".join(conditions)} if conditions else {}
    found |= {"grouped by": ", ".join(by)} if by else {}
    return found | {"command": shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])}
