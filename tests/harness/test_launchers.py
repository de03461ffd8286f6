"""Sweeps under every launcher, and searches: the same bytes, failures listed, nothing lost."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from hardmax.estimators import GumbelSoftmax
from hardmax.harness import pause
from hardmax.harness import run as run_module
from hardmax.harness import train as train_module
from helpers.commands import ROOT, SHORT, folders, installed, rows_of
from helpers.commands import started as begun
from helpers.processes import Forked, finish, hashes, rows, wait_for_rows

TASKS = sorted(path.stem for path in (ROOT / "configs/task").glob("*.yaml"))
QUIET = [*SHORT, "wandb.mode=disabled", "measure.every=0"]


without_ray = not installed("hydra_ray_launcher")
searching = pytest.mark.skipif(not installed("hydra_optuna_sweeper"), reason="the extra optuna is not installed")


# ---------------------------------------------------------------- the same sweep, elsewhere

TOY = ["task=toy", "task.objective=quadratic", "task.variables=3", "task.categories=5", "estimator=reinforce"]
GOOD = [*TOY, "steps=4000", "log_every=20", "measure.draws=2", "wandb.mode=disabled", "checkpoint_every=1000"]
TWO = ["-m", *GOOD, "estimator.samples=1,0"]  # and one that its constructor refuses
LOCAL = "hydra/launcher=submitit_local"


@pytest.fixture
def serial(command, tmp_path):
    """Rows of the good job where the two run one after the other."""
    code, out, err = command(*TWO, "hydra/launcher=serial", f"output={tmp_path / 'serial'}")
    assert_one_failed(code, out, err)
    return set(hashes(tmp_path / "serial").values())


def assert_one_failed(code, out, err):
    assert code == 1
    assert "sweep: 2 of 2 jobs ended (1 done, 1 failed)" in out
    assert "failed: estimator=reinforce: samples must be an integer of at least 1, got 0" in err
    assert "Traceback" not in err


def children(process):
    done = subprocess.run(["pgrep", "--parent", str(process)], capture_output=True, text=True)
    return [int(line) for line in done.stdout.split()]


@pytest.mark.long
def test_submitit_writes_the_same_bytes_through_a_stop_and_a_time_limit(serial, tmp_path):
    """First the sweep is asked to stop, so that its job saves; then the job is at its time limit, and started again."""
    where = tmp_path / "local"
    where.mkdir()
    stopped = Forked("-m", *GOOD, LOCAL, where=where)
    wait_for_rows(stopped, where, 500)
    stopped.terminate()
    _, err = stopped.communicate(timeout=60)
    assert stopped.returncode == 128 + signal.SIGTERM
    assert "stopped with 1 of 1 jobs unfinished; the same command goes on" in err
    before = rows(where)
    sweep = Forked(*TWO, LOCAL, where=where)
    wait_for_rows(sweep, where, before + 100)
    (folder,) = folders(where)
    (worker,) = (p for controller in children(sweep.pid) for p in children(controller) if works_on(p, folder))
    os.kill(worker, signal.SIGUSR2)
    out, err = sweep.communicate(timeout=300)
    assert_one_failed(sweep.returncode, out, err)
    (log,) = (text for path in where.rglob("*_log.out") if (text := path.read_text()).count("going on from step") == 2)
    assert "going on from step 0 " not in log, "nothing was saved when it was asked to end"
    assert set(hashes(where).values()) == serial
    asked = json.loads((folder / "environment.json").read_text())["command"]
    assert asked[1:] == ["-m", *GOOD, LOCAL], "that of the sweep, not of its worker"


def works_on(process, folder):
    return any(path.resolve() == folder / "metrics.jsonl" for path in Path(f"/proc/{process}/fd").iterdir())


@pytest.mark.skipif(without_ray, reason="the extra ray is not installed")
def test_ray_writes_the_same_bytes(serial, tmp_path):
    (tmp_path / "ray").mkdir()
    assert_one_failed(*finish(*TWO, "hydra/launcher=ray", where=tmp_path / "ray"))
    assert set(hashes(tmp_path / "ray").values()) == serial


def test_the_jobs_of_a_cluster_are_shown_where_there_is_none(command, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, out, err = command("-m", *QUIET, "seed=1,2", "hydra/launcher=slurm", "--dry-run")
    assert (code, "seed=2" in out) == (0, True), err


def test_slurm_s_notice_saves_and_the_run_goes_on(monkeypatch):
    """A job that ended by itself upon it would not be started again."""
    monkeypatch.setattr(pause, "LAUNCHED_BY", "slurm")
    saved = []
    with pause.Pause(lambda: saved.append("now"), 1000, lambda: False, lambda: True) as between:
        between(False)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            between(False)
            between(False)
    assert saved == ["now"] * 3


def test_a_closed_terminal_saves_and_ends_the_run_but_under_nohup():
    saved = []

    def closed():
        with pause.Pause(lambda: saved.append("now"), 1000, lambda: False, lambda: True) as between:
            os.kill(os.getpid(), signal.SIGHUP)
            between(False)

    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with pytest.raises(pause.Stopped, match="stopped by SIGHUP"):
            closed()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with pause.Pause(saved.clear, 1000, lambda: False, lambda: True):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert saved == ["now"]


def test_a_queue_s_signal_while_a_run_begins_is_no_failure_of_the_run(command, tmp_path, monkeypatch):
    """After the last time limit submitit raises an exception of its own wherever the job is."""
    monkeypatch.setattr(pause, "LAUNCHED_BY", "local")

    def last_limit(*_):
        raise ValueError("Job not requeued because: timed-out too many times")

    def at_its_limit(settings):
        os.kill(os.getpid(), signal.SIGUSR2)

    monkeypatch.setattr(train_module, "check_kinds", at_its_limit)
    before = signal.signal(signal.SIGUSR2, last_limit)
    try:
        _, _, err = command("-m", *QUIET, "seed=1", "hydra/launcher=serial")
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert "stopped" in err
    assert "optimizer" not in err


def test_a_signal_after_the_last_step_ends_the_run_as_well():
    between = pause.Pause(lambda: None, 1000, lambda: False, lambda: True)

    def last_step():
        with between:
            between(True)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(pause.Stopped, match="stopped by SIGTERM"):
        last_step()


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["hydra/launcher=slurm"],
            "error: hydra/launcher=slurm needs Slurm, whose srun was not found here; hydra/launcher=joblib, ",
        ),
        (
            ["hydra/launcher=joblib", "hydra.launcher.n_jobs=0"],
            "error: hydra.launcher.n_jobs must be an integer of at least 1, or negative: -1 for as many as there are",
        ),
        (
            ["hydra/launcher=joblib", "hydra.launcher.n_jobs=two"],
            "error: hydra.launcher.n_jobs=two: an integer is expected\n",
        ),
        (
            [LOCAL, "hydra.launcher.stderr_to_stdout=maybe"],
            "error: hydra.launcher.stderr_to_stdout=maybe: true or false is expected\n",
        ),
        (
            ["hydra/launcher=joblib", "hydra.launcher.jobs=2"],
            "(did you mean hydra.launcher.n_jobs?); hydra/launcher=joblib takes: n_jobs\n",
        ),
        (
            [LOCAL, "hydra.launcher.timeout=3"],
            "(did you mean hydra.launcher.timeout_min?); hydra/launcher=submitit_local takes: submitit_folder, timeout",
        ),
        (
            ["hydra.launcher.partition=gpu"],
            "hydra.launcher.partition is no option; hydra/launcher=serial takes none, and hydra/launcher=NAME chooses",
        ),
        (
            ["hydra.sweeper.foo=3"],
            "hydra.sweeper.foo is no option; hydra/sweeper=rows takes: max_batch_size, params, rows, optional, ",
        ),
        (
            ["hydra.swep.dir=x"],
            "hydra.swep.dir is no option (did you mean hydra.sweep.dir?); python run.py --cfg hydra",
        ),
        (["hydra/launcher=foo"], "does not exist; there are: joblib, ray, serial, slurm, submitit_local\n"),
        (["hydra/sweeper=foo"], "hydra/sweeper=foo does not exist; there are: search\n"),
        (["optimizer.lr=interval(1,2)"], "optimizer.lr=interval(1,2) is a range to search: with hydra/sweeper=search"),
        (["optimizer.lrr=1,2"], "optimizer.lrr is no option (did you mean optimizer.lr?)"),
        pytest.param(
            ["hydra/launcher=ray"],
            "hydra/launcher=ray needs an extra: pip install -e '.[ray]'",
            marks=pytest.mark.skipif(not without_ray, reason="it is installed"),
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_no_launcher_can_start_is_refused_in_one_line(command, tmp_path, monkeypatch, arguments, line):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = command("-m", *QUIET, *arguments)
    assert code == 2
    assert line in err
    assert len(err.strip().splitlines()) == 1, err
    assert not folders(tmp_path)


# ---------------------------------------------------------------- searches

RANGES = ["estimator.temperature=interval(-1,1)", "optimizer.lr=tag(log,interval(1e-4,1e-2))"]
SEARCH = ["-m", "hydra/sweeper=search", "hydra.sweeper.n_trials=4"]


def best(where):
    return [yaml.safe_load(path.read_text()) for path in sorted(where.rglob("optimization_results.yaml"))]


@searching
def test_a_search_survives_failed_trials_and_goes_on_where_it_ended(command, tmp_path, monkeypatch):
    """Of the temperatures some are below 0, which the constructor refuses."""
    train, calls = run_module.train, []

    def dies_in_the_second_run(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(*arguments)

    monkeypatch.setattr(run_module, "train", dies_in_the_second_run)
    with pytest.raises(KeyboardInterrupt):
        command(*SEARCH, *QUIET, *RANGES)
    assert (len(list(tmp_path.rglob("summary.json"))), best(tmp_path)) == (1, [])
    code, out, err = command(*SEARCH, *QUIET, *RANGES)
    assert code == 1
    assert "finished already" in out, "the same trials are made again"
    assert "failed: estimator=gumbel_softmax: temperature must be a number above 0, got -0." in err
    elbos = [rows_of(folder)[-2]["valid/elbo"] for folder in folders(tmp_path)]
    assert 2 <= len(elbos) < 4
    (found,) = best(tmp_path)
    assert found["best_value"] == max(elbos)
    assert set(found["best_params"]) == {"estimator.temperature", "optimizer.lr"}


@searching
def test_of_several_estimators_one_whose_trials_all_fail_does_not_end_the_others(command, tmp_path, monkeypatch):
    train = run_module.train

    def fails(state, *others):
        if isinstance(state.estimator, GumbelSoftmax):
            raise FloatingPointError("infinite")
        return train(state, *others)

    monkeypatch.setattr(run_module, "train", fails)
    search = ["estimator=gumbel_softmax,reinmax", "optimizer.lr=interval(1e-3,2e-3)", "hydra.sweeper.n_trials=2"]
    code, _, err = command(*SEARCH, *QUIET, *search, "hydra.sweeper.finals={seed: 7}")
    finished = list(tmp_path.rglob("summary.json"))
    assert (code, len(finished)) == (1, 3), "two trials of the other estimator, and its best with another seed"
    assert "gumbel_softmax" in err
    assert "infinite" in err


@searching
def test_a_search_lowers_the_cost_of_a_task_without_elbo(command, tmp_path):
    code, _, err = command(*SEARCH, *QUIET[5:], "task=toy", "optimizer.lr=interval(1e-4,1)")
    assert code == 0, err
    gaps = [rows_of(folder)[-2]["valid/gap"] for folder in folders(tmp_path)]
    assert len(gaps) == 4
    assert best(tmp_path)[0]["best_value"] == -min(gaps)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_says_what_its_figures_are(task):
    few = ["task.bound_samples=2"] if "bound_samples" in (ROOT / f"configs/task/{task}.yaml").read_text() else []
    state, _ = begun(f"task={task}", "estimator=reinforce", "measure.every=0", *few)
    said = state.task.figures
    assert state.task.evaluate("valid").keys() == said.keys() - {"loss"}
    assert any(figure.better for figure in said.values()), "a search needs one"


@searching
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["optimizer.lrr=interval(1,2)"], "optimizer.lrr is no option (did you mean optimizer.lr?)"),
        (["steps=interval(1.5,3)"], "steps=1.5: an integer is expected"),
        (["steps=int(interval(0,3))"], "steps must be an integer of at least 1, got 0"),
        (["hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials must be an integer of at least 1, got 0"),
        (
            ["hydra.sweeper.direction=minimize"],
            "hydra.sweeper.direction must be maximize, as hydra/sweeper=search has it",
        ),
        (["hydra/sweeper=optuna"], "hydra.sweeper.direction must be maximize, as hydra/sweeper=search has it"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_search_that_is_wrong_is_refused_in_one_line(command, tmp_path, arguments, line):
    code, _, err = command(*SEARCH[:2], *QUIET, "seed=1,2", *arguments)
    assert code == 2
    assert line in err
    assert len(err.strip().splitlines()) == 1, err
    assert not folders(tmp_path)
