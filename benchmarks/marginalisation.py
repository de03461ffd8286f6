"""Time of a training step of the semi-supervised autoencoder: the class summed over against the class drawn."""

import statistics
import time

import torch

from hardmax.estimators import Exact, GumbelSoftmax, Reinforce
from hardmax.harness import memory
from hardmax.tasks.data import Images
from hardmax.tasks.semi_supervised import SemiSupervised

STEPS, TURNS, BATCH = 10, 5, 100


def main() -> None:
    torch.set_num_threads(1)
    memory.keep_freed_memory()
    noise = torch.rand(200, 784)  # images as large as those of MNIST
    classes = torch.arange(200) % 10
    data = Images(noise, noise, noise, labels=lambda: dict.fromkeys(("train", "valid", "test"), classes))
    print(f"{'classes':<10}{'summed, ms':>12}{'gumbel_softmax':>18}{'reinforce':>12}   of the time")
    for C in (10, 30, 100):
        torch.manual_seed(0)
        task = SemiSupervised(C, 10, data=data)
        optimizer = torch.optim.Adam(task.parameters(), fused=True)

        def seconds(estimator, task=task, optimizer=optimizer):
            start = time.perf_counter()
            for _ in range(STEPS):
                problem = task.problem(data.held_out("valid")[:BATCH])
                optimizer.zero_grad()
                (estimator(problem.logits, problem.objective, problem.context) + problem.penalty).mean().backward()
                optimizer.step()
            return (time.perf_counter() - start) / STEPS

        turns = [[seconds(e) for e in (Exact(), GumbelSoftmax(), Reinforce())] for _ in range(TURNS + 1)][1:]
        exact = statistics.median(t[0] for t in turns)
        drawn, scored = (statistics.median(t[i] / t[0] for t in turns) for i in (1, 2))
        print(f"{C:<10}{1000 * exact:>12.1f}{drawn:>18.2f}{scored:>12.2f}")


if __name__ == "__main__":
    main()
