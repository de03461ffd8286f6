"""Published series: how they are listed, what is said of all of their figures together, and how they are drawn."""

import math
from pathlib import Path

import pytest
import yaml

from hardmax.harness.shared import Refused
from hardmax.reporting.published.experiments import was_run_as_published
from hardmax.reporting.published.join import judged
from hardmax.reporting.published.values import MORE_FACTS, Value, entries, read_published
from hardmax.reporting.runs import Run, find_runs
from hardmax.reporting.series import plane_picture, series_not_run, series_picture, series_rows
from helpers.published import losses, make_run, value

SERIES = """
tables:
  - table: {table}
    metric: "test/{{at}}"
    along: temperature
    values:
      - {{name: ST, at: [0.5, 1, 2.5e6], value: [1, 2, 3], std: [0.1, 0.2, 0.3], seeds: 4}}
      - {{name: alone, value: 7, metric: test/cost}}
"""


def listed(tmp_path, table="Bias, one", text=SERIES, changes=("", "")):
    path = tmp_path / "published.yaml"
    path.write_text(text.format(table=table).replace(*changes))
    return [v for v in read_published([path]) if v.table == table]


def test_a_series_is_a_value_for_each_point(tmp_path):
    points = listed(tmp_path)
    assert [v.metric for v in points] == ["test/0.5", "test/1", "test/2500000.0", "test/cost"]
    assert [(v.series, v.at, v.value, v.std) for v in points[:3]] == [
        ("ST", 0.5, 1, 0.1), ("ST", 1, 2, 0.2), ("ST", 2.5e6, 3, 0.3)]  # fmt: skip
    assert (points[3].series, points[3].step) == ("", None)
    steps = listed(tmp_path, "Curve", changes=("at: [0.5, 1, 2.5e6]", "along: step, at: [5, 10, 20]"))
    assert [(v.step, v.at) for v in steps] == [(5, 5), (10, 10), (20, 20), (None, 0)]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (("value: [1, 2, 3]", "value: [1, 2]"), "ST: at, value and std of a series must be lists of one length"),
        (("value: [1, 2, 3]", "value: 1"), "ST: at, value and std of a series must be lists of one length"),
        (("value: [1, 2, 3]", "value: [1, x, 3]"), "ST: value must be a number, got 'x'"),
        (("at: [0.5, 1, 2.5e6]", "at: [0.5, x, 1]"), "ST: at must be a number, got 'x'"),
        (("along: temperature", "along: 3"), "ST: along must be a text, got 3"),
        (("temperature", "step"), "ST: step must be a whole number of at least 0, got 0.5"),
    ],
)
def test_a_wrong_series_is_refused(tmp_path, changes, line):
    with pytest.raises(Refused, match=line):
        listed(tmp_path, changes=changes)


@pytest.mark.parametrize(
    ("changes", "measured", "verdict"),
    [
        ({"exact": 1e-4, "decimals": 5}, [10.001], "agrees"),  # a single computed figure is compared as it is
        ({"exact": 1e-4, "decimals": 5}, [10.0011], "differs"),
        ({"exact": 1e-4, "decimals": 5}, [10.0011, 10.0011], "differs"),
        ({"value": 0.0, "exact": 1e-4, "decimals": 5}, [4e-6], "agrees"),
        ({"value": 0.0, "exact": 1e-4, "decimals": 5}, [6e-6], "differs"),
        ({"log": True}, [1.0, 3.0, 9.0], "agrees"),  # log 10 within 4.303 * log 3 * (1 + 1 / 3)^0.5 of log 3
        ({"log": True, "value": 700.0}, [1.0, 3.0, 9.0], "agrees"),
        ({"log": True, "value": 710.0}, [1.0, 3.0, 9.0], "differs"),
        ({"log": True, "value": 1 / 77.0}, [1.0, 3.0, 9.0], "agrees"),
        ({"log": True, "value": 1 / 79.0}, [1.0, 3.0, 9.0], "differs"),
    ],
)
def test_verdicts_on_computed_figures_and_on_logarithms(changes, measured, verdict):
    found = judged(value(**changes), [(None, figure) for figure in measured], [])
    assert found.verdict == verdict
    if "log" in changes:
        assert found.mean == pytest.approx(math.prod(measured) ** (1 / 3)), "the geometric mean"
    if "exact" in changes:
        assert found.chance is found.in_errors is None


def compared(name, at, published, measured, table="Bias, one"):
    made = Value(table, f"{name}, {at}", published, "test/cost", {}, series=name, along="tau", at=at)
    return judged(made, [(Run(Path(f"{n}-key"), {}, "finished"), figure) for n, figure in enumerate(measured)], [])


def test_a_series_is_summed_up_in_a_row():
    found = [
        compared("ST", 1, 10.0, [9.9, 10.1, 10.3]),
        compared("ST", 2, 10.0, [20.0, 20.2]),
        compared("ST", 4, 1.0, []),
    ]
    found += [compared("other", 1, 1.0, [2.0])]
    first, second = series_rows(found)
    assert first["along"] == "tau, 1 to 4"
    assert (first["figures"], first["agrees"], first["differs"], first["other verdicts"]) == (
        "3",
        "1",
        "1",
        "1 not run",
    )
    assert first["middle difference"] == "51 %", "the median of 1 % and 101 %"
    assert first["runs"] == "0-key, 1-key, 2-key"
    assert second["other verdicts"] == "1 undecided"
    assert series_not_run(found) == ""
    lost = [compared("lost", at, 1.0, []) for at in (1, 2)]
    assert series_rows(lost) == []
    assert "nothing was run, and their numbers of figures: lost (2)." in series_not_run(found + lost)
    many = [compared(f"lost {n}", at, 1.0, []) for n in range(13) for at in (1, 2)]
    assert series_not_run(found + many) == "Nothing was run of 13 series, with 26 figures.\n"


def drawn(spec):
    """The rows of data of the first chart, which all of its layers share."""
    chart = spec["concat"][0]
    data = chart.get("data") or chart["layer"][0].get("data") or spec["data"]
    return spec["datasets"][data["name"]] if "name" in data else data["values"]


def test_pictures_have_published_points_and_measured_lines():
    assert series_picture([], "T") is plane_picture([], "Bias", "Variance", "T") is None
    both = [("Bias, one", 1.0), ("Variance, one", 30.0)]
    found = [compared("ST", at, at * v, [at * v, 1.2 * at * v], table) for table, v in both for at in (1, 2, 300)]
    spec = series_picture(found, "T")
    panel = spec["concat"]
    assert [chart["layer"][0]["title"] for chart in panel] == ["Bias, one", "Variance, one"]
    rows = drawn(spec)
    assert [(row["at"], row["published"], row["mean"]) for row in rows] == [(1, 1, 1.1), (2, 2, 2.2), (300, 300, 330)]
    assert rows[0]["low"] == pytest.approx(1.1 - 2 * 0.2 / 2**0.5 * 1.5**0.5, rel=1e-4)
    assert panel[0]["layer"][1]["encoding"]["x"]["scale"]["type"] == "log"
    rows = drawn(plane_picture(found, "Bias", "Variance", "T"))
    assert [(row["x"], row["y"], row["published_y"]) for row in rows[:1]] == [(1.1, 33.0, 30.0)]


def test_a_band_is_cut_where_a_logarithmic_axis_ends():
    """Two runs of 600 and 16,000: two standard deviations below their mean lies below 0."""
    found = [compared("ST", at, theirs, ours) for at, theirs, ours in ((1, 500, [510, 520]), (2, 4600, [600, 16_000]))]
    spec = series_picture(found, "T")
    assert spec["concat"][0]["layer"][1]["encoding"]["y"]["scale"]["type"] == "log"
    assert [row["low"] for row in drawn(spec)] == [pytest.approx(497.7, abs=0.1), 500]


def test_a_legend_has_its_series_in_the_order_in_which_they_come():
    found = [compared(rate, at, 1.0, [1.1, 1.2]) for rate in ("rate 3e-4", "rate 1e-3", "rate 1e-2") for at in (1, 2)]
    for layer in series_picture(found, "T")["concat"][0]["layer"]:
        assert layer["encoding"]["color"]["scale"]["domain"] == ["rate 3e-4", "rate 1e-3", "rate 1e-2"]


def test_a_run_that_stops_early_counts_as_far_as_it_goes(tmp_path):
    hooper = ["experiment=hooper2026_vae", "task.variables=8", "task.categories=64",
              "estimator=zgr", "optimizer.lr=1e-3"]  # fmt: skip
    make_run(tmp_path, *hooper, "stop_after=1500", rows=losses(542.0, 252.0, 180.0, 150.0, 181.9, every=300))
    (run,) = find_runs([tmp_path]).runs
    assert (run.status, run.steps) == ("finished", 1500)
    own = [v for v in read_published([]) if v.experiment == "hooper2026_vae" and v.where.items() <= run.config.items()]
    assert {v.series for v in own} == {"rate 1e-3"}
    at = {v.step: v for v in own}
    assert was_run_as_published(run, at[1500])
    assert not was_run_as_published(run, value(experiment="hooper2026_vae")), "the end of a run is another matter"


def test_our_own_facts_say_what_is_along_them():
    for v in read_published([]):
        assert (v.series == "") == (v.along == ""), v.name
        assert "{at}" not in v.metric
    assert yaml.safe_load("1.0e-4") == 1e-4


def test_series_are_of_experiments():
    """So that a report on other runs need not read them."""
    assert all(table.get("experiment") for table in entries(MORE_FACTS, "tables"))


def test_a_published_0_has_no_share():
    found = [compared("a", n, published, [9.0]) for n, published in enumerate((0.0, 10.0))]
    (row,) = series_rows(found)
    assert row["middle difference"] == "10 %"
    assert series_rows(found[:1])[0]["middle difference"] == ""
