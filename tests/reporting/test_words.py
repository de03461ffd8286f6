"""What a task says of its figures travels with its runs: titles, units, and which way is better."""

import json
import os

import pytest

from hardmax.reporting.final_figures import results_of
from hardmax.reporting.groups import grouped
from hardmax.reporting.runs import find_runs
from hardmax.reporting.statistics import BEST
from hardmax.reporting.words import said_in, words
from hardmax.reporting.writing import write
from hardmax.tasks.base import Figure, Task
from helpers.made_up import run

OWN = """
from hardmax.tasks.base import Figure
from hardmax.tasks.toy import Toy


class Regret(Toy):
    figures = {
        "regret": Figure("regret", "points", "lower"),
        "reward": Figure("mean reward", better="higher"),
        "loss": Figure("loss", "points"),
    }

    def evaluate(self, split):
        found = super().evaluate(split)
        return {"reward": -found["cost"], "regret": found["gap"], "other": 1.0}
"""


def results(folder):
    (groups,) = grouped(find_runs([folder]).runs, [], [], []).values()
    return results_of("own", groups)


def test_a_task_of_ones_own_is_ordered_marked_and_named(tmp_path, command, monkeypatch):
    """Its class alone says what its figures are: the best has the lowest regret, not the highest."""
    (tmp_path / "conf/task").mkdir(parents=True)
    (tmp_path / "regrets.py").write_text(OWN)
    (tmp_path / "conf/task/own.yaml").write_text("_target_: regrets.Regret\n")
    monkeypatch.syspath_prepend(tmp_path)
    sweep = ["--config-dir", str(tmp_path / "conf"), "-m", "task=own", "estimator=exact", "optimizer.lr=0.001,0.5"]
    code, _, err = command(*sweep, "log_every=10", "steps=30", "measure.every=0", "wandb.mode=disabled", "output=out")
    assert code == 0, err
    found = results(tmp_path / "out")
    assert [group.settings["optimizer.lr"] for group in found.groups] == ["0.5", "0.001"]
    assert found.shown[:2] == ["test/regret", "test/reward"]
    assert found.verdicts["test/regret"][found.groups[0].label].word == BEST
    assert found.words("test/regret").with_unit == "test regret (points)"
    assert found.words("train/loss").with_unit == "training loss (points)"
    assert found.words("test/other").better == 0
    text, _, _ = write([tmp_path / "out"], tmp_path / "to", [], [])
    assert "test regret (points)" in text
    assert "Best test regret: exact (optimizer.lr=0.5)" in (tmp_path / "to/report.html").read_text()


def test_the_latest_run_says_what_figures_are(tmp_path):
    of_old = {"elbo": {"title": "old", "unit": "", "better": "lower"}}
    run(tmp_path, "arsm", 1, -20.0)
    old = run(tmp_path, "arsm", 2, -20.0, figures=of_old) / "summary.json"
    os.utime(old, (0, 0))
    os.utime(run(tmp_path, "nvil", 1, -30.0, figures={}) / "summary.json")
    found = results(tmp_path)
    assert found.words("test/elbo").title == "test ELBO, discrete draws"
    assert [group.estimator for group in found.groups] == ["arsm", "nvil"]


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"elbo": null}', '{"elbo": {"title": 3}}', '{"elbo": {"title": "t", "unit": [], "better": "higher"}}'],
)
def test_figures_that_nothing_is_said_of_have_no_direction(tmp_path, content):
    place = run(tmp_path, "arsm", 1)
    (place / "figures.json").write_text(content)
    found = results(tmp_path)
    assert (found.words("test/elbo").title, found.words("test/elbo").better) == ("test elbo", 0)
    assert found.verdicts == {}


def test_what_is_said_is_text_of_bounded_length():
    said = said_in(json.loads(json.dumps({"x": {"title": "\x1b" + "t" * 9999, "unit": "u", "better": "up"}})))
    assert len(words("valid/x", said).title) <= 160
    assert words("valid/x", said).title.isprintable()
    assert words("valid/x", said).better == 0


def test_a_task_that_says_it_wrongly_is_refused_at_once():
    with pytest.raises(ValueError, match="better must be one of higher, lower, got 'maximise'"):
        Figure("accuracy", better="maximise")
    with pytest.raises(TypeError, match=r"Mine.figures\['elbo'\] must be Figure\(title, unit, better\), got 1"):
        type("Mine", (Task,), {"figures": {"elbo": 1}})
