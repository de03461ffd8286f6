"""What README promises of runs and sweeps, and ways to break it: nothing is lost, and the others go on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from omegaconf import OmegaConf

from hardmax.harness import pause, refusals, tracking
from hardmax.harness import run as run_module
from hardmax.harness.config import key_of, plain_config
from hardmax.harness.folders import OpenFolder
from hardmax.harness.shared import NotWritten
from hardmax.harness.sweep import Sweep
from helpers.commands import ROOT, folders, rows_of
from helpers.processes import finish_forked, hashes, start

TOY = ["task=toy", "estimator=reinforce", "log_every=10", "valid.every=0", "measure.every=0", "wandb.mode=disabled"]
TINY = [*TOY, "steps=20"]
SIDE_BY_SIDE = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]


def summaries(where):
    return len(list(where.rglob("summary.json")))


# ---------------------------------------------------------------- no two processes work on one run


@pytest.fixture
def other_is_quicker(monkeypatch):
    """Another process claims the run of seed 2 after this one has looked for it, before it makes a folder."""
    prepare, locks = run_module.prepare, []

    def after_the_other(cfg, *rest):
        if cfg.seed == 2:
            name = f"{cfg.seed}-{key_of(plain_config(cfg))}"
            folder = Path(cfg.output) / "toy" / "reinforce" / name
            folder.mkdir(parents=True, exist_ok=True)
            locks.append(FileLock(folder / "lock"))
            locks[-1].acquire(timeout=0)
        return prepare(cfg, *rest)

    monkeypatch.setattr(run_module, "prepare", after_the_other)
    monkeypatch.setattr(run_module, "SECONDS_FOR_ANOTHER_RUN", {"run": 0.1, "sweep": 0.1})
    yield
    for lock in locks:
        lock.release()


def test_of_two_identical_sweeps_at_once_each_makes_the_runs_that_the_other_does_not(
    command, tmp_path, other_is_quicker
):
    code, out, err = command("-m", *TINY, "seed=1,2,3")
    assert code == 1
    assert "sweep: 3 of 3 jobs ended (2 done, 1 running elsewhere)" in out
    assert "running elsewhere: another process works on output/toy/reinforce/2-" in err
    assert [folder.name[0] for folder in folders(tmp_path)] == ["1", "3"]
    assert len(list(tmp_path.glob("output/toy/reinforce/*"))) == 3, "none has a second folder"


def test_of_two_identical_runs_at_once_one_trains(command, tmp_path, other_is_quicker):
    code, _, err = command(*TINY, "seed=2")
    assert code == 2
    assert err.startswith("error: another process works on output/toy/reinforce/2-")
    assert err.endswith(": wait for it, or make a run beside it with fresh=true\n")
    assert folders(tmp_path) == []
    assert len(list(tmp_path.glob("output/toy/reinforce/*"))) == 1


# ---------------------------------------------------------------- kills


def children(process):
    done = subprocess.run(["pgrep", "--parent", str(process.pid)], capture_output=True, text=True)
    return done.stdout.split()


@pytest.mark.long
def test_workers_end_with_a_sweep_that_is_killed_at_their_start(tmp_path):
    """One that trained would do so for hours."""
    process = start("-m", *TOY, "steps=1000000000", "seed=1,2", *SIDE_BY_SIDE, where=tmp_path)
    deadline = time.time() + 120
    while len(children(process)) < 2 and time.time() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=120)  # until the last process with its output is gone


DIES = """
import os
from hardmax.estimators import Reinforce

class Dies(Reinforce):
    def __init__(self, now):
        super().__init__()
        self.now = now

    def estimate(self, *arguments):
        if self.now == 1:
            os.kill(os.getpid(), 9)
        return super().estimate(*arguments)
"""


def test_a_worker_that_dies_ends_its_own_job_alone(tmp_path):
    """As the system ends it for want of memory."""
    (tmp_path / "conf/estimator").mkdir(parents=True)
    (tmp_path / "conf/estimator/dies.yaml").write_text("_target_: dies.Dies\nnow: 0\n")
    (tmp_path / "dies.py").write_text(DIES)
    sweep = ["--config-dir", "conf", "-m", *TINY, "estimator=dies", "estimator.now=0,1,2", *SIDE_BY_SIDE]
    code, out, err = finish_forked(*sweep, where=tmp_path)
    assert code == 1
    assert "sweep: 3 of 3 jobs ended (2 done, 1 failed)" in out
    assert "estimator.now=1) failed: its process died (SIGKILL(-9)), perhaps for want of memory" in err
    assert "Traceback" not in err
    assert summaries(tmp_path) == 2


def test_no_library_catches_what_a_signal_raises():
    """OmegaConf makes of every exception within it another one, of the same class."""
    OmegaConf.register_new_resolver("raise_signal", lambda: signal.raise_signal(signal.SIGTERM), replace=True)
    with pytest.raises(pause.Stopped) as stopped, pause.Pause(lambda: None, 1000, lambda: False, lambda: False):
        OmegaConf.create({"steps": "${raise_signal:}"}).steps  # noqa: B018
    assert stopped.value.number == signal.SIGTERM


def test_a_signal_while_there_is_nothing_to_save_is_not_waited_for():
    """As while a run measures before its first step."""
    steps = []
    between = pause.Pause(lambda: None, 1000, lambda: False, lambda: bool(steps))

    def measures():
        with between:
            between(False)
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("it went on to measure")

    with pytest.raises(pause.Stopped, match="stopped by SIGTERM"):
        measures()
    steps.append(1)
    between.number = None
    with pytest.raises(pytest.fail.Exception):
        measures()


# ---------------------------------------------------------------- outputs that are closed


@pytest.mark.long
def test_output_that_is_closed_is_dropped(tmp_path):
    """From the interpreter's start on: then Python has no files for it."""
    scripts = {name: f"{sys.executable} {ROOT / name}.py" for name in ("run", "report")}
    line = "set -eo pipefail; {run} {tiny} >&- 2>&- <&-; {report} output 2>&- | true"
    line = line.format(**scripts, tiny=" ".join(TINY))
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert (done.returncode, done.stderr) == (0, "")
    (folder,) = folders(tmp_path)
    assert [row["step"] for row in rows_of(folder)] == [0, 10, 20, 20], "nothing else was written to its files"
    assert (tmp_path / "output/report/report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "unread"), [(TINY, ["out"]), (["-m", *TINY, "seed=1,2"], ["out", "err"])], ids=["a run", "a sweep"]
)
def test_output_that_nobody_reads_is_dropped(tmp_path, arguments, unread):
    code, *_ = finish_forked(*arguments, where=tmp_path, unread=unread)
    assert code == 0
    assert summaries(tmp_path) == len(unread)
    for folder in folders(tmp_path):
        assert [row["step"] for row in rows_of(folder)] == [0, 10, 20, 20]


# ---------------------------------------------------------------- folders that are renamed or shared


@pytest.fixture
def at_step_10(monkeypatch):
    """Does something to a run's folder after its row of step 10."""
    log = tracking.Tracker.log

    def set_up(*actions):
        actions = [*actions]

        def then(tracker, step, *rest):
            log(tracker, step, *rest)
            if step == 10 and actions:
                actions.pop()(tracker.folder)

        monkeypatch.setattr(tracking.Tracker, "log", then)

    return set_up


@pytest.mark.parametrize("which", ["the run's", "all above"])
def test_a_folder_that_is_renamed_is_written_to_the_end(command, tmp_path, at_step_10, which):
    renamed = tmp_path / "renamed"
    at_step_10(lambda folder: (folder if which == "the run's" else Path("output")).rename(renamed))
    code, out, err = command(*TINY, "checkpoint_every=0", where=tmp_path)
    assert code == 0, err
    assert f"folder       {renamed}" in out
    (folder,) = folders(tmp_path)
    assert folder.is_relative_to(renamed)
    assert [row["step"] for row in rows_of(folder)] == [0, 10, 20, 20]
    assert {"summary.json", "state.pt"} <= {path.name for path in folder.iterdir()}
    assert command(*TINY, "checkpoint_every=0", f"output={tmp_path / 'whole'}")[0] == 0
    assert len(set(hashes(tmp_path).values())) == 1


def test_a_folder_that_was_deleted_is_not_taken_for_another_in_its_place(command, tmp_path, at_step_10):
    def replace(folder):
        folder.rename(folder.parent / "aside")
        (folder.parent / "aside").rename(tmp_path / "aside")
        subprocess.run(["rm", "-r", tmp_path / "aside"], check=True)
        folder.mkdir()

    at_step_10(replace)
    code, _, err = command(*TINY, "checkpoint_every=0")
    assert code == 1
    assert "the run's folder is gone, and what was in it is lost" in err
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".pt", ".jsonl", ".txt")]


def test_a_folder_is_found_where_it_is(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    folder = OpenFolder(tmp_path / "a/b")
    assert folder.path() == tmp_path / "a/b"
    (tmp_path / "a").rename(tmp_path / "c")
    assert folder.path() == tmp_path / "c/b"
    (tmp_path / "c/b").rmdir()
    with pytest.raises(NotWritten, match="c/b: the folder is gone"):
        folder.path()
    folder.close()


@pytest.mark.parametrize("output", ["o${optimizer.lr}", "a,b"])
def test_a_sweep_whose_jobs_write_to_several_places_has_one_folder(command, tmp_path, output):
    code, out, err = command("-m", *TINY, f"output={output}", "optimizer.lr=0.1,0.2")
    assert code == 0, err
    jobs = 4 if "," in output else 2
    assert f"sweep: {jobs} of {jobs} jobs ended ({jobs} done)" in out
    assert summaries(tmp_path) == jobs
    (noted,) = tmp_path.rglob("sweep.json")
    assert len(list(noted.parent.glob("job-*.json"))) == jobs


def test_a_sweep_s_folder_begins_clean(command, tmp_path):
    arguments = ["-m", *TINY, r"hydra.sweep.dir='it\'s mine'"]
    assert command(*arguments, "seed=1,2")[0] == 0
    folder = tmp_path / "it's mine"
    Sweep(folder).stop(signal.SIGTERM)
    (folder / "job-1.traceback.txt").write_text("of the sweep before")
    code, out, err = command(*arguments, "seed=3")
    assert code == 0, err
    assert "sweep: 1 of 1 jobs ended (1 done)" in out
    left = {path.name for path in folder.iterdir()}
    assert left == {"job-0.json", "lock", "multirun.yaml", "sweep.json"}


def test_two_sweeps_do_not_share_a_folder(command, tmp_path, monkeypatch):
    monkeypatch.setattr("hardmax.harness.sweep.SECONDS_FOR_ANOTHER_SWEEP", 0.1)
    (tmp_path / "mine").mkdir()
    with FileLock(tmp_path / "mine/lock"):
        code, _, err = command("-m", *TINY, "hydra.sweep.dir=mine")
    assert (code, err) == (2, "error: hydra.sweep.dir=mine: another sweep is at work there\n")
    assert not folders(tmp_path)


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        (
            "hydra.job.chdir=true",
            "hydra.job.chdir=true would change nothing: runs lie in output=FOLDER, a sweep in hydra.sweep.dir=FOLDER",
        ),
        (
            "hydra.launcher.timeout=3",
            "hydra.launcher.timeout is not used: n_jobs alone says how many jobs run at once",
        ),
    ],
)
def test_what_a_sweep_does_not_honour_is_refused(command, tmp_path, argument, line):
    code, _, err = command("-m", *TINY, *SIDE_BY_SIDE, argument)
    assert (code, err) == (2, f"error: {line}\n")
    assert not folders(tmp_path)


# ---------------------------------------------------------------- what is said of a run


def test_the_environment_of_a_run_is_that_of_its_code(tmp_path):
    """Not of a repository around the virtual environment in which the package is installed."""
    (tmp_path / "theirs.py").touch()
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", tmp_path]
    for arguments in (["init"], ["add", "."], ["commit", "-m", "theirs"]):
        subprocess.run([*git, *arguments], check=True, capture_output=True)
    installed = tmp_path / "venv/site-packages/hardmax"
    installed.mkdir(parents=True)
    (installed / "own.py").touch()
    assert tracking.commit(installed) == {"commit": None, "changed_files": []}
    os.utime(tmp_path / "theirs.py", (0, 0))
    before = (tmp_path / ".git/index").read_bytes()
    found = tracking.commit(tmp_path)
    assert (tmp_path / ".git/index").read_bytes() == before, "git is locked while it writes this"
    assert len(found["commit"]) == 40
    assert found["changed_files"] == ["?? venv/"]
    assert tracking.environment(torch.device("cpu"))["versions"]["hardmax"]


def test_an_exception_is_of_a_run_where_a_run_raised_it():
    """Whatever functions it passed through are called."""

    def job():
        raise ValueError

    with pytest.raises(ValueError) as composing:
        job()
    with pytest.raises(ValueError) as running, refusals.of_a_run():
        job()
    assert not refusals.is_of_a_run(composing.value)
    assert refusals.is_of_a_run(running.value)
