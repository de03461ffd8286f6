r"""Where all randomness of the estimators comes from.

Every draw of every estimator passes through this module, looked up at call time (``sampling.draw``, never a
name imported from here). A test can then put enumeration in the place of :func:`categorical`, or quadrature
nodes in the place of :func:`gumbel`, and compare expectations instead of averages.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def gumbel(logits: Tensor, samples: int) -> Tensor:
    r"""Independent standard Gumbel noise, always finite.

    Arguments:
        logits: What the noise is for, ``[*batch, K, C]``: gives shape, device and precision (at least float32).
        samples: Number S of draws.

    Returns:
        Noise, ``[S, *batch, K, C]``. Its negative is the logarithm of Exp(1) draws.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    shape = (samples, *logits.shape)
    # Of 53 random bits on every device, and several times faster than exponential_ on a processor.
    noise = torch.rand(shape, dtype=torch.float64, device=logits.device).neg_().log1p_().neg_().to(dtype)
    return noise.clamp_(min=torch.finfo(dtype).tiny).log_().neg_()


def uniform(logits: Tensor, samples: int) -> Tensor:
    r"""Independent uniform noise in the *open* interval (0, 1), in steps of 2^-24, and of 2^-53 for float64.

    A draw that compares it with a probability takes float64: what is rarer than a step comes too often, or never.

    Arguments:
        logits: What the noise is for: gives shape, device and precision (at least float32).
        samples: Number S of draws.

    Returns:
        Noise, ``[S, *logits.shape]``.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    noise = torch.rand((samples, *logits.shape), dtype=dtype, device=logits.device)
    return noise.clamp_(min=torch.finfo(dtype).tiny)


def normal(logits: Tensor, samples: int) -> Tensor:
    r"""Independent standard normal noise, always finite, by inversion of uniform noise.

    Arguments:
        logits: What the noise is for: gives shape, device and precision (at least float32).
        samples: Number S of draws.

    Returns:
        Noise, ``[S, *logits.shape]``.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return torch.special.ndtri(uniform(logits.double(), samples)).to(dtype)


@torch.no_grad()
def sum_of_gamma(logits: Tensor, samples: int, k: int, terms: int) -> Tensor:
    r"""Independent noise of which k add up to nearly a standard Gumbel one: a sum of gamma variables.

    Term i of a noise is a Gamma(1 / k) variable over i; the sum loses log(terms) / k. With k = 1 it is distributed as
    the largest of so many Exp(1) variables, less log(terms).

    Arguments:
        logits: What the noise is for: gives shape, device and precision (at least float32).
        samples: Number S of draws.
        k: How many noises together are nearly a Gumbel noise.
        terms: Number of gamma variables in a noise.

    Returns:
        Noise, ``[S, *logits.shape]``.
    """
    shape = torch.full((samples, *logits.shape), 1 / k, dtype=torch.float64, device=logits.device)
    gamma = torch.distributions.Gamma(shape, torch.ones_like(shape), validate_args=False)
    total = sum((gamma.sample() / i for i in range(1, terms + 1)), torch.full_like(shape, -math.log(terms) / k))
    return total.to(torch.promote_types(logits.dtype, torch.float32))


@torch.no_grad()
def categorical(logits: Tensor, samples: int) -> Tensor:
    r"""Indices drawn from ``softmax(logits)`` by inversion, one uniform a variable; probability 0 is never drawn.

    Arguments:
        logits: Unnormalised log-probabilities, ``[*batch, K, C]``.
        samples: Number S of draws.

    Returns:
        Category indices, ``[S, *batch, K]``.
    """
    p = softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)))
    cdf = p.cumsum(-1, dtype=torch.float64)  # in float32 the last category would lose 5e-7 of probability
    total = cdf[..., -1] * (1 - 4 * torch.finfo(cdf.dtype).eps)  # stays below the last step, however it is rounded
    threshold = uniform(total, samples) * total  # [S, *batch, K]
    return (cdf[..., :-1] <= threshold.unsqueeze(-1)).sum(-1)


@torch.no_grad()
def draw(logits: Tensor, samples: int) -> Tensor:
    r"""One-hot draws of K independent categorical variables.

    Arguments:
        logits: Unnormalised log-probabilities, ``[*batch, K, C]``.
        samples: Number S of draws.

    Returns:
        One-hot vectors in the precision of the logits, ``[S, *batch, K, C]``.
    """
    return one_hot(categorical(logits, samples), logits)


def one_hot(index: Tensor, like: Tensor) -> Tensor:
    r"""One-hot vectors ``[..., C]`` of the indices ``[...]``, with C, precision and device of ``like``."""
    shape = (*index.shape, like.shape[-1])
    return torch.zeros(shape, dtype=like.dtype, device=like.device).scatter_(-1, index.unsqueeze(-1), 1.0)


def softmax(logits: Tensor) -> Tensor:
    r"""``logits.softmax(-1)`` of ``[*batch, K, C]``; several times faster for few categories on a processor."""
    return over_categories(torch.softmax, logits)


def log_softmax(logits: Tensor) -> Tensor:
    r"""``logits.log_softmax(-1)`` of ``[*batch, K, C]``; several times faster for few categories on a processor."""
    return over_categories(torch.log_softmax, logits)


def over_categories(function: Callable, logits: Tensor) -> Tensor:
    r"""``function(logits, -1)``, along another dimension where that is faster.

    On a processor PyTorch uses vector instructions over a last dimension only from about 16 entries on, but always
    over another dimension.
    """
    if logits.device.type != "cpu" or logits.shape[-1] >= 16:
        return function(logits, -1)
    return function(logits.mT.contiguous(), -2).mT
