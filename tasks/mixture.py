import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hardmax.checks import all_at_least, at_least, one_of, positive

from .base import Figure, Problem, Task
from .vae import kl_from_uniform, negative_entropy, perceptron

AHEAD = 3.0  # of the other logits is, at the start, that of the component to which a point's cluster belongs
LOWEST = -8.0  # logit of the released code's posterior


class Mixture(Task):
    r"""Fits a mixture of normal distributions in the plane by the evidence lower bound, the likelihood being known.

    Points are drawn from C components of equal weight and unit variance, whose means are normal with standard deviation
    ``spread``. Learned are the means, and q(component | point), one categorical variable; relaxed z mix the means. The
    cost of a component is -log p(point | component) in nats; the divergence of q from equal weights is added in closed
    form, and an equal share for each point of -log p(means).

    Figures of the points that are fitted, there being no others, in nats per point, all exact: ``elbo``, the evidence
    lower bound without the means' share; ``nll``, the negative log-likelihood under the learned mixture; ``gap``,
    their distance, which is the divergence of q from the posterior. ``total`` is the loss of all points together.

    The released code weights its loss in another way, which ``weights=released`` takes over: the entropy of q and
    -log p(means) are *means* over their C and 2C terms, the latter for each point, constants of the normal density are
    left out, and logits of q are held above -8. With its random numbers (``drawn=454``), ``posterior=table``, its
    start and steps of gradient descent of rate 0.01 down the total, its losses are met.

    References:
        | Rao-Blackwellized Stochastic Gradients for Discrete Distributions (Liu et al., 2019)
        | https://arxiv.org/abs/1810.04777
        | experiments/GMM_experiments in https://github.com/Runjing-Liu120/RaoBlackwellizedSGD

    Arguments:
        components: Number C of components.
        points: Number of points.
        spread: Standard deviation of the components' means, above 0.
        posterior: ``network``: q is a function of the point; ``table``: each point has logits of its own.
        widths: Of the network's hidden layers.
        weights: ``elbo`` or ``released``.
        start: With ``posterior=table``, for each component that was drawn, the learned one that its points prefer at
            the start; which points are whose, k-means says from the means that were drawn. None: all are equal.
        drawn: Seed of the points and of the means at the start, apart from the run's own.
    """

    figures = {
        "elbo": Figure("ELBO", "nats", "higher"),
        "nll": Figure("negative log-likelihood", "nats", "lower"),
        "gap": Figure("divergence from the posterior", "nats", "lower"),
        "total": Figure("loss of all points", "nats", "lower"),
        "loss": Figure("loss", "nats"),
    }

    y: Tensor

    def __init__(
        self,
        components: int = 10,
        points: int = 200,
        spread: float = 8.0,
        posterior: str = "network",
        widths: Sequence[int] = (32,),
        weights: str = "elbo",
        start: Sequence[int] | None = None,
        drawn: int = 454,
    ):
        super().__init__()
        self.C, self.N = at_least(1, components=components), at_least(1, points=points)
        self.examples = self.N
        self.spread = positive(spread=spread)
        all_at_least(1, widths=widths)
        free = one_of(("network", "table"), posterior=posterior) == "table"
        self.released = one_of(("elbo", "released"), weights=weights) == "released"
        if start is not None and not free:
            raise ValueError(f"start is for posterior=table, got posterior={posterior}")
        if start is not None and sorted(all_at_least(0, start=start)) != list(range(self.C)):
            raise ValueError(f"start must have each of the components 0 to {self.C - 1} once, got {list(start)}")
        true, means, y = drawn_points(self.C, points, self.spread, at_least(0, drawn=drawn))
        self.register_buffer("y", y, persistent=False)
        self.means = nn.Parameter(means)
        self.encoder = perceptron([2, *widths, self.C]) if not free else None
        self.table = nn.Parameter(torch.zeros(points, self.C)) if free else None
        if start is not None:
            preferred = torch.tensor(start)[clusters(y, true)]
            self.table = nn.Parameter(AHEAD * nn.functional.one_hot(preferred, self.C).float())

    def batch(self, index: Tensor, generator: torch.Generator) -> Tensor:
        return index

    def measurement_batch(self, size: int) -> Tensor:
        return torch.arange(self.N, device=self.y.device)[:size]

    def logits(self, index: Tensor) -> Tensor:
        r"""Logits of q ``[B, 1, C]`` for the points of these indices ``[B]``."""
        if self.table is None:
            assert self.encoder is not None
            logits = self.encoder(self.y[index])
        else:
            logits = self.table[index]
        return (logits.clamp(min=LOWEST) if self.released else logits).unsqueeze(-2)

    def problem(self, batch: Tensor) -> Problem:
        logits, y = self.logits(batch), self.y[batch]
        return Problem(logits, lambda z: self.nats((z @ self.means).squeeze(-2), y), self.penalty(logits), y)

    def nats(self, means: Tensor, y: Tensor) -> Tensor:
        r"""-log p of points ``[..., 2]`` about means ``[..., 2]`` in nats, ``[...]``."""
        return 0.5 * (y - means).square().sum(-1) + (0.0 if self.released else math.log(2 * math.pi))

    def penalty(self, logits: Tensor) -> Tensor:
        r"""What is added for each point in closed form, ``[B]``, in nats, for q of logits ``[B, 1, C]``."""
        of_means = 0.5 * (self.means / self.spread).square() + math.log(self.spread)
        if self.released:
            return negative_entropy(logits) / self.C + of_means.mean()
        return kl_from_uniform(logits) + (of_means + 0.5 * math.log(2 * math.pi)).sum() / self.N

    def encoder_parameters(self) -> list[nn.Parameter]:
        return [p for name, p in self.named_parameters() if name != "means"]

    @torch.no_grad()
    def evaluate(self, split: str) -> dict[str, float]:
        index = self.measurement_batch(self.N)
        logits = self.logits(index)
        each = self.nats(self.means, self.y.unsqueeze(-2))  # [points, C]
        expected = (logits.squeeze(-2).softmax(-1) * each).sum(-1)
        constant = math.log(2 * math.pi) if self.released else 0.0
        elbo = -(expected + kl_from_uniform(logits)).mean() - constant
        nll = math.log(self.C) - (-each).logsumexp(-1).mean() + constant
        total = (expected + self.penalty(logits)).sum()
        return {"elbo": float(elbo), "nll": float(nll), "gap": float(-elbo - nll), "total": float(total)}


def drawn_points(components: int, points: int, spread: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""Means ``[C, 2]``, others to start at ``[C, 2]``, and points ``[N, 2]``, from the released code's random numbers.

    The code draws N C numbers in between that serve nothing here, then for each point its component by inversion, as
    PyTorch then did, and its noise.
    """
    random = torch.Generator().manual_seed(seed)
    true, means = (spread * torch.randn(components, 2, generator=random) for _ in range(2))
    torch.rand(points, components, generator=random)
    edges = torch.full((components,), 1 / components).double().cumsum(0)
    y = []
    for _ in range(points):
        threshold = torch.rand((), generator=random, dtype=torch.float64) * edges[-1]
        y.append(true[torch.searchsorted(edges, threshold)] + torch.randn(2, generator=random))
    return true, means, torch.stack(y)


def clusters(y: Tensor, centres: Tensor) -> Tensor:
    r"""Which of the centres ``[C, 2]`` each point ``[N, 2]`` ends at, ``[N]``, by k-means from there."""
    before = None
    while True:
        nearest = torch.cdist(y, centres).argmin(-1)
        if before is not None and torch.equal(nearest, before):
            return nearest
        own = nn.functional.one_hot(nearest, len(centres)).to(y.dtype)  # [N, C]
        count = own.sum(0).unsqueeze(-1)
        centres = torch.where(count > 0, own.T @ y / count.clamp(min=1), centres)
        before = nearest
