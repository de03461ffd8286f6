"""The leaderboard: every estimator at its best setting, at equal steps, evaluations and time; hand-made runs."""

import re
import sys

import numpy as np
import pytest

from hardmax import report
from hardmax.harness.shared import Refused
from hardmax.paths import CONFIGS
from hardmax.reporting.groups import grouped
from hardmax.reporting.leaderboard import (
    answer_section,
    board_of,
    edge_of,
    is_black_box,
    ranking_panel,
    write_leaderboard,
)
from hardmax.reporting.runs import find_runs
from helpers.made_up import run

SEEDS = (2, 3, 4, 5, 6)
EXPERIMENT = {"experiment": "leaderboard_dvae"}


def tried(folder, estimator, merits, evaluations=1, seconds=1.0, **settings):
    """Runs of two rates with seed 1, and of the better one with five others, ``merits`` being the ELBO at each rate.

    The ELBO rises along 100 steps from 10 nats below, by equal parts; a step costs so many evaluations and seconds.
    """
    best = max(merits, key=merits.get)
    for rate, merit in merits.items():
        for seed in (1, *(SEEDS if rate == best else ())):
            end = merit + 0.01 * seed
            rows = [
                {"step": step, "valid/elbo": end - 10 + step / 10, "cost/evaluations": step * evaluations}
                for step in range(0, 101, 10)
            ]
            timings = [{"step": row["step"], "cost/seconds": row["step"] * seconds} for row in rows]
            more = {"test/elbo": end} if seed in SEEDS else {}
            about = EXPERIMENT | {"optimizer.lr": rate, **settings}
            run(folder, estimator, seed, end, settings=about, rows=rows, timings=timings, name=str(rate), more=more)


@pytest.fixture
def board(tmp_path):
    """Of estimators with one evaluation a step and with four; the last is the best at equal steps alone."""
    tried(tmp_path, "gumbel_softmax", {0.001: -30.0, 0.003: -27.0})
    tried(tmp_path, "reinforce", {0.001: -26.0, 0.003: -29.0}, evaluations=4, seconds=2.0)
    tried(tmp_path, "vimco", {0.001: -28.0, 0.003: -31.0}, evaluations=4, **{"task.kl": "sampled"})
    run(tmp_path, "arsm", 1, settings=EXPERIMENT | {"optimizer.lr": 0.001})  # tuned, with no other seed
    found = find_runs([tmp_path])
    ((task, groups),) = grouped(found.runs, [], [], found.notes).items()
    return board_of(task, groups, [])


def test_a_sampled_kl_divergence_is_no_other_problem(board):
    assert {entry.estimator for entry in board.found.entries} == {"gumbel_softmax", "reinforce", "vimco", "arsm"}


def test_estimators_are_reported_by_other_seeds_at_equal_steps_evaluations_and_time(board):
    of = lambda results, metric: {g.estimator: results.means[g.label][metric].value for g in results.groups}
    late = np.mean([0.01 * seed for seed in SEEDS])
    at_end = of(board.results(None), "test/elbo")
    assert at_end == pytest.approx({"reinforce": -26 + late, "gumbel_softmax": -27 + late, "vimco": -28 + late})
    assert list(at_end) == ["reinforce", "gumbel_softmax", "vimco"], "the best first"
    assert (str(board.evaluations), board.seconds.amount) == ("100 evaluations of the objective, per example", 100)
    found = of(board.results(board.evaluations), "valid/elbo")
    quarter = {"gumbel_softmax": -27 + late, "reinforce": -36 + 2.5 + late, "vimco": -38 + 2.5 + late}
    assert found == pytest.approx(quarter)
    found = of(board.results(board.seconds), "valid/elbo")
    assert found == pytest.approx({"gumbel_softmax": -27 + late, "vimco": -28 + late, "reinforce": -31 + late})


def test_the_answer_is_made_of_the_figures(board):
    steps, evaluations, time, head, *black_box = answer_section(board).strip().splitlines()[2:]
    assert steps.startswith("* At equal steps: Best test ELBO, discrete draws: reinforce")
    assert evaluations.startswith("* At 100 evaluations of the objective, per example: Best")
    assert "draws: gumbel_softmax" in re.sub(r"\\", "", evaluations) + re.sub(r"\\", "", time)
    assert head == "* Where the objective cannot be differentiated:"
    assert [re.search("reinforce|vimco|gumbel", line)[0] for line in black_box] == ["reinforce", "reinforce", "vimco"]


def test_black_boxes_are_what_the_classes_say():
    names = {path.stem for path in (CONFIGS / "estimator").glob("*.yaml")}
    black = {name for name in names if is_black_box(name)}
    assert {"reinforce", "arsm", "vimco", "carms"} <= black
    assert not black & {"gumbel_softmax", "rebar", "softmax", "imle"}
    assert not is_black_box("somebody_elses")


def test_the_page_leads_with_the_answer_and_says_what_is_missing(tmp_path, board, monkeypatch, capsys):
    page = tmp_path / "docs/leaderboard.md"
    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path), "--leaderboard", str(page)])
    report.main()
    text = page.read_text()
    assert text.index("## What to take: dvae") < text.index("\n## dvae\n") < text.index("## Why it is tuned")
    missing = re.search("Not run yet: (.*).\n", text)[1].split(", ")
    assert "arsm" in missing
    assert not {"reinforce", "vimco"} & set(missing)
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert [row.split(" | ")[0] for row in rows] == ["| reinforce", "| gumbel_softmax", "| vimco"]
    assert "| lr=0.001, kl=analytic" not in text
    assert rows[0].split(" | ")[3] == "5 of 5"
    assert page.with_name("leaderboard_dvae.png").stat().st_size > 5000
    assert capsys.readouterr().err == ""
    for more, words in ((["--by", "seed"], "--only, --by and --to are"), (["--published", "x"], "--results and --pub")):
        monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path), "--leaderboard", str(page), *more])
        with pytest.raises(SystemExit):
            report.main()
        assert capsys.readouterr().err.startswith(f"error: {words}")


def test_without_a_tuned_problem_there_is_no_page(tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(Refused, match="nothing tuned below"):
        write_leaderboard([tmp_path / "none"], tmp_path / "board.md")
    run(tmp_path, "arsm", 1)
    with pytest.raises(Refused, match="left out: dvae, which no estimator has run on with other seeds"):
        write_leaderboard([tmp_path], tmp_path / "board.md")


def test_names_from_anyone_stay_text(tmp_path):
    task = "x](http://y) <b>\n# head"
    for seed, rate in ((1, 0.1), (1, 0.2), (2, 0.1), (3, 0.1)):
        run(tmp_path, "best|<b>", seed, settings={"optimizer.lr": rate}, task=task, name=str(rate))
    written, _ = write_leaderboard([tmp_path], tmp_path / "board.md")
    text = written[-1].read_text()
    assert not re.findall(r"(?<!\\)<b|(?<!\\)\]\(http|^# head", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("values", "edge"),
    [([-1.0, -2.0, -3.0, -90.0, -99.0], -3.0), ([-0.1, -0.2, -0.3], -0.3), ([1.0], 1.0), ([-1.0] * 4 + [-99.0], -1.0)],
)
def test_few_bad_figures_do_not_hide_the_others(values, edge):
    assert edge_of(values) == edge
    figures = [(label, value, 0.1) for label, value in zip("abcde", values, strict=False)]
    (rows,) = ranking_panel(list("abcde"), "figure", figures, better=1).to_dict()["datasets"].values()
    assert [row["note"] for row in rows] == [f"← −{-v:.0f}" if v < -10 else "" for v in values]
    assert [row["value"] for row in rows] == [edge if v < -10 else v for v in values]
