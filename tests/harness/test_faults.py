"""Damaged files, full disks and deleted folders: a run goes on to the same bytes, or says in one line what is lost."""

import errno
import shutil
import signal
import time

import pytest
import torch

from hardmax.files import write_whole
from hardmax.harness import state as state_module
from hardmax.harness import tracking
from helpers.cases import in_part
from helpers.commands import SMALL, folders, started
from helpers.damage import TINY, cut
from helpers.processes import JOBLIB, Forked, finish_forked

LOST = "it cannot go on, and fresh=true begins anew"


@pytest.mark.parametrize(
    ("kind", "name", "length", "text"),
    in_part(
        [
            ("interrupted", "state.pt", 0, "the one before it is taken"),
            ("interrupted", "state.pt", 0.5, "the one before it is taken"),
            ("interrupted", "state.before.pt", 0.5, ""),
            ("interrupted", "metrics.jsonl", 0.9, ""),
            ("interrupted", "metrics.jsonl", 0.3, LOST),
            ("interrupted", "timings.jsonl", 0, LOST),
            ("interrupted", "environment.json", 0.5, "environment.json cannot be read"),
            ("interrupted", "config.yaml", 0.5, ""),
            ("failed", "failed.txt", 0, ""),
            ("finished", "summary.json", 0.5, ""),
            ("finished", "summary.json", 0, ""),
            ("finished", "metrics.jsonl", 0.99, ""),
            ("finished", "metrics.jsonl", 0.3, LOST),
            ("finished", "state.pt", 0.5, ""),
        ],
        3,
    ),
)
def test_a_file_that_was_cut_off(cases, kind, name, length, text):
    """As by a loss of power, though every file but the rows is written whole or not at all."""
    code, _, err = cases(kind, cut(name, length))
    assert text in err
    assert (code == 0) == (text in ("", "the one before it is taken"))


def test_a_damaged_checkpoint_never_takes_the_place_of_the_good_one(cases, undamaged, command, tmp_path, monkeypatch):
    """The run goes on from the one before, and the disk is full when it saves the next."""
    cases("interrupted", lambda folder: None)
    shutil.copytree(undamaged / "interrupted", tmp_path / "interrupted", symlinks=True)
    (folder,) = folders(tmp_path / "interrupted")
    cut("state.pt", 0.5)(folder)
    good = (folder / "state.before.pt").read_bytes()

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(state_module, "write_whole", full)
    code, _, err = command(*TINY, f"output={tmp_path / 'interrupted'}")
    assert code == 1
    assert "the one before it is taken" in err
    assert (folder / "state.before.pt").read_bytes() == good


def test_both_checkpoints_cut_off(cases):
    def damage(folder):
        cut("state.pt", 0.5)(folder)
        cut("state.before.pt", 0.5)(folder)

    code, _, err = cases("interrupted", damage)
    assert code == 2
    assert LOST in err


def test_a_failed_run_whose_reason_is_lost_is_not_taken_for_another(cases, command):
    def without_retry(folder):
        cut("failed.txt", 0)(folder)
        code, _, err = command(*TINY, f"output={folder.parents[2]}")
        assert code == 2
        assert "has failed before (its reason is lost)" in err

    assert cases("failed", without_retry)[0] == 0


@pytest.mark.parametrize(("name", "length"), [("state.pt", 0.5), ("config.yaml", 0.5), ("config.yaml", 0)])
def test_measuring_a_damaged_run_is_refused(cases, measured, name, length):
    def also_measured(folder):
        cut(name, length)(folder)
        code, _, err = measured(folder)
        assert code == 2
        (line,) = err.strip().splitlines()
        assert name in line

    cases("finished", also_measured)


# ---------------------------------------------------------------- no room, no folder


@pytest.mark.parametrize(
    ("file", "most", "options"),
    in_part(
        [
            ("state.pt", 10_000, ["checkpoint_every=0"]),
            ("metrics.jsonl", 10_000, ["checkpoint_every=1000", "steps=400", "log_every=1"]),
            ("config.yaml", 500, []),
        ],
        3,
    ),
)
def test_no_room_on_the_disk(command, tmp_path, file, most, options):
    arguments = [*TINY, "name=mine", *options]
    code, _, err = finish_forked(*arguments, where=tmp_path, most=most)
    assert code == 1, err
    *_, line = err.strip().splitlines()
    assert "Traceback" not in err
    assert line.startswith("error: ")
    assert file in line or "File too large" in line
    assert not list(tmp_path.rglob("*.partial")), "takes room that others may need"
    code, _, err = command(*arguments, where=tmp_path)
    assert code == 0, err
    assert command(*arguments, f"output={tmp_path / 'whole'}")[0] == 0
    one, other = (next((tmp_path / name).rglob("metrics.jsonl")) for name in ("output", "whole"))
    assert one.read_bytes() == other.read_bytes()


def test_what_a_killed_process_was_writing_goes_and_what_another_writes_stays(command, tmp_path):
    """Two may write one file, as reports are; of a run only one does, and what it left behind takes room."""
    left = tmp_path / "report.html.99999.partial"
    left.write_text("half")
    write_whole(tmp_path / "report.html", "whole")
    assert left.read_text() == "half"
    assert (tmp_path / "report.html").read_text() == "whole"
    assert command(*TINY, "steps=3")[0] == 0
    (folder,) = folders(tmp_path)
    (folder / "state.pt.99999.partial").write_text("half")
    (folder / "summary.json").unlink()
    assert command(*TINY, "steps=3")[0] == 0
    assert not list(folder.glob("*.partial"))


def test_a_checkpoint_without_room_leaves_the_one_before(command, tmp_path, monkeypatch):
    write, written = state_module.write_whole, []

    def full(path, content):
        if path.name == "state.pt":
            written.append(path)
            if len(written) == 8:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    with monkeypatch.context() as broken:
        broken.setattr(state_module, "write_whole", full)
        code, _, err = command(*TINY)
    assert code == 1
    assert "state.pt: No space left on device (at step 7); what was saved at step 6 is kept" in err
    code, out, _ = command(*TINY)
    assert code == 0
    assert "going on from step 6 in" in out


@pytest.mark.parametrize("when", [10, 24])
def test_the_folder_of_a_run_is_deleted(command, tmp_path, monkeypatch, when):
    log = tracking.Tracker.log

    def deletes(tracker, step, *rest):
        log(tracker, step, *rest)
        if step >= when:
            shutil.rmtree(tracker.folder, ignore_errors=True)

    with monkeypatch.context() as broken:
        broken.setattr(tracking.Tracker, "log", deletes)
        code, _, err = command(*TINY)
    assert code == 1
    assert "Traceback" not in err
    assert "the run's folder is gone, and what was in it is lost; the same command begins anew" in err
    assert command(*TINY)[0] == 0


THREE_RUNS = ["seed=1,2,3", "steps=700", "checkpoint_every=60"]


@pytest.mark.long
@pytest.mark.parametrize("launcher", [[], JOBLIB], ids=["serial", "joblib"])
def test_the_folder_of_a_sweep_is_deleted(command, tmp_path, launcher):
    """While its jobs run, and none is about to; what the runs themselves wrote is kept."""
    process = Forked("-m", *TINY, *THREE_RUNS, *launcher, where=tmp_path)
    deadline, at_once = time.time() + 120, 2 if launcher else 1
    while len(folders(tmp_path)) < at_once and time.time() < deadline:
        time.sleep(0.1)
    shutil.rmtree(tmp_path / "output/sweeps")
    _, err = process.communicate(timeout=300)
    assert "Traceback" not in err
    assert process.returncode in (0, 1), err
    assert len(list(tmp_path.rglob("summary.json"))) == 3


def test_the_last_evaluation_is_not_waited_for(tmp_path):
    arguments = [*SMALL, "estimator=reinforce", "steps=5", "measure.every=0", "task.bound_samples=2"]
    process = Forked(*arguments, "task.test_samples=100000", "wandb.mode=disabled", where=tmp_path)
    deadline = time.time() + 120
    while not any(len((f / "metrics.jsonl").read_bytes().splitlines()) == 2 for f in folders(tmp_path)):
        assert time.time() < deadline
        time.sleep(0.1)
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert "interrupted after step 5; the same command goes on in" in err
    assert "Traceback" not in err


# ---------------------------------------------------------------- numbers that are none


def test_a_state_that_is_not_finite_is_not_saved(command, tmp_path):
    """A step may have a finite loss and leave parameters that are not."""
    code, _, _ = command(
        "estimator=softmax", "optimizer=sgd", "optimizer.lr=1e30", "steps=50", "checkpoint_every=0", "measure.every=0"
    )
    assert code == 1
    (folder,) = folders(tmp_path)
    for name in ("state.pt", "state.before.pt"):
        if (folder / name).is_file():
            state = torch.load(folder / name, weights_only=True)["state"]
            assert all(value.isfinite().all() for value in state["task"].values() if value.is_floating_point())


def test_what_is_finite():
    state, _ = started("task=dvae", "estimator=nvil")
    assert state.is_finite()
    for part in (state.window, next(state.task.parameters()), next(state.estimator.parameters())):
        kept = part.detach().clone()
        with torch.no_grad():
            part.flatten()[0] = torch.nan
            assert not state.is_finite()
            part.copy_(kept)
    assert state.is_finite()
