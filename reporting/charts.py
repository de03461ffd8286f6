r"""Charts as Vega-Lite specifications, which a page draws and of which pictures are made."""

import io
import math
import textwrap
from collections.abc import Iterable, Iterator

import altair as alt
import numpy as np
import vl_convert
from altair.utils import schemapi
from PIL import Image

from .biases import BiasComparison
from .curves import Curve
from .looks import Look
from .words import AXES, Words

SCALE = 2  # pixels of a PNG for each of a chart
MARKERS = 6  # along a curve, about
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
IS_POWER = "abs(log(datum.value) / log(10) - round(log(datum.value) / log(10))) < 1e-6"
ALL = {"symbolLimit": 0, "labelLimit": 900}  # of a legend: every entry, and in full
ARCS = 60  # points of an arc of equal error
BEGINNING = 0.1  # of an axis
DRAWN_WITHIN = 3  # times the range of the middle half, on either side of it
STRIP = 1.6  # times the limit of an axis
LETTERS = 56  # of a line above a panel
MARKED_PARTS = 12  # of an axis, in each of which a curve that is cut has one mark
BIAS_REMARK = "Hollow with arrow: it lies below this. Grey edge: none. Grey arcs: equal root mean square error."
CUT = "▲▼ at an edge: values beyond it"


def curve_rows(curves: Iterable[Curve]) -> list[dict]:
    r"""Rows of data for :func:`curve_chart`; upper limits have no line and no band, ``mark`` says where markers are."""
    rows = []
    for n, curve in enumerate(curves):
        every = max(1, round(len(curve.x) / MARKERS))
        for i, x in enumerate(curve.x):
            low, mean, high = (rounded(v[i]) for v in (curve.low, curve.mean, curve.high))
            row = {"label": curve.label, "x": rounded(x), "mean": mean, "runs": curve.runs}
            row |= {"limit": bool(curve.limit[i]), "mark": (i + n) % every == 0 or len(curve.x) == 1}
            band = {"line": mean, "low": low, "high": high}
            rows.append(row | (dict.fromkeys(band) if curve.limit[i] else band))
    return rows


def rounded(value: float) -> float | None:
    r"""To five digits; None for what JSON has no number for."""
    return float(f"{value:.5g}") if np.isfinite(value) else None


def ranges(looks: dict[str, Look]) -> dict[str, list]:
    r"""Colours, markers and lines of labels, by what Vega-Lite calls them."""
    return {
        "color": [look.colour for look in looks.values()],
        "shape": [look.shape for look in looks.values()],
        "strokeDash": [list(look.dash) or [1, 0] for look in looks.values()],
    }


def channels(looks: dict[str, Look] | None, legend: alt.Legend | None) -> dict:
    r"""Colour, marker and line of each label, unless a page sets them; the legend shows colours and markers."""

    def channel(kind, name, legend):
        scale = alt.Undefined if looks is None else alt.Scale(domain=list(looks), range=ranges(looks)[name])
        return kind("label:N", title=None, scale=scale, legend=legend)

    return {
        "color": channel(alt.Color, "color", legend),
        "shape": channel(alt.Shape, "shape", legend),
        "strokeDash": channel(alt.StrokeDash, "strokeDash", None),
    }


def inline(rows: list[dict]) -> dict:
    r"""Data within a chart: as a tuple, since Altair copies every row of a list for every layer, more than once."""
    return {"values": tuple(rows)}


def axis_of(log: bool) -> alt.Axis:
    r"""An axis with few ticks; a logarithmic one has a stronger grid at powers of ten."""
    if not log:
        return alt.Axis(tickCount=6)
    return alt.Axis(tickCount=6, gridColor=alt.condition(IS_POWER, alt.value("#d4d4d4"), alt.value("#f3f3f3")))


def axis_limits(rows: list[dict], log: bool, better: int = 0) -> list[float]:
    r"""Limits of an axis that show what matters: where curves run once they have begun, without what lies far off.

    On a linear axis the first tenth is seen as far as the rest reaches; of the rest, what is within three interquartile
    ranges of the quartiles, and the end of the best curve, however far ahead: ``better`` is as in :class:`Words`.
    :func:`cut_rows` says where something is beyond.
    """
    first, last = (end(row["x"] for row in rows) for end in (min, max))
    begun = [row for row in rows if log or row["x"] >= first + BEGINNING * (last - first)]
    values = [row[name] for row in begun for name in ("low", "mean", "high") if row.get(name) is not None]
    scaled = np.log10([value for value in values if value > 0]) if log else np.array(values)
    lower, upper = np.quantile(scaled, [0.25, 0.75])
    reach = DRAWN_WITHIN * (upper - lower) or np.inf
    low, high = max(scaled.min(), lower - reach), min(scaled.max(), upper + reach)
    last_of = {row["label"]: row["mean"] for row in rows}
    if better and (ends := [value for value in last_of.values() if not log or value > 0]):
        best = better * max(better * value for value in ends)
        best = math.log10(best) if log else best
        low, high = min(low, best), max(high, best)
    margin = 0.05 * (high - low) or 0.05 * abs(low) or 1.0
    return [float(10**end if log else end) for end in (low - margin, high + margin)]


def cut_rows(rows: list[dict], limits: list[float]) -> list[dict]:
    r"""Where means lie beyond the limits of their axis: of each label, the farthest in each of a few parts of it."""
    first, last = (end(row["x"] for row in rows) for end in (min, max))
    width = (last - first) / MARKED_PARTS or 1.0
    found: dict[tuple, dict] = {}
    for row in rows:
        above = row["mean"] > limits[1]
        beyond = row["mean"] - limits[1] if above else limits[0] - row["mean"]
        key = row["label"], above, int((row["x"] - first) / width)
        if beyond > 0 and beyond > found.get(key, {}).get("beyond", 0):
            cut = {"label": row["label"], "x": row["x"], "y": limits[above], "mean": row["mean"], "above": above}
            found[key] = cut | {"beyond": beyond}
    return list(found.values())


def curve_chart(
    words: Words,
    looks: dict[str, Look] | None = None,
    rows: list[dict] | None = None,
    legend: alt.Legend | None = None,
) -> alt.LayerChart:
    r"""Means with bands against steps; without looks and rows, a page brings them, and hovering tells figures.

    A page may put another axis in place of the steps: its rows, and its title for that of x wherever it stands.
    """
    base = alt.Chart(alt.NamedData("rows") if rows is None else inline(rows))
    limits: list[float] = axis_limits(rows, words.log, words.better) if rows else [1, 2]  # a page sets its own
    scale = alt.Scale(type="log" if words.log else "linear", domain=limits, nice=False)
    cut = alt.Chart(alt.NamedData("cut") if rows is None else inline(cut_rows(rows, limits)))
    of, clip = channels(looks, legend), True
    x = alt.X("x:Q", title=AXES["steps"], scale=alt.Scale(zero=False, nice=False, padding=4), axis=axis_of(False))
    y = lambda name: alt.Y(f"{name}:Q", title=words.unit or None, scale=scale, axis=axis_of(words.log))
    band = base.mark_area(fillOpacity=0.18, clip=clip).encode(x=x, y=y("low"), y2="high:Q", color=of["color"])
    line = base.mark_line(strokeWidth=2, clip=clip)
    line = line.encode(x=x, y=y("line"), color=of["color"], strokeDash=of["strokeDash"])

    def points(condition, filled):
        mark = base.mark_point(size=45, clip=clip, filled=filled, opacity=1, strokeWidth=1.5)
        return mark.transform_filter(condition).encode(x=x, y=y("mean"), color=of["color"], shape=of["shape"])

    def beyond(condition, shape, towards):
        mark = cut.mark_point(shape=shape, filled=True, size=60, opacity=1, yOffset=towards, description="cut")
        tooltip = [alt.Tooltip("label:N", title="estimator"), alt.Tooltip("mean:Q", title=words.title, format=",.4~g")]
        return mark.transform_filter(condition).encode(x=x, y=y("y"), color=of["color"], tooltip=tooltip)

    layers = [band, line, points("datum.mark && !datum.limit", True), points("datum.limit", False)]
    layers += [beyond("datum.above", "triangle-up", 4), beyond("!datum.above", "triangle-down", -4)]
    if rows is None:
        layers.append(
            hover(
                base.mark_point(size=110, strokeWidth=2, clip=clip).encode(x=x, y=y("mean"), color=of["color"]),
                {
                    "label:N": "estimator",
                    "x:Q": AXES["steps"],
                    "mean:Q": words.title,
                    "low:Q": "band from",
                    "high:Q": "band to",
                    "runs:Q": "runs",
                },
            )
        )
    return alt.layer(*layers)


def hover(points: alt.Chart, fields: dict[str, str]) -> alt.Chart:
    r"""Points that are seen and tell their fields only when the pointer is near."""
    near = alt.selection_point(name="near", nearest=True, on="pointermove", clear="pointerout")
    tooltip = [
        alt.Tooltip(name, title=title, **({} if name.endswith(":N") else {"format": ",.4~g"}))
        for name, title in fields.items()
    ]
    opacity = alt.condition(near, alt.value(1), alt.value(0), empty=False)
    return points.encode(opacity=opacity, tooltip=tooltip).add_params(near)


def specification(chart: alt.TopLevelMixin) -> dict:
    r"""A chart's specification, checked against Vega-Lite's schema where Altair checks what is made of it."""
    return chart.to_dict(validate=schemapi.DEBUG_MODE)


def picture_of_charts(charts: list[alt.LayerChart], title: str, columns: int, remark: str = "") -> dict:
    r"""Charts side by side under one legend, as a specification for print."""
    heading = alt.Title(title, subtitle=remark, anchor="middle", fontSize=15, offset=14)
    return specification(alt.concat(*charts, columns=columns, title=heading, config=CONFIG))


def legend_below(looks: dict[str, Look]) -> alt.Legend:
    longest = max(map(len, looks))
    columns = max(1, min(len(looks), 180 // (longest + 6)))
    return alt.Legend(orient="bottom", columns=columns, symbolSize=110, symbolOpacity=1, symbolStrokeWidth=0, **ALL)


def curves_picture(panels: list[tuple[Words, list[dict], str]], title: str, looks: dict[str, Look]) -> dict:
    r"""Curves against steps for print; each panel has its words, its rows and a remark."""
    charts, remarks = [], []
    for words, rows, remark in panels:
        cut = CUT if cut_rows(rows, axis_limits(rows, words.log, words.better)) else ""
        remarks.append(textwrap.wrap("; ".join(filter(None, [remark, cut])), LETTERS))
    for (words, rows, _), lines in zip(panels, remarks, strict=True):
        heading = alt.Title(words.title, subtitle=lines + [" "] * (max(map(len, remarks)) - len(lines)))
        chart = curve_chart(words, looks, rows, legend_below(looks))
        charts.append(chart.properties(title=heading, width=300 if len(panels) > 1 else 600, height=230))
    return picture_of_charts(charts, title, min(len(charts), 4))


def bias_rows(comparison: BiasComparison, at_equal_cost: bool) -> list[dict]:
    r"""Rows of data for :func:`bias_chart`; estimators without bias or noise lie at its edges, side by side."""
    (left, _), (bottom, _) = limits(comparison)
    perfect = [point.label for point in comparison.points if point.bias == point.deviation == 0]
    rows = []
    for point in comparison.points:
        y = point.at_equal_cost if at_equal_cost else point.deviation
        place = (perfect.index(point.label) + 0.5) / len(perfect) if point.label in perfect else 0.5
        row = {"label": point.label, "bias": rounded(point.bias), "deviation": rounded(y), "limit": point.limit}
        row |= {"x": rounded(point.bias or left * STRIP**place), "y": rounded(y or bottom * STRIP**0.5)}
        row |= {"evaluations": rounded(point.evaluations), "milliseconds": rounded(1e3 * point.seconds)}
        rows.append(row)
    return rows


def limits(comparison: BiasComparison) -> tuple[list[float], list[float]]:
    r"""Limits of bias and deviation, the same for one draw and at equal cost."""
    x = [point.bias for point in comparison.points if point.bias > 0] or [1.0]
    y = [y for point in comparison.points for y in (point.deviation, point.at_equal_cost) if y > 0] or [1.0]
    return [min(x) / 2.5, max(max(x) * 1.8, min(x) * 4)], [min(y) / 2.5, max(max(y) * 1.8, min(y) * 4)]


def bias_chart(
    comparison: BiasComparison,
    looks: dict[str, Look] | None = None,
    rows: list[dict] | None = None,
    legend: alt.Legend | None = None,
) -> alt.LayerChart:
    r"""Bias against deviation over grey arcs; without looks and rows as :func:`curve_chart`."""
    base = alt.Chart(alt.NamedData("rows") if rows is None else inline(rows))
    across, up = limits(comparison)
    of = channels(looks, legend)
    log = lambda domain: alt.Scale(type="log", domain=domain, nice=False)
    x = alt.X("x:Q", title="bias / |true gradient|", scale=log(across), axis=axis_of(True))
    y = alt.Y("y:Q", title="standard deviation / |true gradient|", scale=log(up), axis=axis_of(True))
    background = alt.Chart(inline(arcs(across, up))).mark_line(color="#bbbbbb", strokeWidth=1, clip=True)
    background = background.encode(x=x, y=y, detail="total:N")

    def points(condition, filled):
        mark = base.mark_point(size=90, filled=filled, opacity=1, strokeWidth=1.8)
        return mark.transform_filter(condition).encode(x=x, y=y, color=of["color"], shape=of["shape"])

    arrow = base.mark_text(text="←", dx=-13, fontSize=14, fontWeight="bold").transform_filter("datum.limit")
    layers = [*edges(comparison), background, arrow.encode(x=x, y=y, color=of["color"])]
    layers += [points("!datum.limit", True), points("datum.limit", False)]
    if rows is None:
        layers.append(
            hover(
                base.mark_point(size=200, strokeWidth=2).encode(x=x, y=y, color=of["color"]),
                {
                    "label:N": "estimator",
                    "bias:Q": "bias / true gradient",
                    "limit:N": "an upper limit",
                    "deviation:Q": "deviation / true gradient",
                    "evaluations:Q": "evaluations a draw",
                    "milliseconds:Q": "ms a draw",
                },
            )
        )
    return alt.layer(*layers)


def edges(comparison: BiasComparison) -> list[alt.Chart]:
    r"""Strips in which those points lie that have no bias, or no noise: a logarithmic axis has no place for them."""
    (left, right), (bottom, top) = limits(comparison)
    strips = []
    if any(point.bias == 0 for point in comparison.points):
        strips.append({"x": left, "x2": left * STRIP, "y": bottom, "y2": top, "text": "no bias", "angle": 270})
    if any(point.deviation == 0 for point in comparison.points):
        strips.append({"x": left, "x2": right, "y": bottom, "y2": bottom * STRIP, "text": "no noise", "angle": 0})
    found = []
    for strip in strips:
        base = alt.Chart(inline([strip]))
        found.append(base.mark_rect(color="#f0f0f0").encode(x="x:Q", x2="x2:Q", y="y:Q", y2="y2:Q"))
        middle = {"dx": -6, "dy": 10} if strip["angle"] else {"dx": -6, "dy": -9}
        text = base.mark_text(align="right", fontSize=10, color="#555555", angle=strip["angle"], **middle)
        corner = {"x": "x:Q", "y": "y2:Q"} if strip["angle"] else {"x": "x2:Q", "y": "y:Q"}
        found.append(text.encode(text="text:N", **corner))
    return found


def arcs(across: list[float], up: list[float]) -> list[dict]:
    r"""Where bias and deviation have one root mean square error, ten times more from one arc to the next."""
    rows = []
    for total in 10.0 ** np.arange(np.floor(np.log10(up[0])), np.ceil(np.log10(max(up[1], across[1]))) + 1):
        for bias in np.geomspace(across[0], min(total, across[1]), ARCS) if total > across[0] else ():
            deviation = np.sqrt(max(total**2 - bias**2, 0.0))
            rows.append({"x": rounded(bias), "y": rounded(max(deviation, up[0] / 2)), "total": float(total)})
    return rows


def bias_picture(comparison: BiasComparison, title: str, looks: dict[str, Look]) -> dict:
    r"""Bias and noise of one draw, and at equal cost, for print."""
    names = {False: "One gradient draw", True: "At equal cost: times the root of its evaluations"}
    charts = [
        bias_chart(comparison, looks, bias_rows(comparison, equal), legend_below(looks)).properties(
            title=name, width=400, height=330
        )
        for equal, name in names.items()
    ]
    return picture_of_charts(charts, title, 2, BIAS_REMARK)


def as_files(spec: dict) -> Iterator[tuple[str, str | bytes]]:
    r"""The endings and contents of a chart's files."""
    svg = vl_convert.vegalite_to_svg(spec)
    yield ".svg", svg
    yield ".png", vl_convert.svg_to_png(svg, scale=SCALE)


def as_png(spec: dict) -> bytes:
    r"""A chart as a picture of twice its pixels, packed as tightly as PNG allows."""
    packed = io.BytesIO()
    Image.open(io.BytesIO(vl_convert.vegalite_to_png(spec, scale=SCALE))).save(packed, "PNG", optimize=True)
    return packed.getvalue()


def configuration() -> dict:
    r"""What all charts share: fonts, and a light frame."""
    axis: dict[str, str | int] = {
        "gridColor": "#e6e6e6",
        "domainColor": "#777777",
        "tickColor": "#777777",
        "labelColor": "#222222",
    }
    axis |= {"titleFontWeight": "normal", "titleColor": "#222222", "labelFontSize": 11, "titleFontSize": 12}
    title = {"fontSize": 13, "fontWeight": "bold", "color": "#111111", "subtitleColor": "#555555", "anchor": "start"}
    return {"font": FONT, "view": {"stroke": None}, "axis": axis, "title": title, "legend": {"labelFontSize": 12}}


CONFIG = configuration()
