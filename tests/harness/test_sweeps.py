"""Runs and sweeps that are stopped, killed, locked, or fail: nothing is lost, and the same command goes on."""

import contextlib
import json
import os
import random
import signal
import time

import pytest
from filelock import FileLock

from helpers.cases import in_part
from helpers.processes import JOBLIB, RUN, SWEEP, Forked, finish_forked, hashes, rows, wait_for_rows


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    where = tmp_path_factory.mktemp("undisturbed")
    code, out, err = finish_forked(*SWEEP, where=where)
    assert code == 0, err
    assert "sweep: 4 of 4 jobs ended (4 done)" in out
    assert len(hashes(where)) == 4
    return hashes(where)


@pytest.mark.parametrize(("launcher", "kills"), in_part([(JOBLIB, 1), ([], 2)], 2), ids=["joblib", "serial"])
def test_a_sweep_that_is_killed_goes_on_to_the_same_bytes(undisturbed, tmp_path, launcher, kills):
    dice = random.Random(len(launcher))
    for _ in range(kills):
        process = Forked(*SWEEP, *launcher, where=tmp_path)
        wait_for_rows(process, tmp_path, rows(tmp_path))
        time.sleep(dice.uniform(0, 1.5))
        process.kill()
        process.communicate(timeout=60)  # ends when the last worker has
    assert not any(locked(p) for p in tmp_path.rglob("lock")), "a worker outlives its parent"
    code, out, err = finish_forked(*SWEEP, *launcher, where=tmp_path)
    assert code == 0, err
    assert "going on from step" in out or "finished already" in out
    assert hashes(tmp_path) == undisturbed


def locked(path):
    with contextlib.suppress(TimeoutError):
        FileLock(path).acquire(timeout=0).lock.release()
        return False
    return True


@pytest.mark.long
@pytest.mark.parametrize(
    ("launcher", "number"),
    [(JOBLIB, signal.SIGTERM), (JOBLIB, signal.SIGINT), ([], signal.SIGTERM)],
    ids=["joblib-SIGTERM", "joblib-SIGINT", "serial-SIGTERM"],
)
def test_a_sweep_that_is_asked_to_stop_saves_and_goes_on(undisturbed, tmp_path, launcher, number):
    """It goes on in one process, whatever it was in: to the bytes of the other launcher."""
    process = Forked(*SWEEP, *launcher, where=tmp_path)
    wait_for_rows(process, tmp_path, 0)
    time.sleep(0.3)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does: to the workers as well
    else:
        process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert "jobs unfinished; the same command goes on" in err
    assert "Traceback" not in err
    assert not any(locked(p) for p in tmp_path.rglob("lock")), "a worker is still at it"
    code, _, err = finish_forked(*SWEEP, where=tmp_path)
    assert code == 0, err
    assert hashes(tmp_path) == undisturbed


LONGER = [*RUN, "steps=500"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    where = tmp_path_factory.mktemp("whole")
    assert finish_forked(*LONGER, where=where)[0] == 0
    return hashes(where)


@pytest.mark.parametrize("number", in_part([signal.SIGTERM, signal.SIGINT, signal.SIGKILL], 3), ids=lambda n: n.name)
def test_a_run_that_is_stopped_goes_on_to_the_same_bytes(whole, tmp_path, number):
    process = Forked(*LONGER, where=tmp_path)
    wait_for_rows(process, tmp_path, 3000)
    time.sleep(0.3)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    if number != signal.SIGKILL:
        assert "the same command goes on in" in err
    code, out, err = finish_forked(*LONGER, where=tmp_path)
    assert code == 0, err
    assert "going on from step" in out
    assert hashes(tmp_path) == whole


def test_failed_jobs_are_listed_and_the_rest_runs(tmp_path):
    """One job that becomes NaN and one that its constructor refuses; a failed run waits until a retry is asked for."""
    sweep = ["-m", *RUN, "steps=100", "optimizer=sgd", "optimizer.lr=1e-3,1e30", "estimator.samples=1,0"]
    code, out, err = finish_forked(*sweep, *JOBLIB, where=tmp_path)
    assert code == 1
    assert len(list(tmp_path.rglob("summary.json"))) == 1
    assert "failed: estimator=reinforce: samples must be an integer of at least 1, got 0" in err
    assert "is not finite (estimator Reinforce, task DiscreteVAE)" in err
    assert "4 of 4 jobs ended (1 done, 3 failed)" in out
    (saved,) = tmp_path.rglob("job-*.traceback.txt")
    assert "NotFinite" in saved.read_text()
    assert str(saved.relative_to(tmp_path)) in err
    code, out, err = finish_forked(*sweep, where=tmp_path)
    assert code == 1
    assert "finished already" in out
    assert "retry=true goes on from its last checkpoint" in err
    code, out, err = finish_forked(*sweep, "retry=true", where=tmp_path)
    assert code == 1
    assert "going on from step" in out
    assert "is not finite" in err


def test_two_processes_never_work_on_one_run(tmp_path):
    first = Forked(*RUN, "steps=1000000", where=tmp_path)
    wait_for_rows(first, tmp_path, 1000)
    code, _, err = finish_forked(*RUN, "steps=1000000", where=tmp_path)
    assert code == 2, err
    assert "error: another process works on output/dvae/reinforce/" in err
    first.kill()
    first.communicate()
    third = Forked(*RUN, "steps=1000000", where=tmp_path)  # the dead process does not keep the lock
    before = rows(tmp_path)
    wait_for_rows(third, tmp_path, before + 1000)
    third.terminate()
    out, _ = third.communicate()
    assert "going on from step" in out


def test_code_that_has_changed_is_noticed(tmp_path):
    (tmp_path / "conf/estimator").mkdir(parents=True)
    (tmp_path / "conf/estimator/mine.yaml").write_text("_target_: my_estimators.Mine\n")
    source = "from estimators import Reinforce\n\n\nclass Mine(Reinforce):\n    pass\n"
    (tmp_path / "my_estimators.py").write_text(source)
    sweep = ["--config-dir", "conf", "-m", *RUN[:-1], "estimator=mine,softmax", "steps=20"]
    assert finish_forked(*sweep, where=tmp_path)[0] == 0
    code, out, err = finish_forked(*sweep, where=tmp_path)
    assert (code, out.count("finished already")) == (0, 2), err
    (tmp_path / "my_estimators.py").write_text(source + "\n    samples = 3\n")
    code, out, err = finish_forked(*sweep, where=tmp_path)
    assert (code, out.count("finished already")) == (1, 1)
    assert "was finished by other code or data (my_estimators.py): fresh=true runs it again" in err
    code, out, err = finish_forked(*sweep, "fresh=true", where=tmp_path)
    assert code == 0, err


def test_every_outcome_is_kept(tmp_path):
    assert finish_forked("-m", *RUN, "steps=20", "seed=1,2", where=tmp_path)[0] == 0
    outcomes = sorted(tmp_path.rglob("job-*.json"))
    assert [json.loads(p.read_text())["status"] for p in outcomes] == ["done", "done"]
