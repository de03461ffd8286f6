r"""Processes side by side on one device: steps a second of all of them together."""

import importlib
import time
from multiprocessing.connection import Connection

import torch

from .models import Training, wait_for
from .parts import FORK, Part, one_line

NAME = "gumbel_softmax"
COUNTS = {"small": (1, 2), "cpu": (1, 2), "cuda": (1, 4, 16, 64)}
SECONDS = 4.0  # of each number of processes
AT_A_TIME = 8  # steps between two looks at the clock


def jobs(part: Part) -> None:
    r"""A line for each number of processes, of which those of a smaller number go on in the next."""
    importlib.import_module("torch._dynamo")  # takes seconds, which each process would with its optimiser
    duration = 0.1 if part.small else SECONDS
    workers: list = []
    try:
        for count in COUNTS["small" if part.small else part.device.partition(":")[0]]:
            if part.left() < 2 * duration:
                part.left_out.append(str(count))
                continue
            try:
                part.note(str(count), side_by_side(part, workers, count, duration))
            except Exception as error:
                part.note(str(count), {"error": one_line(error)})
    finally:
        for process, _ in workers:
            process.kill()
        for process, _ in workers:
            process.join(5)


def side_by_side(part: Part, workers: list, count: int, duration: float) -> dict:
    r"""Starts what is missing of so many processes, and lets all of them train for some seconds."""
    start = time.monotonic()
    fresh = []
    while len(workers) < count:
        ours, its = FORK.Pipe()
        process = FORK.Process(target=worker, args=(part, len(workers), its))
        process.start()
        its.close()
        workers.append((process, ours))
        fresh.append(ours)
    for pipe in fresh:
        heard(pipe, part.left() - duration)
    started = time.monotonic() - start
    for _, pipe in workers:
        pipe.send(duration)
    found = [heard(pipe, duration + 20) for _, pipe in workers]
    rates = [steps / taken for steps, taken, _ in found]
    return {
        "steps_per_second": sum(rates),
        "slowest": min(rates),
        "fastest": max(rates),
        "start_seconds": started,
        "memory_used": found[0][2],
    }


def heard(pipe: Connection, wait: float) -> tuple[int, float, int | None]:
    r"""What a process says; an error if it says that, or nothing in time."""
    if not pipe.poll(max(0.1, wait)):
        raise TimeoutError("a process did not answer in time")
    said = pipe.recv()
    if isinstance(said, str):
        raise RuntimeError(said)
    return said


def worker(part: Part, seed: int, pipe: Connection) -> None:
    r"""Trains whenever it is told for how long; says how many steps it made, how long they took, and
    how much of the device's memory is taken."""
    device = part.device
    try:
        training = Training(NAME, device, seed=seed, **part.sizes)
        for _ in range(3):
            training.step()
        wait_for(device)
        pipe.send((0, 0.0, None))
        while True:
            duration = pipe.recv()
            start, steps = time.perf_counter(), 0
            while time.perf_counter() - start < duration:
                for _ in range(1 if device == "cpu" else AT_A_TIME):
                    training.step()
                    steps += 1
                wait_for(device)
            pipe.send((steps, time.perf_counter() - start, used(device)))
    except EOFError:
        pass
    except Exception as error:
        pipe.send(one_line(error))


def used(device: str) -> int | None:
    r"""Bytes of the device's memory that all processes together have taken."""
    if device == "cpu":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return total - free
