r"""When a run saves a checkpoint, and what makes it stop."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache


class Stopped(BaseException):
    r"""The run was asked to stop, and has saved its state; ``number`` is the signal.

    Like KeyboardInterrupt it is no Exception, as it may come at any moment: libraries catch those, and go on.
    """

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


# In a job of submitit: who started it, slurm or local, and the signal upon which it has the job started again.
LAUNCHED_BY = os.environ.get("SUBMITIT_EXECUTOR")
REQUEUE = getattr(signal, "SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2"))


class Pause:
    r"""Called between steps: saves now and then and at the last, and saves and raises :class:`Stopped` when asked to.

    That is on SIGINT, SIGTERM or SIGHUP, of a terminal that is closed, and when the sweep is asked to stop. A second
    signal is not waited for, and neither is the first where nothing would be saved: while a run measures before its
    first step, or is evaluated after its last.

    In a job of Slurm, SIGTERM announces that Slurm may end the job, and start it again if it was pre-empted rather than
    cancelled. So it saves and goes on for as long as it may: had it ended by itself, it would not be started again.

    Arguments:
        save: Writes a checkpoint.
        every: Seconds between checkpoints.
        stopping: Whether the sweep has been asked to stop; looked at once a second.
        unsaved: Whether steps have been made since what the run would go on from.
    """

    def __init__(
        self,
        save: Callable[[], None],
        every: float,
        stopping: Callable[[], bool],
        unsaved: Callable[[], bool],
    ):
        self.save, self.every, self.stopping, self.unsaved = save, every, stopping, unsaved
        self.number: int | None = None
        self.all_saved = False
        self.look = self.due = time.monotonic()

    def __enter__(self):
        self.handlers = {}
        if threading.current_thread() is threading.main_thread():
            hung_up = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN  # which nohup has ignored
            also = (signal.SIGHUP,) * hung_up + (REQUEUE,) * bool(LAUNCHED_BY)
            for number in (signal.SIGINT, signal.SIGTERM, *also):
                self.handlers[number] = signal.signal(number, self.ask)
        return self

    def __exit__(self, kind, *_):
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        if self.number is not None and kind is None:
            raise Stopped(self.number)  # it came after the last pause

    def ask(self, number, frame):
        if LAUNCHED_BY == "slurm" and number == signal.SIGTERM:
            self.due = 0
            return
        if self.number is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.number = number
        if self.all_saved or not self.unsaved():
            raise Stopped(number)

    def __call__(self, last: bool) -> None:
        now = time.monotonic()
        if now >= self.look:
            self.look = now + 1
            if self.stopping():
                self.number = self.number or signal.SIGTERM
        if last or self.number is not None or now >= self.due:
            self.save()
            self.due, self.all_saved = time.monotonic() + self.every, last
        if self.number is not None:
            raise Stopped(self.number)


@contextlib.contextmanager
def stopped_by_queue() -> Iterator[None]:
    r"""Within, a queue's signal raises :class:`Stopped` while nothing is saved yet; afterwards it is the queue's again.

    What submitit raises upon the last of them is an exception like others, which a run would take for its own.
    """

    def stop(number: int, frame: object) -> None:
        raise Stopped(number)

    before = signal.signal(REQUEUE, stop) if LAUNCHED_BY else None
    try:
        yield
    finally:
        if LAUNCHED_BY:
            signal.signal(REQUEUE, before)


@cache
def end_with_parent() -> None:
    r"""Ends this process, after it has saved, when the one that started it is gone: else a pool's workers live on.

    A worker of a pool knows its parent from the start: it may be gone before the worker gets here.
    """
    known = multiprocessing.parent_process()
    parent = known.pid if known else os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(0.5)
        while True:  # the first is answered by a run; an idle process ends with the next
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    threading.Thread(target=watch, daemon=True).start()
