r"""What becomes of the jobs of a sweep: each leaves its outcome in the sweep's folder, whatever process it ran in."""

import json
import os
import platform
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from hardmax.files import write_whole

from .shared import Refused, write_json
from .sources import Opened

SECONDS_FOR_ANOTHER_SWEEP = 10  # seconds that a sweep waits for another in the same folder, which may be about to end
STOP = "stop"  # a file in the sweep's folder that asks every job to save and end
ENDED = ("done", "finished before", "failed", "stopped", "running elsewhere")
THIS_PROCESS = f"{platform.node()}:{os.getpid()}"


class Sweep:
    r"""The folder of a sweep.

    Arguments:
        folder: Where the outcomes are.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.begun: dict | None = None
        self.found: dict[int, dict] = {}
        self.told, self.over = "", threading.Event()

    def begin(self, jobs: int, varied: Iterable[str], searching: bool, finals: bool = False) -> None:
        r"""Notes what there is to know, makes Ctrl-C and SIGTERM ask all jobs to save and end, and tells how far it is.

        What an earlier sweep noted in the same folder is removed.

        Arguments:
            jobs: Their number.
            varied: Options in which they differ.
            searching: Whether the jobs are the trials of a search.
            finals: Whether the best settings run again after all others.

        Raises:
            Refused: If another sweep is at work in the folder, or it cannot be made.
        """
        self.claim()
        for name in (STOP, "sweep.json", "job-*.json", "job-*.traceback.txt"):
            for path in self.folder.glob(name):
                path.unlink(missing_ok=True)
        begun = {"jobs": jobs, "began": time.time(), "process": THIS_PROCESS, "command": sys.argv}
        self.begun = begun | {"varied": sorted(varied), "searching": searching, "finals": finals}
        write_json(self.folder / "sweep.json", self.begun)

        def ask_to_stop(number, frame):
            if self.stopping():  # asked a second time
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            self.stop(number)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, ask_to_stop)

        def follow():
            Opened.apart.add(threading.get_ident())
            while not self.over.wait(1):
                if not self.known():  # the folder has been deleted, or renamed
                    self.folder.mkdir(parents=True, exist_ok=True)
                    write_json(self.folder / "sweep.json", self.about())
                self.tell()

        threading.Thread(target=follow, daemon=True).start()

    def claim(self) -> None:
        r"""Makes the folder, and keeps other sweeps from it for as long as this one goes on."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock = FileLock(self.folder / "lock")
            self.lock.acquire(timeout=SECONDS_FOR_ANOTHER_SWEEP)
        except Timeout as error:
            raise Refused(f"hydra.sweep.dir={self.folder}: another sweep is at work there") from error
        except OSError as error:
            raise Refused(f"hydra.sweep.dir={self.folder}: {error.strerror or error}") from error

    def end(self) -> None:
        r"""Says no more, and lets others have the folder."""
        self.over.set()
        self.lock.release()

    def stop(self, number: int) -> None:
        r"""Asks all jobs to save and end, because of a signal."""
        self.folder.mkdir(parents=True, exist_ok=True)  # it may have been deleted since
        write_whole(self.folder / STOP, signal.Signals(number).name)

    def about(self) -> dict:
        r"""What :meth:`begin` noted: ``began`` in seconds since 1970, ``process`` and ``command`` of the sweep's."""
        return self.begun or json.loads((self.folder / "sweep.json").read_text("utf-8"))

    def known(self) -> bool:
        r"""Whether :meth:`begin` was called for this folder."""
        return (self.folder / "sweep.json").exists()

    def stopping(self) -> bool:
        r"""Whether the jobs have been asked to end."""
        return (self.folder / STOP).exists()

    def note(self, job: int, overrides: list[str], outcome: dict) -> None:
        r"""Notes what has become of a job: its ``status`` is ``running`` or one of ``ENDED``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / f"job-{job}.json", {"job": job, "overrides": overrides, **outcome})

    def tell(self) -> None:
        r"""Says how far the sweep is, if that has changed."""
        about, counts = self.about(), Counter(outcome["status"] for outcome in self.outcomes())
        running, ended = counts["running"], sum(counts[status] for status in ENDED)
        words = ", ".join(f"{counts[status]} {status}" for status in ENDED if counts[status])
        text = f"sweep: {ended} of {about['jobs']} jobs ended" + f" ({words})" * bool(words)
        text += f", {running} running" * bool(running)
        if text == self.told or not (running or ended):
            return
        self.told = text
        worked, left = counts["done"] + counts["failed"], about["jobs"] - ended
        if worked and left:
            text += f", about {(time.time() - about['began']) / worked * left / 60:.0f} min left"
        tqdm.write(text)
        sys.stdout.flush()

    def outcomes(self) -> list[dict]:
        r"""What has become of the jobs that have begun, in their order; it is kept should the folder be deleted."""
        noted = [json.loads(path.read_text("utf-8")) for path in self.folder.glob("job-*.json")]
        self.found |= {outcome["job"]: outcome for outcome in noted}
        return [self.found[job] for job in sorted(self.found)]

    def outcome_of(self, job: int) -> dict | None:
        r"""What has become of a job; None if it has not begun."""
        self.outcomes()
        return self.found.get(job)

    def note_death(self, job: int, overrides: Sequence[str], how: str) -> None:
        r"""Notes that the process of a job has died, if that kept the job from ending."""
        if (self.outcome_of(job) or {"status": "running"})["status"] == "running":
            reason = f"its process died ({how}), perhaps for want of memory; the same command goes on"
            self.note(job, list(overrides), {"status": "failed", "reason": reason})

    def sum_up(self) -> int:
        r"""Says which jobs did not end well; the exit code: 0, 1, or that of the signal that stopped the sweep."""
        self.over.set()
        self.tell()
        jobs, found = self.about()["jobs"], self.outcomes()
        bad = [o for o in found if o["status"] in ("failed", "running elsewhere")]
        bad += [o for o in found if o["status"] == "stopped" and not self.stopping()]
        for o in bad:
            where = f"; traceback: {o['traceback']}" if o.get("traceback") else ""
            reason = f"job {o['job']} ({' '.join(o['overrides'])}) {o['status']}: {o['reason']}{where}"
            print(f"error: {reason}", file=sys.stderr)
        open_jobs = jobs - sum(o["status"] not in ("stopped", "running") for o in found)
        if self.stopping():
            print(f"stopped with {open_jobs} of {jobs} jobs unfinished; the same command goes on", file=sys.stderr)
            return 128 + signal.Signals[(self.folder / STOP).read_text("utf-8")]
        if open_jobs:
            print(f"error: {open_jobs} of {jobs} jobs did not finish; the same command goes on", file=sys.stderr)
        return 1 if bad or open_jobs else 0
