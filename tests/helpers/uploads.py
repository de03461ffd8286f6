"""Runs beside a W&B server of the tests' own."""

import json
import subprocess
import time

from hardmax.harness import tracking
from helpers.commands import SHORT, folders, rows_of
from helpers.processes import finish_forked
from helpers.wandb_server import Server

KEY, OTHER = "5ec2e7c0ffee" * 3 + "abcd", "0ddba11decaf" * 3 + "dcba"  # by variable and by file, 40 characters each


def run(where, environment, *arguments, script="run.py"):
    """A script of the project in a process of its own; how it ended, and the seconds that it took."""
    start = time.time()
    ended = finish_forked(*arguments, where=where, script=script, env=environment)
    return subprocess.CompletedProcess(arguments, *ended), time.time() - start


def upload(where, environment, printed, shell="bash"):
    """Runs the command that a run has printed; what it said."""
    command = printed.partition("(upload: ")[2].partition(")\n")[0]
    assert command.endswith(" --upload"), printed
    done = subprocess.run(
        [shell, "-c", command], cwd=where, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def figures(sent):
    """Rows that a server has, as they were logged, without pictures."""
    rows = [{k: v for k, v in row.items() if not k.startswith("_")} for row in sent]
    return [row for row in rows if not any(isinstance(value, dict) for value in row.values())]


def without_clock(sent):
    """As ``figures``, but for seconds: a row that is made again has its own."""
    return [{k: v for k, v in row.items() if k not in ("cost/seconds", "gradient/seconds")} for row in figures(sent)]


def logged(folder):
    """Rows in the files of a run."""
    timings = [json.loads(line) for line in (folder / "timings.jsonl").read_text().splitlines()]
    return [row | timing for row, timing in zip(rows_of(folder), timings, strict=True)]


def lines_about_wandb(done):
    """What a user reads about W&B beyond the summary of the run."""
    found = (done.stdout + done.stderr).splitlines()
    known = {line for line in found if line.startswith(("  ", "gumbel_softmax on dvae, seed")) or not line.strip()}
    return [line for line in found if line not in known]


def files_with_a_key(folder):
    """Files below a folder that hold one of the user's keys."""
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".netrc"}
    return [path for path, content in files.items() if KEY.encode() in content or OTHER.encode() in content]


def outcome(tmp_path, surroundings, behaviour, *, refusing=False):
    """A run with a server of this behaviour, beside one without any: printed lines, and the seconds it took longer."""
    alone, usual = run(tmp_path, surroundings("http://127.0.0.1:9"), *SHORT, "wandb.mode=disabled", "output=alone")
    assert alone.returncode == 0, alone.stderr
    with Server(behaviour) as server:
        if refusing:
            server.server_close()
        done, seconds = run(tmp_path, surroundings(server.address), *SHORT, "wandb.detail=full")
        assert done.returncode == 0, done.stderr
        found = server.rows()
    of = {name: folders(tmp_path / name)[0] for name in ("alone", "output")}
    assert (of["output"] / "metrics.jsonl").read_bytes() == (of["alone"] / "metrics.jsonl").read_bytes()
    assert "Traceback" not in done.stdout + done.stderr
    assert not files_with_a_key(tmp_path)
    assert KEY not in done.stdout + done.stderr
    assert len(lines_about_wandb(done)) <= 1, lines_about_wandb(done)
    with Server() as server:
        if "upload" in done.stdout:
            assert not found
            upload(tmp_path, surroundings(server.address), done.stdout)
            found = server.rows()
    assert figures(found) == logged(of["output"])
    return done, seconds - usual


def once_rows_come(what):
    """A server that is healthy until the first rows come: then it answers with a code, or does what it is told."""
    begun = []

    def behaviour(path):
        if path.endswith("/file_stream"):
            begun.append(path)
        return (what() if callable(what) else what) if begun else None

    return behaviour


def end_at(monkeypatch, step):
    """Ends a run as a signal does, once its row of a step is written: nothing after it is saved."""
    log = tracking.Tracker.log

    def ending(tracker, at, *rest):
        log(tracker, at, *rest)
        if at == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(tracking.Tracker, "log", ending)
