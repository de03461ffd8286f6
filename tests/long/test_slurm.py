"""Sweeps as array jobs of Slurm, on a cluster of this machine alone: the same bytes, whatever Slurm does."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from helpers.processes import RUN, SWEEP, finish, hashes, rows, start

CLUSTER = Path(__file__).with_name("one_node_slurm.sh")
SLURM = ["hydra/launcher=slurm"]
LONGEST = 1200  # seconds, on a machine that has other things to do
# Jobs that take most of a minute on any machine: Slurm looks after grace times twice a minute.
LONG = [
    "--config-dir",
    "conf",
    "-m",
    *RUN[:-1],
    "estimator=slow_reinforce,slow_nvil",
    "steps=2500",
    "checkpoint_every=1000",
]
SLOW = """
import time

from hardmax.estimators import NVIL, Reinforce


class Slowly:
    def estimate(self, *arguments):
        time.sleep(0.02)
        return super().estimate(*arguments)


class SlowReinforce(Slowly, Reinforce):
    pass


class SlowNVIL(Slowly, NVIL):
    pass
"""

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))),
    reason="needs root, and apt-get install slurm-wlm munge",
)


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([CLUSTER, "start", folder], check=True)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    yield
    subprocess.run([CLUSTER, "stop", folder], check=True)
    del os.environ["SLURM_CONF"]


def with_slow_estimators(where):
    (where / "conf/estimator").mkdir(parents=True)
    (where / "slow.py").write_text(SLOW)
    for name, target in (("slow_reinforce", "SlowReinforce"), ("slow_nvil", "SlowNVIL")):
        (where / f"conf/estimator/{name}.yaml").write_text(f"_target_: slow.{target}\n")
    return where


@pytest.fixture
def where(tmp_path):
    return with_slow_estimators(tmp_path)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Rows of the long sweep, run without Slurm."""
    where = with_slow_estimators(tmp_path_factory.mktemp("undisturbed"))
    code, _, err = finish(*LONG, "hydra/launcher=joblib", where=where, timeout=LONGEST)
    assert code == 0, err
    return hashes(where)


def running():
    """Jobs of the sweep that run."""
    asked = ["squeue", "--array", "--noheader", "--partition=main", "--states=RUNNING", "--format=%i"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()


def wait_for_two(where):
    """Until both jobs of the long sweep have written some rows."""
    deadline = time.time() + LONGEST
    while time.time() < deadline:
        sizes = [p.stat().st_size for p in where.rglob("metrics.jsonl")]
        if len(sizes) == 2 and min(sizes) > 2000:
            return
        time.sleep(0.1)
    raise TimeoutError(sizes)


def logs(where):
    return "".join(p.read_text() for p in where.rglob("*_log.*"))


def test_serial_and_slurm_write_the_same_bytes(tmp_path):
    (tmp_path / "serial").mkdir(), (tmp_path / "slurm").mkdir()
    assert finish(*SWEEP, where=tmp_path / "serial", timeout=LONGEST)[0] == 0
    code, out, err = finish(*SWEEP, *SLURM, where=tmp_path / "slurm", timeout=LONGEST)
    assert code == 0, err
    assert "sweep: 12 of 12 jobs ended (12 done)" in out
    assert hashes(tmp_path / "slurm") == hashes(tmp_path / "serial")
    assert len(hashes(tmp_path / "slurm")) == 12


@pytest.mark.parametrize("notice", ["scontrol requeue", "scancel --signal=USR2"])
def test_a_job_that_is_queued_again_goes_on_to_the_same_bytes(undisturbed, where, notice):
    """By an administrator; or with the signal that Slurm sends ahead of a time limit, here of minutes."""
    sweep = start(*LONG, *SLURM, "hydra.launcher.timeout_min=9", where=where)
    wait_for_two(where)
    for job in running():
        subprocess.run([*notice.split(), job], check=True)
    _, err = sweep.communicate(timeout=LONGEST)
    assert sweep.returncode == 0, err
    assert logs(where).count("going on from step") == 2
    assert "going on from step 0 " not in logs(where), "nothing was saved when Slurm gave notice"
    assert ("this job is timed-out" in logs(where)) == ("USR2" in notice)
    assert hashes(where) == undisturbed


def test_jobs_that_are_pre_empted_go_on_to_the_same_bytes(undisturbed, where):
    sweep = start(*LONG, *SLURM, where=where)
    wait_for_two(where)
    subprocess.run(["sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=true"], check=True)
    _, err = sweep.communicate(timeout=LONGEST)
    assert sweep.returncode == 0, err
    assert logs(where).count("DUE TO PREEMPTION") == 2
    assert "going on from step" in logs(where)
    assert "going on from step 0 " not in logs(where), "nothing was saved when Slurm gave notice"
    assert hashes(where) == undisturbed


def test_asked_to_stop_every_job_saves(undisturbed, where):
    sweep = start(*LONG, *SLURM, where=where)
    wait_for_two(where)
    sweep.send_signal(signal.SIGINT)
    _, err = sweep.communicate(timeout=60)
    assert sweep.returncode == 128 + signal.SIGINT
    assert "stopped with 2 of 2 jobs unfinished; the same command goes on" in err
    code, _, err = finish(*LONG, *SLURM, where=where, timeout=LONGEST)
    assert code == 0, err
    assert hashes(where) == undisturbed


def test_a_sweep_that_is_killed_leaves_its_jobs_in_the_queue(undisturbed, where):
    sweep = start(*LONG, *SLURM, where=where)
    wait_for_two(where)
    sweep.kill()
    sweep.communicate()
    before = rows(where)
    code, _, err = finish(*LONG, where=where, timeout=LONGEST)
    assert (code, err.count("running elsewhere: another process works on")) == (1, 2)
    assert rows(where) > before
    while running():
        time.sleep(0.5)
    code, out, err = finish(*LONG, where=where, timeout=LONGEST)
    assert (code, out.count("finished already")) == (0, 2), err
    assert hashes(where) == undisturbed


def test_failed_jobs_are_listed_and_the_rest_runs(tmp_path):
    sweep = ["-m", *RUN, "steps=100", "optimizer=sgd", "optimizer.lr=1e-3,1e30", "estimator.samples=1,0", *SLURM]
    code, out, err = finish(*sweep, where=tmp_path, timeout=LONGEST)
    assert code == 1
    assert "4 of 4 jobs ended (1 done, 3 failed)" in out
    assert "failed: estimator=reinforce: samples must be an integer of at least 1, got 0" in err
    assert "is not finite (estimator Reinforce, task DiscreteVAE)" in err
