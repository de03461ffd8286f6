"""The report: what is read, put together, compared, and written."""

import html.parser
import json
import math
import re
import sys
import xml.etree.ElementTree

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from scipy import stats

import report
from hardmax.harness.shared import Refused
from hardmax.numbers import with_error
from hardmax.reporting import page, tables
from hardmax.reporting import runs as reading
from hardmax.reporting.biases import comparisons
from hardmax.reporting.charts import curve_rows
from hardmax.reporting.curves import curve_of, drawn
from hardmax.reporting.examples import exhibits
from hardmax.reporting.final_figures import results_of
from hardmax.reporting.groups import chosen, grouped
from hardmax.reporting.looks import DASHES, SHAPES, looks
from hardmax.reporting.page import answer
from hardmax.reporting.pairs import chance
from hardmax.reporting.provenance import provenance
from hardmax.reporting.runs import find_runs
from hardmax.reporting.statistics import AS_GOOD, BEST, UNTESTED, WORSE, difference, verdicts
from hardmax.reporting.tables import cell
from hardmax.reporting.writing import write
from helpers.cases import in_part
from helpers.made_up import STEPS, picture, run

PNG = picture(8, 8)


def groups_of(folder, by=(), only=()):
    """Groups on the only task below a folder, by label, and notes."""
    found = find_runs([folder])
    groups = grouped(chosen(found.runs, list(only)), list(by), [], found.notes)
    (of_task,) = groups.values()
    return {group.label: group for group in of_task}, found.notes


def table_of(folder, **options):
    """The final table as dictionaries by label."""
    groups, _ = groups_of(folder, **options)
    table = tables.final_table(results_of("dvae", list(groups.values())))
    return {group.label: dict(zip(table.titles, cells, strict=True)) for group, cells in table.rows}


# ---------------------------------------------------------------- who is not significantly worse


def brute_force(ours, theirs, paired):
    """Interval of the difference of means: 8,000 resamples in a loop of our own, stretched as documented."""
    dice = np.random.default_rng(7)
    pick = lambda values: values[dice.integers(0, len(values), len(values))]
    if paired:
        shared = sorted(ours.keys() & theirs.keys())
        parts = [np.array([ours[b] - theirs[b] for b in shared])]
        found = [pick(parts[0]).mean() for _ in range(8_000)]
        center = parts[0].mean()
    else:
        parts = [np.array(list(values.values())) for values in (ours, theirs)]
        found = [pick(parts[0]).mean() - pick(parts[1]).mean() for _ in range(8_000)]
        center = parts[0].mean() - parts[1].mean()
    unbiased = [part.var(ddof=1) / len(part) for part in parts]
    plug_in = [part.var(ddof=0) / len(part) for part in parts]
    freedom = sum(unbiased) ** 2 / sum(v**2 / (len(p) - 1) for v, p in zip(unbiased, parts, strict=True))
    by = math.sqrt(sum(unbiased) / sum(plug_in)) * stats.t.ppf(0.975, freedom) / stats.norm.ppf(0.975)
    return [center + by * (end - center) for end in np.quantile(found, [0.025, 0.975])]


@pytest.mark.parametrize("seeds", in_part([5, 3, 12], 3))
def test_marks_agree_with_a_brute_force_bootstrap(tmp_path, seeds):
    """Known differences from nothing to far beyond the noise, with seeds that all estimators share and feel."""
    dice = np.random.default_rng(seeds)
    luck = dice.normal(0, 3, seeds)
    values = {"best": -20 + luck}
    for n, below in enumerate([0.05, 0.3, 0.6, 1.0, 2.0, 5.0, 20.0]):
        values[f"other{n}"] = -20 - below + luck + dice.normal(0, 0.5, seeds)
    values["elsewhere"] = -21 + dice.normal(0, 0.5, seeds)
    for name, figures in values.items():
        for seed, figure in enumerate(figures):
            run(tmp_path, name, seed + 100 * (name == "elsewhere"), float(figure))
    groups, _ = groups_of(tmp_path)
    found = results_of("dvae", list(groups.values())).verdicts["test/elbo"]
    best = max(values, key=lambda name: values[name].mean())
    by_seed = {name: groups[name].by_seed("test/elbo") for name in values}
    assert found[best].word == BEST
    words = set()
    for name in values.keys() - {best}:
        low, high = brute_force(by_seed[name], by_seed[best], paired="elsewhere" not in (name, best))
        assert found[name].word == (WORSE if high < 0 else AS_GOOD), (name, low, high)
        assert (found[name].difference.low, found[name].difference.high) == pytest.approx((low, high), rel=0.1, abs=0.1)
        words.add(found[name].word)
    assert words == {WORSE, AS_GOOD}, "both happen here"


@pytest.mark.parametrize(("count", "paired"), in_part([(3, True), (3, False), (5, True), (5, False)], 3))
def test_equal_estimators_are_rarely_called_worse(count, paired):
    """A bare percentile interval would exclude 0 in a quarter of all cases for three seeds."""
    dice = np.random.default_rng(count)
    wrong = 0
    for _ in range(400):
        ours, theirs = ({(n + k * (not paired),): v for n, v in enumerate(dice.normal(size=count))} for k in (0, 100))
        found = difference(ours, theirs)
        assert found.paired == paired
        wrong += found.low > 0 or found.high < 0
    assert wrong / 400 < 0.09


def test_runs_are_paired_where_they_share_most_seeds():
    of = lambda *seeds: {seed: float(seed**2) for seed in seeds}
    for ours, theirs, paired in (
        ((1, 2, 3, 4, 5), (1, 2, 3, 4, 6), True),
        ((1, 2, 3), range(1, 11), True),
        ((1, 2, 3, 14, 15, 16), (1, 2, 3, 24, 25, 26), False),
        ((1, 2, 3), (2, 3, 4), False),
    ):
        assert difference(of(*ours), of(*theirs)).paired == paired


def test_a_difference_without_noise_counts():
    high, low = {1: 1.0, 2: 2.0, 3: 4.0}, {1: 0.5, 2: 1.5, 3: 3.5}
    higher = verdicts({"a": high, "b": low, "c": dict(high)}, better=1)
    assert [higher[name].word for name in "abc"] == [BEST, WORSE, AS_GOOD]
    lower = verdicts({"a": high, "b": low, "c": dict(low)}, better=-1)
    assert [lower[name].word for name in "abc"] == [WORSE, BEST, AS_GOOD]
    apart = {seed + 10: value for seed, value in {1: 3.0, 2: 3.0, 3: 3.0}.items()}
    for better in (1, -1):
        equal = verdicts({"a": {1: 3.0, 2: 3.0, 3: 3.0}, "b": apart}, better)
        assert [equal[name].word for name in "ab"] == [BEST, AS_GOOD], "seeds that are not shared"


@pytest.mark.parametrize("few", [1, 2])
def test_below_three_runs_nothing_is_said(few):
    """Of two runs each, the worst may differ least significantly."""
    many = {1: 0.0, 2: 0.1, 3: 0.2}
    best = {seed: 1.0 + seed / 100 for seed in range(1, few + 1)}
    for better in (1, -1):
        found = verdicts({"a": best, "b": many, "c": {}}, better)
        assert {name: verdict.word for name, verdict in found.items()} == {"a": UNTESTED, "b": BEST}
        assert found["a"].untested
        assert found["b"].marked
    found = verdicts({"a": best, "b": dict(list(many.items())[:few])}, better=1)
    assert {name: verdict.word for name, verdict in found.items()} == {"a": BEST, "b": UNTESTED}
    assert not any(verdict.marked for verdict in found.values())
    assert all(verdict.untested for verdict in found.values())


def test_a_few_runs_do_not_keep_the_others_from_being_compared():
    """The best mean of a single run is no best, and what is said of the others is what is said without it."""
    many = {"b": {1: 3.0, 2: 3.1, 3: 3.2}, "c": {1: 2.0, 2: 2.1, 3: 2.2}}
    found = verdicts({"a": {1: 9.0}, **many}, better=1)
    assert {name: verdict.word for name, verdict in found.items()} == {"a": UNTESTED, "b": BEST, "c": WORSE}
    assert {name: found[name] for name in many} == verdicts(many, better=1)


def test_a_difference_in_the_last_digit_of_single_precision_is_none():
    """Two ways of adding up the same numbers have the same spread over seeds, and are apart by as much in each."""
    ours = dict.fromkeys(range(5), 0.00418358)
    theirs = {seed: value + 3.4e-8 for seed, value in ours.items()}
    found = difference(ours, theirs)
    assert found.low < 0 < found.high
    assert chance(ours, theirs) == 1
    apart = {seed: value + 3.4e-6 for seed, value in ours.items()}
    assert difference(ours, apart).high < 0
    assert chance(ours, apart) == 0


def test_the_best_of_few_runs_is_named_and_not_marked(tmp_path):
    for seed in (1, 2):
        for name, elbo in (("arsm", -24.0), ("nvil", -25.0)):
            run(tmp_path, name, seed, elbo - seed / 10)
    groups = list(groups_of(tmp_path)[0].values())
    results = results_of("dvae", groups)
    assert [cell(results, group, "test/elbo").marked for group in groups] == [False, False]
    assert all(cell(results, group, "test/elbo").text.endswith(" ?") for group in groups)
    assert answer(results).startswith("Best test ELBO, discrete draws: arsm, ")
    assert answer(results).endswith("With fewer than 3 runs, that may be chance.")


def test_no_best_is_named_where_every_group_lacks_the_figure_in_some_runs(tmp_path):
    for name in ("arsm", "nvil"):
        for seed in (1, 2, 3):
            place = run(tmp_path, name, seed)
            if seed == 3:
                summary = json.loads((place / "summary.json").read_text())
                (place / "summary.json").write_text(json.dumps({**summary, "test/elbo": None}))
    groups = list(groups_of(tmp_path)[0].values())
    assert answer(results_of("dvae", groups)).startswith("Which has the best test ELBO, discrete draws is not said")


# ---------------------------------------------------------------- what is never averaged away


def test_failed_unfinished_running_and_missing_runs_are_shown(tmp_path):
    for seed in range(1, 6):
        run(tmp_path, "reinforce", seed, -30.0 - seed)
    run(tmp_path, "arsm", 1, -25.0)
    failed, unfinished, running = (run(tmp_path, "arsm", seed, None) for seed in (2, 3, 4))
    (failed / "failed.txt").write_text("Traceback\n  ...\nNotFinite: the cost of step 7 is not finite\n")
    run(tmp_path, "nvil", 1, None)
    with FileLock(running / "lock"):
        groups, _ = groups_of(tmp_path)
        _, _, notes = write([tmp_path], tmp_path / "to", [], [])
    assert not (unfinished / "lock").exists()
    assert [run.status for run in groups["arsm"].runs] == ["finished", "failed", "unfinished", "running"]
    results = results_of("dvae", list(groups.values()))
    assert results.means["arsm"]["test/elbo"].value == -25.0
    assert [group.label for group in results.groups] == ["arsm", "reinforce", "nvil"]
    shown = tables.as_text(tables.final_table(results))
    assert "1 of 5; 1 failed, 1 running, 1 unfinished, 1 missing" in shown
    assert "0 of 5; 1 unfinished, 4 missing" in shown
    page = (tmp_path / "to/report.html").read_text()
    assert f"failed at step 100 of {STEPS}, excluded from averages: arsm, seed 2" in page
    assert "NotFinite: the cost of step 7 is not finite" in page
    assert "missing: nvil, seeds 2, 3, 4, 5" in page
    table = pd.read_csv(tmp_path / "to/runs.csv").set_index(["label", "seed"])
    assert table.status["arsm", 4] == "running"
    assert len(table) == 10
    assert sum("excluded from averages" in note for note in notes) == 4


def test_figures_that_some_runs_lack_say_so(tmp_path):
    run(tmp_path, "arsm", 1, more={"gradient/logits/variance": 2.0, "test/bound": -20.0})
    run(tmp_path, "arsm", 2, more={"gradient/logits/variance": None})
    cells = table_of(tmp_path)["arsm"]
    assert cells["gradient variance to the logits"].text == "2 (1 of 2)"
    assert cells["test importance-weighted bound (nats)"].text == "−20 (1 of 2) ?"


def test_the_last_measurement_counts_even_if_undefined(tmp_path):
    rows = [{"step": 0, "gradient/logits/snr": 3.0}, {"step": 100, "gradient/logits/snr": None}]
    run(tmp_path, rows=rows)
    (only,) = find_runs([tmp_path]).runs
    assert only.figures["gradient/logits/snr"] is None


# ---------------------------------------------------------------- reading


def test_damaged_and_foreign_files_are_noted(tmp_path):
    torn = run(tmp_path, "torn")
    with (torn / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "train/lo')
    lines = (torn / "timings.jsonl").read_text().splitlines()
    (torn / "timings.jsonl").write_text("\n".join([lines[0], "garbage", "[1]", '{"no": "step"}', *lines[1:]]) + "\n")
    damaged = run(tmp_path, "damaged")
    (damaged / "summary.json").write_text('{"steps": 1')
    (damaged / "environment.json").write_bytes(b"\xff\xfe")
    bare = run(tmp_path, "bare")
    (bare / "timings.jsonl").unlink()
    for name, content in {"foreign": "just: text\n", "broken": "a: [\n", "empty": ""}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(content)
    (tmp_path / "lone").mkdir()
    (tmp_path / "lone/metrics.jsonl").write_text("{}\n")
    (tmp_path / "folder/config.yaml").mkdir(parents=True)
    sweep = tmp_path / "sweeps/now"
    sweep.mkdir(parents=True)
    (sweep / "sweep.json").write_text("{}")
    job = {"overrides": ["estimator=arsm", "estimator.samples=0"], "status": "failed", "reason": "samples must be ..."}
    (sweep / "job-0.json").write_text(json.dumps(job))
    (sweep / "job-1.json").write_text("{")
    found = find_runs([tmp_path, tmp_path / "dvae"])
    statuses = {run.estimator: run.status for run in found.runs}
    assert statuses == {"torn": "finished", "damaged": "unfinished", "bare": "finished"}
    notes = "\n".join(found.notes)
    assert f"half-written last line left out: {torn / 'metrics.jsonl'}" in notes
    for number in (2, 3, 4):
        assert f"line {number}, which cannot be read, left out: {torn / 'timings.jsonl'}" in notes
    assert f"cannot be read, taken for unfinished: {damaged / 'summary.json'}" in notes
    assert f"is not there: {bare / 'timings.jsonl'}" in notes
    for name in ("foreign", "broken", "empty", "lone"):
        assert f"not a run: {tmp_path / name} (" in notes
    assert "never ran: estimator=arsm estimator.samples=0 (samples must be ...)" in notes
    curve = next(run for run in found.runs if run.estimator == "torn").curves["train/loss"]
    assert curve[:, 0].tolist() == [0, 25, 50, 75, 100]
    assert curve[:, 2].tolist() == [0, 0.5, 1, 1.5, 2]


def test_several_processes_read_the_same(tmp_path, monkeypatch):
    for seed in range(4):
        run(tmp_path, seed=seed)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/config.yaml").write_text("just: text\n")
    one = find_runs([tmp_path])
    monkeypatch.setattr(reading, "IN_PARALLEL_FROM", 2)
    several = find_runs([tmp_path])
    assert [run.folder for run in several.runs] == [run.folder for run in one.runs]
    assert several.notes == one.notes
    for ours, theirs in zip(several.runs, one.runs, strict=True):
        assert ours.figures == theirs.figures
        assert np.array_equal(ours.curves["train/loss"], theirs.curves["train/loss"])


def test_long_curves_are_thinned_without_losing_their_mean(tmp_path):
    rows = [{"step": step, "train/loss": float(step % 7), "cost/evaluations": step} for step in range(1, 2001)]
    run(tmp_path, rows=rows)
    (only,) = find_runs([tmp_path]).runs
    curve = only.curves["train/loss"]
    assert len(curve) == reading.POINTS
    assert curve[:, 3].mean() == pytest.approx(np.mean([step % 7 for step in range(1, 2001)]))


# ---------------------------------------------------------------- groups


def test_what_was_swept_becomes_a_column(tmp_path):
    for temperature in (0.5, 1.0):
        for rate in (0.1, 0.01):
            settings = {"estimator.temperature": temperature, "optimizer.lr": rate, "optimizer._target_": "torch.SGD"}
            run(tmp_path, "gumbel_softmax", settings=settings, name=f"{temperature}-{rate}")
    run(tmp_path, "arsm", settings={"optimizer.lr": 0.1, "optimizer._target_": "torch.optim.Adam", "name": "mine"})
    cells = table_of(tmp_path)
    assert "gumbel_softmax (optimizer=SGD, optimizer.lr=0.01, temperature=0.5)" in cells
    arsm = cells["arsm (optimizer=Adam, optimizer.lr=0.1)"]
    assert {name: arsm[name].text for name in ("optimizer lr", "optimizer", "temperature")} == {
        "optimizer lr": "0.1", "optimizer": "Adam", "temperature": "–",
    }  # fmt: skip


def test_how_runs_are_watched_is_not_in_their_names(tmp_path):
    run(tmp_path, "arsm", settings={"valid.every": 100})
    run(tmp_path, "nvil", settings={"valid.every": 200})
    assert set(groups_of(tmp_path)[0]) == {"arsm", "nvil"}
    run(tmp_path, "nvil", settings={"valid.every": 100}, name="again")
    assert len(groups_of(tmp_path)[0]) == 3


def test_grouping_and_filtering_by_any_key(tmp_path):
    for rate in (0.1, 0.2):
        for seed in (1, 2):
            run(tmp_path, "arsm", seed, -10 * rate, settings={"optimizer.lr": rate}, name=str(rate))
            run(tmp_path, "nvil", seed, -20 * rate, settings={"optimizer.lr": rate}, name=str(rate))
    groups, _ = groups_of(tmp_path, by=["estimator"])
    assert sorted(groups) == ["arsm", "nvil"]
    assert sorted(groups["arsm"].by_seed("test/elbo").values()) == [-2, -2, -1, -1]
    assert sorted(groups_of(tmp_path, by=["optimizer.lr"])[0]) == ["optimizer.lr=0.1", "optimizer.lr=0.2"]
    assert sorted(groups_of(tmp_path, only=["optimizer.lr=1e-1"])[0]) == ["arsm", "nvil"]
    groups, _ = groups_of(tmp_path, only=["estimator=arsm", "estimator=nvil", "seed=2", "optimizer.lr=0.2"])
    assert [[run.seed for run in group.runs] for group in groups.values()] == [["2"], ["2"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "optimizer.rl=1"], "--only optimizer.rl: no run has this key (did you mean optimizer.lr?)"),
        (["--only", "estimator=nvil"], "--only estimator=nvil: no run has it; there are: arsm, reinforce"),
        (["--only", "nvil"], "--only nvil: KEY=VALUE is expected"),
        (["--only", "estimator=arsm", "seed=2"], "--only estimator=arsm seed=2: no run has all of them"),
        (["--by", "seeds"], "--by seeds: no run has this key (did you mean seed?)"),
        (["--to", "{folder}/file/report"], "--to {folder}/file/report: {folder}/file/report cannot be written"),
        (["{folder}/nowhere"], "no such folder: {folder}/nowhere"),
    ],
)
def test_bad_options_are_refused_in_one_line(tmp_path, monkeypatch, capsys, options, message):
    run(tmp_path, "arsm", 1)
    run(tmp_path, "reinforce", 2)
    (tmp_path / "file").touch()
    arguments = [str(tmp_path), *(text.format(folder=tmp_path) for text in options)]
    monkeypatch.setattr(sys, "argv", ["report.py", *arguments])
    with pytest.raises(SystemExit) as stopped:
        report.main()
    assert stopped.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: {message.format(folder=tmp_path)}")
    assert errors.count("\n") == 1
    assert not (tmp_path / "report").exists()


def test_no_runs_is_said(tmp_path):
    with pytest.raises(Refused, match="no run below"):
        write([tmp_path], tmp_path / "report", [], [])


def test_repeated_runs_count_once(tmp_path):
    run(tmp_path, "arsm", 1, -30.0, name="old")
    later = run(tmp_path, "arsm", 1, -20.0, name="old-2")
    run(tmp_path, "arsm", 1, None, name="old-3")
    groups, notes = groups_of(tmp_path)
    assert [run.folder for run in groups["arsm"].runs] == [later]
    assert sum("repeated later, left out" in note for note in notes) == 1
    assert sum("unfinished, and finished elsewhere, left out" in note for note in notes) == 1


# ---------------------------------------------------------------- curves


def test_seeds_are_averaged_on_a_common_grid(tmp_path):
    """The loss is 10 - 4 t after t seconds, and 10 - 2 t; one run takes 4 seconds, the other 2."""
    for seed, (rate, seconds) in enumerate([(4.0, 4.0), (2.0, 2.0)]):
        clock = [seconds * step / 100 for step in range(0, 101, 20)]
        rows = [{"step": 20 * n, "train/loss": 10 - rate * t, "cost/evaluations": 60 * n} for n, t in enumerate(clock)]
        run(tmp_path, seed=seed, rows=rows, timings=[{"step": 20 * n, "cost/seconds": t} for n, t in enumerate(clock)])
    groups, _ = groups_of(tmp_path)
    curve = curve_of(groups["arsm"], "train/loss", "seconds", 50)
    assert (curve.x[0], curve.x[-1]) == (0, 2)
    assert curve.mean == pytest.approx(10 - 3 * curve.x)
    assert curve.high - curve.mean == pytest.approx(curve.x, abs=1e-12)
    by_steps = curve_of(groups["arsm"], "train/loss", "steps", 50)
    assert by_steps.x.tolist() == [0, 20, 40, 60, 80, 100]
    assert by_steps.mean[-1] == pytest.approx((10 - 4 + 10 - 16) / 2)
    assert curve_of(groups["arsm"], "train/loss", "evaluations", 50).x[-1] == 300


def test_variances_are_averaged_geometrically_and_zero_has_no_curve(tmp_path):
    for seed, value in enumerate((1.0, 100.0)):
        run(tmp_path, "arsm", seed, more={"gradient/logits/variance": value})
        run(tmp_path, "softmax", seed, more={"gradient/logits/variance": 0.0})
    groups, _ = groups_of(tmp_path)
    curve = curve_of(groups["arsm"], "gradient/logits/variance", "steps", 50)
    assert curve.mean == pytest.approx([10])
    assert curve.low == pytest.approx([1])
    assert curve_of(groups["softmax"], "gradient/logits/variance", "steps", 50) is None
    assert drawn(list(groups.values()))[0] == ["train/loss", "valid/elbo", "gradient/logits/variance"]


def test_values_of_zero_count_in_a_curve(tmp_path):
    """All along a run: none is passed over for its neighbours, nor a run that is 0 from some step on."""
    where = "gradient/logits/variance"
    for seed, values in enumerate(([4.0, 0.0, 0.0], [2.0, 6.0, 0.0])):
        run(tmp_path, "arsm", seed, rows=[{"step": 10 * n, where: value} for n, value in enumerate(values)])
    groups, _ = groups_of(tmp_path)
    curve = curve_of(groups["arsm"], where, "steps", 50)
    assert curve.x.tolist() == [0, 10, 20]
    assert curve.mean == pytest.approx([3, 3, math.nan], nan_ok=True)
    assert curve.low == pytest.approx([3 * math.exp(-1 / 3), 3 * math.exp(-1), math.nan], nan_ok=True)
    assert [row["line"] for row in curve_rows([curve])] == [3, 3, None], "the line ends where the mean is 0"
    assert curve.runs == 2


def test_a_bias_that_cannot_be_told_from_zero_is_a_limit(tmp_path):
    of = lambda bias2: {"bias2": bias2, "bias2_error": 0.5, "true_norm": 2.0}
    for name, values in {"biased": (36.0, 28.0), "unbiased": (1.0, -1.0)}.items():
        for seed, bias2 in enumerate(values):
            run(tmp_path, name, seed, more={f"gradient/logits/{k}": v for k, v in of(bias2).items()})
    groups, _ = groups_of(tmp_path)
    found = {name: curve_of(groups[name], "gradient/logits/bias2", "steps", 50) for name in groups}
    assert not found["biased"].limit.any()
    assert found["biased"].mean == pytest.approx([math.sqrt(32) / 2])
    assert found["unbiased"].limit.all()
    error = max(1.0, math.sqrt(2 * 0.5**2) / 2)  # between seeds, or what the draws leave open
    assert found["unbiased"].mean == pytest.approx([math.sqrt(2 * error) / 2])
    results = results_of("dvae", list(groups.values()))
    assert results.bias("biased", "logits")[2] is False


# ---------------------------------------------------------------- looks, numbers, tables


def test_looks_can_be_told_apart_and_stay():
    names = [f"estimator{n}" for n in range(64)]
    found = looks({name: name for name in names}, [])
    assert len(set(found.values())) == 64
    few = looks({name: name for name in names[:8]}, names)
    assert len({look.dash for look in few.values()}) == len(DASHES)
    assert len({look.shape for look in few.values()}) == len(SHAPES)
    assert {name: few[name].colour for name in few} == {name: found[name].colour for name in few}
    variants = looks({f"arsm ({n})": "arsm" for n in range(3)} | {"nvil": "nvil"}, [])
    assert len({variants[f"arsm ({n})"].colour for n in range(3)}) == 1, "one colour per estimator"
    assert len({look.dash for look in variants.values()}) == 4
    alone = looks({f"arsm ({n})": "arsm" for n in range(8)}, ["arsm", "nvil"])
    assert len({look.colour for look in alone.values()}) == 8


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (-25.18547, 0.0213, "−25.185 ± 0.021"),
        (-25.18547, math.nan, "−25.19"),
        (92000, 0.0, "92,000"),
        (1.6e7, 3e5, "(1.600 ± 0.030) × 10⁷"),
        (2.5e-7, 1e-8, "(2.50 ± 0.10) × 10⁻⁷"),
        (0.0, 0.0, "0"),
        (3.0, 25.0, "3 ± 25"),
        (0.0144761, 2e-8, "0.014476 ± < 0.000001"),
        (20.9025, 0.0007, "20.902 ± 0.001"),
        (1.03403, 0.00081, "1.0340 ± 0.0008"),
        (0.0, 0.0123, "0.000 ± 0.012"),
        (10.0, math.nan, "10"),
        (0.5, math.inf, "0.5"),
    ],
)
def test_figures_are_written_to_their_precision(value, error, text):
    assert with_error(value, error) == text


def test_tables_for_papers(tmp_path):
    for seed in (1, 2, 3):
        run(tmp_path, "my_own|100%", seed, -20 - seed, settings={"estimator.a_b": "<x&y>"})
        run(tmp_path, "my_own|100%", seed, -80 - seed, settings={"estimator.a_b": "z"}, name="z")
    groups, _ = groups_of(tmp_path)
    table = tables.final_table(results_of("dvae", list(groups.values())))
    markdown = tables.as_markdown(table).splitlines()
    assert len(markdown) == 4
    assert markdown[2].startswith(r"| my\_own\|100% | \<x&y\> | 3 of 3 | **−22.00 ± 0.58** |")
    assert "**" not in markdown[3]
    latex = tables.as_latex(table)
    assert r"my\_own\textbar{}100\% & \textless{}x\&y\textgreater{} & 3 of 3 & \textbf{$-$22.00 $\pm$ 0.58}" in latex
    assert latex.count(r" \\") == 3
    assert tables.latex("(2.50 ± 0.10) × 10⁻⁷") == r"(2.50 $\pm$ 0.10) $\times$ $10^{-7}$"


# ---------------------------------------------------------------- examples, rivals, provenance


def test_examples_lie_side_by_side(tmp_path):
    for name, word in {"arsm": "a", "nvil": "b"}.items():
        place = run(tmp_path, name)
        (place / "samples.png").write_bytes(PNG if name == "arsm" else b"<svg onload='x'>")
        (place / "reconstructions.csv").write_text(f"sentence,reconstruction\nfirst,{word}1\nsecond,{word}2\n")
        (place / "sentences.csv").write_text(f"sentence\n{word} and more\n")
        (place / "measured_logits.png").write_bytes(PNG)
    groups, notes = groups_of(tmp_path)
    words, pictures, sentences = exhibits(list(groups.values()), notes, [])
    assert words.heads == ["first", "second"]
    assert [texts for _, _, texts in words.texts] == [["a1", "a2"], ["b1", "b2"]]
    assert [texts for _, _, texts in sentences.texts] == [["a and more"], ["b and more"]]
    assert sentences.heads == []
    assert [(group.label, uri[:22]) for group, _, uri in pictures.pictures] == [("arsm", "data:image/png;base64,")]
    assert any("not shown" in note and "samples.png" in note for note in notes)


def test_bias_variance_and_cost_of_runs_rivals_and_measured_files(tmp_path):
    own = {"variance": 8.0, "bias2": 4.0, "bias2_error": 0.1, "true_norm": 2.0}
    rival = {"variance": 16.0, "bias2": 0.1, "bias2_error": 0.2}
    for seed in (1, 2):
        more = {f"gradient/logits/{k}": v for k, v in own.items()} | {"gradient/evaluations": 9}
        beside = {f"logits/{k}": v for k, v in rival.items()} | {"evaluations": 4}
        run(
            tmp_path,
            "arsm",
            seed,
            more=more | {f"gradient/rivals/reinforce(samples=4)/{k}": v for k, v in beside.items()},
        )
        place = run(tmp_path, "nvil", seed, more=more | {"gradient/logits/variance": 0.0})
    rows = [{"estimator": name, "where": "logits", "evaluations": 1, "seconds": 0.1, **own} for name in ("a", "b")]
    pd.DataFrame(rows).to_csv(place / "measured.csv")
    (tmp_path / "measured/dvae").mkdir(parents=True)
    (tmp_path / "measured/dvae/measured.csv").write_text("foreign\n1\n")
    groups, notes = groups_of(tmp_path)
    at_end, at_arsm, of_file = comparisons("dvae", list(groups.values()), find_runs([tmp_path]).measured, notes)
    assert [point.label for point in at_end.points] == ["arsm", "nvil"]
    assert (at_end.points[0].bias, at_end.points[0].limit) == (pytest.approx(1.0), False)
    assert at_end.points[0].deviation == pytest.approx(math.sqrt(2))
    assert at_end.points[0].at_equal_cost == pytest.approx(math.sqrt(18))
    assert [point.label for point in at_arsm.points] == ["arsm", "reinforce(samples=4)"]
    assert at_arsm.points[1].estimator == "reinforce"
    assert (at_arsm.points[1].deviation, at_arsm.points[1].limit) == (pytest.approx(2.0), True)
    assert [point.label for point in of_file.points] == ["a", "b"]
    assert any("cannot be read" in note and "measured.csv" in note for note in notes)


def test_commands_of_an_installed_program_are_as_they_were_typed(tmp_path):
    place = run(tmp_path)
    about = json.loads((place / "environment.json").read_text())
    (place / "environment.json").write_text(json.dumps({**about, "command": ["hardmax run", "task=toy", "note=a b"]}))
    groups, _ = groups_of(tmp_path)
    assert provenance(list(groups.values())).commands == [("hardmax run task=toy 'note=a b'", 1)]


def test_runs_of_other_data_are_not_compared_without_a_word(tmp_path):
    for name in ("arsm", "nvil"):
        place = run(tmp_path / "output", name)
        about = json.loads((place / "environment.json").read_text())
        (place / "environment.json").write_text(json.dumps({**about, "data": {"mine.npz": name}}))
    _, _, notes = write([tmp_path / "output"], tmp_path / "to", [], [])
    assert "dvae: not all of its runs can be compared, as their data differ: mine.npz" in notes


def test_provenance_tells_what_differs(tmp_path):
    for name in ("arsm", "nvil"):
        place = run(
            tmp_path, name, settings={"estimator.samples": len(name), "batch_size": 10 if name == "arsm" else 20}
        )
        about = json.loads((place / "environment.json").read_text())
        about["code"] = {"estimators/a.py": name, "estimators/b.py": "same"}
        about["data"] = {"mnist/images.gz": name}
        about["command"] = ["/somewhere/run.py", "-m", f"estimator={name}", "note=a b"]
        (place / "environment.json").write_text(json.dumps(about))
    groups, _ = groups_of(tmp_path)
    found = provenance(list(groups.values()))
    assert found.code == ["estimators/a.py", "mnist/images.gz"]
    assert found.commands[0] == ("python run.py -m estimator=arsm 'note=a b'", 1)
    assert found.shared["optimizer.lr"] == "0.001"
    assert found.different[0][1]["batch_size"] == "10"
    assert found.made[0].facts["commit"] == "a" * 40
    assert found.made[0].runs == 2


# ---------------------------------------------------------------- the page


class Elements(html.parser.HTMLParser):
    """Counts elements, and keeps text."""

    def __init__(self):
        super().__init__()
        self.names, self.attributes, self.inside, self.data = [], [], None, ""

    def handle_starttag(self, tag, attributes):
        self.names.append(tag)
        self.attributes += attributes
        self.inside = dict(attributes).get("id")

    def handle_data(self, data):
        if self.inside == "data":
            self.data += data


HOSTILE = "</script><script>document.title='stolen'</script><img src=x onerror=alert(1)>"


def test_nothing_from_runs_becomes_markup(tmp_path):
    """Names, settings, texts, reasons and commands that would be HTML stay text, within the embedded data as well."""
    for seed in (1, 2):
        settings = {"estimator.mode": HOSTILE if seed == 1 else "plain", "estimator.other": "'\"&"}
        settings |= {"name": HOSTILE, "notes": HOSTILE, "wandb.tags": [HOSTILE], "wandb.group": HOSTILE}
        place = run(tmp_path, "arsm", seed, settings=settings, more={f"gradient/logits/{'variance'}": 1.0})
    about = {"command": ["run.py", HOSTILE], "commit": HOSTILE, "versions": {HOSTILE: HOSTILE}, "code": {HOSTILE: "1"}}
    (place / "environment.json").write_text(json.dumps(about))
    (place / "texts.csv").write_text(f"a,b\n{HOSTILE},{HOSTILE}\n")
    (place / "<img src=x onerror=alert(1)>.csv").write_text(f"a,b\n{HOSTILE},{HOSTILE}\n")
    failed = run(tmp_path, "nvil", 1, None, name="<img src=x onerror=alert(1)>")
    (failed / "failed.txt").write_text(HOSTILE)
    named = run(tmp_path, "named") / "config.yaml"
    named.write_text(named.read_text().replace("estimator: named", f"estimator: {json.dumps(HOSTILE)}"))
    elsewhere = run(tmp_path, "arsm", name="elsewhere") / "config.yaml"
    elsewhere.write_text(elsewhere.read_text().replace("task: dvae", "task: ../../outside<"))
    with (failed / "metrics.jsonl").open("a") as file:
        file.write("{")
    _, written, _ = write([tmp_path], tmp_path / "to", [], [])
    assert {path.resolve().parent for path in written} == {tmp_path / "to"}
    text = (tmp_path / "to/report.html").read_text()
    found = Elements()
    found.feed(text)
    assert found.names.count("script") == 3
    assert "img" not in found.names
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    data = json.loads(found.data)
    assert any(HOSTILE in label for task in data["tasks"] for label in task["label"])
    assert any(label == HOSTILE for task in data["tasks"] for label in task["label"]), "of an estimator"
    assert not [
        value for name, value in found.attributes if name in ("src", "href") and not value.startswith(("data:", "#"))
    ]


def test_nothing_from_runs_is_more_than_text_in_tables_and_pictures(tmp_path):
    """No HTML, link, cell, line or command of theirs in Markdown and LaTeX, no element in SVG."""
    text = HOSTILE + "|[x](javascript:alert(1))\n\n# head\\input{/etc/passwd}$_^&%~`*"
    for seed in (1, 2):
        for mode in (text, "plain"):
            run(tmp_path, "arsm", seed, settings={"estimator.mode": mode}, name=f"key{mode == 'plain'}")
    write([tmp_path], tmp_path / "to", [], [])
    table = (tmp_path / "to/dvae.md").read_text()
    assert "onerror" in table
    assert not re.findall(r"(?<!\\)[<>\[\]`]", table)
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert len(table.splitlines()) == 4
    table = (tmp_path / "to/dvae.tex").read_text()
    assert r"\textbackslash{}input\{/etc/passwd\}\$\_\^{}\&\%\textasciitilde{}" in table
    assert len(table.splitlines()) == 8
    picture = xml.etree.ElementTree.parse(tmp_path / "to/dvae.svg")
    assert "onerror" in "".join(picture.getroot().itertext())
    for element in picture.iter():
        assert element.tag.rpartition("}")[2] in (
            "svg",
            "g",
            "path",
            "rect",
            "text",
            "line",
            "defs",
            "clipPath",
            "style",
        )
        assert not [name for name in element.attrib if name.startswith("on") or name.endswith("href")]


def test_nothing_from_runs_steers_a_terminal_or_breaks_a_picture(tmp_path, monkeypatch, capsys):
    for mode in ("\x1b[2J\x07\x9b31m", "plain"):
        odd = {"gradient/rivals/\x1b/logits/variance": 1.0, "valid/\x1b": 1.0, "test/\x1b": 1.0}
        run(tmp_path, "arsm", settings={"estimator.mode": mode}, name=f"key{mode == 'plain'}", more=odd)
        (run(tmp_path, "nvil", 1, None, name=f"key{mode == 'plain'}") / "failed.txt").write_text(mode)
    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path)])
    report.main()
    shown = capsys.readouterr()
    assert "?[2J??31m" in shown.out
    assert "?[2J??31m" in shown.err
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown.out + shown.err)


def test_a_page_embeds_aggregates_and_words(tmp_path):
    """Ten times the rows take little more space; titles are words, not keys."""
    sizes = []
    for count in (100, 1000):
        folder = tmp_path / str(count)
        for name in ("arsm", "nvil"):
            for seed in (1, 2, 3):
                rows = [{"step": n, "train/loss": 1 + n % 9 / 7, "cost/evaluations": n} for n in range(count)]
                more = {"gradient/logits/variance": 3.0, "gradient/encoder/dead": seed / 10}
                run(folder, name, seed, rows=rows, more=more)
        _, written, _ = write([folder], folder / "to", [], [])
        found = Elements()
        found.feed(written[-1].read_text())
        sizes.append(len(found.data))
    assert sizes[1] < 3 * sizes[0]
    assert {path.name for path in written} == {
        *("final.csv", "runs.csv", "curves.csv", "dvae.md", "dvae.tex", "dvae.png", "dvae.svg", "report.html")
    }
    assert written[-1].name == "report.html"
    titles = [
        layer["encoding"][channel].get("title")
        for chart in json.loads(found.data)["charts"]
        for layer in chart["spec"]["layer"]
        for channel in ("x", "y")
    ]
    titles += json.loads(found.data)["axes"].values()
    assert {"optimiser steps", "seconds of training", "evaluations of the objective, per example"} <= set(titles)
    assert not [title for title in titles if title and ("/" in title or "_" in title)]


def test_what_draws_charts_is_bundled_once_if_it_can_be_kept(tmp_path, monkeypatch):
    bundled = []
    monkeypatch.setattr(page.vl_convert, "javascript_bundle", lambda *about: bundled.append(about) or "draw();")
    library = page.library.__wrapped__
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert [library(), library()] == ["draw();"] * 2
    assert len(bundled) == 1
    (kept,) = (tmp_path / "cache").rglob("*.js")
    for damaged in (b"", b"\xff"):
        kept.write_bytes(damaged)
        assert library() == "draw();"
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert [library(), library()] == ["draw();"] * 2
    assert len(bundled) == 5
