"""Runs and sweeps in processes of their own."""

import hashlib
import subprocess
import sys
import time

from helpers.commands import ROOT, SMALL

RUN = [*SMALL, "task.bound_samples=2", "measure.draws=4", "log_every=5", "measure.every=100", "valid.every=50"]
RUN += ["wandb.mode=disabled", "checkpoint_every=0.2", "estimator=reinforce"]
SWEEP = ["-m", *RUN, "steps=300", "estimator=reinforce,softmax,nvil", "seed=range(4)"]
JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]


def start(*arguments, where, **options):
    script = [sys.executable, str(ROOT / "run.py"), *arguments]
    return subprocess.Popen(
        script, cwd=where, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **options
    )


def finish(*arguments, where, timeout=300):
    process = start(*arguments, where=where)
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def hashes(where):
    """Of the rows of every run, by its place."""
    found = where.rglob("metrics.jsonl")
    return {p.parent.relative_to(where).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def rows(where):
    return sum(p.stat().st_size for p in where.rglob("metrics.jsonl"))


def wait_for_rows(process, where, more_than):
    deadline = time.time() + 120
    while rows(where) <= more_than and process.poll() is None and time.time() < deadline:
        time.sleep(0.02)
