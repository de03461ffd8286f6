"""Which runs are averaged, what is said of it, and that no two settings become one."""

import math

import pandas as pd
import pytest
import yaml

from hardmax.reporting import tables
from hardmax.reporting.final_figures import results_of
from hardmax.reporting.groups import grouped
from hardmax.reporting.page import answer
from hardmax.reporting.published.values import read_published
from hardmax.reporting.runs import find_runs
from hardmax.reporting.settings import canonical, texts
from hardmax.reporting.statistics import AS_GOOD, BEST
from hardmax.reporting.writing import published_beside, write
from helpers.made_up import run


def problems(folder, by=()):
    """Results by problem, and notes."""
    found = find_runs([folder])
    groups = grouped(found.runs, list(by), [], found.notes)
    return {problem: results_of(problem, own) for problem, own in groups.items()}, found.notes


def means(folder, metric="test/elbo"):
    """Means of the only problem by label."""
    ((_, results),) = problems(folder)[0].items()
    return {label: found[metric].value for label, found in results.means.items()}


# ---------------------------------------------------------------- what is a group


@pytest.mark.parametrize("seeds", [(1, 2), (3, 4)])
def test_an_absent_setting_is_a_value_of_its_own(tmp_path, seeds):
    """Neither averaged with the others nor taken for a repetition of them."""
    for seed in (1, 2):
        run(tmp_path, "reinforce", seed, -20.0)
    for seed in seeds:
        run(tmp_path, "reinforce", seed, -30.0, settings={"optimizer.weight_decay": 1.0}, name="decay")
    assert means(tmp_path) == {"reinforce": -20.0, "reinforce (optimizer.weight_decay=1)": -30.0}
    assert problems(tmp_path)[1] == []


def test_how_a_model_is_trained_is_no_other_problem(tmp_path):
    for seed in (1, 2):
        for gradient, elbo in (("copied", -20.0), ("estimator", -30.0)):
            run(tmp_path, "straight_through", seed, elbo, settings={"task.gradient": gradient}, name=gradient)
        run(tmp_path, "reinforce", seed, -10.0, settings={"task.gradient": "estimator"})
    through = "straight_through (gradient="
    found = {"reinforce (gradient=estimator)": -10.0, f"{through}copied)": -20.0, f"{through}estimator)": -30.0}
    assert means(tmp_path) == found


def test_what_a_class_does_not_have_is_no_column(tmp_path):
    adam = {"optimizer._target_": "torch.optim.Adam", "optimizer.betas": [0.9, 0.999], "optimizer.eps": 1e-8}
    sgd = {"optimizer._target_": "torch.optim.SGD", "optimizer.lr": 1.0}
    run(tmp_path, "arsm", settings=adam, name="adam")
    for momentum in (0.0, 0.9):
        run(tmp_path, "arsm", settings={**sgd, "optimizer.momentum": momentum}, name=f"sgd{momentum}")
    assert set(means(tmp_path)) == {
        "arsm (optimizer=Adam, optimizer.lr=0.001)",
        "arsm (optimizer=SGD, optimizer.lr=1, optimizer.momentum=0)",
        "arsm (optimizer=SGD, optimizer.lr=1, optimizer.momentum=0.9)",
    }


@pytest.mark.parametrize("part", ["optimizer", "schedule", "estimator", "estimator.baseline"])
def test_two_classes_of_one_name_stay_apart(tmp_path, part):
    for elbo, module in ((-20.0, "torch.optim"), (-30.0, "mine.optim"), (-40.0, "mine")):
        run(tmp_path, "ars", 1, elbo, settings={f"{part}._target_": f"{module}.Adam"}, name=module)
    found = means(tmp_path)
    assert sorted(found.values()) == [-40.0, -30.0, -20.0]
    assert all(f"{module}.Adam" in " ".join(found) for module in ("torch.optim", "mine.optim", "absent")[:2])
    write([tmp_path], tmp_path / "to", [], [])
    table = pd.read_csv(tmp_path / "to/final.csv").query("metric == 'test/elbo'")
    assert sorted(table["mean"]) == [-40.0, -30.0, -20.0]
    for name in ("dvae.md", "dvae.tex"):
        assert all(str(value) in (tmp_path / "to" / name).read_text() for value in (20, 30, 40))


def test_other_classes_under_one_name_of_an_estimator_or_a_task_count(tmp_path):
    for elbo, name in ((-20.0, "ARS"), (-30.0, "AR")):
        run(tmp_path, "ars", 1, elbo, settings={"estimator._target_": f"hardmax.estimators.{name}"}, name=name)
    assert means(tmp_path) == {"ars (class=ARS)": -20.0, "ars (class=AR)": -30.0}
    run(tmp_path, "ars", 1, -1.0, settings={"task._target_": "mine.Other"}, name="other")
    assert list(problems(tmp_path)[0]) == ["dvae, class=Other", "dvae, class=dvae"]


def test_labels_are_unique_whatever_settings_say(tmp_path):
    """Joined, both read ``a=1, b=2``."""
    run(tmp_path, "x", 1, -1.0, settings={"estimator.a": "1, b=2"}, name="one")
    run(tmp_path, "x", 1, -2.0, settings={"estimator.a": 1, "estimator.b": 2}, name="two")
    run(tmp_path, "x", 1, -3.0, settings={"estimator.a": 1, "estimator.b": "2"}, name="three")
    found = means(tmp_path)
    assert sorted(found.values()) in ([-3.0, -1.0], [-2.0, -1.0])
    run(tmp_path, "x (a=1", 1, -4.0, settings={"estimator.a": 9}, name="four")
    assert len(means(tmp_path)) == 3


def test_equal_numbers_are_one_group(tmp_path):
    for seed, rate in enumerate((1, 1.0, "1e0", "1.00")):
        run(tmp_path, "arsm", seed, -20.0, settings={"optimizer.lr": rate, "estimator.widths": [seed < 2, 1e3]})
        run(tmp_path, "nvil", seed, -20.0, settings={"optimizer.lr": 2, "estimator.widths": [20, rate]})
    assert set(means(tmp_path)) == {
        *("arsm (optimizer.lr=1, widths=[true,1000.0])", "arsm (optimizer.lr=1, widths=[false,1000.0])"),
        "nvil (optimizer.lr=2)",
    }
    assert canonical("nan") == canonical("nan")
    assert canonical("9007199254740993") != canonical("9007199254740992")


def test_numbers_are_short_and_never_two_alike(tmp_path):
    for n, rate in enumerate((0.99999, 0.999999, 0.12345678901234567, 1e-4)):
        run(tmp_path, "arsm", 1, -20.0 - n, settings={"optimizer.lr": rate}, name=str(n))
    assert list(texts("optimizer.lr", find_runs([tmp_path]).runs).values()) == [
        "0.99999",
        "0.999999",
        "0.1235",
        "0.0001",
    ]
    assert len(means(tmp_path)) == 4
    run(tmp_path / "other", "arsm", 1, settings={"optimizer.lr": 0.0006513466723912742})
    run(tmp_path / "other", "arsm", 1, settings={"optimizer.lr": 0.07}, name="other")
    assert set(means(tmp_path / "other")) == {"arsm (optimizer.lr=0.0006513)", "arsm (optimizer.lr=0.07)"}


def test_what_was_chosen_from_a_group_is_called_as_on_the_command_line(tmp_path, command):
    options = ["estimator=softmax", "task.bound_samples=2", "steps=1", "measure.every=0", "wandb.mode=disabled"]
    code, _, err = command("-m", "data=digits", "optimizer=adam,sgd", *options, "output=out")
    assert code == 0, err
    assert set(means(tmp_path / "out")) == {
        *("softmax (optimizer=adam, optimizer.lr=0.001)", "softmax (optimizer=sgd, optimizer.lr=0.1)")
    }
    (folder, _) = (path.parent for path in sorted((tmp_path / "out").rglob("summary.json")))
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("embedded_digits", "bars").replace("data: digits", "data: mine"))
    assert set(problems(tmp_path / "out")[0]) == {"dvae, data=digits", "dvae, data=mine"}


# ---------------------------------------------------------------- what is pooled


def test_pooled_options_are_said_and_get_no_marks(tmp_path):
    """Else the spread over temperatures widens the error until nothing is significantly worse."""
    for seed in (1, 2, 3):
        for temperature, elbo in ((0.5, -20.0), (2.0, -40.0)):
            settings = {"estimator.temperature": temperature}
            run(tmp_path, "gumbel_softmax", seed, elbo - seed, settings=settings, name=str(temperature))
        run(tmp_path, "arsm", seed, -21.0 - seed / 10)
    ((_, results),) = problems(tmp_path, by=["estimator"])[0].items()
    (gumbel,) = [group for group in results.groups if group.label == "gumbel_softmax"]
    assert gumbel.pooled == {"temperature": ["0.5", "2"]}
    assert results.verdicts == {}
    table = tables.final_table(results)
    assert not [cell for _, cells in table.rows for cell in cells if cell.marked]
    assert "6 of 6; over temperature=0.5, 2" in tables.as_markdown(table)
    assert tables.table_heading(results) == (
        "final figures, mean ± standard error over seeds and temperature; no marks, as options are pooled"
    )
    assert answer(results).startswith("Pooled over temperature: no best is named")
    write([tmp_path], tmp_path / "to", [], ["estimator"])
    page = (tmp_path / "to/report.html").read_text()
    assert "Mean ± standard error over seeds and temperature." in page
    assert "Best " not in page
    ((_, results),) = problems(tmp_path)[0].items()
    assert results.verdicts["test/elbo"]["arsm"].word == BEST, "not pooled"


def test_estimators_that_are_pooled_are_said(tmp_path):
    for name in ("arsm", "nvil"):
        for rate in (0.1, 0.2):
            run(tmp_path, name, settings={"optimizer.lr": rate}, name=str(rate))
    ((_, results),) = problems(tmp_path, by=["optimizer.lr"])[0].items()
    assert [group.pooled for group in results.groups] == [{"estimator": ["arsm", "nvil"]}] * 2


# ---------------------------------------------------------------- problems


@pytest.mark.parametrize("key", ["task.power", "data.noise", "data._target_"])
def test_every_problem_has_a_table_a_best_and_panels(tmp_path, key):
    values = {"easy": ("mine.easy", 1.5), "hard": ("mine.hard", 2.0)}
    for n, (name, number) in enumerate(values.values()):
        value = name if key.endswith("_target_") else number
        for seed in (1, 2, 3):
            run(tmp_path, "arsm", seed, -10.0 * n - seed, settings={key: value}, name=f"{n}")
            run(tmp_path, "nvil", seed, -10.0 * n - 5 - seed, settings={key: value}, name=f"{n}")
    found, _ = problems(tmp_path)
    name = key.removeprefix("task.").removesuffix("._target_")
    easy, hard = ("easy", "hard") if key.endswith("_target_") else ("1.5", "2")
    assert list(found) == [f"dvae, {name}={easy}", f"dvae, {name}={hard}"]
    for results in found.values():
        assert [group.label for group in results.groups] == ["arsm", "nvil"]
        assert results.verdicts["test/elbo"]["arsm"].word == BEST
    text, written, _ = write([tmp_path], tmp_path / "to", [], [])
    assert text.count("final figures") == 2
    assert len([path for path in written if path.suffix == ".png"]) == 2
    assert (tmp_path / "to/report.html").read_text().count("Best test ELBO") == 2


def test_what_was_measured_is_shown_with_its_own_problem(tmp_path):
    row = {"variance": 8.0, "bias2": 4.0, "bias2_error": 0.1, "true_norm": 2.0, "evaluations": 1, "seconds": 0.1}
    rows = pd.DataFrame([{"estimator": name, "where": "logits", **row} for name in ("a", "b")])
    for power in (1.5, 2.0):
        place = run(tmp_path, "arsm", settings={"task.power": power}, name=str(power))
        if power == 2.0:
            rows.to_csv(place / "measured.csv")
    elsewhere = tmp_path / "measured/dvae"
    elsewhere.mkdir(parents=True)
    rows.to_csv(elsewhere / "measured.csv")
    _, _, notes = write([tmp_path], tmp_path / "to", [], [])
    (picture,) = (tmp_path / "to").glob("*_bias_variance.png")
    assert picture.name.startswith("dvae__power_2-")
    assert f"not shown, as it is of none of the problems here: {elsewhere / 'measured.csv'}" in notes


# ---------------------------------------------------------------- figures that are none


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_not_finite_is_never_the_best(tmp_path, value):
    for seed in (1, 2, 3):
        run(tmp_path, "arsm", seed, -20.0 - seed)
        run(tmp_path, "nvil", seed, value)
        run(tmp_path, "mixed", seed, value if seed == 3 else -20.0 - seed)
    ((_, results),) = problems(tmp_path)[0].items()
    assert "nvil" not in results.verdicts["test/elbo"]
    table = {group.label: cells for group, cells in tables.final_table(results).rows}
    column = tables.final_table(results).titles.index("test ELBO, discrete draws (nats)")
    assert table["nvil"][column].text == "–"
    assert table["mixed"][column].text.endswith("(2 of 3) ?")
    assert results.verdicts["test/elbo"]["arsm"].word in (BEST, AS_GOOD)
    assert "nan" not in tables.as_text(tables.final_table(results))


def test_a_published_value_is_joined_with_all_problems_of_a_task(tmp_path):
    """What is best of a searched option of the task is chosen among all, and shown where it lies."""
    for n, alpha in enumerate((0.1, 0.3, 1.0)):
        run(tmp_path, "arsm", 1, -10.0 - n % 2, settings={"task.alpha": alpha}, name=str(alpha))
    value = {"name": "v", "value": -10.0, "metric": "valid/elbo", "choose": {"metric": "valid/elbo", "best": "highest"}}
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump({"tables": [{"table": "t", "where": {"task": "dvae"}, "values": [value]}]}))
    groups = grouped(find_runs([tmp_path]).runs, [], [], [])
    found = published_beside([v for v in read_published([file], find_runs([tmp_path]).runs) if v.table == "t"], groups)
    assert {problem: [len(c.runs) for c in own] for problem, own in found.items()} == {
        "dvae, alpha=0.1": [1], "dvae, alpha=0.3": [], "dvae, alpha=1": [],
    }  # fmt: skip
