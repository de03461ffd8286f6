r"""What becomes of the jobs of a sweep: each leaves its outcome in the sweep's folder, whatever process it ran in."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from harness.tracking import write_json

STOP = "stop"  # a file in the sweep's folder that asks every job to save and end
ENDED = ("done", "finished before", "failed", "stopped", "running elsewhere")


class Sweep:
    r"""The folder of a sweep.

    Arguments:
        folder: Where the outcomes are.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def begin(self, jobs: int) -> None:
        r"""Notes the number of jobs, and makes Ctrl-C and SIGTERM ask all of them to save and end."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "sweep.json", {"jobs": jobs, "began": time.time(), "process": os.getpid()})

        def ask_to_stop(number, frame):
            if self.stopping():  # asked a second time
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            self.stop(number)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, ask_to_stop)

    def stop(self, number: int) -> None:
        r"""Asks all jobs to save and end, because of a signal."""
        (self.folder / STOP).write_text(signal.Signals(number).name)

    def about(self) -> dict:
        r"""``jobs``, their number; ``began``, in seconds since 1970; ``process``, the one that runs the sweep."""
        return json.loads((self.folder / "sweep.json").read_text())

    def known(self) -> bool:
        r"""Whether :meth:`begin` was called for this folder: by a search it is not."""
        return (self.folder / "sweep.json").exists()

    def stopping(self) -> bool:
        r"""Whether the jobs have been asked to end."""
        return (self.folder / STOP).exists()

    def end_of(self, job: int, overrides: list[str], outcome: dict) -> None:
        r"""Notes how a job ended, and says how far the sweep is."""
        write_json(self.folder / f"job-{job}.json", {"job": job, "overrides": overrides, **outcome})
        about, ended = self.about(), self.outcomes()
        counts = {status: sum(o["status"] == status for o in ended) for status in ENDED}
        worked = counts["done"] + counts["failed"]
        left = about["jobs"] - len(ended)
        guess = f", about {(time.time() - about['began']) / worked * left / 60:.0f} min left" if worked and left else ""
        words = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
        print(f"sweep: {len(ended)} of {about['jobs']} jobs ended ({words}){guess}", flush=True)

    def outcomes(self) -> list[dict]:
        r"""How the jobs that have ended did, in their order."""
        found = [json.loads(path.read_text()) for path in self.folder.glob("job-*.json")]
        return sorted(found, key=lambda outcome: outcome["job"])

    def sum_up(self) -> int:
        r"""Says which jobs did not end well; the exit code: 0, 1, or that of the signal that stopped the sweep."""
        jobs, ended = self.about()["jobs"], self.outcomes()
        bad = [o for o in ended if o["status"] in ("failed", "running elsewhere")]
        for o in bad:
            where = f"; traceback: {o['traceback']}" if o.get("traceback") else ""
            reason = f"job {o['job']} ({' '.join(o['overrides'])}) {o['status']}: {o['reason']}{where}"
            print(f"error: {reason}", file=sys.stderr)
        open_jobs = jobs - sum(o["status"] != "stopped" for o in ended)
        if self.stopping():
            print(f"stopped with {open_jobs} of {jobs} jobs open; the same command goes on", file=sys.stderr)
            return 128 + signal.Signals[(self.folder / STOP).read_text()]
        if open_jobs:
            print(f"error: {open_jobs} of {jobs} jobs did not end; the same command goes on", file=sys.stderr)
        return 1 if bad or open_jobs else 0
