r"""Statistics of an estimator's gradients: what the noise of its own draws does to them."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from estimators.base import Estimator, copies_in_cache
from tasks.base import Problem, Task

NEGLIGIBLE = 1e-12  # a component is dead if its magnitude is at most this share of the largest


@contextmanager
def forked_random(device: torch.device, *entropy: int) -> Iterator[None]:
    r"""Within it, draws come from a stream seeded by ``entropy``; afterwards the streams go on untouched."""
    (seed,) = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(seed))
        yield


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    r"""Within it, no parameter of ``module`` asks for gradients."""
    learned = [p for p in module.parameters() if p.requires_grad]
    try:
        for p in learned:
            p.requires_grad_(False)
        yield
    finally:
        for p in learned:
            p.requires_grad_(True)


class Moments:
    r"""Mean, variance and dead components of vectors that come in parts, for each of B examples.

    The parts are merged pairwise (Chan et al., 1983), relative to the first vector: equal vectors have a
    variance of exactly 0, and large means cancel nothing.
    """

    def __init__(self):
        self.draws = 0

    def add(self, g: Tensor) -> None:
        r"""Adds m gradient draws ``[m, B, D]``."""
        if not self.draws:
            self.first = g[0].clone()
            self.mean, self.spread = torch.zeros_like(g[0]), torch.zeros_like(g[0, :, 0])
            self.largest, self.dead_per_draw = torch.zeros_like(g[0]), torch.zeros_like(g[0, :, 0])
        m, magnitude = len(g), g.abs()
        self.largest = torch.maximum(self.largest, magnitude.amax(0))
        self.dead_per_draw += dead_share(magnitude).sum(0)
        shifted = g - self.first
        mean = shifted.mean(0)
        delta, total = mean - self.mean, self.draws + m
        self.spread += (shifted - mean).square().sum((0, 2)) + delta.square().sum(-1) * self.draws * m / total
        self.mean += delta * m / total
        self.draws = total

    def statistics(self, truth: Tensor | None = None) -> dict[str, float | None]:
        r"""The statistics by name, averaged over the B examples; None where undefined for all of them.

        With M draws, their mean and the trace V of their unbiased covariance: ``norm`` of the mean,
        ``rms_norm`` of the draws, ``variance`` V, ``variance_mean`` V over the number of components, ``snr``
        (squared norm of the mean less V / M, over V), ``dead``, the share of components at most 1e-12 of the
        largest in all draws, and ``dead_per_draw``. A spread below rounding counts as a V of 0.

        Arguments:
            truth: Exact gradient ``[B, D]``; adds ``exact_norm``, ``bias2`` (debiased by V / M, so it may be
                negative), ``relative_bias``, ``mse`` and ``cosine_mean``.
        """
        M, mean = self.draws, self.first + self.mean
        square = mean.square().sum(-1)
        V = self.spread / (M - 1)
        V = V.masked_fill(square * torch.finfo(V.dtype).eps ** 2 * 16 >= V, 0.0)
        found = {
            "norm": square.sqrt(),
            "rms_norm": (square + V * (M - 1) / M).sqrt(),
            "variance": V,
            "variance_mean": V / mean.shape[-1],
            "snr": (square - V / M).clamp(min=0) / V.masked_fill(V == 0, torch.nan),
            "dead": dead_share(self.largest),
            "dead_per_draw": self.dead_per_draw / M,
        }
        if truth is not None:
            norm, off = truth.square().sum(-1).sqrt(), (mean - truth).square().sum(-1)
            bias2 = off - V / M
            known = norm.masked_fill(norm == 0, torch.nan)
            cosine = (mean * truth).sum(-1) / known
            found |= {
                "exact_norm": norm,
                "bias2": bias2,
                "relative_bias": bias2.sign() * bias2.abs().sqrt() / known,
                "mse": off + V * (M - 1) / M,
                "cosine_mean": torch.where(square == 0, 0.0, cosine / square.sqrt()),
            }
        return {name: defined(x.nanmean()) for name, x in found.items()}


def dead_share(magnitude: Tensor) -> Tensor:
    r"""Share of components ``[..., D]`` that are at most 1e-12 of the largest: ``[...]``."""
    return (magnitude <= NEGLIGIBLE * magnitude.amax(-1, keepdim=True)).to(magnitude.dtype).mean(-1)


def defined(x: Tensor) -> float | None:
    value = float(x)
    return value if np.isfinite(value) else None


def measure(task: Task, estimator: Estimator, batch: Tensor, draws: int) -> dict[str, float | None]:
    r"""Statistics of M independent gradient draws on one fixed batch.

    ``logits/...`` is about the gradient of each example's cost to its own logits, with statistics per example,
    averaged over the batch; ``encoder/...`` about the gradient of the batch mean to the parameters that
    produce the logits. A penalty added outside the estimator is left out: it has no noise. Of a task that is to be
    measured as a whole there is only ``encoder/...``, each draw being a backward pass through all there is.

    Nothing but the random stream is touched; call it under :func:`forked_random`. Memory is bounded: draws are
    made a few at a time and only their moments kept.

    Arguments:
        task, estimator: As trained so far.
        batch: Of the task, B examples.
        draws: Number M of draws, at least 2.
    """
    training = estimator.training
    estimator.eval()
    problem = task.problem(batch)
    logits, parameters = problem.logits, task.encoder_parameters()
    if task.whole:
        found = measure_whole(task, estimator, problem, parameters, draws)
        estimator.train(training)
        return found
    B = logits.shape[0]
    to_logits, to_encoder = Moments(), Moments()
    rows_at_once = 1  # on which the estimator evaluates the objective, for one copy of the logits

    def objective(z):
        nonlocal rows_at_once
        rows_at_once = max(rows_at_once, len(z))
        return problem.objective(z)

    while to_logits.draws < draws:
        m = max(1, copies_in_cache(logits) // rows_at_once) if to_logits.draws else 1
        m = min(m, draws - to_logits.draws)
        leaf = logits.detach().expand(m, *logits.shape).clone().requires_grad_()
        context = None if problem.context is None else problem.context.expand(m, *problem.context.shape)
        with frozen(task), frozen(estimator):
            cost = estimator(leaf, objective, context, problem.log_q)
        (g,) = torch.autograd.grad(cost.sum(), leaf)
        to_logits.add(g[..., problem.pinned :].reshape(m, B, -1))
        products = torch.autograd.grad(logits, parameters, g / B, is_grads_batched=True, retain_graph=True)
        to_encoder.add(torch.cat([p.flatten(1) for p in products], -1).unsqueeze(1))
    truth_logits, truth_encoder = exact_gradient(task, problem, parameters)
    estimator.train(training)
    return {f"logits/{k}": v for k, v in to_logits.statistics(truth_logits).items()} | {
        f"encoder/{k}": v for k, v in to_encoder.statistics(truth_encoder).items()
    }


def measure_whole(
    task: Task, estimator: Estimator, problem: Problem, parameters: list, draws: int
) -> dict[str, float | None]:
    r"""Statistics of M gradient draws of the batch mean to ``parameters``, through the objective as well."""

    def gradient(cost):
        found = torch.autograd.grad(cost.mean(), parameters, retain_graph=True, allow_unused=True)
        return torch.cat(
            [(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, found, strict=True)]
        )

    moments = Moments()
    for _ in range(draws):
        with frozen(estimator):
            cost = estimator(problem.logits, problem.objective, problem.context, problem.log_q)
        moments.add(gradient(cost)[None, None])
    exact = task.expected_cost(problem.logits)
    truth = None if exact is None else gradient(exact).unsqueeze(0)
    return {f"encoder/{k}": v for k, v in moments.statistics(truth).items()}


def exact_gradient(task: Task, problem: Problem, parameters: list) -> tuple[Tensor | None, Tensor | None]:
    r"""Gradients of the task's exact expected cost, ``[B, D]`` to logits and ``[1, P]`` to the encoder, if known."""
    leaf = problem.logits.detach().requires_grad_()
    if (cost := task.expected_cost(leaf)) is None:
        return None, None
    (g,) = torch.autograd.grad(cost.sum(), leaf)
    products = torch.autograd.grad(problem.logits, parameters, g / len(g), retain_graph=True)
    return g[..., problem.pinned :].flatten(1), torch.cat([p.flatten() for p in products]).unsqueeze(0)
