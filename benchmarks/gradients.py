"""The cost of 100 gradient draws in training steps of the same model, beside a loop of backward passes.

The model: a discrete VAE 784-200-200-(20x10)-200-200-784, batches of 100, one thread. A training step is a batch
forward, backward and Adam. The loop makes one forward and backward pass of the whole model for each draw, which is what
one would write by hand to get gradients of every parameter; hardmax makes the statistics that runs log, with their
standard errors. In each of several processes all take a turn, and medians of the ratios within it are quoted: one
process differs from the next by a tenth, though turns within one agree. The last line is by how much measuring
raises the peak of the memory that training takes. Run it as ``python -m benchmarks.gradients``.
"""

import multiprocessing
import resource
import statistics
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import torch

from benchmarks.shared import one_thread, take_turns
from hardmax.estimators import ARSM, Estimator, GumbelSoftmax, Reinforce
from hardmax.gradients import measure
from hardmax.tasks.data import Images
from hardmax.tasks.dvae import DiscreteVAE

DRAWS, STEPS, PROCESSES = 100, 20, 5


def peak() -> float:
    """The most memory that this process has had so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one_process(_: int) -> tuple[list[float], dict[str, tuple[float, float, float]]]:
    """Peaks of memory before and after measuring, and of each case a step's seconds and both ratios."""
    one_thread()
    torch.manual_seed(0)
    noise = torch.rand(100, 784)  # images as large as those of MNIST
    task = DiscreteVAE(encoder_widths=[200, 200], decoder_widths=[200, 200], data=Images(noise, noise, noise))
    batch = task.measurement_batch(100)
    optimizer = torch.optim.Adam(task.parameters(), lr=1e-4, fused=True)

    def backward(estimator: Estimator):
        problem = task.problem(batch)
        optimizer.zero_grad()
        (estimator(problem.logits, problem.objective) + problem.penalty).mean().backward()

    def train(estimator: Estimator):
        for _ in range(STEPS):
            backward(estimator)
            optimizer.step()

    def loop(estimator: Estimator):
        for _ in range(DRAWS):
            backward(estimator)
            torch.cat([p.grad.flatten() for p in task.parameters() if p.grad is not None])

    cases = {
        "gumbel_softmax": GumbelSoftmax(),
        "reinforce, 4 leave-one-out": Reinforce(samples=4, baseline="leave_one_out"),
        "arsm": ARSM(),
    }
    for estimator in cases.values():
        train(estimator)
    peaks = [peak()]
    for estimator in cases.values():
        measure(task, estimator, task.problem(batch), DRAWS)
    peaks.append(peak())
    found = {}
    for name, estimator in cases.items():
        works = (train, loop, lambda estimator: measure(task, estimator, task.problem(batch), DRAWS))
        ((step, by_loop, ours),) = take_turns(*(partial(work, estimator) for work in works), turns=1)
        found[name] = step / STEPS, by_loop / step * STEPS, ours / step * STEPS
    return peaks, found


def main() -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        peaks, found = zip(*pool.map(one_process, range(PROCESSES)), strict=True)
    print(f"{'100 draws, in training steps':<30}{'step, ms':>10}{'loop':>8}{'hardmax':>10}")
    for name in found[0]:
        rows = [of_process[name] for of_process in found]
        step, by_loop, ours = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{name:<30}{1e3 * step:>10.2f}{by_loop:>8.1f}{ours:>10.1f}")
    before, after = (statistics.median(column) for column in zip(*peaks, strict=True))
    print(f"peak memory: {after - before:.0f} MB above the {before:.0f} MB of training")


if __name__ == "__main__":
    main()
