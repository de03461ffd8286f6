r"""Every outcome of an estimator's discrete draws, in the place of random ones."""

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from hardmax.estimators import sampling

MOST_JOINT = 200_000  # outcomes
COPIES = 100  # of a call, in which noise of any kind shows

RunOfDraws = Callable[[int], list[Tensor]]  # of a number N of draws, each result [N, coordinates]


class Failed(AssertionError):
    r"""What is claimed does not hold; the message says what, and by how much."""


def require(holds: bool | Tensor, message: str) -> None:
    r"""Raises :class:`Failed` with the message unless it holds; unlike ``assert``, under ``python -O`` as well."""
    if not holds:
        raise Failed(message)


class ContinuousNoise(Exception):
    r"""The estimator uses noise that cannot be enumerated."""


class EnumeratedDraws:
    r"""Stands in for ``sampling.categorical`` and returns outcome n in position n of a leading dimension.

    That dimension is the one before the ``batch_dims`` last batch dimensions; whatever lies left of it is
    enumerated jointly. The first pass, with one outcome, only counts; the second returns all of them, and begins again
    where it is given more positions than there are.

    Arguments:
        batch_dims: Number of batch dimensions to the right of that of the outcomes.
        outcomes: Number N of outcomes.
    """

    def __init__(self, batch_dims: int, outcomes: int = 1):
        self.batch_dims, self.outcomes = batch_dims, outcomes
        self.stride = 1
        self.log_weight = torch.zeros(outcomes, dtype=torch.float64)

    def __call__(self, logits: Tensor, samples: int) -> Tensor:
        shape = (samples, *logits.shape[:-1])  # [S, *extra, N, *batch, K]
        axis = len(shape) - 2 - self.batch_dims
        require(
            axis >= 1 and shape[axis] == self.outcomes,
            f"draws are shared along a leading dimension: {list(shape)} are drawn where {self.outcomes} are to be "
            "independent",
        )
        C, others = logits.shape[-1], [n for i, n in enumerate(shape) if i != axis]
        digits, device = math.prod(others), logits.device
        if self.outcomes == 1:  # of which there may be more than can be counted in 64 bits
            index = torch.zeros(1, digits, dtype=torch.long, device=device)
        else:
            n = torch.arange(self.outcomes, device=device).unsqueeze(-1) // self.stride
            index = n // C ** torch.arange(digits, device=device) % C  # [N, digits]
        self.stride *= C**digits
        index = index.reshape(self.outcomes, *others).movedim(0, axis)
        log_p = logits.detach().double().log_softmax(-1).expand(*shape, C)
        of_drawn = log_p.gather(-1, index.unsqueeze(-1)).squeeze(-1)
        self.log_weight += of_drawn.movedim(axis, 0).reshape(self.outcomes, -1).sum(-1).cpu()
        return index


@contextlib.contextmanager
def patched(
    categorical: Callable | None = None, gumbel: Callable | None = None, uniform: Callable | None = None
) -> Iterator[None]:
    r"""Puts other functions in the place of the sampling module's own."""
    before = sampling.categorical, sampling.gumbel, sampling.uniform
    ours = categorical, gumbel, uniform
    sampling.categorical, sampling.gumbel, sampling.uniform = (f or b for f, b in zip(ours, before, strict=True))
    try:
        yield
    finally:
        sampling.categorical, sampling.gumbel, sampling.uniform = before


def forbid(logits: Tensor, samples: int) -> Tensor:
    r"""Raises ContinuousNoise."""
    raise ContinuousNoise


@contextlib.contextmanager
def no_other_noise() -> Iterator[None]:
    r"""Raises ContinuousNoise if PyTorch's random numbers are used within, other than through the sampling module."""
    before = torch.get_rng_state()
    yield
    if not torch.equal(before, torch.get_rng_state()):
        raise ContinuousNoise


def all_outcomes(run: RunOfDraws, batch_dims: int = 0) -> tuple[Tensor, list[Tensor]]:
    r"""The probability ``[N]`` of every outcome of ``run``'s draws, and the results ``[N, coordinates]`` of each.

    Raises:
        ContinuousNoise: If there is other randomness than draws of ``sampling.categorical``, or more than 200,000
            outcomes of these, which take too much memory.
        Failed: If the draws are not independent along the leading dimension.
    """
    count = number_of_outcomes(run, batch_dims)
    if count > MOST_JOINT:
        raise ContinuousNoise
    twice = []
    for _ in range(2):  # noise from generators of one's own, or of other libraries, differs in the second
        with patched(EnumeratedDraws(batch_dims, COPIES), forbid, forbid), no_other_noise():
            twice.append(run(COPIES))
    if not all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(*twice, strict=True)):
        raise ContinuousNoise
    return so_many_outcomes(run, batch_dims, count)


def number_of_outcomes(run: RunOfDraws, batch_dims: int = 0) -> int:
    r"""How many outcomes the draws of a run have; also lets learned parts take their sizes."""
    count = EnumeratedDraws(batch_dims)
    with patched(count, forbid, forbid):
        run(1)
    return count.stride


def so_many_outcomes(run: RunOfDraws, batch_dims: int, count: int) -> tuple[Tensor, list[Tensor]]:
    r"""What :func:`all_outcomes` gives, for a run that is known to have ``count`` of them and no other noise."""
    outcomes = EnumeratedDraws(batch_dims, count)
    with patched(outcomes, forbid, forbid):
        results = run(count)
    weight = outcomes.log_weight.exp()
    require(abs(weight.sum() - 1) < 1e-10, "the probabilities of the outcomes do not sum to 1")
    return weight, results


def enumerate_draws(run: RunOfDraws, batch_dims: int = 0) -> list[Tensor]:
    r"""The exact expectation ``[coordinates]`` of each result of ``run``; raises as :func:`all_outcomes` does."""
    weight, results = all_outcomes(run, batch_dims)
    return [(weight.unsqueeze(-1) * r).sum(0) for r in results]
