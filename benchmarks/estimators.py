"""Milliseconds per step of every estimator, and as a ratio to a Gumbel-softmax step written by hand.

The problem: logits [64, 20, 10], a decoder 200-200-784 with a Bernoulli likelihood, forward and backward with the
decoder's gradients, one thread. Each estimator takes turns with the hand-written step, in one process; the
median of the pairwise ratios is quoted, since machines are noisy. ``floor`` is the ratio of the estimator's
evaluations of the objective alone, the one with gradients and those without, at draws made beforehand: what no
implementation can do without. Run it as ``python -m benchmarks.estimators``.

``exact`` and ``sparse_expectation`` are left out, as they would sum over far too many configurations. What keeps others
above 1.5 times their floor:

* ``sum_and_sample``, ``unordered_set`` and ``reinforce_without_replacement`` search for configurations variable by
  variable: 20 steps, each of a few small operations that take microseconds however little there is to do; the weights
  of the second go through 2^S subsets.
* ``carms`` and ``disarm_iw`` sort the categories of every variable, and pass some forty times over arrays of the size
  of the logits in double precision.
* ``relax``, like ``rebar``, trains its temperature through a second derivative of the objective, which the floor does
  not have: in evaluation mode it is below 1.5.
* ``mve`` factorises a C x C matrix for every variable: factors and solutions alone take 0.4 of the floor.
* ``gumbel_rao``, ``reinmax_rao`` and ``reinmax_cv`` draw ``noises`` times C uniform numbers for every variable, and
  take two logarithms and an exponential of each; the random numbers of 100 noises alone take longer than 1.5 floors.
* ``rodeo`` evaluates and trains its network at all S K C neighbours of the draws.
"""

import statistics

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from benchmarks.shared import DecoderProblem, one_thread, take_turns
from hardmax.estimators import sampling
from hardmax.paths import CONFIGS

FOLDER = CONFIGS / "estimator"
TURNS = 30


def main() -> None:
    one_thread()
    problem = DecoderProblem()
    logits, objective, backward = problem.logits, problem.objective, problem.backward

    cases = {path.stem: OmegaConf.load(path) for path in sorted(FOLDER.glob("*.yaml"))}
    cases["reinforce, 4 leave-one-out"] = OmegaConf.merge(
        cases["reinforce"], {"samples": 4, "baseline": "leave_one_out"}
    )
    del cases["exact"], cases["sparse_expectation"]  # 10 ** 20 configurations
    cases["gumbel_rao, 100"] = OmegaConf.merge(cases["gumbel_rao"], {"noises": 100})
    print(f"{'estimator':<28}{'ms':>8}{'by hand':>10}{'ratio':>8}{'floor':>8}")
    for name, config in cases.items():
        estimator = instantiate(config)
        chunks: list[tuple[bool, bool, int]] = []

        def step(objective=objective, estimator=estimator):
            backward(estimator(logits, objective))
            estimator.advance()

        def noting(z, chunks=chunks):
            chunks.append((torch.is_grad_enabled(), z.requires_grad, len(z)))
            return objective(z)

        step(noting)
        draws = [(gradients, sampling.draw(logits, n).requires_grad_(through)) for gradients, through, n in chunks]

        def evaluations(draws=draws):
            for gradients, z in draws:
                with torch.set_grad_enabled(gradients):
                    cost = objective(z)
                if gradients:
                    backward(cost)

        times = take_turns(step, problem.by_hand, evaluations, turns=TURNS)
        ours, hand, _ = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
        ratio, floor = (statistics.median(t[i] / t[1] for t in times) for i in (0, 2))
        print(f"{name:<28}{ours:>8.2f}{hand:>10.2f}{ratio:>8.2f}{floor:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
