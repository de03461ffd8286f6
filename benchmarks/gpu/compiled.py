r"""Compiled training steps, as CUDA graphs on a GPU: processes compile side by side, and are timed one by one."""

import fcntl
import os
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from .models import BY_HAND, seconds, training
from .parts import FORK, Part, attempt

NAMES = [BY_HAND, "gumbel_softmax", "st_gumbel_softmax", "straight_through", "reinforce", "reinmax", "zgr", "arsm"]
WARM_UP = 6  # steps: CUDA graphs are recorded in the second or third
TURNS, STEPS = 5, 20


def compiled(part: Part) -> None:
    r"""Milliseconds of a step as it is and compiled."""
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # a process each compiles already
    for cache in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        os.environ[cache] = tempfile.mkdtemp()
    chosen = ["reinforce"] if part.small else NAMES[:2] if part.device == "cpu" else NAMES
    lock = part.path.with_suffix(".lock")
    lock.touch()
    running = {}
    for name in chosen:
        ours, its = FORK.Pipe()
        process = FORK.Process(target=worker, args=(name, part, lock, its))
        process.start()
        running[name] = (process, ours)
    while running and part.left() > 0:
        for name, (process, pipe) in list(running.items()):
            if pipe.poll(0.05):
                part.note(name, pipe.recv())
                process.join()
                del running[name]
            elif not process.is_alive() and not pipe.poll(0):
                part.note(name, {"error": f"ended with exit code {process.exitcode}"})
                del running[name]
    for name, (process, _) in running.items():
        process.kill()
        part.note(name, {"error": "not compiled and timed before time was up"})
    lock.unlink()


def worker(name: str, part: Part, lock: Path, pipe: Connection) -> None:
    pipe.send(attempt(lambda: timed(name, part, lock)))


def timed(name: str, part: Part, lock: Path) -> dict:
    r"""Compiles the loss, and then times steps with it, while no other process does."""
    start, device = time.monotonic(), part.device
    eager, ours = training(name, device, **part.sizes), training(name, device, **part.sizes)
    settings: dict = {"backend": "aot_eager"} if part.small else {"mode": "reduce-overhead"}
    ours.loss = torch.compile(ours.loss, **settings)  # type: ignore[method-assign]

    def step() -> None:
        torch.compiler.cudagraph_mark_step_begin()
        ours.step()

    seconds(step, WARM_UP, device), seconds(eager.step, WARM_UP, device)
    taken = time.monotonic() - start
    turns, times = (1, 1) if part.small else (TURNS, STEPS)
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        both = [(seconds(eager.step, times, device), seconds(step, times, device)) for _ in range(turns)]
    before, after = (1e3 * statistics.median(column) / times for column in zip(*both, strict=True))
    return {"eager_ms": before, "compiled_ms": after, "warm_up_seconds": taken}
