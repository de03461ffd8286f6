"""Published values beside runs: which runs count, and what is said of the difference."""

import dataclasses
import json
import math
import os
import re
import sys

import numpy as np
import pytest
import scipy.stats
import yaml

import report
from hardmax.harness.shared import Refused
from hardmax.reporting import reproduction
from hardmax.reporting.chance import chance_paragraph, chance_picture
from hardmax.reporting.published.experiments import experiment
from hardmax.reporting.published.join import compare_with_runs, judged
from hardmax.reporting.published.texts import cells
from hardmax.reporting.published.values import config_keys, read_published
from hardmax.reporting.reproduction import circumstance
from hardmax.reporting.runs import find_runs, read
from helpers.cases import in_part
from helpers.published import losses, make_run, value

HOOPER = ["experiment=hooper2026_polynomial", "task.power=2", "estimator=reinmax"]


@pytest.mark.parametrize(
    ("changes", "measured", "verdict"),
    [
        ({}, [9.9, 10.1, 10.3], "agrees"),
        ({"decimals": 2}, [10.8, 11.0, 11.2], "differs"),  # one more run: within 4.303 * 0.2 * (1 + 1 / 3)^0.5
        ({"decimals": 2}, [10.79, 10.99, 11.19], "agrees"),
        ({"seeds": 3, "decimals": 2}, [10.5, 10.7, 10.9], "agrees"),  # a mean of three within 0.703
        ({"seeds": 3, "decimals": 2}, [10.51, 10.71, 10.91], "differs"),
        ({"seeds": 3, "std": 0.2, "decimals": 3}, [10.25, 10.45, 10.65], "agrees"),  # pooled: 2.776 * 0.2 * (2 / 3)^0.5
        ({"seeds": 3, "std": 0.2, "decimals": 3}, [10.26, 10.46, 10.66], "differs"),
        ({"seeds": 3, "error": 0.2 / 3**0.5, "decimals": 3}, [10.26, 10.46, 10.66], "differs"),  # the same
        ({"seeds": 3, "std": 0.2}, [10.9], "agrees"),  # one run of ours within 0.994 of theirs
        ({"seeds": 3, "std": 0.2}, [11.1], "differs"),
        ({"std": 0.2}, [10.3, 10.5, 10.7], "agrees"),  # of two runs at least: within 3.182 * 0.2 * (1 / 2 + 1 / 3)^0.5
        ({"std": 0.2}, [10.5, 10.7, 10.9], "differs"),
        ({"error": 0.1}, [10.4, 10.6, 10.8], "agrees"),  # within 4.303 * (0.2^2 / 3 + 0.1^2)^0.5
        ({"error": 0.0}, [10.4, 10.6, 10.8], "differs"),  # exact, and the mean within 0.497 of it
        ({"decimals": 0}, [11.2, 11.4, 11.6], "agrees"),  # anything from 9.5 to 10.5
        ({"unpublished": ("batch size",)}, [9.9, 10.1, 10.3], "settings incomplete"),
        ({"unpublished": ("batch size",)}, [90.0, 91.0], "settings incomplete"),
        ({"unpublished": ("batch size",)}, [], "not run"),
        ({}, [], "not run"),
        ({"decimals": 1}, [10.04], "agrees"),
        ({"decimals": 1}, [10.2], "undecided"),
        ({"decimals": 1, "seeds": 5}, [90.0], "undecided"),
        ({"error": 0.1}, [90.0], "undecided"),
        ({}, [10.0, 10.0], "agrees"),
        ({}, [10.2, 10.2], "differs"),
    ],
)
def test_verdicts(changes, measured, verdict):
    assert judged(value(**changes), of_runs(measured), []).verdict == verdict


def of_runs(figures):
    return [(None, figure) for figure in figures]


def test_a_small_value_is_known_to_its_last_digit():
    """Python writes 1e-05, which has no decimal point; to be known to half a unit, all would agree with it."""
    for written, half in ((1e-05, 0.5e-05), (3.28e-05, 0.5e-07), (0.25, 0.005), (10.0, 0.05)):
        assert value(value=written).rounding == pytest.approx(half)


@pytest.mark.parametrize(
    ("ours", "theirs", "spread"),
    in_part(
        [
            *((ours, theirs, False) for ours in (2, 5, 10) for theirs in (1, 2, 5)),
            *((3, 1, False), (3, 5, True), (1, 4, True), (5, 5, True)),
        ],
        2,
    ),
)
def test_one_in_twenty_figures_of_runs_like_ours_differs(ours, theirs, spread):
    """A level of 5 %, whether theirs is one run or a mean; within four standard errors of the simulation."""
    draws, trials = np.random.default_rng(0), 1500
    differ = 0
    for _ in range(trials):
        figures = draws.normal(size=theirs)
        std = figures.std(ddof=1) if spread else None
        published = value(value=figures.mean(), seeds=theirs, std=std, decimals=12)
        differ += judged(published, of_runs(draws.normal(size=ours)), []).verdict == "differs"
    assert differ / trials == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / trials))


def test_the_page_says_how_many_figures_differ_by_chance():
    """Of 400 that are like ours some 20 do, and none when that is corrected for; of ten far ones all do."""
    draws = np.random.default_rng(1)
    alike = [judged(value(value=draws.normal(), seeds=1), of_runs(draws.normal(size=5)), []) for _ in range(400)]
    assert all((c.verdict == "differs") == (c.chance < 0.05) for c in alike)
    differ = sum(c.verdict == "differs" for c in alike)
    assert abs(differ - 20) < 4 * math.sqrt(400 * 0.05 * 0.95)
    text = chance_paragraph(alike)
    assert (
        f"Of 400 figures whose spread is known, {differ} differ. Were all runs like the published ones, about 20"
        in text
    )
    assert text.endswith("0 of them differ.\n")
    far = [judged(value(value=50.0 + draws.normal(), seeds=1), of_runs(draws.normal(size=5)), []) for _ in range(10)]
    assert chance_paragraph(alike + far).endswith("10 of them differ.\n")
    unknown = [judged(value(), of_runs([1.0]), []), judged(value(unpublished=("x",)), of_runs([1.0, 2.0]), [])]
    assert [c.chance for c in unknown] == [None, None]
    assert (chance_paragraph(unknown), chance_picture(unknown)) == ("", None)


def test_bars_hold_all_figures_and_are_beside_what_is_expected():
    draws = np.random.default_rng(1)
    found = [judged(value(value=draws.normal() - 99 * (n == 0)), of_runs(draws.normal(size=9)), []) for n in range(50)]
    rows = chance_picture(found)["concat"][0]["layer"][0]["data"]["values"]
    assert sum(row["figures"] for row in rows) == 50
    assert sum(row["expected"] for row in rows) == pytest.approx(50)
    assert rows[-1]["figures"] == 1


def test_bars_are_beside_the_laws_of_few_runs_and_of_many():
    """Of three runs, differences of 3.5 standard deviations and more are not rare, as they are of a thousand."""
    few = judged(value(seeds=1), of_runs([9.0, 10.0, 11.0]), [])
    many = judged(value(seeds=1), of_runs(list(np.linspace(9, 11, 1000))), [])
    last = lambda *found: chance_picture(list(found))["concat"][0]["layer"][0]["data"]["values"][-1]["expected"]
    assert last(few) == pytest.approx(scipy.stats.t.sf(3.5, 2))
    assert last(few, many) == pytest.approx(scipy.stats.t.sf(3.5, 2) + scipy.stats.t.sf(3.5, 999))


def test_a_standard_error_that_is_published_is_shown():
    assert cells(judged(value(error=0.3, std=None), of_runs([10.0, 10.1]), []))[1].endswith(" ± 0.3")


def test_figures_of_other_runs_differ():
    draws = np.random.default_rng(0)
    found = [judged(value(value=draws.normal(8), seeds=1), of_runs(draws.normal(size=5)), []) for _ in range(200)]
    assert sum(each.verdict == "differs" for each in found) > 190


def test_a_published_run_that_is_like_ours_agrees_whatever_the_number_of_ours():
    """One and a half standard deviations from our mean, which is known ever better, is where an ordinary run lies."""
    for n in (3, 10, 100, 1000):
        figures = np.linspace(-1, 1, n)
        figures = figures / figures.std(ddof=1) + 11.5
        assert judged(value(seeds=1), of_runs(figures), []).verdict == "agrees"


def test_the_difference_is_in_standard_deviations_of_what_is_expected():
    figures = [10.6, 11.0, 11.4, 11.0]
    spread = np.std(figures, ddof=1)
    found = judged(value(error=0.3), of_runs(figures), [])
    assert (found.mean, found.difference) == (pytest.approx(11), pytest.approx(1))
    assert found.error == pytest.approx(spread / 2)
    assert found.in_errors == pytest.approx(1 / math.hypot(found.error, 0.3))
    assert judged(value(seeds=1), of_runs(figures), []).in_errors == pytest.approx(1 / (spread * math.sqrt(5 / 4)))
    assert judged(value(), of_runs([11.0]), []).in_errors is None
    assert "one run" in judged(value(), of_runs([11.0]), []).notes[0]


# ---------------------------------------------------------------- which runs count


def beside(where, name="ReinMax", power="2"):
    (wanted,) = [v for v in read_published([]) if v.name == name and v.experiment == "hooper2026_polynomial"
                 and v.where["task.power"] == power and v.where["task.embedding"] == "drawn"]  # fmt: skip
    return compare_with_runs(wanted, find_runs([where]).runs)


def test_finished_runs_with_all_settings_count(tmp_path):
    for seed, loss in ((1, 0.00426), (2, 0.00428), (3, 0.0043)):
        make_run(tmp_path, *HOOPER, rows=losses(9.0, loss), seed=seed)
    found = beside(tmp_path)
    assert (found.verdict, len(found.runs), found.mean) == ("agrees", 3, pytest.approx(0.00428))
    assert beside(tmp_path, power="1.5").verdict == "not run"
    assert beside(tmp_path, "MVE").verdict == "not run"


@pytest.mark.parametrize(
    ("changes", "finished", "note"),
    [
        (["steps=1000"], True, "1 with other settings"),
        (["optimizer.lr=0.01"], True, "1 with other settings"),
        (["batch_size=9"], True, "1 with other settings"),
        (["estimator.temperature=1.3"], True, "1 with other settings"),  # no row has it
        (["optimizer=sgd"], True, "1 with other settings"),
        (["optimizer.betas=[0.5,0.9]"], True, "1 with other settings"),
        ([], False, "1 unfinished"),
    ],
)
def test_other_runs_do_not(tmp_path, changes, finished, note):
    make_run(tmp_path, *HOOPER, *changes, rows=losses(0.00427), finished=finished)
    found = beside(tmp_path)
    assert (found.verdict, found.mean, found.notes) == ("not run", None, (note,))


def test_runs_of_the_small_budget_are_shown_and_do_not_count(tmp_path):
    for seed, loss in ((1, 0.5), (2, 0.7)):
        make_run(tmp_path, *HOOPER, "budget=small", rows=losses(loss), seed=seed)
    make_run(tmp_path, *HOOPER, "budget=small", "optimizer.lr=0.01", rows=losses(9.0))
    found = beside(tmp_path)
    assert (found.verdict, found.mean, len(found.runs)) == ("smaller budget", pytest.approx(0.6), 2)
    assert (found.in_errors, found.notes) == (None, ("3 of a smaller budget",))
    assert cells(found)[2:7] == ["0.60 ± 0.10", "2", "+0.60", "", "smaller budget"]
    make_run(tmp_path, *HOOPER, rows=losses(0.00427))
    found = beside(tmp_path)
    assert (found.verdict, found.mean) == ("agrees", 0.00427)


def test_runs_of_another_experiment_do_not(tmp_path):
    folder = make_run(tmp_path, *HOOPER, rows=losses(0.00427))
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("experiment: hooper2026_polynomial", "experiment: mine"))
    assert (beside(tmp_path).verdict, beside(tmp_path).notes) == ("not run", ())


@pytest.mark.parametrize(
    ("changes", "step", "counts"),
    [
        (["steps=600"], 400, True),
        (["steps=600"], None, False),  # the last step of a shorter run is not that of the published one
        (["budget=small"], 400, False),
        (["steps=600", "batch_size=9"], 400, False),
        (["steps=600", "schedule=warmup_cosine"], 400, False),
    ],
)
def test_the_first_steps_of_a_shorter_run_count_where_a_step_is_stated(tmp_path, changes, step, counts):
    run = read(make_run(tmp_path, *HOOPER, *changes, rows=losses(3.0, 2.0, 1.0)))
    found = compare_with_runs(value(experiment="hooper2026_polynomial", metric="train/loss", step=step), [run])
    assert (found.mean == 2.0 and found.verdict != "smaller budget") == counts


def test_a_seed_counts_once(tmp_path):
    again = [make_run(tmp_path, *HOOPER, rows=losses(3.0, 2.0, last)) for last in (1.0, 1.5)]
    longer = make_run(tmp_path, *HOOPER, rows=losses(3.0, 2.0, 1.0), seed=2)
    shorter = make_run(tmp_path, *HOOPER, "steps=600", rows=losses(3.0, 2.0, 7.0), seed=2)
    os.utime(again[0] / "summary.json", (1, 1))
    runs = [read(folder) for folder in (shorter, longer, *again)]
    at_the_end = value(experiment="hooper2026_polynomial", metric="train/loss")
    assert compare_with_runs(at_the_end, runs).mean == pytest.approx((1.0 + 1.5) / 2)
    found = compare_with_runs(dataclasses.replace(at_the_end, step=600), runs)
    assert (found.mean, len(found.runs)) == (pytest.approx((1.0 + 1.5) / 2), 2)
    anywhere = compare_with_runs(value(metric="train/loss"), runs)
    assert anywhere.notes == ("several settings fit, which differ in steps",)


def test_runs_from_before_an_option_came_are_averaged_with_later_ones(tmp_path):
    before, _ = (make_run(tmp_path, *HOOPER, rows=losses(0.00427), seed=seed) for seed in (1, 2))
    config = yaml.safe_load((before / "config.yaml").read_text())
    del config["estimator"]["temperature"]
    (before / "config.yaml").write_text(yaml.safe_dump(config))
    assert (
        len(
            compare_with_runs(
                value(metric="train/loss", where={"estimator": "reinmax"}), find_runs([tmp_path]).runs
            ).runs
        )
        == 2
    )


def test_devices_are_no_setting(tmp_path):
    for seed, device in ((1, "cpu"), (2, "cuda")):
        folder = make_run(tmp_path, *HOOPER, rows=losses(9.0 + seed), seed=seed)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        (folder / "config.yaml").write_text(yaml.safe_dump({**config, "device": device}))
    runs = find_runs([tmp_path]).runs
    found = compare_with_runs(value(experiment="hooper2026_polynomial"), runs)
    assert (len(found.runs), found.mean) == (2, 10.5)
    (group,) = reproduction.groups_of(runs)
    assert len(group.finished) == 2


def test_how_closely_a_run_is_watched_is_no_setting(tmp_path):
    make_run(tmp_path, *HOOPER, "measure.every=0", "valid.every=1000", rows=losses(0.00427))
    assert beside(tmp_path).verdict == "agrees"


def test_the_best_of_several_settings_is_the_one_chosen(tmp_path):
    for lr, valid, test in ((0.1, 5.0, 1.0), (0.2, 3.0, 2.0), (0.3, 4.0, 3.0)):
        rows = [{"step": 1, "valid/cost": valid, "test/cost": test}]
        make_run(tmp_path, "estimator=reinforce", "task=toy", f"optimizer.lr={lr}", rows=rows)
    runs, where = find_runs([tmp_path]).runs, {"estimator": "reinforce"}
    lowest = compare_with_runs(value(where=where, choose={"metric": "valid/cost", "best": "lowest"}), runs)
    assert lowest.mean == 2
    assert lowest.notes[0] == "optimizer.lr=0.2, best of 3 by valid/cost"
    assert compare_with_runs(value(where=where, choose={"metric": "valid/cost", "best": "highest"}), runs).mean == 1
    highest_early = [{"step": 1, "valid/cost": 9.0}, {"step": 2, "valid/cost": 0.0, "test/cost": 4.0}]
    make_run(tmp_path, "estimator=reinforce", "task=toy", "optimizer.lr=0.4", rows=highest_early)
    more = find_runs([tmp_path]).runs
    assert compare_with_runs(value(where=where, choose={"metric": "valid/cost", "best": "highest"}), more).mean == 4
    several = compare_with_runs(value(where=where), runs)
    assert several.verdict == "not run"
    assert several.notes == ("several settings fit, which differ in optimizer.lr",)
    assert compare_with_runs(value(where={**where, "optimizer.lr": "3e-1"}), runs).mean == 3


@pytest.mark.parametrize(
    ("changes", "figure"),
    [
        ({}, 2.0),
        ({"scale": -1}, -2.0),
        ({"step": 400}, 1.0),
        ({"best": "lowest"}, 1.0),
        ({"best": "highest"}, 8.0),
        ({"best": "highest", "scale": -1}, -1.0),
        ({"window": 400, "best": "lowest"}, 2.0),  # of 4.5, 2, 2.5
        ({"window": 600}, 2.0),  # of 1, 3, 2
        ({"window": 1000}, None),
        ({"step": 401}, None),
    ],
)
def test_where_in_a_run_a_figure_is_taken(tmp_path, changes, figure):
    folder = make_run(tmp_path, "task=toy", "estimator=arsm", rows=losses(8.0, 1.0, 3.0, 2.0))
    found = compare_with_runs(value(**changes), [read(folder)])
    assert found.mean == figure


# ---------------------------------------------------------------- a wrong estimator


def descended(steps, rate=1.0, C=30):
    """Expected cost of the toy after descent along the exact gradient from logits 0."""
    phi, v = np.zeros(C), -(0.5 + np.arange(1, C + 1) / (C * 30))
    for _ in range(steps):
        p = np.exp(phi) / np.exp(phi).sum()
        phi -= rate * p * (v - p @ v)
    p = np.exp(phi) / np.exp(phi).sum()
    return float(p @ v)


@pytest.mark.long
@pytest.mark.parametrize(
    ("mutation", "verdict"),
    [([], "agrees"), (["estimator._target_=helpers.wrong.MeanOverReferences"], "differs")],
)
def test_a_wrong_estimator_turns_the_verdict(command, tmp_path, mutation, verdict):
    mine = {"table": "toy", "metric": "test/cost", "decimals": 7, "where": {"task": "toy"}}
    mine["values"] = [{"name": "ARSM", "value": descended(500)}]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"tables": [mine]}))
    setting = ["estimator=arsm", "task=toy", "optimizer=sgd", "optimizer.lr=1", "batch_size=20", "steps=500"]
    quiet = ["measure.every=0", "valid.every=0", "wandb.mode=disabled", "output=runs"]
    code, _, err = command("-m", *setting, *quiet, *mutation, "seed=1,2,3")
    assert code == 0, err
    found = compare_with_runs(read_published([tmp_path / "mine.yaml"])[-1], find_runs([tmp_path / "runs"]).runs)
    assert (found.verdict, len(found.runs)) == (verdict, 3)


# ---------------------------------------------------------------- files and pages


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ({"metrik": "test/cost"}, "metrik is no key (did you mean metric?)"),
        ({"metric": None}, "metric is missing"),
        ({"metric": 5}, "metric must be a text, got 5"),
        ({"value": "low"}, "value must be a number, got 'low'"),
        ({"value": "1,6e-2"}, "value must be a number, got '1,6e-2'"),
        ({"value": math.inf}, "value must be a number, got inf"),
        ({"value": True}, "value must be a number, got True"),
        ({"best": "least"}, "best must be lowest or highest, got 'least'"),
        ({"scale": "two"}, "scale must be a number other than 0, got 'two'"),
        ({"scale": 0}, "scale must be a number other than 0, got 0"),
        ({"step": "last"}, "step must be a whole number of at least 0, got 'last'"),
        ({"step": 1.5}, "step must be a whole number of at least 0, got 1.5"),
        ({"window": 0}, "window must be a whole number of at least 1, got 0"),
        ({"seeds": "5"}, "seeds must be a whole number of at least 1, got '5'"),
        ({"decimals": -1}, "decimals must be a whole number from 0 to 20, got -1"),
        ({"decimals": 10**9}, "decimals must be a whole number from 0 to 20, got 1000000000"),
        ({"std": "0,1"}, "std must be a number of at least 0, got '0,1'"),
        ({"error": -1}, "error must be a number of at least 0, got -1"),
        ({"unpublished": "batch size"}, "unpublished must be a list of texts, got 'batch size'"),
        ({"choose": "lowest"}, "choose must be metric: ... and best: lowest or highest, got 'lowest'"),
        ({"choose": {"best": 1}}, "choose must be metric: ... and best: lowest or highest, got {'best': 1}"),
        ({"where": "task"}, "where must be settings of runs by their keys, got 'task'"),
        ({"where": ["task"]}, "where must be settings of runs by their keys, got ['task']"),
        ({"where": {"task.powr": 2}}, "where: no run and no config has task.powr (did you mean task.power?)"),
        ({"where": {"zzz": 2}}, "where: no run and no config has zzz: keys of a run's config"),
    ],
)
def test_a_wrong_entry_is_refused(tmp_path, entry, line):
    good = {"name": "a", "value": 1.0, "metric": "test/cost"}
    entry = {key: content for key, content in {**good, **entry}.items() if content is not None}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"tables": [{"table": "T", "values": [entry]}]}))
    with pytest.raises(Refused, match="mine.yaml: T, a: " + re.escape(line)) as refused:
        read_published([tmp_path / "mine.yaml"])
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("tables: [1, 2]", "tables must be a list of entries with table, metric and values, got 1"),
        ("tables: {a: 1}", "tables must be a list, got {'a': 1}"),
        ("tables: two", "tables must be a list, got 'two'"),
        ("tables: [{table: T, values: [1]}]", "T: values must be a list of entries with name and value, got [1]"),
        ("tables: [{table: T, values: {a: 1}}]", "T: values must be a list of entries with name and value, got {'a'"),
        ("5", "no YAML"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, content, line):
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(Refused, match="mine.yaml: " + re.escape(line)) as refused:
        read_published([tmp_path / "mine.yaml"])
    assert len(str(refused.value).splitlines()) == 1


def test_settings_of_runs_and_of_all_configs_can_be_asked_for(tmp_path):
    """Also of a task of the user's own, if there is a run of it."""
    assert {key for found in read_published([]) for key in found.where} <= config_keys()
    folder = make_run(tmp_path, "task=toy", "estimator=arsm", rows=losses(1.0))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, "mine": {"own": 1}}))
    mine = {"table": "T", "metric": "test/cost", "values": [{"name": "a", "value": 1, "where": {"mine.own": 1}}]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"tables": [mine]}))
    assert read_published([tmp_path / "mine.yaml"], find_runs([tmp_path]).runs)[-1].where == {"mine.own": "1"}


@pytest.mark.parametrize("content", ["", "tables: [", "values: []"])
def test_no_such_file(tmp_path, monkeypatch, capsys, content):
    make_run(tmp_path, "task=toy", "estimator=arsm", rows=losses(1.0))
    if content:
        (tmp_path / "mine.yaml").write_text(content)
    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path), "--published", str(tmp_path / "mine.yaml")])
    with pytest.raises(SystemExit) as stopped:
        report.main()
    assert stopped.value.code == 2
    _, err = capsys.readouterr()
    assert err.startswith("error: ")
    assert "mine.yaml" in err
    assert len(err.splitlines()) == 1


def test_every_published_value_can_be_met():
    """Its experiment exists, and a row of it has the settings; but for what the experiment's file leaves out."""
    for found in read_published([]):
        rows, params = experiment(found.experiment).rows, experiment(found.experiment).params
        keys = {k: v for k, v in found.where.items() if k not in params}
        fitting = [row for row in rows if all(k not in row or row[k] == v for k, v in keys.items())]
        assert fitting or found.name == "GR-MC1000", (found.experiment, found.name)


def test_results_hold_what_was_run_and_nothing_else(tmp_path, monkeypatch, capsys):
    runs = tmp_path / "runs"
    runs.mkdir()
    for seed, loss in ((1, 0.00426), (2, 0.00428), (3, 0.0043)):
        curve = [{"step": step, "valid/gap": 1.0 / (step + 1)} for step in (0, 200)]
        make_run(runs, *HOOPER, rows=[*curve, *losses(9.0, loss)], seed=seed)
    make_run(runs, *HOOPER, "budget=small", rows=losses(0.5))
    make_run(runs, *HOOPER, "steps=77", rows=losses(0.25))
    make_run(runs, *HOOPER, rows=losses(0.125), finished=False, seed=4)
    arguments = ["report.py", str(runs), "--results", str(tmp_path / "RESULTS.md")]
    monkeypatch.setattr(sys, "argv", arguments)
    report.main()
    text = (tmp_path / "RESULTS.md").read_text()
    assert "| ReinMax | 0.00427 | 0.004280 ± 0.000012 | 3 | +0.000010 | +0.4 | **agrees** |" in text
    assert "| [hooper2026_polynomial](#hooper2026_polynomial) | 3 | 2 | 1 | 26 |" in text
    assert "3 runs: 10,000 steps, on a machine, torch 2, Python 3.11, commit 0123456789." in text
    own = text[text.index("## hooper2026_polynomial") : text.index("## liu2023_polynomial")]
    full, small = own.index("Runs in full"), own.index("Runs of the small budget")
    other = own.index("Runs with other settings (steps=77)")
    assert full < own.index("0.00428", full) < small < own.index("0.5", small) < other < own.index("0.25", other)
    assert "unfinished at step 200 of 10,000" in own
    assert "0.125" not in own
    assert "Not run in full: all of it." in text[text.index("## yin2019_vae") : text.index("## hooper2026_polynomial")]
    assert (tmp_path / "docs/results/hooper2026_polynomial.png").stat().st_size > 5000
    assert str(tmp_path) not in text


def test_nothing_from_runs_becomes_markup_in_results(tmp_path, monkeypatch, capsys):
    (tmp_path / "runs").mkdir()
    hostile = "</td><script>alert(1)</script>|[x](javascript:alert(1))"
    made = [make_run(tmp_path / "runs", *HOOPER, rows=losses(9.0, 0.004), seed=seed) for seed in (1, 2)]
    about = json.loads((made[0] / "environment.json").read_text())
    about |= {"device": hostile, "commit": hostile, "python": hostile, "versions": {"torch": hostile}}
    (made[0] / "environment.json").write_text(json.dumps(about))
    config = yaml.safe_load((made[1] / "config.yaml").read_text()) | {"batch_size": hostile}
    (made[1] / "config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path / "runs"), "--results", str(tmp_path / "RESULTS.md")])
    report.main()
    text = (tmp_path / "RESULTS.md").read_text()
    assert text.count(r"\<script\>alert(1)") >= 4
    assert not re.findall(r"(?<!\\)<script|(?<!\\)\[x|(?<!\\)\|\\\[x", text)


def test_odd_facts_of_runs_break_no_results(tmp_path):
    folder = make_run(tmp_path, *HOOPER, rows=losses(9.0, 0.004))
    (folder / "environment.json").write_text(json.dumps({"versions": 5, "commit": 5, "platform": 5, "device": "cpu"}))
    assert circumstance(read(folder)).endswith("on cpu, commit 5")
    assert experiment("../optimizer/adam") is None
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(re.sub(r"(?m)^steps: .*", "steps: .inf", config))
    assert "its config.yaml is not a run's" in read(folder)


def test_an_estimator_has_one_look_in_all_panels_and_none_shares_it(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(reproduction, "curves_picture", lambda panels, _, looks: drawn.append((panels, looks)) or {})
    monkeypatch.setattr(reproduction, "as_png", lambda spec: b"")
    monkeypatch.setattr(reproduction, "ran_in_full", lambda run: True)
    for power, names in (("1.5", ["reinmax", "mve"]), ("2", ["reinmax", "st_gumbel_softmax"])):
        for name in names:
            rows = [{"step": step, "valid/gap": 1.0, "train/loss": 1.0} for step in (200, 10_000)]
            make_run(
                tmp_path, "experiment=hooper2026_polynomial", f"task.power={power}", f"estimator={name}", rows=rows
            )
    runs = find_runs([tmp_path]).runs
    reproduction.draw_courses(
        "hooper2026_polynomial", {"title": "", "curves": ["valid/gap"]}, runs, tmp_path / "picture.png"
    )
    ((panels, looks),) = drawn
    assert len(panels) == 2
    assert sorted(looks) == ["mve", "reinmax", "st_gumbel_softmax"]
    assert len({look.colour for look in looks.values()}) == len({look.shape for look in looks.values()}) == 3


def test_the_report_has_them_too(tmp_path, monkeypatch, capsys):
    for seed, loss in ((1, 0.00426), (2, 0.0043)):
        make_run(tmp_path, *HOOPER, rows=losses(9.0, loss), seed=seed)
    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path)])
    report.main()
    page = (tmp_path / "report/report.html").read_text()
    assert "Published figures" in page
    row = page[page.index("ReinMax") :]
    assert row.index("0.00427") < row.index("agrees") < row.index("</tr>")
