r"""Moments of gradient draws, and what follows from them: noise, bias and standard errors."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

DEAD_BELOW = 1e-12  # a component is dead if its magnitude is at most this share of the largest
BLOCKS = 10  # of draws, which standard errors come from
SQUARED_SAFELY = 1e-15, 1e15  # magnitudes whose squares, and many of them, are ordinary numbers in single precision


class Moments:
    r"""Moments of gradient draws that come a few at a time, for each of B examples, by blocks of draws.

    Only sums are kept, in double precision and relative to the first draw: equal draws have a variance of exactly 0,
    and large means cancel nothing. Squares are in double precision too where an example's largest component lies beyond
    :data:`SQUARED_SAFELY`, or any one that is not 0 if it is looked at alone.
    Standard errors are the jackknife's over blocks.

    Arguments:
        truth: What the draws are compared with: an exact gradient or a reference.
        coordinates: Whether to keep the second moment of every coordinate, as ``worst_z`` needs.
    """

    def __init__(self, truth: "TrueGradient | None" = None, coordinates: bool = False):
        self.truth, self.coordinates = truth, coordinates or truth is not None
        self.count = [0] * BLOCKS

    @property
    def draws(self) -> int:
        return sum(self.count)

    def add(self, g: Tensor, block: int) -> None:
        r"""Adds m gradient draws ``[m, B, D]``, which are overwritten, to a block."""
        m, B, D = g.shape
        if not self.draws:
            zeros = lambda *shape: torch.zeros(shape, dtype=torch.float64, device=g.device)
            self.first, self.largest = g[0].clone(), torch.zeros_like(g[0])
            self.squares, self.dead, self.cosines = (zeros(BLOCKS, B) for _ in range(3))
            self.sums = self.squares.new_empty((BLOCKS, B, D))  # of differences from the first draw
            if self.coordinates:
                self.squares_by_coordinate = zeros(B, D)
        magnitude = g.abs()
        self.largest = torch.maximum(self.largest, magnitude.amax(0))
        if not squared_safely(self.largest if self.coordinates else self.largest.amax(-1)):
            g = g.double()
        self.dead[block] += dead_share_(magnitude).sum(0)
        if self.truth is not None:
            norm = torch.linalg.vector_norm(g, dim=-1)
            cosine = (g * self.truth.direction.to(g.dtype)).sum(-1) / norm
            self.cosines[block] += cosine.masked_fill(norm == 0, 0.0).sum(0)
        g -= self.first
        self.squares[block] += torch.linalg.vector_norm(g, dim=-1).double().square().sum(0)
        if self.count[block]:
            self.sums[block] += g.sum(0)
        else:
            self.sums[block] = g.sum(0)
        if self.coordinates:
            self.squares_by_coordinate += g.square_().sum(0)
        self.count[block] += m

    def replicates(self) -> "JackknifeReplicates":
        r"""What all draws give, and what they give without each of the blocks."""
        count = torch.tensor(self.count, dtype=torch.float64, device=self.sums.device)
        N = self.all_and_without_each(count).unsqueeze(-1)
        sums = self.all_and_without_each(self.sums)
        spread = self.all_and_without_each(self.squares) - squared(sums) / N
        mean = torch.addcdiv(self.first.double(), sums, N.unsqueeze(-1), out=sums)
        square = squared(mean)
        V = spread / (N - 1).masked_fill(N < 2, torch.nan)
        rounding = 16 * torch.finfo(self.first.dtype).eps ** 2 * square
        return JackknifeReplicates(mean, square, V.masked_fill(rounding >= V, 0.0), N)

    def all_and_without_each(self, x: Tensor) -> Tensor:
        r"""The sum of x ``[BLOCKS, ...]`` over the blocks, and the sums without each block that has draws."""
        x = x[: sum(n > 0 for n in self.count)]  # the first blocks have draws
        result = x.new_empty((len(x) + 1, *x.shape[1:]))
        torch.sum(x, 0, out=result[0])
        torch.sub(result[0], x, out=result[1:])
        return result

    def total(self) -> Tensor:
        r"""Sum ``[B, D]`` of all draws' differences from the first."""
        return self.sums[: sum(n > 0 for n in self.count)].sum(0)

    def variance_of_mean(self) -> Tensor:
        r"""Estimated variance ``[B, D]`` of every coordinate of the mean."""
        spread = self.squares_by_coordinate - self.total().square() / self.draws
        return spread.clamp(min=0) / ((self.draws - 1) * self.draws)

    def statistics(self) -> dict[str, float | None]:
        r"""The statistics by name, averaged over the B examples; None where undefined for all of them.

        With M draws, their mean and the trace V of their unbiased covariance: ``norm`` of the mean, ``rms_norm`` of
        the draws, ``variance`` V, ``variance_mean`` V over the number of components, ``snr`` (squared norm of the mean
        less V / M, over V), ``dead``, the share of components that in no draw exceed 1e-12 of the largest, and
        ``dead_per_draw``. A spread below rounding counts as a V of 0.

        Beside a truth, which as a reference has the noise V_ref / M_ref: ``true_norm``, the root of its mean square
        over the examples; ``bias2``, the squared distance of the mean from it less V / M and V_ref / M_ref, so that it
        may be negative; ``relative_bias``, the signed root of the examples' mean ``bias2`` over the true norm, as in a
        mean of single examples' roots the noise would not cancel; ``mse`` of one draw; ``cosine``, mean over draws, a
        gradient of zero counting 0; ``cosine_mean``, of the mean; and ``worst_z``, the largest difference of a
        coordinate from the truth, over all examples, in standard errors. The true norm is debiased as well: what is
        divided by it is undefined where the noise of a reference hides it.

        ``<name>_error`` is a standard error: what the draws at hand, and a reference's (but for ``cosine``), leave
        open. That of ``relative_bias`` is by how much its magnitude grows when that of ``bias2`` grows by one. Some
        are on the safe side: that of ``bias2`` where a reference has few draws, that of a ``cosine_mean`` close to 1.
        """
        ours, truth = self.replicates(), self.truth
        found = ours.statistics() | {"dead_per_draw": self.all_and_without_each(self.dead) / ours.N}
        if truth is not None:
            found |= ours.beside(truth.first()) | {"cosine": self.all_and_without_each(self.cosines) / ours.N}
        squared_error = {name: jackknife(x) for name, x in found.items()}
        if truth is not None:
            twice = counted_twice(ours.mean)
            if truth.draws:
                squared_error |= {
                    name: squared_error[name] + jackknife(x) for name, x in ours.first().beside(truth).items()
                }
                twice = twice + counted_twice(truth.mean)
            least = torch.maximum(squared_error["bias2"], twice) / 2  # also of a mean that is on the truth by luck
            squared_error["bias2"] = torch.maximum(squared_error["bias2"] - twice, least)
            size = found["true_norm"][0].square()
            bias2, one_more = found["bias2"][0].mean(), squared_error["bias2"].sqrt()
            found["relative_bias"] = bias2.sign() * (bias2.abs() / size).sqrt().unsqueeze(0)
            squared_error["relative_bias"] = ((bias2.abs() + one_more).sqrt() - bias2.abs().sqrt()).square() / size
        result = {}
        for name, x in found.items():
            result[name] = finite_or_none(x[0].nanmean())
            result[f"{name}_error"] = None if result[name] is None else finite_or_none(squared_error[name].sqrt())
        result["dead"] = finite_or_none(dead_share_(self.largest.clone()).mean())
        if truth is not None:
            result["worst_z"] = finite_or_none(self.worst_z(truth))
        return result

    def worst_z(self, truth: "TrueGradient") -> Tensor:
        r"""Largest difference of a coordinate from the truth in standard errors; -inf if none has a standard error."""
        off = (self.first + self.total() / self.draws - truth.mean[0]).abs()
        noise = self.variance_of_mean() + truth.noise_by_coordinate
        known = noise > (torch.finfo(self.first.dtype).eps * self.largest.double()).square()
        return torch.where(known, off / noise.sqrt(), -torch.inf).max()


@dataclass
class JackknifeReplicates:
    r"""What draws give with all blocks, and without each of them: R replicates.

    Attributes:
        mean: Of the draws, ``[R, B, D]``.
        square: Its squared norm, ``[R, B]``.
        V: Trace of the unbiased covariance, ``[R, B]``.
        N: Number of draws, ``[R, 1]``.
    """

    mean: Tensor
    square: Tensor
    V: Tensor
    N: Tensor

    def first(self) -> "JackknifeReplicates":
        r"""The first replicate alone: all blocks."""
        return JackknifeReplicates(self.mean[:1], self.square[:1], self.V[:1], self.N[:1])

    def statistics(self) -> dict[str, Tensor]:
        r"""Statistics ``[R, B]`` of the draws alone."""
        return {
            "norm": self.square.sqrt(),
            "rms_norm": (self.square + self.V * (self.N - 1) / self.N).sqrt(),
            "variance": self.V,
            "variance_mean": self.V / self.mean.shape[-1],
            "snr": (self.square - self.V / self.N).clamp(min=0) / self.V.masked_fill(self.V == 0, torch.nan),
        }

    def beside(self, truth: "TrueGradient") -> dict[str, Tensor]:
        r"""Statistics ``[R, B]`` beside a truth; either it or these draws may have a single replicate."""
        off = squared(self.mean - truth.mean)
        along = (self.mean * truth.mean).sum(-1)
        cosine = torch.where(self.square == 0, 0.0, along / self.square.sqrt())
        return {
            "true_norm": root(truth.square.mean(-1, keepdim=True)).expand(len(off), 1),
            "bias2": off - self.V / self.N - truth.noise,
            "mse": off + self.V * (self.N - 1) / self.N - truth.noise,
            "cosine_mean": cosine / truth.norm.masked_fill(truth.norm == 0, torch.nan),
        }


class TrueGradient:
    r"""What is known of the true gradient: the exact one, or the mean of a reference's draws, with its replicates.

    Arguments:
        name: ``exact``, or the name of the unbiased estimator behind the reference.
        source: The gradient ``[B, D]``, or moments of the reference with ``coordinates``.

    Attributes:
        draws: Of the reference; 0 for an exact gradient.
        mean: ``[R, B, D]``.
        noise: Squared error that is to be expected of it, ``[R, B]``, and ``noise_by_coordinate`` ``[B, D]``.
        square, norm: Debiased squared norm ``[R, B]``, and its root; NaN where the noise hides it.
        direction: The mean over the norm, ``[B, D]``.
    """

    def __init__(self, name: str, source: Tensor | Moments):
        self.name, self.draws = name, 0
        if isinstance(source, Moments):
            found = source.replicates()
            self.draws, self.mean, self.noise = source.draws, found.mean, found.V / found.N
            self.noise_by_coordinate = source.variance_of_mean()
        else:
            self.mean = source.double().unsqueeze(0)
            self.noise, self.noise_by_coordinate = torch.zeros_like(self.mean[..., 0]), torch.zeros_like(self.mean[0])
        self.square = squared(self.mean) - self.noise
        self.norm = root(self.square)
        self.direction = self.mean[0] / self.norm[0].unsqueeze(-1)

    def first(self) -> "TrueGradient":
        r"""The first replicate alone: all of the reference's draws."""
        alone = copy.copy(self)
        for name in ("mean", "noise", "square", "norm"):
            setattr(alone, name, getattr(self, name)[:1])
        return alone


def jackknife(x: Tensor) -> Tensor:
    r"""The squared standard error of a mean over B examples, of ``x [1 + blocks, B]``: of all, and without each."""
    without = x[1:].nanmean(-1)
    G = len(without)
    return (without - without.mean()).square().sum() * (G - 1) / G if G > 1 else torch.full_like(x[0, 0], torch.nan)


def counted_twice(mean: Tensor) -> Tensor:
    r"""By how much the jackknife overstates the variance of ``bias2``, which is quadratic in the noise of the means.

    The products of two blocks' noise enter the jackknife twice. They are what is left of all products once each
    block's own contribution is taken out.

    Arguments:
        mean: Means with all blocks and without each of them, ``[1 + blocks, B, D]``.
    """
    G = len(mean) - 1
    if G < 4:
        return torch.zeros_like(mean[0, 0, 0])
    noise = ((G - 1) * (mean[:1] - mean[1:])).flatten(1)  # of each block's mean
    apart = 1 - torch.eye(G, dtype=mean.dtype, device=mean.device)
    product = noise @ noise.T / mean.shape[1] * apart
    average = product.sum() / (G * (G - 1))
    own = (G - 1) / (G - 2) * (product.sum(1) / (G - 1) - average)
    rest = (product - average - own - own.unsqueeze(1)) * apart
    return rest.square().sum() / (G * (G - 3)) * 2 / ((G - 1) * (G - 2))


def root(x: Tensor) -> Tensor:
    r"""Root; NaN below 0."""
    return x.masked_fill(x < 0, torch.nan).sqrt()


def squared(x: Tensor) -> Tensor:
    r"""Squared norm along the last dimension."""
    return torch.linalg.vector_norm(x, dim=-1).square()


def squared_safely(magnitude: Tensor) -> bool:
    r"""Whether nothing but zeros lies beyond :data:`SQUARED_SAFELY`."""
    smallest, largest = SQUARED_SAFELY
    low, high = magnitude.masked_fill(magnitude == 0, 1.0).amin(), magnitude.amax()
    return not ((low < smallest) | (high > largest))


def dead_share_(magnitude: Tensor) -> Tensor:
    r"""Share of components ``[..., D]`` that are at most 1e-12 of the largest, ``[...]``; overwrites them."""
    return magnitude.le_(DEAD_BELOW * magnitude.amax(-1, keepdim=True)).mean(-1)


def finite_or_none(x: Tensor) -> float | None:
    value = float(x)
    return value if np.isfinite(value) else None
