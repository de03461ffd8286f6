"""What benchmarks share: the clock, and the problem on which estimators are compared."""

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from hardmax.harness import memory
from hardmax.tasks.vae import perceptron


def one_thread() -> None:
    """One thread, freed memory kept, a seed."""
    torch.set_num_threads(1)
    memory.keep_freed_memory()
    torch.manual_seed(0)


def take_turns(*works: Callable[[], object], turns: int) -> list[tuple[float, ...]]:
    """Seconds of each in each turn, after a first one that does not count. Machines are noisy: compare within turns."""
    for work in works:
        work()
    return [tuple(seconds(work) for work in works) for _ in range(turns)]


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class DecoderProblem:
    """Logits [64, 20, 10], a decoder 200-200-784 with a Bernoulli likelihood, and images of noise."""

    def __init__(self):
        self.decoder = perceptron([200, 200, 784])
        self.image = torch.rand(64, 784).bernoulli()
        self.logits = torch.randn(64, 20, 10, requires_grad=True)

    def objective(self, z: Tensor) -> Tensor:
        pixels = self.decoder(z.flatten(-2))
        return binary_cross_entropy_with_logits(pixels, self.image.expand_as(pixels), reduction="none").sum(-1)

    def forget(self) -> None:
        """No gradients from before."""
        for p in (self.logits, *self.decoder.parameters()):
            p.grad = None

    def backward(self, cost: Tensor) -> None:
        self.forget()
        cost.mean().backward()

    def by_hand(self) -> None:
        """A step of Gumbel-softmax with everything spelled out."""
        noise = -torch.empty_like(self.logits).exponential_().log()
        pixels = self.decoder(((self.logits + noise) / 1.0).softmax(-1).flatten(-2))
        self.backward(binary_cross_entropy_with_logits(pixels, self.image, reduction="none").sum(-1))
