r"""What runs the parts: each in a forked process, with a time limit, writing its lines as they come."""

import json
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

from hardmax.files import write_whole

GRACE = 5.0  # seconds after which a part that does not end by itself is ended

# CUDA does not survive a fork: the process that forks the parts must never have used the device.
FORK = multiprocessing.get_context("fork")


@dataclass
class Part:
    r"""What a part is given, and where it puts what it finds.

    Attributes:
        device: ``cuda``, ``cuda:1`` or ``cpu``.
        small: Whether sizes are those of a test.
        deadline: By :func:`time.monotonic`.
        path: Of the file of its lines.
        lines: What was found, by name: figures, or the text of an ``error``.
        left_out: Names that there was no time for.
    """

    device: str
    small: bool
    deadline: float
    path: Path
    lines: dict[str, dict] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def sizes(self) -> dict[str, int]:
        r"""Of the model that is trained, where they are not its own."""
        return {"K": 3, "C": 4, "batch": 4} if self.small else {}

    def left(self) -> float:
        r"""Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def note(self, name: str, line: dict) -> None:
        r"""Puts a line down, in the file as well."""
        self.lines[name] = line
        self.write()

    def write(self) -> None:
        write_whole(self.path, json.dumps({"lines": self.lines, "left_out": self.left_out}).encode())

    def each(self, work: Callable[[str], dict], names: Iterable[str], most: float = 30.0) -> None:
        r"""A line for each name, an error where its work fails or takes ``most`` seconds; none when time is up."""
        for name in names:
            if (left := self.left()) <= 0:
                self.left_out.append(name)
                self.write()
            else:
                self.note(name, attempt(lambda: work(name), min(most, left)))


class OutOfTime(Exception):
    r"""A line takes too long."""


def attempt(work: Callable[[], dict], most: float = 0.0) -> dict:
    r"""What the work gives, or its error in one line; ``most`` seconds, 0 for as long as it takes."""

    def stop(*_: object) -> None:
        raise OutOfTime(f"stopped after {most:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, most)
        return work()
    except Exception as error:
        if not isinstance(error, OutOfTime):
            traceback.print_exc()
        return {"error": one_line(error)}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def run_part(work: Callable[[Part], None], part: Part) -> dict:
    r"""What a part found, in a process of its own that is ended when it is late."""
    start = time.monotonic()
    process = FORK.Process(target=in_process, args=(work, part))
    process.start()
    try:
        process.join(max(0.0, part.left()) + GRACE)  # parts look at the clock themselves
        late = process.is_alive()
    finally:  # also if the whole is interrupted
        if process.exitcode != 0:
            end(process)
    found: dict = {"lines": {}, "left_out": [], "seconds": round(time.monotonic() - start, 1)}
    if part.path.is_file():
        found |= json.loads(part.path.read_text())
        part.path.unlink()
    if late:
        found["error"] = "ended, as its time was up"
    elif process.exitcode:
        found["error"] = f"ended with exit code {process.exitcode}"
    return found


def in_process(work: Callable[[Part], None], part: Part) -> None:
    os.setsid()  # it is ended together with what it starts
    work(part)
    part.write()


def end(process: BaseProcess) -> None:
    r"""Ends a part and what it has started."""
    assert process.pid is not None
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        process.join(2)
