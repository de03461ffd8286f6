r"""Tables and pictures about tuned estimators."""

from collections.abc import Iterator

import altair as alt
import pandas as pd

from . import tables, tuning_charts
from .charts import as_files, legend_below, picture_of_charts
from .costs import front, reached
from .sensitivity import panels
from .spreadsheets import as_csv
from .tuning import Tuned, tested_pairs, trials_of
from .validation import X_AXES
from .words import AXES

TUNED, SENSITIVITY = "_tuned", "_sensitivity"  # after a task, in the names of files
PANEL = {"width": 300, "height": 230}
SMALL_PANEL = {"width": 190, "height": 130}
MOST_PANELS = 60  # of a picture
REMARK = "Band: ± one standard error over the reported runs. Grey: the front of the best."


def tuned_files(found: dict[str, Tuned]) -> Iterator[tuple[str, str | bytes]]:
    r"""Names and contents of files, given the comparisons by the names that their tasks have in those of files."""
    every = list(found.values())
    if not every:
        return
    yield "tuned.csv", as_csv(tables.final_csv([one.results for one in every]))
    yield "settings.csv", as_csv(settings_table(every))
    yield "pairs.csv", as_csv(pairs_table(every))
    for name, one in found.items():
        table = tables.final_table(one.results)
        yield f"{name}{TUNED}.md", tables.as_markdown(table)
        yield f"{name}{TUNED}.tex", tables.as_latex(table)
        for part, spec in tuned_pictures(one).items():
            for ending, content in as_files(spec):
                yield name + part + ending, content


def settings_table(found: list[Tuned]) -> pd.DataFrame:
    r"""Every setting that was tried: its figures when it was judged, and whether it was chosen."""
    rows = []
    for one in found:
        for entry in one.entries:
            for setting in entry.settings:
                mean = setting.mean
                row: dict[str, object] = {
                    "task": one.task,
                    "label": entry.label,
                    **setting.values,
                    "metric": one.metric,
                }
                row |= {"budget": str(one.budget or ""), "mean": mean and mean.value, "error": mean and mean.error}
                row |= {"tuning_seeds": " ".join(setting.seeds), "without_figure": setting.lacking}
                rows.append(row | {"chosen": setting is entry.chosen})
    return pd.DataFrame(rows)


def pairs_table(found: list[Tuned]) -> pd.DataFrame:
    r"""Every pair: its difference, the interval, and the corrected probability."""
    rows = []
    for one in found:
        for pair in tested_pairs(one):
            of = lambda name, pair=pair: getattr(pair.difference, name) if pair.difference else None
            row: dict[str, object] = {"task": one.task, "first": pair.first, "second": pair.second}
            row |= {f"difference_{name}": of(name) for name in ("mean", "low", "high", "paired")}
            rows.append(row | {"corrected_probability": pair.corrected, "significant": pair.significant})
    return pd.DataFrame(rows)


def tuned_pictures(found: Tuned) -> dict[str, dict]:
    r"""Specifications for print, by what the names of their files end in."""
    looks = {group.label: group.look for group in found.results.groups if group.look}
    legend, charts, pictures = legend_below(looks), [], {}
    for axis in X_AXES:
        if lines := reached(found, axis):
            rows, points = tuning_charts.budget_rows(lines), front(lines, found.words.better)
            chart, _ = tuning_charts.budget_chart(found.words, axis, rows, points, looks, legend)
            charts.append(chart.properties(title=f"Best within a budget of {AXES[axis].split(',')[0]}", **PANEL))
    if rows := tuning_charts.trials_rows(trials_of(found)):
        chart, _ = tuning_charts.trials_chart(found.words, rows, looks, legend)
        charts.append(chart.properties(title="Expected best of so many settings", **PANEL))
    title = f"{found.task}: {found.words.title}, tuned"
    if charts:
        pictures[TUNED] = picture_of_charts(charts, title, len(charts), REMARK)
    shown = panels(found)[:MOST_PANELS]
    limits = tuning_charts.sensitivity_limits(shown, found.words.better)
    small = [
        tuning_charts.sensitivity_chart(panel, found.words, limits, looks[panel.label]).properties(
            title=alt.Title(panel.label, fontSize=11), **SMALL_PANEL
        )
        for panel in shown
    ]
    if small:
        remark = "Mean over the tuning seeds, band ± one standard error; other options at their best."
        pictures[SENSITIVITY] = picture_of_charts(small, title, min(len(small), 5), remark)
    return pictures
