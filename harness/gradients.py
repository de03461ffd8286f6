r"""Statistics of an estimator's gradients: their noise, their bias, and what they cost."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hardmax.estimators.base import Estimator, copies_in_cache
from hardmax.estimators.exact import Exact
from hardmax.tasks.base import Problem, Task

NEGLIGIBLE = 1e-12  # a component is dead if its magnitude is at most this share of the largest
BLOCKS = 10  # of draws, which standard errors come from
ENUMERATED = 4096  # joint configurations at most, for an exact gradient by enumeration
PATIENCE = 100  # times the number of draws asked for, at most, for the sake of a precision


@contextmanager
def forked_random(device: torch.device, *entropy: int) -> Iterator[None]:
    r"""Within it, draws come from a stream seeded by ``entropy``; afterwards the streams go on untouched."""
    (seed,) = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(seed))
        yield


@contextmanager
def frozen(module: nn.Module, but: Iterable[nn.Parameter] = ()) -> Iterator[None]:
    r"""Within it, no parameter of ``module``, except for those of ``but``, asks for gradients."""
    free = set(map(id, but))
    learned = [p for p in module.parameters() if p.requires_grad and id(p) not in free]
    try:
        for p in learned:
            p.requires_grad_(False)
        yield
    finally:
        for p in learned:
            p.requires_grad_(True)


class Moments:
    r"""Moments of gradient draws that come a few at a time, for each of B examples, by blocks of draws.

    Only sums are kept, in double precision and relative to the first draw: equal draws have a variance of exactly 0,
    and large means cancel nothing. Standard errors are the jackknife's over blocks.

    Arguments:
        truth: What the draws are compared with: an exact gradient or a reference.
        coordinates: Whether to keep the second moment of every coordinate, as ``worst_z`` needs.
    """

    def __init__(self, truth: "Known | None" = None, coordinates: bool = False):
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

    def replicates(self) -> "Replicates":
        r"""What all draws give, and what they give without each of the blocks."""
        N = self.without(torch.tensor(self.count, dtype=torch.float64, device=self.sums.device)).unsqueeze(-1)
        mean = self.without(self.sums)
        spread = self.without(self.squares) - squared(mean) / N
        torch.addcdiv(self.first.double(), mean, N.unsqueeze(-1), out=mean)
        square = squared(mean)
        V = spread / (N - 1).masked_fill(N < 2, torch.nan)
        rounding = 16 * torch.finfo(self.first.dtype).eps ** 2 * square
        return Replicates(mean, square, V.masked_fill(rounding >= V, 0.0), N)

    def without(self, x: Tensor) -> Tensor:
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
        less V / M, over V), ``dead``, the share of components at most 1e-12 of the largest in all draws, and
        ``dead_per_draw``. A spread below rounding counts as a V of 0.

        Beside a truth, which as a reference has the noise V_ref / M_ref: ``true_norm``, the root of its mean square
        over the examples; ``bias2``, the squared distance of the mean from it less V / M and V_ref / M_ref, so that it
        may be negative; ``relative_bias``, the signed root of bias2, averaged over the examples *before*, over the true
        norm: roots of single examples' noise would not average out; ``mse`` of one draw; ``cosine``, mean over draws, a
        gradient of zero counting 0; ``cosine_mean``, of the mean; and ``worst_z``, the largest difference of a
        coordinate from the truth, over all examples, in standard errors. The true norm is debiased as well: what is
        divided by it is undefined where the noise of a reference hides it.

        ``<name>_error`` is a standard error: what the draws at hand, and a reference's (but for ``cosine``), leave
        open. That of ``relative_bias`` is by how much its magnitude grows with one error more of ``bias2``. Some are on
        the safe side: that of ``bias2`` where a reference has few draws, that of a ``cosine_mean`` close to 1.
        """
        ours, truth = self.replicates(), self.truth
        found = ours.statistics() | {"dead_per_draw": self.without(self.dead) / ours.N}
        if truth is not None:
            found |= ours.beside(truth.first()) | {"cosine": self.without(self.cosines) / ours.N}
        error = {name: jackknife(x) for name, x in found.items()}
        if truth is not None:
            twice = counted_twice(ours.mean)
            if truth.draws:
                error |= {name: error[name] + jackknife(x) for name, x in ours.first().beside(truth).items()}
                twice = twice + counted_twice(truth.mean)
            error["bias2"] = torch.maximum(error["bias2"] - twice, error["bias2"] / 2)
            size = found["true_norm"][0].square()
            bias2, one_more = found["bias2"][0].mean(), error["bias2"].sqrt()
            found["relative_bias"] = bias2.sign() * (bias2.abs() / size).sqrt().unsqueeze(0)
            error["relative_bias"] = ((bias2.abs() + one_more).sqrt() - bias2.abs().sqrt()).square() / size
        result = {}
        for name, x in found.items():
            result[name] = defined(x[0].nanmean())
            result[f"{name}_error"] = None if result[name] is None else defined(error[name].sqrt())
        result["dead"] = defined(dead_share_(self.largest.clone()).mean())
        if self.truth is not None:
            result["worst_z"] = defined(self.worst_z())
        return result

    def worst_z(self) -> Tensor:
        r"""Largest difference of a coordinate from the truth in standard errors; -inf if none has a standard error."""
        off = (self.first + self.total() / self.draws - self.truth.mean[0]).abs()
        noise = self.variance_of_mean() + self.truth.noise_by_coordinate
        known = noise > (torch.finfo(self.first.dtype).eps * self.largest).square()
        return torch.where(known, off / noise.sqrt(), -torch.inf).max()


@dataclass
class Replicates:
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

    def first(self) -> "Replicates":
        r"""The first replicate alone: all blocks."""
        return Replicates(self.mean[:1], self.square[:1], self.V[:1], self.N[:1])

    def statistics(self) -> dict[str, Tensor]:
        r"""Statistics ``[R, B]`` of the draws alone."""
        return {
            "norm": self.square.sqrt(),
            "rms_norm": (self.square + self.V * (self.N - 1) / self.N).sqrt(),
            "variance": self.V,
            "variance_mean": self.V / self.mean.shape[-1],
            "snr": (self.square - self.V / self.N).clamp(min=0) / self.V.masked_fill(self.V == 0, torch.nan),
        }

    def beside(self, truth: "Known") -> dict[str, Tensor]:
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


class Known:
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

    def first(self) -> "Known":
        r"""The first replicate alone: all of the reference's draws."""
        alone = copy.copy(self)
        for name in ("mean", "noise", "square", "norm"):
            setattr(alone, name, getattr(self, name)[:1])
        return alone


def jackknife(x: Tensor) -> Tensor:
    r"""Variance of a figure from its value ``[B]`` with all blocks and without each of them, ``x [1 + blocks, B]``."""
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


def dead_share_(magnitude: Tensor) -> Tensor:
    r"""Share of components ``[..., D]`` that are at most 1e-12 of the largest, ``[...]``; overwrites them."""
    return magnitude.le_(NEGLIGIBLE * magnitude.amax(-1, keepdim=True)).mean(-1)


def defined(x: Tensor) -> float | None:
    value = float(x)
    return value if np.isfinite(value) else None


@dataclass
class Cost:
    r"""Rows on which an objective was evaluated, and on which it was differentiated with respect to z, per example.

    Attributes:
        copies: Of the examples, that an estimator saw at once.
    """

    examples: int
    rows: int = 0
    differentiated: int = 0
    at_once: int = 1

    def __call__(self, objective, copies: int = 1):
        r"""The objective, counted."""

        def counted(z):
            rows = z.shape[:-2].numel() // self.examples
            self.rows += rows
            self.at_once = max(self.at_once, rows // copies)
            if z.requires_grad:
                z = z.view_as(z)
                z.register_hook(lambda _: self.differentiate(rows))
            return objective(z)

        return counted

    def differentiate(self, rows: int) -> None:
        self.differentiated += rows


class Draws:
    r"""Independent gradient draws of an estimator on one batch, a few at a time, so that memory is bounded.

    The encoder's parameters usually reach the cost through the logits alone; then the gradients to the logits go back
    to them several at a time. Where the objective depends on them as well, every draw has a backward pass of its own.
    """

    def __init__(self, task: Task, estimator: Estimator, batch: Tensor):
        self.task, self.estimator, self.problem = task, estimator, task.problem(batch)
        self.parameters = task.encoder_parameters()
        self.examples = self.problem.logits.shape[:-2].numel()
        self.cost = Cost(self.examples)
        self.elsewhere = reached_by(self.problem, self.parameters)

    def at_most(self) -> int:
        r"""How many draws to make at a time."""
        return 1 if self.elsewhere else max(1, copies_in_cache(self.problem.logits) // self.cost.at_once)

    def make(self, m: int) -> tuple[Tensor, Tensor]:
        r"""m draws of the gradient to the logits, ``[m, B, D]``, and of the mean's to the encoder, ``[m, 1, P]``."""
        logits, context = self.problem.logits, self.problem.context
        leaf = logits.detach().expand(m, *logits.shape).clone().requires_grad_()
        context = None if context is None else context.detach().expand(m, *context.shape)
        with frozen(self.task, self.elsewhere), frozen(self.estimator):
            cost = self.estimator(leaf, self.cost(self.problem.objective, m), context, self.problem.log_q)
        g, *direct = torch.autograd.grad(cost.sum(), [leaf, *self.elsewhere], retain_graph=bool(self.elsewhere))
        per_mean = g / self.examples
        to_encoder = torch.autograd.grad(
            logits, self.parameters, per_mean, is_grads_batched=True, retain_graph=True, allow_unused=True
        )
        direct = dict(zip(map(id, self.elsewhere), direct, strict=True))
        parts = []
        for p, x in zip(self.parameters, to_encoder, strict=True):
            x = torch.zeros(m, *p.shape, dtype=p.dtype, device=p.device) if x is None else x
            parts.append((x + direct[id(p)] / self.examples if id(p) in direct else x).flatten(1))
        return g[..., self.problem.pinned :].reshape(m, self.examples, -1), torch.cat(parts, -1).unsqueeze(1)


def reached_by(problem: Problem, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
    r"""Those of the parameters that the objective itself depends on, other than through the logits."""
    with torch.random.fork_rng([problem.logits.device] if problem.logits.is_cuda else []), torch.enable_grad():
        z = torch.zeros_like(problem.logits).unsqueeze(0)
        z[..., 0] = 1
        cost = problem.objective(z.detach())
    if not cost.requires_grad:
        return []
    found = torch.autograd.grad(cost.sum(), parameters, allow_unused=True)
    return [p for p, g in zip(parameters, found, strict=True) if g is not None]


WHERE = ("logits", "encoder")


def places(task: Task) -> tuple[str, ...]:
    r"""Where gradients are measured: nowhere but at the parameters, where the objective makes choices of its own."""
    return ("encoder",) if task.whole else WHERE


Truth = dict[str, Known]  # by where


def fill(draws: Draws, moments: dict[str, Moments], M: int) -> None:
    r"""Adds M gradient draws to moments by where, evenly by block."""
    for block in range(BLOCKS):
        left = M // BLOCKS + (block < M % BLOCKS)
        while left:
            most = draws.at_most() if moments["encoder"].draws else 1
            m = math.ceil(left / math.ceil(left / most))
            made = dict(zip(WHERE, draws.make(m), strict=True))
            for where, each in moments.items():
                each.add(made[where], block)
            left -= m


def truth_of(task: Task, batch: Tensor, name: str = "", reference: Estimator | None = None, M: int = 0) -> Truth | None:
    r"""The exact gradients where the task knows them or its configurations can be enumerated, else a reference.

    Arguments:
        task, batch: What the gradients are of.
        name, reference: An unbiased estimator; without one, what cannot be exact is None.
        M: Number of its draws, at least 2.
    """
    problem, parameters = task.problem(batch), task.encoder_parameters()
    if task.whole and (cost := task.expected_cost(problem.logits)) is not None:
        found = torch.autograd.grad(cost.mean(), parameters, allow_unused=True, materialize_grads=True)
        return {"encoder": Known("exact", torch.cat([x.flatten() for x in found]).unsqueeze(0))}
    leaf = problem.logits.detach().requires_grad_()
    cost = None if task.whole else task.expected_cost(leaf)
    K, C = leaf.shape[-2:]
    if cost is None and K * math.log(C) <= math.log(ENUMERATED) and not reached_by(problem, parameters):
        with frozen(task):
            cost = Exact(ENUMERATED)(leaf, in_parts(problem.objective, copies_in_cache(leaf)), log_q=problem.log_q)
    if cost is not None:
        (g,) = torch.autograd.grad(cost.sum(), leaf)
        B = leaf.shape[:-2].numel()
        to_encoder = torch.autograd.grad(problem.logits, parameters, g / B, retain_graph=True)
        exact = g[..., problem.pinned :].reshape(B, -1), torch.cat([x.flatten() for x in to_encoder]).unsqueeze(0)
        return {where: Known("exact", x) for where, x in zip(WHERE, exact, strict=True)}
    if reference is None:
        return None
    moments = {where: Moments(coordinates=True) for where in places(task)}
    with evaluating(reference):
        fill(Draws(task, reference, batch), moments, M)
    return {where: Known(name, x) for where, x in moments.items()}


def in_parts(objective: Callable[[Tensor], Tensor], rows: int) -> Callable[[Tensor], Tensor]:
    r"""The objective without gradients, evaluated on so many rows at a time."""

    def evaluated(z):
        with torch.no_grad():
            return torch.cat([objective(part) for part in z.split(rows)])

    return evaluated


@contextmanager
def evaluating(estimator: Estimator) -> Iterator[None]:
    r"""Within it, the estimator updates nothing."""
    training = estimator.training
    try:
        estimator.eval()
        yield
    finally:
        estimator.train(training)


def measure(
    task: Task,
    estimator: Estimator,
    batch: Tensor,
    draws: int,
    truth: Truth | None = None,
    precision: float | None = None,
) -> dict[str, float | None]:
    r"""Statistics of M independent gradient draws on one fixed batch: the noise and bias of the estimator alone.

    ``logits/...`` is about the gradient of each example's cost to its own logits, with statistics per example,
    averaged over the batch; ``encoder/...`` about the gradient of the batch mean to the parameters that
    produce the logits: see :meth:`Moments.statistics`. A penalty added outside the estimator is left out: it has no
    noise. ``draws`` is M; ``truth/<name>`` the number of draws behind the truth, 0 for ``exact``; ``evaluations`` and
    ``objective_gradients`` count rows on which the objective was evaluated and differentiated with respect to z, per
    draw and example; ``work_variance`` is the variance times the former. There is no truth for a bound's gradient.

    Nothing but the random stream is touched; call it under :func:`forked_random`. Memory is bounded: draws are
    made a few at a time and only their moments kept.

    Arguments:
        task, estimator: As trained so far.
        batch: Of the task, B examples.
        draws: Number M of draws, at least 2.
        truth: From :func:`truth_of`; None: the exact one, where it is known.
        precision: Go on, up to 100 M draws, until the standard errors of both variances are at most this share of
            them.
    """
    if estimator.target == "bound":
        truth = None
    elif truth is None:
        truth = truth_of(task, batch)
    moments = {where: Moments(None if truth is None else truth[where]) for where in places(task)}
    with evaluating(estimator):
        making = Draws(task, estimator, batch)
        more = draws
        while more:
            fill(making, moments, more)
            found = {f"{where}/{k}": v for where, x in moments.items() for k, v in x.statistics().items()}
            made = moments["encoder"].draws
            more = 0 if precision is None or precise(found, precision) else min(made, PATIENCE * draws - made)
    rows, differentiated = (n / made for n in (making.cost.rows, making.cost.differentiated))
    for where in moments:
        for end in ("", "_error"):
            variance = found[f"{where}/variance{end}"]
            found[f"{where}/work_variance{end}"] = None if variance is None else variance * rows
    known = {} if truth is None else {f"truth/{truth['encoder'].name}": truth["encoder"].draws}
    return found | {"draws": made, **known, "evaluations": rows, "objective_gradients": differentiated}


def precise(found: dict[str, float | None], precision: float) -> bool:
    r"""Whether the standard errors of both variances are at most this share of them."""
    pairs = [(found[f"{at}/variance_error"], found[f"{at}/variance"]) for at in WHERE if f"{at}/variance" in found]
    return all(error is not None and error <= precision * variance for error, variance in pairs)


def noises(task: Task, estimator: Estimator, batches: Iterable[Tensor], draws: int) -> dict[str, float | None]:
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
    with evaluating(estimator):
        for n, batch in enumerate(batches):
            moments = {"encoder": Moments()}
            making = Draws(task, estimator, batch)
            fill(making, moments, draws)
            found = moments["encoder"].replicates()
            of_means.add(found.mean[:1] + penalty_gradient(making), n % BLOCKS)
            within.append(found.V[0])
    blocks = torch.zeros_like(of_means.squares)
    for n, V in enumerate(within):
        blocks[n % BLOCKS] += V
    means = of_means.replicates()
    estimators = of_means.without(blocks) / means.N
    found = {"estimator_noise": estimators, "minibatch_noise": means.V - estimators / draws}
    found["total_noise"] = found["estimator_noise"] + found["minibatch_noise"]
    result = {name: defined(x[0]) for name, x in found.items()}
    result |= {f"{name}_error": defined(jackknife(x).sqrt()) for name, x in found.items()}
    return result | {"batches": len(within), "draws_per_batch": draws}


def penalty_gradient(making: Draws) -> Tensor:
    r"""Gradient ``[P]`` of the mean penalty to the encoder, in double precision."""
    penalty = making.problem.penalty
    if not isinstance(penalty, Tensor) or not penalty.requires_grad:
        return torch.zeros((), dtype=torch.float64)
    found = torch.autograd.grad(penalty.mean(), making.parameters, retain_graph=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in found]).double()


class RunningVariance:
    r"""Variance of successive training gradients from running moments, as papers plot it.

    With weights that fall by ``decay`` per step and add up to 1: the running mean of the squares less the square of
    the running mean, summed over components. It mixes the noise of the estimator with that of minibatches and with
    the drift of the parameters. Nothing is read from the device, and nothing cancels.

    References:
        | REBAR: Low-variance, unbiased gradient estimates for discrete latent variable models (Tucker et al., 2017)
        | https://arxiv.org/abs/1703.07370

    Arguments:
        parameters: Whose gradients.
        decay: Of the weights, from 0 up to but not including 1.
    """

    def __init__(self, parameters: list[nn.Parameter], decay: float):
        self.parameters, self.decay, self.steps = parameters, decay, 0
        self.mean, self.spread = ([torch.zeros_like(p) for p in parameters] for _ in range(2))

    @torch.no_grad()
    def update(self) -> None:
        r"""Takes in the gradients that the parameters have now."""
        self.steps += 1
        share = (1 - self.decay) / (1 - self.decay**self.steps)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        change = torch._foreach_sub(gradients, self.mean)
        torch._foreach_add_(self.mean, change, alpha=share)
        torch._foreach_mul_(self.spread, 1 - share)
        torch._foreach_addcmul_(self.spread, change, change, value=share * (1 - share))

    def statistics(self) -> dict[str, float | None]:
        r"""``running_variance``, and ``running_variance_mean`` over components; None before the second step."""
        if self.steps < 2:
            return {"running_variance": None, "running_variance_mean": None}
        total = float(sum(x.sum(dtype=torch.float64) for x in self.spread))
        components = sum(x.numel() for x in self.spread)
        return {"running_variance": total, "running_variance_mean": total / components}

    def state_dict(self) -> dict:
        return {"mean": self.mean, "spread": self.spread, "steps": self.steps}

    def load_state_dict(self, state: dict) -> None:
        self.steps = state["steps"]
        for name in ("mean", "spread"):
            for own, saved in zip(getattr(self, name), state[name], strict=True):
                own.copy_(saved)
