r"""Streams of random numbers beside that of training, each with a name in one list."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    r"""What a stream of random numbers is for; the numbers are part of its seed, and so of every result."""

    TRY = 0  # the forward pass before training
    MEASURE = 1  # gradient draws, the same stream for every estimator
    EVALUATE = 2  # figures on the validation split
    TEST = 3  # figures on the test split
    SHOW = 4  # examples of what the model does
    FIT = 5  # the forward passes of a reference and of rivals before training
    LEARN = 6  # training steps of rivals
    NOISES = 7  # gradient draws on several training batches
    TRUTH = 8  # the true gradient


@contextmanager
def forked_random(device: torch.device, *entropy: int) -> Iterator[None]:
    r"""Within it, draws come from a stream seeded by ``entropy``; afterwards the streams go on untouched."""
    (seed,) = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(int(seed))  # torch.manual_seed goes through the devices of all kinds
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(int(seed))
        yield
