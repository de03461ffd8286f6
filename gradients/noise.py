r"""Whose noise there is in training gradients: the estimator's, or that of minibatches."""

from collections.abc import Iterable

import torch
from torch import Tensor

from hardmax.estimators.base import Estimator
from hardmax.tasks.base import Task

from .draws import Draws, add_draws, evaluating
from .moments import BLOCKS, Moments, finite_or_none, jackknife


def noise_by_source(task: Task, estimator: Estimator, batches: Iterable[Tensor], draws: int) -> dict[str, float | None]:
    r"""Whose noise there is in the gradient of the training loss to the encoder, over N batches of it.

    Variances, as traces of covariances: ``estimator_noise`` on fixed data, averaged over the batches;
    ``minibatch_noise`` of the expected gradient, the variance of the batches' means less the estimator's noise in them;
    ``total_noise``, their sum: that of one draw on a batch of its own. The penalty counts, as other data have another;
    so does whatever else is random in a batch. ``batches`` is N, and ``draws_per_batch`` M.

    Arguments:
        task, estimator: As trained so far.
        batches: Of the task, at least 2.
        draws: Number M of gradient draws on each, at least 2.
    """
    of_means, within = Moments(), []
    with evaluating(task, estimator):
        for n, batch in enumerate(batches):
            moments = {"encoder": Moments()}
            making = Draws(task, estimator, task.problem(batch))
            add_draws(making, moments, draws)
            replicates = moments["encoder"].replicates()
            of_means.add(replicates.mean[:1] + penalty_gradient(making), n % BLOCKS)
            within.append(replicates.V[0])
    blocks = torch.zeros_like(of_means.squares)
    for n, V in enumerate(within):
        blocks[n % BLOCKS] += V
    means = of_means.replicates()
    estimators = of_means.all_and_without_each(blocks) / means.N
    found = {"estimator_noise": estimators, "minibatch_noise": means.V - estimators / draws}
    found["total_noise"] = found["estimator_noise"] + found["minibatch_noise"]
    result = {name: finite_or_none(x[0]) for name, x in found.items()}
    result |= {f"{name}_error": finite_or_none(jackknife(x).sqrt()) for name, x in found.items()}
    return result | {"batches": len(within), "draws_per_batch": draws}


def penalty_gradient(making: Draws) -> Tensor:
    r"""Gradient ``[P]`` of the mean penalty to the encoder, in double precision."""
    penalty = making.problem.penalty
    if not isinstance(penalty, Tensor) or not penalty.requires_grad:
        return torch.zeros((), dtype=torch.float64)
    found = torch.autograd.grad(penalty.mean(), making.parameters, retain_graph=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in found]).double()
