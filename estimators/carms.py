import torch
from torch import Tensor

from hardmax.checks import at_least, one_of

from . import sampling
from .base import Estimator, graft
from .disarm import first_stop, inverse
from .objectives import Objective

MOST_CATEGORIES = 32  # with inverse_cdf, whose ratios average over C (C - 1) / 2 orders


class CARMS(Estimator):
    r"""S mutually antithetic draws, every pair compared and weighted to the law of two independent draws.

    Leave-one-out REINFORCE with negatively dependent draws: for each variable the pair's weight is
    ``p(z) p(z') / P(z, z')``, with P the law of the pair. Needs only values of the objective. Two draws by
    stick-breaking are :class:`hardmax.estimators.DisARMIW`. With ``inverse_cdf`` a pair's weight can be as large as
    C (C - 1) / 2, and its cost grows with the square of C: prefer the sticks unless you compare the two.

    References:
        | CARMS: Categorical-Antithetic-REINFORCE Multi-Sample Gradient Estimator (Dimitriev and Zhou, 2021)
        | https://arxiv.org/abs/2110.14002
        | ARMS: Antithetic-REINFORCE-Multi-Sample Gradient for Binary Variables (Dimitriev and Zhou, 2021), which this
          is for two categories
        | https://arxiv.org/abs/2105.14141

    Arguments:
        samples: Number S of draws, at least 2.
        coupling: How uniforms become categories. ``sticks`` (sorted stick-breaking, a uniform a stick) or
            ``inverse_cdf`` (one uniform a variable; the draws share a random order of the categories).

    Raises:
        ValueError: At the call, for ``inverse_cdf`` with more than 32 categories.
    """

    target, unbiased, differentiates_objective = "expectation", True, False
    evaluations = "S"
    also_known_as = ("ARMS",)  # of two categories
    worth_trying = ({"samples": 2}, {"samples": 4})  # what more evaluations buy

    def __init__(self, samples: int = 4, coupling: str = "sticks"):
        super().__init__()
        self.samples = at_least(2, samples=samples)
        couplings: dict[str, type[Sticks] | type[InverseCDF]] = {"sticks": Sticks, "inverse_cdf": InverseCDF}
        self.coupling = couplings[one_of(couplings, coupling=coupling)](samples)

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        log_p = logits.detach().double().log_softmax(-1)
        z = self.draws(log_p)  # [S, *batch, K]
        cost = objective(sampling.one_hot(z, logits))  # [S, *batch]
        first, second = torch.triu_indices(self.samples, self.samples, 1, device=z.device)
        one, other = z[first], z[second]  # [pairs, *batch, K]
        ratio = self.coupling.ratio(log_p, one, other).masked_fill_(one == other, 0.0)
        difference = (cost[first] - cost[second]).detach()
        pairs = ratio * difference.unsqueeze(-1) / (self.samples * (self.samples - 1))  # [pairs, *batch, K]
        of_draw = torch.zeros_like(z, dtype=pairs.dtype).index_add_(0, first, pairs).index_add_(0, second, -pairs)
        gradient = torch.zeros_like(log_p).scatter_add_(-1, z.movedim(0, -1), of_draw.movedim(0, -1))
        return graft(cost.mean(0), logits, gradient)

    def draws(self, log_p: Tensor) -> Tensor:
        r"""Category indices, each with the probabilities of the softmax, ``[S, *batch, K]``."""
        return self.coupling.draws(log_p)


def copula(like: Tensor, samples: int) -> Tensor:
    r"""Uniforms of which few are small at a time, ``[S, *like.shape]``: ``(1 - d)^(S - 1)``, d flat Dirichlet."""
    return (1 - (-sampling.gumbel(like, samples)).softmax(0)) ** (samples - 1)


def both_below(a: Tensor, b: Tensor, samples: int) -> Tensor:
    r"""The probability that two of S such uniforms are below a and b."""
    power = 1 / (samples - 1)
    return (a**power + b**power - 1).clamp(min=0) ** (samples - 1)


class Sticks:
    r"""Sorted stick-breaking: each stick, from the least probable category on, has its own S uniforms."""

    def __init__(self, samples: int):
        self.samples = samples

    def sticks(self, log_p: Tensor) -> tuple[Tensor, Tensor]:
        r"""Categories in ascending order ``[*batch, K, C]``, and probabilities of stopping ``[*batch, K, C - 1]``."""
        ascending, order = log_p.sort(-1)
        p = ascending.exp_()  # a sum from the largest on is never far from all
        return order, (p / p.flip(-1).cumsum(-1).flip(-1))[..., :-1]

    def draws(self, log_p: Tensor) -> Tensor:
        order, s = self.sticks(log_p)
        rank = first_stop(copula(s, self.samples) < s)
        return order.expand(self.samples, *order.shape).gather(-1, rank.unsqueeze(-1)).squeeze(-1)

    def ratio(self, log_p: Tensor, first: Tensor, second: Tensor) -> Tensor:
        r"""``p(z) p(z') / P(z, z')`` of pairs of different categories, ``[pairs, *batch, K]`` each."""
        order, s = self.sticks(log_p)
        if not s.shape[-1]:
            return torch.zeros_like(first, dtype=s.dtype)
        rank = inverse(order).expand(*first.shape, order.shape[-1])
        shorter = torch.minimum(rank.gather(-1, first.unsqueeze(-1)), rank.gather(-1, second.unsqueeze(-1)))
        both = (2 * s ** (1 / (self.samples - 1)) - 1).clamp_(min=0) ** (self.samples - 1)
        passed = ((1 - s) ** 2 / (1 - 2 * s + both))[..., :-1]
        before = torch.nn.functional.pad(passed, (1, 0), value=1.0).cumprod(-1)
        weights = before * (1 - s) / (1 - both / s.clamp(min=torch.finfo(s.dtype).tiny))
        weights = weights.expand(*first.shape, weights.shape[-1])
        return weights.gather(-1, shorter.clamp_(max=weights.shape[-1] - 1)).squeeze(-1)


class InverseCDF:
    r"""One uniform a draw, inverted in an order of the categories that the draws of a variable share.

    In one order neighbouring pairs may be impossible. So the order is drawn from C (C - 1) / 2, one for each pair
    i < j, which has i first, j last and the others between them as they come.
    """

    name = "coupling=inverse_cdf"

    def __init__(self, samples: int):
        self.samples = samples

    def uniforms(self, like: Tensor) -> Tensor:
        r"""What is inverted, ``[S, *like.shape]``."""
        return copula(like, self.samples)

    def both_below(self, a: Tensor, b: Tensor) -> Tensor:
        r"""The probability that two of the uniforms are below a and b."""
        return both_below(a, b, self.samples)

    def draws(self, log_p: Tensor) -> Tensor:
        C = log_p.shape[-1]
        if C > MOST_CATEGORIES:
            raise ValueError(f"{self.name} takes at most {MOST_CATEGORIES} categories, got logits of {C}")
        ends = torch.triu_indices(C, C, 1, device=log_p.device)
        if C == 1:
            return torch.zeros(self.samples, *log_p.shape[:-1], dtype=torch.long, device=log_p.device)
        choice = sampling.categorical(log_p.new_zeros(*log_p.shape[:-1], ends.shape[-1]), 1)[0]
        first, last = ends[0][choice].unsqueeze(-1), ends[1][choice].unsqueeze(-1)  # [*batch, K, 1]
        category = torch.arange(C, device=log_p.device)
        place = torch.where(category == first, -1, torch.where(category == last, C, category))
        order = place.argsort(-1)  # [*batch, K, C]
        cdf = log_p.gather(-1, order).exp().cumsum(-1)
        total = cdf[..., -1] * (1 - 4 * torch.finfo(cdf.dtype).eps)  # stays below the last step
        threshold = self.uniforms(total) * total
        index = (cdf[..., :-1] <= threshold.unsqueeze(-1)).sum(-1, keepdim=True)
        return order.expand(self.samples, *order.shape).gather(-1, index).squeeze(-1)

    def ratio(self, log_p: Tensor, first: Tensor, second: Tensor) -> Tensor:
        r"""``p(z) p(z') / P(z, z')`` of pairs of different categories, ``[pairs, *batch, K]`` each."""
        p = log_p.exp()
        C = p.shape[-1]
        if C == 1:
            return torch.zeros_like(first, dtype=p.dtype)
        ends = torch.triu_indices(C, C, 1, device=p.device)
        below = p.cumsum(-1) - p

        def of(z: Tensor, x: Tensor) -> Tensor:
            return x.expand(*z.shape, C).gather(-1, z.unsqueeze(-1))

        def interval(z: Tensor, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
            """Where a category's part of the unit interval starts and ends, in the orders with i first and j last."""
            start, size, z = of(z, below), of(z, p), z.unsqueeze(-1)
            start = start + p[..., i] - torch.where(i < z, p[..., i], 0.0) - torch.where(j < z, p[..., j], 0.0)
            start = torch.where(z == i, 0.0, torch.where(z == j, 1 - p[..., j], start)).clamp(0, 1)
            return start, (start + size).clamp(max=1.0)

        law = torch.zeros((), dtype=p.dtype, device=p.device)
        for i, j in ends.split(C, -1):  # a few orders at a time, which bounds memory
            (start, end), (start_, end_) = interval(first, i, j), interval(second, i, j)
            below_both = self.both_below
            here = below_both(end, end_) + below_both(start, start_) - below_both(end, start_) - below_both(start, end_)
            law = law + here.sum(-1)
        law = law / ends.shape[-1]
        return torch.where(law > 0, (of(first, p) * of(second, p)).squeeze(-1) / law, 0.0)


class Strata(InverseCDF):
    r"""As :class:`InverseCDF`, of uniforms of which each of S equal parts of the unit interval has one."""

    name = "Stratified"

    def uniforms(self, like: Tensor) -> Tensor:
        part = sampling.uniform(like, self.samples).argsort(0)
        return (part + sampling.uniform(like, self.samples)) / self.samples

    def both_below(self, a: Tensor, b: Tensor) -> Tensor:
        S, low, high = self.samples, torch.minimum(a, b), torch.maximum(a, b)
        parts = (low * S).floor()  # that lie wholly below both
        last = (low - parts / S) * (high - parts / S).clamp(max=1 / S)
        return S / (S - 1) * (a * b - parts / S**2 - last)

    def ratio(self, log_p: Tensor, first: Tensor, second: Tensor) -> Tensor:
        C = log_p.shape[-1]  # the order with one of them first and the other last gives them at least p(z) p(z')
        return super().ratio(log_p, first, second).clamp(max=C * (C - 1) / 2)


class Stratified(CARMS):
    r"""Leave-one-out REINFORCE whose draws are stratified, corrected for what that makes them tell of each other.

    Quasi-Monte Carlo: of S equal parts of the unit interval each gives one uniform, for every variable apart, and its
    inverse one draw. Draws that are spread evenly are no longer independent, so that the mean of the others' costs
    is no baseline without bias: every pair is weighted to the law of two independent draws, as in :class:`CARMS`. The
    weight is at most C (C - 1) / 2; its cost grows with the square of C. Prefer :class:`CARMS` with its sticks where
    there are more than a few categories.

    References:
        | Quasi-Monte Carlo Variational Inference (Buchholz et al., 2018), for the draws
        | https://arxiv.org/abs/1807.01604
        | CARMS: Categorical-Antithetic-REINFORCE Multi-Sample Gradient Estimator (Dimitriev and Zhou, 2021)
        | https://arxiv.org/abs/2110.14002

    Arguments:
        samples: Number S of draws, at least 2.

    Raises:
        ValueError: At the call, for more than 32 categories.
    """

    worth_trying = ({"samples": 2}, {"samples": 4})  # what more evaluations buy

    def __init__(self, samples: int = 4):
        super().__init__(samples, "inverse_cdf")
        self.coupling = Strata(samples)
