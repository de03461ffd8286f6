r"""Charts of tuned estimators, as specifications like those of ``charts``: against budgets, trials and options."""

import altair as alt
import numpy as np

from .charts import MARKERS, axis_limits, axis_of, channels, cut_rows, hover, inline, rounded
from .costs import Reached
from .looks import Look
from .sensitivity import Panel
from .settings import listed
from .words import AXES, Words

MOST_TICKS = 12
FRONT = "#d0d4d9"
HEAT = "viridis"
CELL = 34  # pixels of a row of a heat map
FAILED_COLOUR = "#b00020"


def budget_rows(found: list[Reached]) -> list[dict]:
    r"""Rows of data for :func:`budget_chart`."""
    rows = []
    for number, one in enumerate(found):
        every = max(1, round(len(one.amounts) / MARKERS))
        for n, (amount, mean, setting) in enumerate(zip(one.amounts, one.means, one.settings, strict=True)):
            error = float(np.nan_to_num(mean.error))
            row = {"label": one.label, "x": rounded(amount), "mean": rounded(mean.value), "runs": mean.runs}
            row |= {"low": rounded(mean.value - error), "high": rounded(mean.value + error), "cut": ""}
            rows.append(row | {"mark": (n + number) % every == 0, "setting": listed(setting) or "–"})
    return rows


def with_cuts(rows: list[dict], log: bool, better: int) -> tuple[list[dict], list[float]]:
    r"""Rows with those that mark where lines leave the chart, and the limits of the figure's axis."""
    places = [row | {"x": float(np.log10(row["x"])) if log else row["x"]} for row in rows]
    limits = axis_limits(last_thirds(places) if log else places, log=False, better=better)
    cuts = [
        {"label": row["label"], "x": float(10 ** row["x"]) if log else row["x"], "y": row["y"], "mean": row["mean"]}
        | {"cut": "above" if row["above"] else "below", "mark": False}
        for row in cut_rows(places, limits)
    ]
    return rows + cuts, limits


def budget_chart(
    words: Words,
    axis: str,
    rows: list[dict],
    points: list[tuple[float, float, str]],
    looks: dict[str, Look] | None = None,
    legend: alt.Legend | None = None,
) -> tuple[alt.LayerChart, list[dict]]:
    r"""The best figure up to a budget against that budget, over the front of the best; and its rows.

    Without looks, a page brings these and the rows.
    """
    rows, limits = with_cuts(rows, log=True, better=words.better)
    x = alt.X("x:Q", title=AXES[axis], scale=alt.Scale(type="log", nice=False, padding=4), axis=axis_of(True))
    best = alt.Chart(inline([{"x": rounded(a), "mean": rounded(value)} for a, value, _ in points]))
    y = figure_axis(words, limits)
    band = best.mark_line(color=FRONT, strokeWidth=9, clip=True, description="front").encode(x=x, y=y("mean"))
    return lines_chart(rows, x, y, words, AXES[axis], looks, legend, below=[band]), rows


def trials_rows(found: dict[str, list[float]]) -> list[dict]:
    r"""Rows of data for :func:`trials_chart`, given the expected best of 1, 2, ... trials by label."""
    rows = []
    for label, values in found.items():
        for n, value in enumerate(values, 1):
            if np.isfinite(value):
                row = {"label": label, "x": n, "mean": rounded(value), "low": None, "high": None, "cut": ""}
                rows.append(row | {"mark": True, "runs": None, "setting": "–"})
    return rows


def trials_chart(
    words: Words, rows: list[dict], looks: dict[str, Look] | None = None, legend: alt.Legend | None = None
) -> tuple[alt.LayerChart, list[dict]]:
    r"""The expected best figure of n settings against n; and its rows."""
    rows, limits = with_cuts(rows, log=False, better=words.better)
    title = "settings tried, at random"
    most = max((row["x"] for row in rows), default=1)
    axis = alt.Axis(values=list(range(1, most + 1, -(-most // MOST_TICKS))), format="d")
    x = alt.X("x:Q", title=title, scale=alt.Scale(zero=False, nice=False, padding=8), axis=axis)
    return lines_chart(rows, x, figure_axis(words, limits), words, title, looks, legend), rows


def last_thirds(rows: list[dict]) -> list[dict]:
    r"""Of each line, the rows in the last third of what it covers: where it has come to what it is about."""
    covered = {row["label"]: [row["x"], row["x"]] for row in rows}
    for row in rows:
        ends = covered[row["label"]]
        ends[:] = [min(ends[0], row["x"]), max(ends[1], row["x"])]
    return [row for row in rows if row["x"] >= covered[row["label"]][0] / 3 + covered[row["label"]][1] * 2 / 3]


def figure_axis(words: Words, limits: list[float]):
    scale = alt.Scale(domain=limits, nice=False)
    return lambda name: alt.Y(f"{name}:Q", title=words.unit or None, scale=scale, axis=axis_of(False))


def lines_chart(
    rows: list[dict],
    x: alt.X,
    y,
    words: Words,
    title: str,
    looks: dict[str, Look] | None,
    legend: alt.Legend | None,
    below: list[alt.Chart] | None = None,
) -> alt.LayerChart:
    r"""Lines with bands and markers; hovering tells figures where a page brings the rows."""
    base = alt.Chart(alt.NamedData("rows") if looks is None else inline(rows))
    of = channels(looks, legend)
    inside = base.transform_filter("!datum.cut")
    band = inside.mark_area(fillOpacity=0.14, clip=True).encode(x=x, y=y("low"), y2="high:Q", color=of["color"])
    line = inside.mark_line(strokeWidth=2, clip=True)
    line = line.encode(x=x, y=y("mean"), color=of["color"], strokeDash=of["strokeDash"])
    mark = base.mark_point(size=45, clip=True, filled=True, opacity=1).transform_filter("datum.mark")
    layers = [*(below or []), band, line, mark.encode(x=x, y=y("mean"), color=of["color"], shape=of["shape"])]
    for where, shape, towards in (("above", "triangle-up", 4), ("below", "triangle-down", -4)):
        cut = base.mark_point(shape=shape, filled=True, size=60, opacity=1, yOffset=towards, description="cut")
        cut = cut.transform_filter(f"datum.cut == '{where}'")
        layers.append(cut.encode(x=x, y=y("y"), color=of["color"]))
    if looks is None:
        near = inside.mark_point(size=110, strokeWidth=2, clip=True).encode(x=x, y=y("mean"), color=of["color"])
        fields = {"label:N": "estimator", "x:Q": title, "mean:Q": words.title, "runs:Q": "runs", "setting:N": "setting"}
        layers.append(hover(near, fields))
    return alt.layer(*layers)


def sensitivity_limits(found: list[Panel], better: int) -> list[float]:
    r"""Limits of the figure that all panels share."""
    there = [row for panel in found for row in panel.rows if not row["failed"]]
    rows = [row | {"x": 0.0, "label": n} for n, row in enumerate(there)]
    return axis_limits(rows, log=False, better=better) if rows else [0.0, 1.0]


def sensitivity_chart(panel: Panel, words: Words, limits: list[float], look: Look) -> alt.LayerChart:
    r"""The figure against one option, with its band over seeds; or, coloured, over two."""
    rows = [
        row | {name: rounded(row[name]) for name in ("mean", "low", "high") if not row["failed"]} for row in panel.rows
    ]
    if len(panel.options) == 2:
        return heat_map(panel, words, limits, rows)
    scale = alt.Scale(type="log" if panel.log else "linear", nice=False, zero=False, padding=8)
    axis = alt.Axis(values=sorted({row["x"] for row in rows}), labelOverlap=True, format="~g", grid=False)
    x, y = alt.X("x:Q", title=spelled_option(panel.options[0]), scale=scale, axis=axis), figure_axis(words, limits)
    base = alt.Chart(inline(rows))
    there, colour = base.transform_filter("!datum.failed"), look.colour
    tooltip = tooltips(words)
    layers = []
    if panel.line:
        band = there.mark_area(fillOpacity=0.18, clip=True, color=colour).encode(x=x, y=y("low"), y2="high:Q")
        layers += [band, there.mark_line(strokeWidth=2, clip=True, color=colour).encode(x=x, y=y("mean"))]
    mark = there.mark_point(size=45, filled=True, opacity=1, clip=True, color=colour, shape=look.shape)
    layers.append(mark.encode(x=x, y=y("mean"), tooltip=tooltip))
    below = there.transform_filter(f"datum.mean < {limits[0]} || datum.mean > {limits[1]}")
    edge = alt.Y("edge:Q", scale=alt.Scale(domain=limits, nice=False), axis=axis_of(False), title=words.unit or None)
    far = below.transform_calculate(edge=f"datum.mean < {limits[0]} ? {limits[0]} : {limits[1]}")
    triangle = far.mark_point(shape="triangle-down", filled=True, size=60, opacity=1, color=colour, yOffset=-4)
    layers.append(triangle.encode(x=x, y=edge, tooltip=tooltip))
    failed = base.transform_filter("datum.failed").mark_text(text="×", color=FAILED_COLOUR, fontSize=15, dy=-6)
    layers.append(failed.encode(x=x, y=alt.value("height"), tooltip=tooltip))
    return alt.layer(*layers)


def heat_map(panel: Panel, words: Words, limits: list[float], rows: list[dict]) -> alt.LayerChart:
    r"""The figure coloured over two options."""
    sort = lambda name: sorted({row[name] for row in rows}, reverse=name == "y")
    x = alt.X("x:O", title=spelled_option(panel.options[0]), sort=sort("x"), axis=alt.Axis(labelAngle=0))
    y = alt.Y("y:O", title=spelled_option(panel.options[1]), sort=sort("y"))
    base = alt.Chart(inline(rows)).encode(x=x, y=y)
    scale = alt.Scale(domain=limits, scheme=HEAT, clamp=True, reverse=words.better < 0)
    colour = alt.Color("mean:Q", scale=scale, legend=None)
    cells = base.transform_filter("!datum.failed").mark_rect().encode(color=colour, tooltip=tooltips(words))
    middle = (limits[0] + limits[1]) / 2
    is_light = f"datum.mean > {middle}" if words.better > 0 else f"datum.mean < {middle}"
    ink = alt.condition(is_light, alt.value("#111111"), alt.value("#ffffff"))
    text = base.transform_filter("!datum.failed").mark_text(fontSize=11)
    failed = base.transform_filter("datum.failed").mark_text(text="×", color=FAILED_COLOUR, fontSize=15)
    return alt.layer(cells, text.encode(text=alt.Text("mean:Q", format=".4~g"), color=ink), failed)


def tooltips(words: Words) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("setting:N", title="setting"),
        alt.Tooltip("mean:Q", title=words.title, format=",.4~g"),
        alt.Tooltip("runs:Q", title="runs"),
    ]


def height_of(panel: Panel) -> int:
    r"""Pixels of a panel on a page."""
    return CELL * len({row["y"] for row in panel.rows}) if len(panel.options) == 2 else 150


def spelled_option(name: str) -> str:
    return name.replace("_", " ").replace(".", " ")
