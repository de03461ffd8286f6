import torch
from torch import Tensor

from . import sampling
from .base import Estimator, graft
from .objectives import Objective


class DisARM(Estimator):
    r"""What the three categorical forms of DisARM share: antithetic pairs of draws through binary decisions.

    A category is reached by binary decisions; a decision that both draws of a pair face is taken with the uniform
    noise u by one and 1 - u by the other. A subclass says which decisions (:meth:`pair`), and what the gradient is
    per unit of half the difference in cost (:meth:`direction`), a function of the drawn categories alone.
    """

    target, unbiased, differentiates_objective = "expectation", True, False
    evaluations = "2"

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        exact = logits.detach().double()
        z = self.pair(exact)
        cost = objective(sampling.one_hot(z, logits))  # [2, *batch]
        half = 0.5 * (cost[0] - cost[1]).detach()
        return graft(cost.mean(0), logits, half[..., None, None] * self.direction(exact, z))

    def pair(self, logits: Tensor) -> Tensor:
        r"""Category indices of an antithetic pair, each with the probabilities of the softmax, ``[2, *batch, K]``."""
        raise NotImplementedError

    def direction(self, logits: Tensor, z: Tensor) -> Tensor:
        r"""The gradient for half a unit of difference in cost, ``[*batch, K, C]``, given the pair of indices."""
        raise NotImplementedError


def sticks(logits: Tensor) -> Tensor:
    r"""Log-odds of stopping at each category but the last, rather than going on to a later one, ``[*batch, K, C - 1]``.

    NaN, which compares as False, where neither has any probability: no draw comes there.
    """
    return logits[..., :-1] - logits.flip(-1).logcumsumexp(-1).flip(-1)[..., 1:]


def first_stop(stops: Tensor) -> Tensor:
    r"""Index of the first True of ``[..., C - 1]``, and C - 1 where there is none."""
    return torch.nn.functional.pad(stops, (0, 1), value=True).to(torch.uint8).argmax(-1)


def inverse(order: Tensor) -> Tensor:
    r"""The rank of every category in an order of them, ``[..., C]``."""
    return torch.empty_like(order).scatter_(
        -1, order, torch.arange(order.shape[-1], device=order.device).expand_as(order)
    )


def antithetic_sticks(log_odds: Tensor) -> Tensor:
    r"""Pairs of categories ``[2, *batch, K]`` that stop at stick i where u, or 1 - u, is below its probability."""
    u = sampling.uniform(log_odds, 1)[0]
    return first_stop(torch.stack([u < log_odds.sigmoid(), u > (-log_odds).sigmoid()]))


def subtree_direction(logits: Tensor, z: Tensor, subtree: Tensor) -> Tensor:
    r"""The direction when a pair of draws parts ways at a binary decision between two subtrees of categories.

    That decision has the factor of the binary estimator, the larger of its probabilities; the decisions below it,
    which are made by one draw alone, have that of REINFORCE; the common decisions above it cancel. With q the
    softmax within a draw's subtree and s the probability of one subtree rather than the other this adds up to
    ``z - z' - min(s, 1 - s) (q - q')``, which is 0 for equal draws.

    Arguments:
        logits: ``[*batch, K, C]``.
        z: Indices of the pair, ``[2, *batch, K]``.
        subtree: Which categories are in each draw's subtree, ``[2, *batch, K, C]``; its own one for equal draws.
    """
    inside = logits.masked_fill(~subtree, -torch.inf)
    log_mass = inside.logsumexp(-1, keepdim=True)
    q = (inside - log_mass).exp()
    share = (log_mass[0] - log_mass[1]).abs_().neg_().sigmoid_()
    first, second = sampling.one_hot(z, logits)
    return first - second - share * (q[0] - q[1])


class DisARMIW(DisARM):
    r"""DisARM with importance weights: pairs from sorted, antithetic sticks, weighted to the law of independent pairs.

    Two evaluations. Needs only values of the objective. Where draws rarely differ, at confident logits, most
    gradients are exactly 0 and the rest are large.

    References:
        | Coupled Gradient Estimators for Discrete Latent Variables (Dong, Mnih and Tucker, 2021)
        | https://arxiv.org/abs/2106.08056
        | DisARM: An Antithetic Gradient Estimator for Binary Latent Variables (Dong, Mnih and Tucker, 2020)
        | https://arxiv.org/abs/2006.10680
    """

    def order(self, logits: Tensor) -> Tensor:
        r"""Categories from the least to the most probable, so that every pair of different ones can be drawn."""
        return logits.argsort(-1)

    def pair(self, logits: Tensor) -> Tensor:
        order = self.order(logits)
        rank = antithetic_sticks(self.odds(logits, order).log())
        return order.expand(2, *order.shape).gather(-1, rank.unsqueeze(-1)).squeeze(-1)

    def direction(self, logits: Tensor, z: Tensor) -> Tensor:
        order = self.order(logits)
        first, second = inverse(order).expand(2, *order.shape).gather(-1, z.unsqueeze(-1))  # ranks, [*batch, K, 1]
        odds = self.odds(logits, order)
        # (1 - s)^2 / (1 - 2 s) for every stick that both passed; that of the last one only equal draws pass.
        passed = 1 / (1 - odds[..., :-1].square())
        before = torch.nn.functional.pad(passed, (1, 0), value=1.0).cumprod(-1)
        weights = before * odds.clamp(min=1) / (1 + odds) if logits.shape[-1] > 1 else torch.ones_like(logits)
        weight = weights.gather(-1, torch.minimum(first, second).clamp_(max=weights.shape[-1] - 1))
        direction = torch.zeros_like(logits).scatter_add_(-1, z[0].unsqueeze(-1), weight)
        return direction.scatter_add_(-1, z[1].unsqueeze(-1), -weight)

    def odds(self, logits: Tensor, order: Tensor) -> Tensor:
        r"""Odds of stopping at each category but the last rather than later, by rank, ``[*batch, K, C - 1]``."""
        p = sampling.softmax(logits).gather(-1, order)
        return p[..., :-1] / p.flip(-1).cumsum(-1).flip(-1)[..., 1:]


class DisARMSB(DisARM):
    r"""DisARM through stick-breaking: the binary estimator on sticks that both draws reach, REINFORCE on the others.

    Two evaluations. Needs only values of the objective. Sticks stand in the order of the categories; beyond the shorter
    draw REINFORCE takes over.

    References:
        | Coupled Gradient Estimators for Discrete Latent Variables (Dong, Mnih and Tucker, 2021)
        | https://arxiv.org/abs/2106.08056
    """

    def pair(self, logits: Tensor) -> Tensor:
        return antithetic_sticks(sticks(logits))

    def direction(self, logits: Tensor, z: Tensor) -> Tensor:
        category = torch.arange(logits.shape[-1], device=z.device)
        stops = z <= z.flip(0)  # the shorter draw's side of the decision is its category, the other's is the rest
        own = category == z.unsqueeze(-1)
        return subtree_direction(logits, z, torch.where(stops.unsqueeze(-1), own, category > z.flip(0).unsqueeze(-1)))


class DisARMTree(DisARM):
    r"""DisARM through a balanced binary tree over the categories, whose leaves are reached by log2 C decisions.

    Two evaluations. Needs only values of the objective. The binary estimator applies where the draws part ways,
    REINFORCE below. Neighbouring categories share most decisions: an order in which they are alike helps.

    References:
        | Coupled Gradient Estimators for Discrete Latent Variables (Dong, Mnih and Tucker, 2021)
        | https://arxiv.org/abs/2106.08056
    """

    also_known_as = ("DisARM", "U2G")  # both of binary variables

    def pair(self, logits: Tensor) -> Tensor:
        depth = (logits.shape[-1] - 1).bit_length()
        mass = torch.nn.functional.pad(logits, (0, 2**depth - logits.shape[-1]), value=-torch.inf)
        log_odds = []  # of going right, from the nodes above the leaves up to the root
        for _ in range(depth):
            left, right = mass[..., 0::2], mass[..., 1::2]
            log_odds.append(right - left)  # NaN, which compares as False, at empty nodes: no draw comes there
            mass = torch.logaddexp(left, right)
        u = sampling.uniform(logits[..., 0], 2 * depth).unflatten(0, (depth, 2))  # [depth, 2, *batch, K]
        node = torch.zeros(2, *logits.shape[:-1], dtype=torch.long, device=logits.device)
        for at, noise in zip(reversed(log_odds), u, strict=True):
            at = at.expand(2, *at.shape).gather(-1, node.unsqueeze(-1)).squeeze(-1)
            other = torch.where(node[0] == node[1], noise[0] > (-at[1]).sigmoid(), noise[1] < at[1].sigmoid())
            node = 2 * node + torch.stack([noise[0] < at[0].sigmoid(), other])
        return node

    def direction(self, logits: Tensor, z: Tensor) -> Tensor:
        # Blocks of 2^h categories share a node h levels above the leaves: the subtrees are one level below the lowest.
        height = torch.frexp((z[0] ^ z[1]).float()).exponent.sub_(1).clamp_(min=0).long().unsqueeze(-1)
        category = torch.arange(logits.shape[-1], device=z.device)
        return subtree_direction(logits, z, (category >> height) == (z.unsqueeze(-1) >> height))
