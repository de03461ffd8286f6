"""What a sweep would do, without doing it; and what an experiment's first job is."""

import json
import os

import pytest
from omegaconf import OmegaConf

from hardmax.harness.forecast import duration
from helpers.commands import folders

TOY = ["task=toy", "measure.every=0", "wandb.mode=disabled"]


def test_a_published_table_s_jobs_are_listed_with_their_duration(command, tmp_path):
    assert command("task=toy", "steps=100", "measure.every=0", "wandb.mode=disabled")[0] == 0
    before = folders(tmp_path)
    code, out, err = command("experiment=grathwohl2018_toy", "--dry-run")
    assert code == 0, err
    lines = out.splitlines()
    jobs = [line for line in lines if "estimator=" in line]
    assert len(jobs) == 30
    assert len(set(jobs)) == 30
    assert "task.toy=tucker seed=1 " in jobs[0]
    assert lines[-2].startswith("30 jobs: about ")
    assert lines[-1].endswith("from 1 past run on this machine below output: 30 by runs of other tasks")
    assert folders(tmp_path) == before
    assert not (tmp_path / "output/sweeps").exists(), "nothing has begun"


def test_a_forecast_counts_what_is_left_by_the_most_alike_runs(command, tmp_path):
    """Of three seeds one has finished, of which it is said to have taken a second for each of a hundred steps."""
    assert command(*TOY, "steps=100", "seed=1")[0] == 0
    (folder,) = folders(tmp_path)
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"seconds": 100.0}))
    for name in ("environment.json", "config.yaml", "summary.json"):
        os.utime(folder / name, (0, 0))
    sweep = ["-m", *TOY, "steps=100,3600", "seed=1,2,3"]
    code, out, err = command(*sweep, "--dry-run", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert code == 0, err
    assert out.count("(finished already)") == 1
    *_, words, by = out.splitlines()
    assert words == "6 jobs, of which 1 have finished: about 3.1 h one after the other, 1.5 h at 2 at a time"
    assert by.endswith(": 5 by runs of the same settings")
    summary = json.loads((folder / "environment.json").read_text())
    (folder / "environment.json").write_text(json.dumps(summary | {"device": "another"}))
    assert "no run below output has finished on this machine" in command(*sweep, "--dry-run")[1]


def test_one_run_and_a_search_are_shown_too(command, tmp_path):
    code, out, _ = command("--dry-run", *TOY, "steps=10")
    assert (code, out.splitlines()[-1][:6]) == (0, "1 job;")
    search = ["-m", "hydra/sweeper=search", "hydra.sweeper.n_trials=7", "optimizer.lr=interval(0.1,1)"]
    code, out, err = command(*search, *TOY, "estimator=arsm,reinforce", "--dry-run")
    assert code == 0, err
    assert "7 trials of each of 2 searches over " in out
    assert out.splitlines()[-1].startswith("14 jobs; no run")
    assert not folders(tmp_path)
    code, _, err = command("--dry-run", *TOY, "steps=0")
    assert (code, err) == (2, "error: steps must be an integer of at least 1, got 0\n")
    code, _, err = command("--dry-run", "--cfg", "job")
    assert (code, err.count("one of them at a time")) == (2, 1)


def test_an_experiment_s_config_is_that_of_its_first_job(command):
    code, out, err = command("experiment=jang2017_table1", "--cfg", "job", "--resolve")
    assert code == 0, err
    shown = OmegaConf.create(out)
    assert (shown.seed, shown.optimizer.lr, shown.task.prior, shown.task.encoder_widths) == (1, 1e-5, "learned", [])
    code, out, err = command("--cfg", "job", "experiment=jang2017_table1", "estimator=nvil", "optimizer.lr=1e-4")
    assert code == 0, err
    shown = OmegaConf.create(out)
    assert (shown.estimator.normalise, shown.task.kl, shown.optimizer.lr) == (True, "sampled", 1e-4)
    code, out, err = command("--cfg", "hydra", "experiment=titsias2022_toy")
    assert code == 0, err
    assert "rows:" in out


@pytest.mark.long
def test_a_sweep_ends_with_the_command_that_reports_on_it(command, reported):
    code, out, err = command("-m", *TOY, "steps=2", "seed=1,2", "output=my runs")
    assert code == 0, err
    assert out.splitlines()[-1].endswith("report.py 'my runs'")
    assert reported("my runs")[0] == 0
    code, out, _ = command("-m", *TOY, "steps=2", "optimizer.lr=1,2", "hydra.sweeper.finals={seed: 3}")
    assert (code, out.splitlines()[-1].endswith("report.py output --tune")) == (0, True)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.04 s"), (12.3, "12 s"), (89, "89 s"), (91, "1.5 min"), (5500, "1.5 h"), (4e5, "4.6 days")],
)
def test_a_duration_has_the_unit_that_suits_it(seconds, text):
    assert duration(seconds) == text


def test_runs_of_the_best_setting_are_shown_as_such(command):
    again = "hydra.sweeper.finals={seed:'2,3'}"
    code, out, err = command("-m", *TOY, "steps=1", "seed=1", "optimizer.lr=0.1,0.2", again, "--dry-run")
    assert code == 0, err
    jobs = [line for line in out.splitlines() if "optimizer.lr=" in line]
    assert [line.endswith("(or another setting: the best)") for line in jobs] == [False, False, True, True]
    search = ["hydra/sweeper=search", "hydra.sweeper.n_trials=5", "estimator=softmax,arsm"]
    code, out, err = command(
        "-m", *TOY, "steps=1", "seed=1", "optimizer.lr=interval(0.1,0.2)", *search, again, "--dry-run"
    )
    assert code == 0, err
    assert "5 trials of each of 2 searches, and 4 runs of the best, over " in out
    assert "14 jobs" in out
