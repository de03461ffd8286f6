r"""What the device takes: milliseconds a step, seconds of gradient draws, peak memory."""

import gc
import statistics
import time
from collections.abc import Callable

import torch

from hardmax.gradients import measure

from .models import BY_HAND, FEW, LEAVE_ONE_OUT, ByHand, Training, names, seconds, training, wait_for
from .parts import OutOfTime, Part

TURNS, STEPS = 5, 10
DRAWS = 10_000
OF_DRAWS = ["gumbel_softmax", "straight_through", "st_gumbel_softmax", "reinmax", "reinforce", LEAVE_ONE_OUT, "arsm"]
SLOW = ["arsm", "arsm_plus", "local_expectation"]  # at many categories: they come last
SHAPES = {"20 × 10": (20, 10, 100), "200 × 256": (200, 256, 100)}
SMALL_SHAPES = {"3 × 4": (3, 4, 5), "4 × 8": (4, 8, 5)}


def steps(part: Part) -> None:
    r"""Milliseconds of an eager training step of every estimator, in turns with Gumbel-softmax by hand."""
    turns, times = (2, 1) if part.device == "cpu" else (TURNS, STEPS)
    by_hand = ByHand(part.device, **part.sizes)
    seconds(by_hand.step, times, part.device)

    def work(name: str) -> dict:
        ours = Training(name, part.device, **part.sizes)
        seconds(ours.step, 3 if times > 1 else 1, part.device)
        first = seconds(ours.step, 1, part.device)
        often = times if first < 0.2 else 1
        both = [
            (seconds(ours.step, often, part.device), seconds(by_hand.step, times, part.device)) for _ in range(turns)
        ]
        ours, hand = (1e3 * statistics.median(column) for column in zip(*both, strict=True))
        ratio = statistics.median(a / often / (b / times) for a, b in both)
        return {"ms": ours / often, "by_hand_ms": hand / times, "ratio": ratio}

    part.each(work, [*names(part.small), *([] if part.small else [LEAVE_ONE_OUT])], most=10.0)


def gradient_draws(part: Part) -> None:
    r"""Seconds of 10,000 gradient draws, logits' and encoder's with standard errors, and in training steps."""
    count = 20 if part.small else DRAWS if part.device != "cpu" else DRAWS // 100

    def work(name: str) -> dict:
        ours = Training(name, part.device, **part.sizes)
        times = 2 if part.device == "cpu" else STEPS
        seconds(ours.step, times, part.device)
        step = seconds(ours.step, times, part.device) / times
        problem = ours.task.problem(ours.images())
        measure(ours.task, ours.estimator, problem, 20)
        taken = seconds(lambda: measure(ours.task, ours.estimator, problem, count), 1, part.device)
        return {"draws": count, "seconds": taken, "steps": taken / step}

    part.each(work, FEW[:2] if part.small else OF_DRAWS)


def memory(part: Part) -> None:
    r"""Peak memory of a model and a training step of every estimator, and of Gumbel-softmax by hand, at two shapes."""
    shapes = SMALL_SHAPES if part.small else SHAPES if part.device != "cpu" else dict([*SHAPES.items()][:1])
    ordered = [BY_HAND, *sorted(names(part.small), key=SLOW.count)]

    def work(line: str) -> dict:
        name, shape = line.split(" @ ")
        K, C, batch = shapes[shape]

        def train() -> None:
            training(name, part.device, K=K, C=C, batch=batch).step()

        return peak(train, part.device)

    part.each(work, [f"{name} @ {shape}" for shape in shapes for name in ordered], most=8.0)


def peak(work: Callable[[], object], device: str) -> dict:
    r"""Bytes at most that the work takes, and seconds, even if it is stopped; on a processor nobody counts bytes."""
    found: dict = {"peak": None}
    if device != "cpu":
        torch.cuda.init()  # which only the first allocation does otherwise
        if torch.cuda.memory_allocated(device):
            gc.collect()  # of the line before
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    try:
        work()
        wait_for(device)
    except OutOfTime as error:
        found["stopped"] = str(error)
    if device != "cpu":
        found["peak"] = torch.cuda.max_memory_allocated(device)
    return found | {"seconds": time.perf_counter() - start}
