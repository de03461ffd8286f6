r"""Published series beside measured ones: curves along training, and figures along an option."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import altair as alt
import numpy as np

from hardmax import markdown
from hardmax.numbers import with_error, with_minus

from .charts import inline, legend_below, picture_of_charts, ranges, rounded
from .looks import looks
from .published.join import AGREES, DIFFERS, Comparison

PANELS_ABREAST = 3
MANY_SERIES = 12  # are named in a sentence; more are counted
WIDE = 4  # times the smallest number of an axis, from which on it is logarithmic
ROUNDING_SHARE = 1e-6  # of the largest bias; what is below is drawn there, as it has nothing but rounding
SERIES_REMARK = "Dots: published. Lines: measured, mean over seeds; bands: two standard deviations of such a figure."
PLANE_REMARK = "Dots: published, one for each temperature. Lines: measured, geometric mean over seeds."


def series_rows(comparisons: Sequence[Comparison]) -> list[dict[str, str]]:
    r"""A row for each series of a table with runs: how many of its figures agree, and how far ours are from theirs."""
    return [one_series(found) for found in by_series(comparisons).values() if has_runs(found)]


def by_series(comparisons: Sequence[Comparison]) -> dict[str, list[Comparison]]:
    found = defaultdict(list)
    for c in comparisons:
        found[c.published.series].append(c)
    return found


def has_runs(comparisons: Sequence[Comparison]) -> bool:
    return any(c.mean is not None for c in comparisons)


def series_not_run(comparisons: Sequence[Comparison]) -> str:
    r"""A sentence on the series of a table of which nothing was run, with names if few; empty if there are none."""
    missing = {name: len(found) for name, found in by_series(comparisons).items() if not has_runs(found)}
    if len(missing) > MANY_SERIES:
        return f"Nothing was run of {len(missing)} series, with {sum(missing.values())} figures.\n"
    named = ", ".join(f"{name} ({n})" for name, n in missing.items())
    return f"Series of which nothing was run, and their numbers of figures: {named}.\n" if named else ""


def one_series(found: list[Comparison]) -> dict[str, str]:
    along, at = found[0].published.along, [c.published.at for c in found]
    measured = [c for c in found if c.difference is not None]
    shares = [abs(c.difference / c.published.value) for c in measured if c.difference is not None and c.published.value]
    errors = [abs(c.in_errors) for c in measured if c.in_errors is not None]
    verdicts = Counter(c.verdict for c in found)
    row = {
        "": found[0].published.series,
        "along": f"{along}, {min(at):,} to {max(at):,}",
        "figures": str(len(found)),
        **{verdict: str(verdicts[verdict] or "") for verdict in (AGREES, DIFFERS)},
    }
    others = {verdict: n for verdict, n in verdicts.items() if verdict not in (AGREES, DIFFERS)}
    row["other verdicts"] = ", ".join(f"{n} {verdict}" for verdict, n in others.items())
    row["middle difference"] = f"{with_error(100 * float(np.median(shares)))} %" if shares else ""
    row["largest in standard deviations"] = with_minus(f"{max(errors):.1f}") if errors else ""
    names = dict.fromkeys(run.folder.name for c in found for run in c.runs)
    row["runs"] = markdown.plain_text(", ".join(names))
    return row


def series_picture(comparisons: Sequence[Comparison], title: str) -> dict | None:
    r"""Published points over measured curves, a panel for each table; None if nothing of any is measured."""
    by_table = defaultdict(list)
    for c in comparisons:
        if c.published.series and c.mean is not None:
            by_table[c.published.table].append(c)
    colour, charts = colours([c.published.series for found in by_table.values() for c in found]), []
    for table, found in by_table.items():
        rows = [point_row(c) for c in found]
        x = alt.X("at:Q", title=found[0].published.along, scale=scale_of(rows, "at"))
        y = alt.Y("mean:Q", title=None, scale=scale_of(rows, "published", "mean"))
        if spread_wide(rows, "published", "mean"):  # a logarithmic axis, which has no 0
            least = min(min(row["published"], row["mean"]) for row in rows)
            rows = [row if row["low"] > 0 else row | {"low": least} for row in rows]
        base = alt.Chart(inline(rows)).properties(width=300, height=220, title=table)
        band = base.mark_area(opacity=0.15).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour)
        line = base.mark_line(strokeWidth=1.5).encode(x=x, y=y, color=colour)
        dots = base.mark_point(filled=True, opacity=1, size=24).encode(x=x, y="published:Q", color=colour)
        charts.append(alt.layer(band, line, dots))
    return picture_of_charts(charts, title, min(len(charts), PANELS_ABREAST), SERIES_REMARK) if charts else None


def plane_picture(comparisons: Sequence[Comparison], across: str, up: str, title: str) -> dict | None:
    r"""One quantity against another, a panel for each problem; None if nothing is measured.

    Arguments:
        comparisons: Whose tables are called by the quantity, a comma and the problem.
        across, up: The two quantities; both are positive.
    """
    by_problem: dict[str, dict] = defaultdict(lambda: defaultdict(dict))
    for c in comparisons:
        quantity, _, problem = c.published.table.partition(", ")
        if c.mean is not None:
            by_problem[problem][c.published.series or c.published.name, c.published.at][quantity] = c
    colour, charts = colours([name for found in by_problem.values() for name, _ in found]), []
    for problem, found in by_problem.items():
        rows = []
        for (name, at), pair in found.items():
            if across in pair and up in pair:
                row = {"series": name, "at": at, "x": pair[across].mean, "published_x": pair[across].published.value}
                rows.append(row | {"y": pair[up].mean, "published_y": pair[up].published.value})
        least = ROUNDING_SHARE * max((row["published_x"] for row in rows), default=1.0)
        rows = [{k: max(v, least) if k in ("x", "published_x") else v for k, v in row.items()} for row in rows]
        base = alt.Chart(inline(rows)).properties(width=300, height=240, title=problem)
        log = alt.Scale(type="log", nice=False)
        x, y = alt.X("x:Q", title=across.lower(), scale=log), alt.Y("y:Q", title=up.lower(), scale=log)
        line = base.mark_line(strokeWidth=1.5).encode(x=x, y=y, color=colour, order="at:Q")
        dots = base.mark_point(filled=True, opacity=1, size=22)
        charts.append(alt.layer(line, dots.encode(x="published_x:Q", y="published_y:Q", color=colour)))
    return picture_of_charts(charts, title, min(len(charts), PANELS_ABREAST), PLANE_REMARK) if charts else None


def colours(names: list[str]) -> alt.Color:
    r"""A colour for each series, and their legend, in the order in which they come."""
    if not names:
        return alt.Color()
    of_series = looks({name: name for name in names}, [])
    own = {name: of_series[name] for name in dict.fromkeys(names)}
    scale = alt.Scale(domain=list(own), range=ranges(own)["color"])
    return alt.Color("series:N", title=None, scale=scale, legend=legend_below(own))


def point_row(c: Comparison) -> dict:
    r"""A point of a series, two standard deviations of such published figures about ours."""
    assert c.mean is not None
    assert c.difference is not None
    reach = 2 * abs(c.difference / c.in_errors) if c.in_errors else 0.0
    row = {"series": c.published.series, "at": c.published.at, "published": rounded(c.published.value)}
    return row | {"mean": rounded(c.mean), "low": rounded(c.mean - reach), "high": rounded(c.mean + reach)}


def scale_of(rows: list[dict], *names: str) -> alt.Scale:
    r"""Of an axis: logarithmic where numbers are spread widely."""
    return alt.Scale(type="log", nice=False) if spread_wide(rows, *names) else alt.Scale(zero=False)


def spread_wide(rows: list[dict], *names: str) -> bool:
    r"""Whether numbers are positive and span more than a factor of 4."""
    found = [row[name] for row in rows for name in names]
    return min(found) > 0 and max(found) > WIDE * min(found)
