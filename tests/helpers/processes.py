"""Runs and sweeps in processes of their own."""

import atexit
import contextlib
import functools
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

from helpers.commands import ROOT, SMALL

RUN = [*SMALL, "task.bound_samples=2", "measure.draws=4", "log_every=5", "measure.every=100", "valid.every=50"]
RUN += ["wandb.mode=disabled", "checkpoint_every=0.2", "estimator=reinforce"]
SWEEP = ["-m", *RUN, "steps=200", "estimator=reinforce,nvil", "seed=1,2"]
JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]


def start(*arguments, where, **options):
    """The script, started as a user does."""
    script = [sys.executable, str(ROOT / "run.py"), *arguments]
    return subprocess.Popen(
        script, cwd=where, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **options
    )


class Forked:
    """The script, or another, in a process of its own, which was spared the imports; it is used as a ``Popen`` is.

    The runs of one test process have one seed of Python's hashes, which those of :func:`start` have not. ``most`` is
    how many bytes each of their files may have, as on a disk that fills up; of ``out`` and ``err`` those that are
    ``unread`` have no reader from the beginning.
    """

    def __init__(self, *arguments, where, script="run.py", env=None, most=None, unread=()):
        pipes = {name: os.pipe() for name in ("out", "err", "told")}
        for name in unread:
            os.close(pipes[name][0])
        begun = {"script": str(ROOT / script), "arguments": [*map(str, arguments)], "where": str(where), "most": most}
        begun["environment"] = dict(os.environ if env is None else env)
        socket.send_fds(requests(), [json.dumps(begun).encode()], [writes for _, writes in pipes.values()])
        for _, writes in pipes.values():
            os.close(writes)
        self.followed = {name: os.fdopen(reads) for name, (reads, _) in pipes.items() if name not in unread}
        self.pid, self.returncode = int(self.followed["told"].readline()), None
        self.read = dict.fromkeys(unread, "")
        self.threads = [threading.Thread(target=self.follow, args=[name], daemon=True) for name in self.followed]
        for thread in self.threads:
            thread.start()

    def follow(self, name):
        with self.followed[name] as pipe:
            self.read[name] = pipe.read()
        if name == "told":
            self.returncode = int(self.read[name])

    def poll(self):
        return self.returncode

    def communicate(self, timeout=None):
        deadline = time.monotonic() + (timeout or 600)
        for thread in self.threads:
            thread.join(deadline - time.monotonic())
            assert not thread.is_alive(), "no end within the time"
        return self.read["out"], self.read["err"]

    def send_signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


@functools.cache
def requests():
    """A socket to a process that forks; it ends with this one."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    script = [sys.executable, str(ROOT / "tests/helpers/forks.py"), str(its.fileno())]
    nowhere = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    process = subprocess.Popen(script, pass_fds=[its.fileno()], **nowhere)
    its.close()

    @atexit.register
    def end():
        ours.close()
        process.wait(10)

    return ours


def finish(*arguments, where, timeout=300, begin=start, **options):
    process = begin(*arguments, where=where, **options)
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


finish_forked = functools.partial(finish, begin=Forked)


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
