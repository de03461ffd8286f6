"""What axes show, what is cut and marked, what is none, and how curves look."""

import json

import numpy as np
import pandas as pd
import pytest

from hardmax.reporting import tables
from hardmax.reporting.biases import BiasComparison, Point, comparisons, points_of
from hardmax.reporting.charts import CUT, STRIP, axis_limits, bias_chart, bias_rows, curves_picture, cut_rows, limits
from hardmax.reporting.curves import curve_of
from hardmax.reporting.final_figures import results_of
from hardmax.reporting.groups import grouped
from hardmax.reporting.looks import looks
from hardmax.reporting.runs import find_runs
from hardmax.reporting.side_by_side import printed_table
from hardmax.reporting.words import Words
from helpers.made_up import run


def rows_of(**curves):
    """Rows of curves given by their means, at steps 0, 10, 20, ..."""
    return [
        {"label": name, "x": 10 * n, "mean": v, "low": v, "high": v, "line": v, "limit": False, "mark": True, "runs": 3}
        for name, values in curves.items()
        for n, v in enumerate(values)
    ]


# ---------------------------------------------------------------- axes


def test_the_beginning_does_not_squeeze_what_follows():
    """Six curves from -45 to within a nat about -25."""
    curves = {f"c{k}": [-45.0, *(-25.5 + k / 6 - np.exp(-np.arange(1, 21)))] for k in range(6)}
    low, high = axis_limits(rows_of(**curves), log=False)
    assert -27 < low < -25.5
    assert -24.7 < high < -24
    cut = cut_rows(rows_of(**curves), [low, high])
    assert {(row["label"], row["x"], row["above"]) for row in cut} == {(name, 0, False) for name in curves}
    assert {row["y"] for row in cut} == {low}


def test_a_peak_in_the_middle_is_shown_unless_it_would_hide_all_else():
    course = list(np.linspace(3, 1, 41))
    for peak, shown in ((4.0, True), (400.0, False)):
        values = [*course[:15], peak, *course[16:]]
        low, high = axis_limits(rows_of(a=values, b=course), log=False)
        assert (high > peak) == shown
        cut = cut_rows(rows_of(a=values, b=course), [low, high])
        assert [(row["label"], row["x"], row["mean"]) for row in cut] == [("a", 150, peak)] * (not shown)


def test_a_curve_far_off_is_cut_and_marked_along_its_way():
    near = {f"c{k}": [1.0 + k / 10] * 100 for k in range(8)}
    rows = rows_of(**near, far=[1e6] * 100)
    low, high = axis_limits(rows, log=False)
    assert (low < 1, 1.7 < high < 10) == (True, True)
    marks = [row["x"] for row in cut_rows(rows, [low, high]) if row["above"]]
    assert 10 <= len(marks) <= 13
    assert np.diff(sorted(marks)).max() < 120


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(("better", "shown"), [(-1, True), (1, False), (0, False)])
def test_the_best_curve_is_shown_however_far_ahead(log, better, shown):
    near = {f"c{k}": [50.0 + k / 10] * 100 for k in range(8)}
    rows = rows_of(**near, ahead=np.geomspace(50, 3, 100).tolist(), begun=[1.0, *[50.0] * 99])
    low, high = axis_limits(rows, log, better)
    assert (low < 3) == shown
    assert 50.7 < high < 70
    assert ("ahead" in {row["label"] for row in cut_rows(rows, [low, high])}) == (not shown)
    mirrored = [row | {name: -row[name] for name in ("mean", "low", "high")} for row in rows]
    if not log:
        assert axis_limits(mirrored, log, -better) == pytest.approx([-high, -low])


@pytest.mark.parametrize("log", [False, True])
def test_every_axis_has_a_range(log):
    for values in ([1.0], [2.0] * 9, [1e-30, 1e-30, 1e30]):
        low, high = axis_limits(rows_of(a=values), log)
        assert low < min(values) <= max(values) < high or cut_rows(rows_of(a=values), [low, high])
        assert low < high
        assert not log or low > 0


def test_values_without_order_of_magnitude_are_cut_on_logarithmic_axes():
    rows = rows_of(**{f"c{k}": np.geomspace(10, 1, 50) * (1 + k) for k in range(5)}, rounding=[1e-15] * 50)
    low, high = axis_limits(rows, log=True)
    assert low > 1e-6
    assert high > 50, "the beginning is no trouble here"
    assert {row["label"] for row in cut_rows(rows, [low, high])} == {"rounding"}


def test_pictures_say_that_something_is_cut():
    own = looks({"a": "a"}, [])
    for values, said in (([1.0, 2.0, 3.0] * 9, False), ([99.0, *[1.0, 2.0, 3.0] * 9], True)):
        spec = curves_picture([(Words("loss"), rows_of(a=values), "remark")], "title", own)
        assert (CUT in " ".join(spec["concat"][0]["title"]["subtitle"])) == said
        assert "remark" in spec["concat"][0]["title"]["subtitle"][0]


# ---------------------------------------------------------------- no bias


def measured(folder, name, bias2, variance=0.0, error=0.0, norm=1e-3, loss=0.5, divisor=1):
    more = {"bias2": bias2, "bias2_error": error, "true_norm": norm, "variance": variance, "relative_bias": 1.0}
    rows = [{"step": step, "train/loss": loss, "cost/evaluations": step} for step in (1, 50, 100)]
    more = {f"gradient/logits/{key}": value for key, value in more.items()} | {"gradient/evaluations": 1}
    place = run(folder, name, more=more, rows=rows)
    summary = json.loads((place / "summary.json").read_text())
    (place / "summary.json").write_text(json.dumps({**summary, "nats_divisor": divisor}))
    return place


def test_rounding_is_that_of_the_cost_of_an_example_whatever_it_is_divided_by(tmp_path):
    """With nats per pixel, of 64: the bias lies below the rounding of an example's cost, above that of a pixel's."""
    for name, divisor in (("pixels", 64), ("examples", 1)):
        measured(tmp_path, name, (2e-7) ** 2, loss=0.02, divisor=divisor)
    ((_, groups),) = grouped(find_runs([tmp_path]).runs, [], [], []).items()
    biases = {name: results_of("dvae", groups).bias(name, "logits")[0] for name in ("pixels", "examples")}
    assert biases == {"pixels": 0.0, "examples": pytest.approx(2e-4)}
    curves = {group.label: curve_of(group, "gradient/logits/bias2", "steps", 50) for group in groups}
    assert curves["pixels"] is None


@pytest.mark.parametrize("bias2", [0.0, (1.3e-8) ** 2, (3e-8) ** 2])
def test_no_bias_is_neither_a_limit_nor_a_point_of_a_logarithmic_axis(tmp_path, bias2):
    """Exactly 0; rounding of the gradient; and rounding of the cost, of which the gradient is a difference."""
    measured(tmp_path, "exact", bias2)
    measured(tmp_path, "biased", 1e-7, variance=1e-5, error=1e-9)
    ((_, groups),) = grouped(find_runs([tmp_path]).runs, [], [], []).items()
    results = results_of("dvae", groups)
    assert results.bias("exact", "logits") == (0.0, 0.0, False)
    cells = {group.label: cells for group, cells in tables.final_table(results).rows}
    place = tables.final_table(results).titles.index("gradient bias to the logits (share of the true gradient)")
    assert cells["exact"][place].text == "0"
    of_label = {group.label: group for group in groups}
    assert curve_of(of_label["exact"], "gradient/logits/bias2", "steps", 50) is None, "0 or undefined"
    assert curve_of(of_label["biased"], "gradient/logits/bias2", "steps", 50) is not None
    (found,) = comparisons("dvae", groups, [], [])
    (left, right), (bottom, _) = limits(found)
    assert (left, right) == (pytest.approx(0.316 / 2.5, rel=0.01), pytest.approx(0.316 * 4, rel=0.01)), (
        "of biased alone"
    )
    (exact,) = [row for row in bias_rows(found, at_equal_cost=False) if row["label"] == "exact"]
    assert left < exact["x"] < left * STRIP
    assert bottom < exact["y"] < bottom * STRIP
    text = str(bias_chart(found).to_dict())
    assert "no bias" in text
    assert "no noise" in text


def test_a_bias_of_a_short_gradient_is_seen(tmp_path):
    measured(tmp_path, "biased", (1e-6) ** 2)
    ((_, groups),) = grouped(find_runs([tmp_path]).runs, [], [], []).items()
    assert results_of("dvae", groups).bias("biased", "logits")[0] == pytest.approx(1e-3)


def test_estimators_without_bias_and_noise_lie_side_by_side():
    points = [Point(name, name, 0.0, False, 0.0, 1, 0.1) for name in "abcd"] + [
        Point("e", "e", 0.1, False, 1.0, 1, 0.1)
    ]
    rows = bias_rows(BiasComparison("title", points), at_equal_cost=False)
    assert len({row["x"] for row in rows}) == 5
    assert "no bias" not in str(bias_chart(BiasComparison("title", points[-1:])).to_dict())


def test_rounding_is_no_bias_where_estimators_are_measured():
    row = {
        "true_norm": 1.0,
        "bias2_error": 0.0,
        "evaluations": 1,
        "seconds": 0.1,
        "variance": 1e-12,
        "relative_bias": 1e-5,
    }
    rows = pd.DataFrame([{"estimator": "exact", "bias2": 1e-10, **row}])
    (point,) = points_of(rows)
    assert (point.bias, point.limit, point.deviation) == (0.0, False, 0.0)
    assert printed_table(rows)["bias / |g|"].tolist() == ["0"]


# ---------------------------------------------------------------- looks


def test_lines_and_markers_are_those_of_options_and_colours_those_of_estimators():
    names = {f"{name} (lr={rate})": name for name in ("arsm", "nvil", "rebar") for rate in (0.1, 0.2, 0.5)}
    found = looks(names, [])
    for label, estimator in names.items():
        for other, another in names.items():
            option = label.removeprefix(estimator) == other.removeprefix(another)
            same = (found[label].dash, found[label].shape) == (found[other].dash, found[other].shape)
            assert same == option
            assert (found[label].colour == found[other].colour) == (estimator == another)
    many = looks({f"e{n} (lr={rate})": f"e{n}" for n in range(20) for rate in (1, 2)}, [])
    assert len(set(many.values())) == 40, "colours come again, and looks do not"
