r"""Sections of a page about tuned estimators."""

from dataclasses import dataclass

from hardmax.numbers import with_minus, without_error

from . import tuning_charts
from .charts import specification
from .costs import front, leaders, offered_budgets, reached
from .pairs import Pair
from .sections import Charts, Section, rendered
from .sensitivity import panels
from .statistics import FEWEST, LEVEL
from .tables import NONE, answer, final_table
from .tuning import FEWER, Tuned, at_edges, count_of, ended_before, merit_reported, tested_pairs, trials_of, tuned
from .validation import X_AXES
from .words import AXES

MOST_IN_MATRIX = 12  # entries, the best


def tuned_sections(found: Tuned, drawn: Charts) -> list[Section]:
    r"""What a page says of tuned estimators."""
    parts = [comparison(found), pairs_section(found), equal_cost(found, drawn), trials(found, drawn)]
    return [part for part in parts if part]


def comparison(found: Tuned) -> Section:
    chosen = [entry for entry in found.entries if entry.chosen and len(entry.settings) > 1]
    html = rendered(
        "tuned.html",
        found=found,
        table=final_table(found.results),
        answer=answer(found.results),
        same=[entry.label for entry in chosen if not entry.others],
        others=[entry.label for entry in chosen if entry.others],
        fewer=[entry.label for entry in found.entries if len(entry.settings) < found.most_trials],
        edges=at_edges(found),
        tied=[(entry.label, count_of(entry.tied, "setting")) for entry in chosen if entry.tied],
        lacking=[(e.label, e.chosen.lacking) for e in chosen if e.chosen and e.chosen.lacking],
        bad=[(e.label, n) for e in found.entries if (n := sum(s.lacking > 0 for s in e.settings))],
        early=ended_before(found),
        mark=FEWER,
        few=FEWEST,
    )
    title = f"Tuned, at {found.budget}" if found.budget else "Tuned: each estimator at its best setting"
    return Section(title, html)


# ---------------------------------------------------------------- pairs


@dataclass(frozen=True)
class PairCell:
    r"""What the matrix says of two entries: the difference, its interval, and whether it outlives the correction."""

    text: str
    interval: str = ""
    significant: bool = False


def pairs_section(found: Tuned) -> Section | None:
    pairs, metric = tested_pairs(found), merit_reported(found)
    compared = [pair.difference for pair in pairs if pair.difference]
    if not compared or metric is None:
        return None
    labels = list(dict.fromkeys(label for pair in pairs for label in (pair.first, pair.second)))
    shown = [group for group in found.results.groups if group.label in labels][:MOST_IN_MATRIX]
    cells = {}
    for pair in pairs:
        cells[pair.first, pair.second] = pair_cell(pair, 1)
        cells[pair.second, pair.first] = pair_cell(pair, -1)
    html = rendered(
        "pairs.html",
        groups=shown,
        cells=cells,
        dash=NONE,
        words=found.results.words(metric),
        left_out=len(labels) - len(shown),
        tested=len(compared),
        pairs=len(pairs),
        unpaired=sum(not difference.paired for difference in compared),
        level=LEVEL,
        few=FEWEST,
    )
    return Section("Pairs", html)


def pair_cell(pair: Pair, sign: int) -> PairCell:
    if pair.difference is None:
        return PairCell("?")
    ends = sorted(0.0 + sign * end for end in (pair.difference.low, pair.difference.high))
    written = lambda value: without_error(value, (ends[1] - ends[0]) / 4)
    low, high, mean = map(written, (*ends, 0.0 + sign * pair.difference.mean))
    return PairCell("+" * (sign * pair.difference.mean > 0) + mean, f"{low} to {high}", pair.significant)


# ---------------------------------------------------------------- at equal cost


def equal_cost(found: Tuned, drawn: Charts) -> Section | None:
    figures = [figure for axis in X_AXES if (figure := add_budget(found, axis, drawn))]
    if not figures:
        return None
    budgets = [budget for axis in X_AXES for budget in offered_budgets(found, axis)]
    groups = [setting.group for entry in found.entries for setting in entry.settings]
    tables = []
    for budget in budgets:
        if one := tuned(found.task, groups, found.keys, found.known, budget):
            early = ended_before(one)
            tables.append((str(budget), answer(one.results), final_table(one.results), early))
    html = rendered("costs.html", figures=figures, tables=tables, looks=entry_looks(found), words=found.words)
    return Section("At equal cost", html)


def entry_looks(found: Tuned) -> dict:
    return {group.label: group.look for group in found.results.groups if group.look}


def add_budget(found: Tuned, axis: str, drawn: Charts) -> dict | None:
    r"""Adds a chart against budgets of one axis; what its figure says."""
    lines = reached(found, axis)
    if not lines:
        return None
    points = front(lines, found.words.better)
    chart, rows = tuning_charts.budget_chart(found.words, axis, tuning_charts.budget_rows(lines), points)
    number = drawn.add(kind="points", spec=specification(chart), rows=rows)
    first = [
        (label, with_minus(f"{amount:,.3g}") if amount < 1000 else f"{amount:,.0f}")
        for amount, label in leaders(points)
    ]
    return {"chart": number, "title": AXES[axis], "leaders": first}


# ---------------------------------------------------------------- what tuning takes


def trials(found: Tuned, drawn: Charts) -> Section | None:
    r"""The expected best of n settings, and how figures depend on options."""
    curves = trials_of(found)
    expected = tuning_charts.trials_rows(curves)
    if not expected:
        return None
    chart, rows = tuning_charts.trials_chart(found.words, expected)
    number = drawn.add(kind="points", spec=specification(chart), rows=rows)
    shown = panels(found)
    limits, looks = tuning_charts.sensitivity_limits(shown, found.words.better), entry_looks(found)
    small = []
    for panel in shown:
        chart = tuning_charts.sensitivity_chart(panel, found.words, limits, looks[panel.label])
        place = drawn.add(kind="still", spec=specification(chart), height=tuning_charts.height_of(panel))
        small.append({"chart": place, "panel": panel, "look": looks[panel.label]})
    html = rendered(
        "trials.html",
        chart=number,
        looks={label: look for label, look in looks.items() if label in curves},
        small=small,
        words=found.words,
        budget=found.budget,
        heat=any(len(panel.options) == 2 for panel in shown),
        failed=any(row["failed"] for panel in shown for row in panel.rows),
        scattered=any(not panel.line for panel in shown),
    )
    return Section("What tuning takes", html)
