"""Estimators at their best settings: choice, reported figure, budgets, pairs and trials, against brute force."""

import math
import re
import shutil
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import hardmax.report as command
from hardmax.harness.shared import Refused
from hardmax.reporting.archiving import add_runs
from hardmax.reporting.costs import front, leaders, reached
from hardmax.reporting.groups import grouped
from hardmax.reporting.pairs import Pair, chance, holm, pairs_of
from hardmax.reporting.runs import find_runs
from hardmax.reporting.sections import Charts
from hardmax.reporting.sensitivity import Panel, panels
from hardmax.reporting.statistics import Difference, difference
from hardmax.reporting.tables import as_markdown, final_table
from hardmax.reporting.tuned_sections import comparison, pair_cell, tuned_sections
from hardmax.reporting.tuning import at_edges, expected_best, seeds_text, trials_of, tuned
from hardmax.reporting.tuning_charts import sensitivity_limits, with_cuts
from hardmax.reporting.validation import CostLimit, best_so_far, budget_of
from hardmax.reporting.writing import write
from helpers.made_up import run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ACCURACY = {"error": {"title": "error", "unit": "", "better": "lower"}}


def tuning(folder, keys=(), at=None):
    """The comparison on the only problem below a folder, and its entries by label."""
    found = find_runs([folder])
    ((task, groups),) = grouped(found.runs, [], [], found.notes).items()
    result = tuned(task, groups, list(keys), [], at)
    return result, {entry.label: entry for entry in result.entries}


def tried(folder, estimator, seed, valid, test=None, failed=False, **options):
    """A run whose validation ELBO ends at ``valid``, with options of its estimator, or of its optimiser for ``lr``."""
    settings = {f"estimator.{k}" if k != "lr" else "optimizer.lr": v for k, v in options.items()}
    rows = [{"step": step, "valid/elbo": end, "cost/evaluations": step} for step, end in ((0, -90.0), (100, valid))]
    name = re.sub(r"[^\w.-]", "_", str(options))
    place = run(folder, estimator, seed, None if failed else (test or valid), settings=settings, rows=rows, name=name)
    if failed == "diverged":
        (place / "failed.txt").write_text("NotFinite: the cost of step 7 is not finite\n")


# ---------------------------------------------------------------- the choice


def brute_choice(runs, better=1):
    """The setting chosen, and seeds and mean reported, of runs ``(setting, seed, valid, test)``; None: no figure."""
    settings = sorted({setting for setting, *_ in runs})
    count = {seed: sum(any(r[:2] == (s, seed) for r in runs) for s in settings) for seed in {r[1] for r in runs}}
    tuning_seeds = {seed for seed, n in count.items() if n > len(settings) / 2}
    best = None
    for setting in settings:
        own = {seed: valid for s, seed, valid, _ in runs if s == setting}
        values = [own.get(seed) for seed in tuning_seeds or own]
        known = [value for value in values if value is not None]
        if known:
            key = (-values.count(None), better * sum(known) / len(known))
            if best is None or key > best[0]:
                best = (key, setting, tuning_seeds or set(own))
    _, setting, judged = best
    of_setting = {seed: test for s, seed, _, test in runs if s == setting and test is not None}
    others = {seed: test for seed, test in of_setting.items() if seed not in judged}
    reported = others or {seed: test for seed, test in of_setting.items() if seed in judged}
    return setting, set(reported), sum(reported.values()) / len(reported)


@pytest.mark.parametrize("dice", range(4))
def test_choice_and_reported_figure_agree_with_brute_force(tmp_path, dice):
    """Settings with missing seeds, with failed and unfinished runs, with figures that tie, and more seeds for some."""
    dice, runs = np.random.default_rng(dice), {}
    for estimator in ("a", "b", "c"):
        runs[estimator] = []
        for lr in (0.001, 0.003, 0.01, 0.03)[: dice.integers(1, 5)]:
            for seed in (1, 2, 3, 4, 5)[: dice.choice([2, 3, 3, 5])]:
                if dice.random() < 0.1 and len(runs[estimator]) > 2:
                    continue
                valid = float(dice.integers(-24, -20))  # few values: means tie
                failed = dice.choice(["", "", "", "", "diverged", "unfinished"])
                tried(tmp_path, estimator, seed, valid, valid - 1, failed, lr=lr)
                runs[estimator].append((lr, str(seed), None, None) if failed else (lr, str(seed), valid, valid - 1))
    found, entries = tuning(tmp_path)
    for estimator, own in runs.items():
        setting, seeds, mean = brute_choice(own)
        entry = entries[estimator]
        assert len(entry.settings) == len({lr for lr, *_ in own})
        assert entry.chosen.group.runs[0].config["optimizer.lr"] == str(setting)
        assert {run.seed for run in entry.reported if run.finished} == seeds
        assert found.results.means[estimator]["test/elbo"].value == pytest.approx(mean)
    order = [found.results.means[entry.label]["test/elbo"].value for entry in found.entries]
    assert order == sorted(order, reverse=True)


def test_others_than_the_tuning_seeds_are_reported_where_there_are_any(tmp_path):
    for lr in (0.1, 0.2, 0.3):
        tried(tmp_path, "arsm", 1, -20 - lr, -30 - lr, lr=lr)
        tried(tmp_path, "nvil", 1, -21 - lr, -31 - lr, lr=lr)
    for seed in (2, 3, 4):
        tried(tmp_path, "arsm", seed, -25.0, -40.0 - seed, lr=0.1)
    found, entries = tuning(tmp_path)
    assert (entries["arsm"].others, entries["nvil"].others) == (True, False)
    assert found.results.means["arsm"]["test/elbo"].value == -43
    assert found.results.means["nvil"]["test/elbo"].value == -31.1
    page = comparison(found).html
    assert "Reported by seeds other than those by which their setting was chosen: arsm." in page
    assert "Reported by the very seeds by which their setting was chosen, which is optimistic: nvil." in page
    table = as_markdown(final_table(found.results))
    assert re.search(r"arsm.* optimizer.lr=0.1 .* 3 \(6 runs\) .* 1 .* 2–4 .* 3 of 3 ", table)
    assert re.search(r"nvil.* 1 \(the same\) ", table)


def test_failed_unfinished_and_missing_runs_make_a_setting_the_worst(tmp_path):
    for lr, valid, failed in (
        (0.1, -1.0, "diverged"),
        (0.2, -2.0, "unfinished"),
        (0.3, -3.0, "missing"),
        (0.4, -50.0, ""),
    ):
        tried(tmp_path, "arsm", 1, valid, lr=lr)
        if failed != "missing":
            tried(tmp_path, "arsm", 2, valid, failed=failed, lr=lr)
        tried(tmp_path, "nvil", 1, valid, failed="diverged", lr=lr)
    found, entries = tuning(tmp_path)
    assert entries["arsm"].chosen.values == {"optimizer.lr": "0.4"}
    assert [setting.lacking for setting in entries["arsm"].settings] == [1, 1, 1, 0]
    assert trials_of(found)["arsm"] == [-math.inf] * 3 + [-50.0]
    assert entries["nvil"].chosen is None
    assert found.entries[-1].label == "nvil"
    assert len(entries["nvil"].settings) == 4, "they count as tried"


def test_a_setting_with_a_figure_is_chosen_before_one_without(tmp_path):
    """Also where no seed is shared, and the one with a figure lacks more of its own."""
    tried(tmp_path, "arsm", 1, -1.0, failed="diverged", lr=0.1)
    for seed, failed in ((2, ""), (3, "diverged"), (4, "diverged")):
        tried(tmp_path, "arsm", seed, -20.0, failed=failed, lr=0.2)
    assert tuning(tmp_path)[1]["arsm"].chosen.values == {"optimizer.lr": "0.2"}


def test_of_settings_that_tie_the_first_is_taken_and_it_is_said(tmp_path):
    for temperature in (2, 10, 1):
        tried(tmp_path, "arsm", 1, -20.0, temperature=temperature)
    found, entries = tuning(tmp_path)
    assert entries["arsm"].chosen.values == {"temperature": "1"}
    assert entries["arsm"].tied == 2
    assert "arsm: 2 settings more did as well" in comparison(found).html


@pytest.mark.parametrize("better", [-1, 0])
def test_charts_show_the_best_however_far_ahead(better):
    """Of lines against budgets and settings, and of panels over options."""
    courses = {f"c{k}": [50.0 + k / 10] * 10 for k in range(8)} | {"ahead": [50.0] * 9 + [3.0]}
    rows = [
        {"label": label, "x": 1.0 + n, "mean": v, "low": v, "high": v, "failed": False}
        for label, course in courses.items()
        for n, v in enumerate(course)
    ]
    low = [with_cuts(rows, log, better)[1][0] for log in (False, True)]
    panels_ = [Panel("a", ["x"], part, line=True) for part in (rows[:40], rows[40:])]
    low.append(sensitivity_limits(panels_, better)[0])
    assert [end < 3 for end in low] == [better == -1] * 3


def test_the_best_at_an_edge_of_what_was_tried_is_named(tmp_path):
    for n, rate in enumerate(("0.001", "1e-2", "0.1")):
        tried(tmp_path, "arsm", 1, -20.0 - n, lr=rate)
        tried(tmp_path, "carms", 1, -20.0 + n, lr=rate)
        tried(tmp_path, "nvil", 1, -20.0 - abs(n - 1), lr=rate)
        tried(tmp_path, "softmax", 1, -20.0 - n, mode="abc"[n])
    for rate in ("0.001", "0.01"):
        tried(tmp_path, "reinforce", 1, -20.0, lr=rate)
    result, _ = tuning(tmp_path)
    edges = at_edges(result)
    assert edges == ["optimizer.lr=0.1, the highest: carms", "optimizer.lr=0.001, the lowest: arsm"]
    assert f"there may be better ones: {'; '.join(edges)}." in comparison(result).html


def test_fewer_trials_are_marked(tmp_path):
    for lr in (0.1, 0.2):
        tried(tmp_path, "arsm", 1, -20.0, lr=lr)
    tried(tmp_path, "nvil", 1, -20.0, lr=0.1)
    found, _ = tuning(tmp_path)
    marks = {group.label: group.settings["chosen from"] for group in found.results.groups}
    assert marks == {"arsm": "2 (2 runs)", "nvil": "1 † (1 run)"}


def test_keys_say_among_what_is_chosen(tmp_path):
    for lr in (0.1, 0.2):
        for temperature in (0.5, 1):
            tried(tmp_path, "arsm", 1, -20.0 - lr * temperature, lr=lr, temperature=temperature)
    _, entries = tuning(tmp_path, ["optimizer.lr"])
    assert set(entries) == {"arsm (temperature=0.5)", "arsm (temperature=1)"}
    assert all(entry.chosen.values == {"optimizer.lr": "0.1"} for entry in entries.values())
    with pytest.raises(Refused, match=r"--tune optimizer\.rl: no run has this key"):
        tuning(tmp_path, ["optimizer.rl"])


def test_lower_figures_may_be_better_and_the_last_row_counts(tmp_path):
    for lr, errors in ((0.1, (0.5, 0.1, 0.3)), (0.2, (0.5, 0.4, 0.2))):
        rows = [{"step": 50 * n, "valid/error": error, "cost/evaluations": n} for n, error in enumerate(errors)]
        more = {"test/error": errors[-1]}
        run(
            tmp_path,
            "arsm",
            1,
            0.0,
            settings={"optimizer.lr": lr},
            rows=rows,
            more=more,
            figures=ACCURACY,
            name=str(lr),
        )
    _, entries = tuning(tmp_path)
    assert entries["arsm"].chosen.values == {"optimizer.lr": "0.2"}
    _, entries = tuning(tmp_path, at=CostLimit("steps", 100.0))
    assert entries["arsm"].chosen.values == {"optimizer.lr": "0.1"}, "each run counts with its best"


# ---------------------------------------------------------------- at equal cost


def brute_best(rows, at):
    """The best of the interpolated line through pairs of amount and figure, up to an amount."""
    x, y = map(np.array, zip(*rows, strict=True))
    return max([value for amount, value in rows if amount <= at] + [np.interp(at, x, y)]) if at >= x[0] else None


def test_the_best_so_far_agrees_with_brute_force():
    dice = np.random.default_rng(0)
    for better in (1, -1):
        for _ in range(20):
            steps = np.sort(dice.choice(100, 8, replace=False)).astype(float)
            curve = np.stack([steps, 3 * steps, steps / 7, dice.normal(size=8).round(1)], 1)
            best = best_so_far(curve, better)
            for column, factor in enumerate((1, 3, 1 / 7)):
                pairs = list(zip(curve[:, column], better * curve[:, 3], strict=True))
                for at in dice.uniform(steps[0], 120, 10) * factor:
                    found = better * np.interp(at, best[:, column], best[:, 3])
                    assert found == pytest.approx(brute_best(pairs, at))


@pytest.mark.parametrize("axis", ["steps", "evaluations", "seconds"])
def test_budgets_agree_with_brute_force(tmp_path, axis):
    """Evaluations are logged in other rows than validations; runs end at different steps."""
    dice, known = np.random.default_rng(3), {}
    for estimator, cost in (("arsm", 46), ("nvil", 1)):
        for lr in (0.1, 0.2):
            for seed in (1, 2):
                steps = range(0, 101 if estimator == "nvil" else 61, 10)
                values = (-30 + 5 * dice.random(len(steps)).cumsum() - 4 * dice.random(len(steps))).tolist()
                rows = [{"step": s, "valid/elbo": v} for s, v in zip(steps, values, strict=True)]
                rows += [{"step": s, "cost/evaluations": s * cost} for s in steps if s % 20 == 0 and s]
                timings = [{"step": s, "cost/seconds": s**1.5 / 100} for s in steps]
                per = {"steps": 1.0, "evaluations": cost}.get(axis)
                spent = [s * per if per else s**1.5 / 100 for s in steps]
                known[estimator, lr, str(seed)] = list(zip(spent, values, strict=True))
                settings = {"optimizer.lr": lr}
                run(tmp_path, estimator, seed, settings=settings, rows=rows, timings=timings, name=f"{lr}")
    last = max(amount for rows in known.values() for amount, _ in rows)
    for at in (0.003 * last, 0.1 * last, 0.5 * last, last, 2 * last):
        found, entries = tuning(tmp_path, at=CostLimit(axis, at))
        for estimator in ("arsm", "nvil"):
            runs = [
                (lr, seed, brute_best(rows, at), 0.0) for (name, lr, seed), rows in known.items() if name == estimator
            ]
            setting, seeds, _ = brute_choice(runs)
            mean = np.mean([value for lr, seed, value, _ in runs if lr == setting and seed in seeds])
            assert entries[estimator].chosen.values == {"optimizer.lr": str(setting)}
            assert found.results.means[estimator]["valid/elbo"].value == pytest.approx(mean)
    whole, _ = tuning(tmp_path)
    lines = reached(whole, axis)
    for line in lines:
        n = len(line.amounts) // 2
        found, _ = tuning(tmp_path, at=CostLimit(axis, line.amounts[n]))
        assert line.means[n].value == pytest.approx(found.results.means[line.label]["valid/elbo"].value)
        ends = [amount for (name, *_), rows in known.items() for amount, _ in rows if name == line.label]
        assert line.amounts[-1] <= max(ends) * (1 + 1e-9)
    points = front(lines, 1)
    for amount, value, label in points:
        reach = {
            one.label: [m.value for a, m in zip(one.amounts, one.means, strict=True) if a <= amount] for one in lines
        }
        assert value == pytest.approx(max(values[-1] for values in reach.values() if values))
        assert reach[label][-1] == pytest.approx(value)
    assert [label for _, label in leaders(points)] == [
        label for n, (*_, label) in enumerate(points) if n == 0 or points[n - 1][2] != label
    ]


def test_a_run_has_no_figure_before_its_first_row(tmp_path):
    rows = [{"step": step, "valid/elbo": -20.0, "cost/evaluations": step} for step in (50, 100)]
    run(tmp_path, "arsm", 1, settings={"optimizer.lr": 0.1}, rows=rows, name="late")
    tried(tmp_path, "arsm", 1, -80.0, lr=0.2)
    _, entries = tuning(tmp_path, at=CostLimit("steps", 49.0))
    assert entries["arsm"].chosen.values == {"optimizer.lr": "0.2"}
    _, entries = tuning(tmp_path, at=CostLimit("steps", 50.0))
    assert entries["arsm"].chosen.values == {"optimizer.lr": "0.1"}


@pytest.mark.parametrize(
    "text", ["steps", "steps=", "steps=-1", "steps=0", "hours=2", "seconds=nan", "evaluations=1e999"]
)
def test_budgets_that_are_none_are_refused(text):
    with pytest.raises(Refused, match=f"--at {re.escape(text)}: steps=N, evaluations=N or seconds=N is expected"):
        budget_of(text)


# ---------------------------------------------------------------- pairs


def test_pairs_agree_with_brute_force():
    """Student's t, by the book; Holm's procedure step by step, as it is described; seeds that are shared and not."""
    dice = np.random.default_rng(1)
    luck = dice.normal(size=5)
    values = {
        name: {(str(seed),): mean + luck[seed] + 0.3 * dice.normal() for seed in range(5)}
        for name, mean in {"a": 0.0, "b": 0.2, "c": 0.4, "d": 3.0}.items()
    }
    values["elsewhere"] = {(str(seed + 10),): 4 + dice.normal() for seed in range(4)}
    values["few"] = {("1",): 0.0, ("2",): 1.0}
    found = {(pair.first, pair.second): pair for pair in pairs_of(values)}
    assert set(found) == set(combinations(values, 2))
    chances = {}
    for (a, b), pair in found.items():
        if "few" in (a, b):
            assert pair.difference is None
            assert not pair.significant
            continue
        ours, theirs = (list(values[name].values()) for name in (a, b))
        welch = "elsewhere" in (a, b)
        test = stats.ttest_ind(ours, theirs, equal_var=False) if welch else stats.ttest_rel(ours, theirs)
        chances[a, b] = test.pvalue
        assert chance(values[a], values[b]) == pytest.approx(test.pvalue)
        assert pair.difference == difference(values[a], values[b])
    rejected = set()
    for n, pair in enumerate(sorted(chances, key=chances.get)):
        if chances[pair] > 0.05 / (len(chances) - n):
            break
        rejected.add(pair)
    assert {pair for pair in chances if found[pair].significant} == rejected
    assert 0 < len(rejected) < len([p for p in chances.values() if p < 0.05]), "the correction matters here"


@pytest.mark.parametrize(
    ("mean", "width", "texts"),
    [
        (-0.31, 0.2, ("−0.31", "−0.51 to −0.11")),
        (1.16e-5, 2e-5, ("+1.2 × 10⁻⁵", "−0.8 × 10⁻⁵ to 3.2 × 10⁻⁵")),
        (0.0, 0.0, ("0", "0 to 0")),
    ],
)
def test_cells_of_pairs_have_the_digits_that_the_interval_leaves(mean, width, texts):
    cell = pair_cell(Pair("a", "b", Difference(mean, mean - width, mean + width, True), 0.01), 1)
    assert (cell.text, cell.interval) == texts
    opposite = pair_cell(Pair("a", "b", Difference(-mean, -mean - width, width - mean, True), 0.01), -1)
    assert opposite == cell


def test_holms_correction_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_without_differences_a_table_rarely_has_a_significant_pair():
    """One in twenty tables of six estimators, within three standard errors; uncorrected it would be a third of them."""
    dice, tables = np.random.default_rng(5), 300
    wrong = {"corrected": 0, "bare": 0}
    for _ in range(tables):
        values = [dict(enumerate(row)) for row in dice.normal(size=(6, 5))]
        chances = [chance(a, b) for a, b in combinations(values, 2)]
        wrong["bare"] += min(chances) <= 0.05
        wrong["corrected"] += min(holm(chances)) <= 0.05
    assert wrong["corrected"] / tables <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / tables)
    assert wrong["bare"] / tables > 0.2


# ---------------------------------------------------------------- what tuning takes


@pytest.mark.parametrize("better", [1, -1])
def test_expected_best_agrees_with_simulation(better):
    dice, draws = np.random.default_rng(2), 10_000
    values = dice.normal(size=9).round(1)
    found = expected_best(list(values), better)
    assert found[0] == pytest.approx(values.mean())
    assert found[-1] == better * (better * values).max()
    for n in (1, 2, 4, 8):
        subsets = np.stack([dice.permutation(values)[:n] for _ in range(draws)])
        best = better * (better * subsets).max(1)
        assert abs(found[n - 1] - best.mean()) <= 3 * best.std() / math.sqrt(draws) + 1e-12


def test_expected_best_is_infinitely_bad_while_all_may_have_failed():
    assert expected_best([-math.inf, -math.inf, -2.0, -1.0], 1) == pytest.approx([-math.inf, -math.inf, -1.25, -1.0])
    assert expected_best([math.inf, 2.0], -1) == [math.inf, 2.0]


def test_where_no_setting_has_a_figure_nothing_is_drawn_of_what_tuning_takes(tmp_path):
    """Runs that finished, whose last validation is undefined."""
    for lr in (0.1, 0.2):
        rows = [{"step": step, "valid/elbo": value} for step, value in ((0, -90.0), (100, None))]
        run(tmp_path, "arsm", 1, settings={"optimizer.lr": lr}, rows=rows, name=str(lr))
    found, entries = tuning(tmp_path)
    assert entries["arsm"].chosen is None
    assert [section.title for section in tuned_sections(found, Charts())][:1] == [comparison(found).title]
    assert "What tuning takes" not in [section.title for section in tuned_sections(found, Charts())]


def test_panels_show_one_option_or_two(tmp_path):
    for temperature in (0.1, 1):
        for lr in (0.1, 0.2):
            tried(tmp_path, "both", 1, -20 - temperature - lr, lr=lr, temperature=temperature)
            for baseline in ("mean", "none"):
                valid = -20 - temperature - lr - (baseline == "none")
                failed = (temperature, baseline) == (1, "mean") and "diverged"
                tried(tmp_path, "many", 1, valid, failed=failed, lr=lr, temperature=temperature, baseline=baseline)
    for temperature, lr in ((0.3, 0.01), (0.4, 0.02), (0.5, 0.03)):
        tried(tmp_path, "searched", 1, -20.0, lr=lr, temperature=temperature)
    tried(tmp_path, "alone", 1, -20.0)
    found, _ = tuning(tmp_path)
    shown = {(panel.label, *panel.options): panel for panel in panels(found)}
    assert set(shown) == {
        ("both", "optimizer.lr", "temperature"),
        *((name, option) for name in ("many", "searched") for option in ("optimizer.lr", "temperature")),
    }
    both = shown["both", "optimizer.lr", "temperature"]
    assert {(row["x"], row["y"]): row["mean"] for row in both.rows}[0.2, 1] == pytest.approx(-21.2)
    many = shown["many", "temperature"]
    assert [(row["x"], row["mean"]) for row in many.rows] == [(0.1, pytest.approx(-20.2)), (1, pytest.approx(-22.1))]
    assert many.line
    assert not shown["searched", "temperature"].line


# ---------------------------------------------------------------- what is written


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of a tuned report at a budget, on an archive of runs and on these themselves."""
    folder = tmp_path_factory.mktemp("tuned")
    for estimator, merit in (("arsm", -20.0), ("nvil", -21.0)):
        for lr in (0.1, 0.2):
            for seed in (1, 2, 3):
                tried(folder / "runs", estimator, seed, merit - lr - seed / 100, lr=lr)
    add_runs(find_runs([folder / "runs"]).runs, folder / "kept")
    checked = write.__wrapped__  # which holds charts against the schema
    checked([folder / "kept"], folder / "to", [], [], tune=[], at=CostLimit("evaluations", 50.0))
    return folder


def test_archives_are_read_as_folders(written):
    (ours, entries), (theirs, _) = (tuning(written / place) for place in ("runs", "kept"))
    assert ours.results.means == theirs.results.means
    assert ours.results.means["arsm"]["test/elbo"].value == pytest.approx(-20.12)
    assert {entry.chosen.values["optimizer.lr"] for entry in entries.values()} == {"0.1"}


def test_tables_hold_what_was_tried_chosen_and_compared(written):
    table = pd.read_csv(written / "to/tuned.csv").query("metric == 'valid/elbo'").set_index("label")
    assert table["best setting"].to_dict() == dict.fromkeys(("arsm", "nvil"), "optimizer.lr=0.1")
    assert table["mean"]["arsm"] == pytest.approx((-90 - 20.12) / 2)
    assert pd.read_csv(written / "to/pairs.csv").difference_mean.tolist() == pytest.approx([0.5])
    settings = pd.read_csv(written / "to/settings.csv")
    assert (settings.chosen.sum(), len(settings)) == (2, 4)
    assert all((written / f"to/dvae_{name}.png").is_file() for name in ("tuned", "sensitivity"))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path: make browser installs it")
def test_the_page_draws_every_chart_and_lets_its_reader_choose_a_budget(written):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(120_000)  # machines may be busy
        messages = []
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto((written / "to/report.html").as_uri())
        page.wait_for_function("document.querySelectorAll('.charts .plot svg').length >= 7")
        budgets = page.locator("select.budget option").all_text_contents()
        assert budgets[0].endswith(" optimiser steps")
        assert budgets[-1].endswith(" seconds of training")
        for number in (0, len(budgets) - 1):
            page.locator("select.budget").select_option(str(number))
            shown = [part.get_attribute("data-at") for part in page.locator(".at").all() if part.is_visible()]
            assert shown == [str(number)]
        for width in (1280, 400):
            page.set_viewport_size({"width": width, "height": 800})
            page.wait_for_timeout(300)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        browser.close()
    assert messages == []


def test_the_command_takes_keys_and_a_budget(tmp_path, reported, monkeypatch):
    given = []
    monkeypatch.setattr(command, "write", lambda *arguments: given.append(arguments[-2:]) or ("", [], []))
    for options, expected in (
        (["--tune"], ([], None)),
        (["--tune", "optimizer.lr", "estimator.temperature"], (["optimizer.lr", "estimator.temperature"], None)),
        (["--at", "seconds=2.5"], ([], CostLimit("seconds", 2.5))),
        ([], (None, None)),
    ):
        assert reported(tmp_path, *options)[0] == 0
        assert given.pop() == expected
    for options in (
        ["--tune", "--by", "seed"],
        ["--at", "steps=1", "--leaderboard", "x.md"],
        ["--tune", "--results", "x"],
    ):
        code, _, err = reported(tmp_path, *options)
        assert code == 2
        assert "--tune and --at do not go with" in err


def test_a_problem_without_a_validation_figure_is_noted(tmp_path):
    run(tmp_path, "arsm", figures={}, more={"test/elbo": 1.0})
    _, _, notes = write([tmp_path], tmp_path / "to", [], [], tune=[])
    assert "not tuned: dvae, without a validation figure that can be better or worse" in notes


def test_seeds_are_listed_shortly():
    assert seeds_text(["1"]) == "1"
    assert seeds_text(["1", "2"]) == "1, 2"
    assert seeds_text(["2", "3", "4", "5"]) == "2–5"
    assert seeds_text(["1", "7", "9", "11", "30"]) == "1, 7, 9, … (5)"
