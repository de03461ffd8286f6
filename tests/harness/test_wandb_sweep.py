"""Sweeps that W&B runs over estimators with options of their own: what its agents start, and what comes of it."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from wandb.wandb_agent import Agent

from hardmax.paths import ROOT
from helpers.commands import SHORT, folders, rows_of

TOY = ["task=toy", "steps=2", "measure.every=0", "valid.every=0", "wandb.mode=disabled"]
EXAMPLE = ROOT / "configs/wandb_sweep.yaml"


@pytest.fixture
def started_by_agent(tmp_path, monkeypatch):
    """What W&B's agent starts, by its own code, for a job of a sweep with these values of the parameters."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("WANDB_SWEEP_ID", "a1b2c3d4")
    for name in ("WANDB_DIR", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):  # which the agent sets
        monkeypatch.setenv(name, "none")
    monkeypatch.delenv("WANDB_DIR")

    def run(sweep, number, values):
        agent = Agent(None, None, sweep_id="a1b2c3d4")
        agent._sweep_command = [*sweep["command"]]
        args = {name: {"value": value} for name, value in values.items()}
        agent._command_run({"run_id": number, "args": args, "program": str(ROOT / sweep["program"])})
        return agent._run_processes[number]

    return run


@pytest.mark.long
def test_two_jobs_of_the_example_are_started_by_agents_and_reported_as_any_others(
    started_by_agent, command, reported, tmp_path, monkeypatch
):
    """The first in a process of its own, the second by the very command in this one."""
    sweep = yaml.safe_load(EXAMPLE.read_text())
    assert {"program", "method", "metric", "parameters", "command"} == set(sweep)
    sweep["command"] += [*SHORT, "steps=2", "measure.every=0", "task.bound_samples=2"]
    ranges = {name: about["max"] for name, about in sweep["parameters"].items() if "max" in about}
    relaxed, _, reinforce = sweep["parameters"]["settings"]["values"]
    assert started_by_agent(sweep, "e5f6g7h0", {"settings": relaxed, **ranges}).wait(timeout=300) == 0
    monkeypatch.setattr("wandb.wandb_agent.AgentProcess", lambda command, **_: SimpleNamespace(command=command))
    second = started_by_agent(sweep, "e5f6g7h1", {"settings": reinforce, **ranges}).command
    assert second[:3] == ["/usr/bin/env", "python", str(ROOT / "run.py")]
    assert command(*second[3:], "wandb.mode=disabled")[0] == 0
    found = {
        yaml.safe_load((folder / "config.yaml").read_text())["choices"]["estimator"]: folder
        for folder in folders(tmp_path)
    }
    assert {*found} == {"gumbel_softmax", "reinforce"}
    of = {name: yaml.safe_load((folder / "config.yaml").read_text()) for name, folder in found.items()}
    assert [of[name]["optimizer"]["lr"] for name in found] == [0.01, 0.01]
    assert of["gumbel_softmax"]["estimator"]["temperature"] == 2, "which REINFORCE has not"
    assert (of["reinforce"]["estimator"]["samples"], of["reinforce"]["estimator"]["baseline"]) == (4, "leave_one_out")
    (stored,) = found["gumbel_softmax"].glob("wandb/offline-run-*-e5f6g7h0/*.wandb")
    assert sweep["metric"]["name"] in rows_of(found["gumbel_softmax"])[0]
    assert sweep["metric"]["name"].encode() in stored.read_bytes()
    code, out, err = reported("output")
    assert code == 0, err
    assert all(name in out for name in found)


def test_the_file_of_a_grid_has_the_jobs_of_the_sweep(command, tmp_path):
    """With each estimator's settings worth trying; run one by one, they are the jobs of the sweep."""
    grid = ["-m", *TOY, "estimator=arsm,gumbel_softmax", "hydra.sweeper.space=default", "seed=1", "notes='a b,c'"]
    code, out, err = command(*grid, "hydra/launcher=joblib", "--wandb-sweep")
    assert code == 0, err
    assert not folders(tmp_path)
    sweep = yaml.safe_load(out)
    values = sweep["parameters"]["settings"]["values"]
    assert values == ["estimator=arsm", *(f"estimator=gumbel_softmax estimator.temperature={t}" for t in (0.3, 1.0))]
    assert (sweep["method"], sweep["metric"]) == ("grid", {"name": "valid/gap", "goal": "minimize"})
    start, (*shared, last) = sweep["command"][:3], sweep["command"][3:]
    assert (start, last) == (["${env}", "${interpreter}", "${program}"], "${args_no_hyphens}")
    for value in values:
        assert command(*shared, f"settings={value}")[0] == 0
    code, out, _ = command(*grid)
    assert (code, out.count("finished already:")) == (0, 3)
    assert yaml.safe_load((folders(tmp_path)[0] / "config.yaml").read_text())["notes"] == "a b,c"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["settings=estimator='arsm"], "settings=estimator='arsm cannot be read: No closing quotation"),
        (["settings=estimator=nope"], "estimator=nope does not exist; there are: "),
        (["--wandb-sweep"], "--wandb-sweep prints the file of a sweep: with -m"),
        (["-m", "seed=1,2", "--wandb-sweep", "--dry-run"], "--dry-run, --wandb-sweep and --cfg, --info or "),
        (
            ["-m", "optimizer.lr=1,2", "hydra.sweeper.finals={seed: 3}", "--wandb-sweep"],
            "--wandb-sweep takes a grid: without hydra/sweeper=search and hydra.sweeper.finals",
        ),
    ],
)
def test_what_is_no_sweep_of_wandb_s_is_refused(command, tmp_path, arguments, line):
    code, _, err = command(*TOY, *arguments)
    assert (code, err.count("\n")) == (2, 1), err
    assert err.startswith(f"error: {line}")
    assert not folders(tmp_path)


def test_the_figure_is_one_that_the_runs_have(command):
    """Where there are too many configurations to look for the lowest cost, there is no gap to it."""
    for variables, figure in ((2, "valid/gap"), (8, "valid/cost")):
        sweep = [
            "-m",
            "task=quadratic_form",
            f"task.variables={variables}",
            "task.categories=20",
            "optimizer.lr=0.1,0.2",
        ]
        code, out, err = command(*sweep, "--wandb-sweep")
        assert code == 0, err
        assert yaml.safe_load(out)["metric"] == {"name": figure, "goal": "minimize"}
