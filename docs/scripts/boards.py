"""Where an estimator stands on the leaderboards, and how much it depends on its settings: from the archive of runs."""

import functools
import textwrap

import drawing
from drawing import BLUE, GREEN, INK, ORANGE

from hardmax import markdown
from hardmax.paths import ROOT
from hardmax.reporting.groups import grouped
from hardmax.reporting.leaderboard import board_of, is_black_box
from hardmax.reporting.runs import find_runs
from hardmax.reporting.settings import listed
from hardmax.reporting.tables import cell
from hardmax.reporting.tuning import merit_reported

LINES = ((BLUE, "o-"), (ORANGE, "s--"), (GREEN, "^:"))  # of the values of an estimator's own option
RATE = "optimizer.lr"


@functools.cache
def boards():
    """The leaderboard of each problem, by its name."""
    found = find_runs([ROOT / "docs/leaderboard"])
    known = sorted({run.estimator for run in found.runs})
    made = {task: board_of(task, groups, known) for task, groups in grouped(found.runs, [], known, []).items()}
    return {task: board for task, board in made.items() if board}


def regions():
    """A table of which estimators are the best on each problem, by what is equal and what the objective allows."""
    rows = []
    for task, board in boards().items():
        merit, valid = merit_reported(board.found), board.found.metric
        equal = ((None, merit), (board.evaluations, valid), (board.seconds, valid))
        for about, kept in {"has a derivative": lambda name: True, "is a black box": is_black_box}.items():
            rows.append([task, about, *(names_of_best(board.results(b, kept), metric) for b, metric in equal)])
    titles = ("problem", "the cost", "at equal steps", "at equal evaluations", "at equal seconds")
    return markdown.table(titles, rows) if rows else ""


def names_of_best(results, metric):
    """The best and what is not significantly worse, the best first."""
    marked = [group.label for group in results.groups if cell(results, group, metric).marked]
    return ", ".join(f"[`{name}`](estimators.md)" for name in marked)


def entries_of(name):
    """The estimator's entry on each problem where it stands, with the problem's leaderboard."""
    return [(board, entry) for board in boards().values() for entry in board.entries if entry.estimator == name]


def section(name):
    """Its place, its best setting and its figure on each problem; empty where it has not run."""
    rows = []
    for board, entry in entries_of(name):
        results, merit = board.results(None), merit_reported(board.found)
        place, group = next((n, group) for n, group in enumerate(results.groups, 1) if group.label == entry.label)
        about, figure = results.words(merit), cell(results, group, merit).text
        cells = [board.found.task, f"{place} of {len(results.groups)}", listed(entry.chosen.values)]
        rows.append([*cells, f"{figure} {about.unit}".strip(), about.title])
    if not rows:
        return ""
    table = markdown.table(("problem", "place", "best setting", "figure", "which is"), rows)
    return (
        "\n## When it is tuned\n\nOn the [leaderboards](../leaderboard.md), at equal steps, each at the best of as "
        f"many settings; mean over five other seeds ± standard error.\n\n{table}\n"
        f'<div class="sensitivity">{name}</div>\n'
    )


def picture(name):
    """HTML of its validation figure at each of the settings that were tried, a panel for each problem."""
    caption = "The figure on validation at the end of one run of each setting; the ring is the one that was chosen."
    return drawing.figure(lambda: drawn(name), caption, f"sensitivity of {name}")


def drawn(name):
    found = entries_of(name)
    figure, axes = drawing.panels(len(found), 2.6)
    for axis, (board, entry) in zip(axes, found, strict=True):
        lines = {}
        for setting in entry.settings:
            own = listed({key: value for key, value in setting.values.items() if key != RATE})
            if setting.mean and not setting.lacking:
                lines.setdefault(own, []).append((float(setting.values[RATE]), setting.mean.value))
        for (own, points), (color, style) in zip(lines.items(), LINES, strict=False):
            axis.plot(*zip(*sorted(points), strict=True), style, color=color, label=own)
        chosen = (float(entry.chosen.values[RATE]), entry.chosen.mean.value)
        axis.plot(*chosen, "o", color=INK, markersize=12, fillstyle="none", clip_on=False)
        if len(lines) > 1:
            axis.legend(fontsize=7)
        axis.set(xscale="log", xlabel="learning rate", title=board.found.task)
        rates = sorted({rate for points in lines.values() for rate, _ in points})
        axis.set_xticks(rates, [f"{rate:g}" for rate in rates], minor=False)
        axis.set_xticks([], minor=True)
    axes[0].set_ylabel(textwrap.fill(board.found.words.with_unit, 24))
    return figure
