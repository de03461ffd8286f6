"""Published experiments: every one composes, its rows can be built, and its small budget runs."""

import functools
import json

import hydra
import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf

from hardmax.harness import options
from hardmax.harness.config import build, check, key_of, plain_config
from hardmax.paths import CONFIGS
from hardmax.reporting.published.experiments import experiment as published_experiment
from hardmax.tasks.data import sets
from helpers.cases import in_part
from helpers.commands import ROOT, composed, folders, rows_of
from helpers.processes import JOBLIB, finish_forked
from hydra_plugins.hardmax_rows import Composed, crossed, lines

EXPERIMENTS = sorted(p.stem for p in (ROOT / "configs/experiment").glob("*.yaml"))
BOARDS = [name for name in EXPERIMENTS if name.startswith("leaderboard_")]
QUICK = ["log_every=1", "valid.every=0", "measure.draws=2", "wandb.mode=disabled", "budget=small"]


@functools.cache
def little(name, folder=None):
    """Images in place of the real ones, of the same format: 10,050 for training and validation, 20 for the test."""
    kind, _, what = name.partition("/")
    count = 20 if what.startswith(("t10k", "test")) else 10_050
    if what.endswith("labels"):
        return (np.arange(count) % 10).astype(np.uint8)
    pixels = np.random.default_rng(0).integers(0, 256, (count, 784), dtype=np.uint8)
    return pixels // 128 if kind == "binarized_mnist" else pixels.reshape(count, 28, 28)


@pytest.fixture(autouse=True)
def little_data(monkeypatch):
    monkeypatch.setattr(sets, "load", little)


def rows_in(experiment):
    """The jobs of an experiment, at the first value of each option that all rows share.

    Of a leaderboard, whose estimators have nothing but their defaults, the first of each row.
    """
    sweeper = OmegaConf.load(ROOT / f"configs/experiment/{experiment}.yaml").hydra.sweeper
    first_of = lambda settings: {key: str(value).split(",")[0] for key, value in settings.items()}
    rows = map(first_of, sweeper.rows) if experiment in BOARDS else sweeper.get("rows")
    return [lines(job) for job in crossed([], rows, first_of(sweeper.params), OverridesParser.create())]


def telling(rows):
    """Of rows, those with settings of the estimator, or of all else, that none before has."""
    seen = set()
    for row in rows:
        parts = {tuple(line for line in row if line.startswith("estimator") == own) for own in (True, False)}
        if parts - seen:
            yield row
        seen |= parts


@pytest.mark.parametrize("experiment", in_part(EXPERIMENTS, 8))
def test_every_row_can_be_built(experiment):
    """Composition, of which rows share what a sweep's do, refuses unknown options, the classes wrong values."""
    chosen = f"experiment={experiment}"
    options.register()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        shared = Composed(loader, loader.load_configuration("config", [chosen], RunMode.MULTIRUN))
        for job in telling(rows_in(experiment)):
            cfg = shared.config([chosen, *job])
            check(cfg)
            assert cfg.experiment == experiment
            assert cfg.output == f"output/{experiment}"
            build(cfg, "estimator", "estimator")


@pytest.mark.parametrize("experiment", in_part(EXPERIMENTS, 4))
def test_small_is_a_smaller_part(experiment):
    full, small = (plain_config(composed(f"experiment={experiment}", f"budget={b}")) for b in ("full", "small"))
    changed = {key for key in full if full[key] != small[key]}
    assert "budget" in changed
    if experiment in ("kool2020_bernoulli", "liu2019_bernoulli", "hooper2026_bias"):  # which train nothing
        assert small["measure"]["draws"] < full["measure"]["draws"]
    else:
        assert small["steps"] <= full["steps"] / 5
    assert changed <= {"budget", "steps", "task", "valid", "measure"}
    assert key_of(full) != key_of(small)


def test_a_report_on_an_experiment_leaves_budgets_as_they_are():
    """In one process, as in a notebook: what is read for a report is the full budget, and a run after it its own."""
    published_experiment.cache_clear()
    assert {row["steps"] for row in published_experiment("kool2020_vae").said} == {"275000"}
    assert composed("experiment=kool2020_vae", "budget=small").steps == 2_750


@pytest.mark.parametrize("experiment", in_part(EXPERIMENTS, 6))
def test_the_small_budget_runs(experiment, command, tmp_path):
    few = ["task.bound_samples=1"] if "bound_samples" in composed(f"experiment={experiment}").task else []
    few += ["task.test_samples=1"] if experiment.startswith(("jang2017_table1", "paulus", "leaderboard_s")) else []
    few += ["hydra.sweeper.space=null", "hydra.sweeper.finals=null"] if experiment in BOARDS else []
    few += (
        ["measure.rivals=[{reinmax:{temperature:[1.0,2.0]}}]"] if experiment == "hooper2026_bias" else ["batch_size=4"]
    )
    few += ["task.labels=50"] if experiment == "jang2017_table2" else []  # of the images that stand in for MNIST
    row = rows_in(experiment)[0]
    code, out, err = command("-m", f"experiment={experiment}", *QUICK, *few, *row, "steps=2")
    assert code == 0, err
    assert "ended (" in out
    (folder, *_) = folders(tmp_path)
    assert rows_of(folder)[-1]["step"] == 2
    assert json.loads((folder / "summary.json").read_text())["steps"] == 2


@pytest.mark.long
def test_a_run_on_other_data_can_be_measured(command, measured, tmp_path):
    few = ["task.bound_samples=1", "task.test_samples=1", "task=dvae", "task.variables=20", "estimator=muprop"]
    code, _, err = command("-m", "experiment=jang2017_table1", *QUICK, *few, "optimizer.lr=1e-3", "steps=2")
    assert code == 0, err
    (folder,) = folders(tmp_path)
    code, out, err = measured(folder, "measure.rivals=[reinforce]", "measure.draws=10", "measure.reference_draws=10")
    assert code == 0, err
    assert "muprop (trained)" in out


# ---------------------------------------------------------------- rows

MINE = """\
# @package _global_
defaults:
  - override /task: toy
  - override /hydra/sweeper: rows
experiment: mine
output: output/mine
steps: 2
batch_size: 2
measure: {every: 0}
wandb: {mode: disabled}
hydra:
  sweeper:
    params: {seed: "1,2"}
    rows:
      - {estimator: reinforce, estimator.samples: "1,2", optimizer.lr: 0.1}
      - {estimator: softmax, optimizer.lr: 0.2}
"""


@pytest.fixture
def mine(tmp_path):
    folder = tmp_path / "conf/experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(MINE)
    return folder / "mine.yaml"


def settings_of(where):
    found = []
    for folder in folders(where):
        config = OmegaConf.load(folder / "config.yaml")
        found.append((config.choices.estimator, config.estimator.get("samples"), config.optimizer.lr, config.seed))
    return sorted(found, key=str)


RUN_MINE = ["--config-dir", "conf", "-m", "experiment=mine"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    in_part(
        [
            (
                [],
                [("reinforce", s, 0.1, n) for s in (1, 2) for n in (1, 2)]
                + [("softmax", None, 0.2, n) for n in (1, 2)],
            ),
            (["estimator=reinforce", "seed=3"], [("reinforce", 1, 0.1, 3), ("reinforce", 2, 0.1, 3)]),
            (["estimator=reinforce", "estimator.samples=2"], [("reinforce", 2, 0.1, 1), ("reinforce", 2, 0.1, 2)]),
            (["estimator=softmax,reinforce", "optimizer.lr=0.2", "seed=1"], [("softmax", None, 0.2, 1)]),
        ],
        2,
    ),
    ids=["all", "an estimator", "an option", "two options"],
)
def test_rows_are_crossed_with_seeds_and_chosen_among(mine, command, tmp_path, arguments, expected):
    code, out, err = command(*RUN_MINE, *arguments)
    assert code == 0, err
    assert settings_of(tmp_path) == sorted(expected, key=str)
    assert f"{len(expected)} of {len(expected)} jobs ended" in out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["estimator=arsm"], "estimator=arsm: no row of the experiment has it; there are: reinforce, softmax"),
        (["optimizer.lr=0.3"], "optimizer.lr=0.3: no row of the experiment has it; there are: 0.1, 0.2"),
        (["seed=x"], "seed=x: an integer is expected"),
    ],
)
def test_what_no_row_has_is_refused(mine, command, tmp_path, arguments, line):
    code, _, err = command(*RUN_MINE, *arguments)
    assert code == 2
    assert err.splitlines() == [f"error: {line}"]
    assert not folders(tmp_path)


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ("estimator.temprature: 1", "estimator.temprature is no option (did you mean estimator.temperature?)"),
        ("measure.draws: 1", "measure.draws must be an integer of at least 2, got 1"),
    ],
)
def test_every_row_is_checked_before_the_first_job(mine, command, tmp_path, recwarn, row, line):
    mine.write_text(MINE + f"      - {{estimator: softmax, {row}}}\n")
    code, _, err = command(*RUN_MINE)
    assert code == 2
    assert line in err
    assert len(err.splitlines()) == 1
    assert not [str(w.message) for w in recwarn if "CheckSweep" in str(w.message)]
    assert not folders(tmp_path)


def test_rows_run_side_by_side(mine, tmp_path):
    one = ["estimator=reinforce", "estimator.samples=1"]
    code, _, err = finish_forked(*RUN_MINE, *one, *JOBLIB, where=tmp_path)
    assert code == 0, err
    assert settings_of(tmp_path) == [("reinforce", 1, 0.1, 1), ("reinforce", 1, 0.1, 2)]


def test_small_is_for_experiments(command):
    code, _, err = command("task=toy", "budget=small")
    assert (code, err) == (2, "error: budget=small is for experiments: choose one with experiment=NAME\n")


def test_help_and_an_unknown_experiment(command):
    code, out, _ = command("--help")
    assert "experiment=yin2019_figure1" in out
    assert "jang2017_table1" in out
    code, _, err = command("-m", "experiment=jang2017_tabel1")
    assert code == 2
    assert "experiment=jang2017_tabel1 does not exist (did you mean jang2017_table1?)" in err
