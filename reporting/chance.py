r"""How many published figures would differ by chance alone, as some of many must."""

import altair as alt
import numpy as np
import scipy.stats

from .charts import picture_of_charts
from .published.join import AGREES, Comparison
from .statistics import LEVEL

BAR_WIDTH = 0.5  # standard deviations
LAST_EDGE = 4.0  # of the bars; what lies beyond is in the last ones


def chance_paragraph(comparisons: list[Comparison]) -> str:
    r"""How many figures differ, how many would by chance, and how many do when that is corrected for."""
    chances = [c.chance for c in comparisons if c.chance is not None]
    if not chances:
        return ""
    expected, differ = (1 - LEVEL) * len(chances), sum(chance < 1 - LEVEL for chance in chances)
    left = int((scipy.stats.false_discovery_control(chances) < 1 - LEVEL).sum())
    equal = sum(c.verdict == AGREES and c.chance is None for c in comparisons)
    exact = f"{equal:,} figures are computed, or have no spread that is known, and agree. "
    return (
        f"{exact if equal else ''}Of {len(chances):,} figures whose spread is known, {differ} differ"
        f"{'s' * (differ == 1)}. Were all runs like the published ones, about {expected:.3g} would. At a false "
        f"discovery rate of {1 - LEVEL:.0%} (Benjamini and Hochberg, 1995), {left} of them differ{'s' * (left == 1)}.\n"
    )


def chance_picture(comparisons: list[Comparison]) -> dict | None:
    r"""A histogram of differences in standard deviations, beside what Student's laws would give; None without any."""
    known = [(c.in_errors, c.freedom) for c in comparisons if c.chance is not None and c.in_errors is not None]
    if not known:
        return None
    found, freedom = map(np.array, zip(*known, strict=True))
    edges = np.arange(-LAST_EDGE, LAST_EDGE + BAR_WIDTH / 2, BAR_WIDTH)
    counts, _ = np.histogram(np.clip(found, -LAST_EDGE, LAST_EDGE), edges)
    below = scipy.stats.t.cdf(edges, freedom[:, np.newaxis]).sum(0)  # so many figures are expected to be
    below[0], below[-1] = 0, len(found)
    rows = [
        {"from": float(low), "to": float(low + BAR_WIDTH), "figures": int(n), "expected": float(expected)}
        for low, n, expected in zip(edges[:-1], counts, np.diff(below), strict=True)
    ]
    x = alt.X("from:Q", title="measured less published, in standard deviations", scale=alt.Scale(nice=False))
    bars = alt.Chart(alt.Data(values=rows)).mark_bar(color="#0072B2", opacity=0.6)
    bars = bars.encode(x=x, x2="to:Q", y=alt.Y("figures:Q", title="figures"), y2=alt.YDatum(0))
    lines = alt.Chart(alt.Data(values=rows)).mark_rule(color="black", strokeWidth=2)
    lines = lines.encode(x=x, x2="to:Q", y="expected:Q")
    chart = alt.layer(bars, lines).properties(width=420, height=180)
    remark = f"Black: expected of runs like the published ones. Outermost bars: all beyond {LAST_EDGE - BAR_WIDTH:g}."
    return picture_of_charts([chart], "Published figures beside measured ones", 1, remark)
