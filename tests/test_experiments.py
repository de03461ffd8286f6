"""Published experiments: every one composes, its rows can be built, and its small budget runs."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from test_runs import command, composed, errors, folders, rows_of  # noqa: F401

from harness import options
from hydra_plugins.rows import jobs
from tasks import data

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = sorted(p.stem for p in (ROOT / "configs/experiment").glob("*.yaml"))
QUICK = ["log_every=1", "valid.every=0", "measure.draws=2", "wandb.mode=disabled", "budget=small"]


@pytest.fixture(autouse=True)
def little_data(monkeypatch):
    """Images in place of the real ones, of the same format: 10,050 for training and validation, 20 for the test."""
    dice = np.random.default_rng(0)

    def load(name, folder=None):
        kind, _, what = name.partition("/")
        count = 20 if what.startswith(("t10k", "test")) else 10_050
        if what.endswith("labels"):
            return (np.arange(count) % 10).astype(np.uint8)
        pixels = dice.integers(0, 256, (count, 784), dtype=np.uint8)
        return pixels // 128 if kind == "binarized_mnist" else pixels.reshape(count, 28, 28)

    monkeypatch.setattr(data, "load", load)


def rows_in(experiment):
    """The jobs of an experiment, at the first value of each option that all rows share."""
    sweeper = OmegaConf.load(ROOT / f"configs/experiment/{experiment}.yaml").hydra.sweeper
    first = {key: re.sub(r"glob.*", "reinforce", str(value)).split(",")[0] for key, value in sweeper.params.items()}
    return jobs(sweeper.get("rows"), first, [], OverridesParser.create())


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_row_can_be_built(experiment):
    """Composition refuses unknown options, the classes wrong values."""
    for job in rows_in(experiment):
        cfg = composed(f"experiment={experiment}", *job)
        options.check(cfg)
        assert cfg.experiment == experiment
        assert cfg.output == f"output/{experiment}"
        options.build(cfg, "estimator", "estimator")


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_small_is_a_smaller_part(experiment):
    full, small = (options.plain(composed(f"experiment={experiment}", f"budget={b}")) for b in ("full", "small"))
    changed = {key for key in full if full[key] != small[key]}
    assert "budget" in changed
    if experiment == "kool2020_bernoulli":  # trains nothing
        assert small["measure"]["draws"] < full["measure"]["draws"]
    else:
        assert small["steps"] <= full["steps"] / 5
    assert changed <= {"budget", "steps", "task", "valid", "measure"}
    assert options.key_of(full) != options.key_of(small)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_small_budget_runs(experiment, command, tmp_path):  # noqa: F811
    few = ["task.bound_samples=1"] if composed(f"experiment={experiment}").data is not None else []
    few += ["task.test_samples=1"] if experiment.startswith(("jang2017_table1", "paulus")) else []
    row = rows_in(experiment)[0]
    code, out, err = command("-m", f"experiment={experiment}", *QUICK, *few, *row, "steps=2", "batch_size=4")
    assert code == 0, err
    assert "ended (" in out
    (folder, *_) = folders(tmp_path)
    assert rows_of(folder)[-1]["step"] == 2
    assert json.loads((folder / "summary.json").read_text())["steps"] == 2
