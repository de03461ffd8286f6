import itertools

import torch
from torch import Tensor, nn

from hardmax.checks import at_least, one_of

from . import sampling
from .base import Estimator, graft
from .objectives import Objective

MOST_MEMBERS = 8  # members: the weights go through all 2^S subsets


class UnorderedSet(Estimator):
    r"""Score function over a set of S different joint configurations, each weighted by how likely it came first.

    No configuration is evaluated twice, which pays where few carry most of the probability; with as many members
    as there are configurations, value and gradient are exact. The set is found by stochastic beam search, one step
    a variable: with many variables of spread out probabilities draws hardly ever repeat, and REINFORCE with
    ``leave_one_out`` has the same variance for less.

    References:
        | Estimating Gradients for Discrete Random Variables by Sampling without Replacement (Kool et al., 2020)
        | https://arxiv.org/abs/2002.06043
        | Stochastic Beams and Where to Find Them (Kool et al., 2019), the search
        | https://arxiv.org/abs/1903.06059

    Arguments:
        samples: Number S of members of the set, from 1 to 8; at least 2 with ``baseline``. Members that exceed the
            number of configurations have no weight.
        baseline: Whether to subtract from each cost what the set predicts for it, which stays unbiased.

    Raises:
        ValueError: For more than 8 samples, or one with the baseline.
    """

    target, unbiased, differentiates_objective = "expectation", True, False
    evaluations = "S"
    worth_trying = ({"samples": 2}, {"samples": 4})  # what more evaluations buy

    def __init__(self, samples: int = 4, baseline: bool = True):
        super().__init__()
        self.samples = at_least(1, samples=samples)
        if samples > MOST_MEMBERS:
            raise ValueError(
                f"samples must be at most {MOST_MEMBERS}, got {samples}: the weights go through 2^samples subsets"
            )
        self.baseline = one_of([True, False], baseline=baseline)
        if baseline and samples < 2:
            raise ValueError(f"samples must be at least 2 with baseline=true, got {samples}")
        self.set_weights = SetWeights(samples)

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        log_p = logits.detach().double().log_softmax(-1)
        z = self.members(log_p)  # [S, *batch, K]
        weight, mixing = self.set_weights(log_prob_of_members(log_p, z).movedim(0, -1))
        cost = objective(sampling.one_hot(z, logits))  # [S, *batch]
        weight = weight.movedim(-1, 0)
        advantage = cost.detach().double()
        if self.baseline:
            predicted = mixing @ advantage.movedim(0, -1).unsqueeze(-1)  # [*batch, S, 1]
            advantage = advantage - predicted.squeeze(-1).movedim(-1, 0)
        score = (weight * advantage).movedim(0, -1).unsqueeze(-2)  # [*batch, 1, S]
        gradient = -score.sum(-1, keepdim=True) * log_p.exp()
        gradient.scatter_add_(-1, z.movedim(0, -1), score.expand(*log_p.shape[:-1], -1))
        return graft((weight.to(cost.dtype) * cost).sum(0), logits, gradient)

    def members(self, log_p: Tensor) -> Tensor:
        r"""Category indices of the set, ``[S, *batch, K]``; what there are too few configurations for is repeated."""
        noise = sampling.gumbel(log_p, self.samples)
        return beam_search(log_p, self.samples, noise.movedim(0, -2))


def beam_search(log_p: Tensor, width: int, noise: Tensor | None = None) -> Tensor:
    r"""The configurations of :func:`beam` alone."""
    return beam(log_p, width, noise)[0]


@torch.no_grad()
def beam(log_p: Tensor, width: int, noise: Tensor | None = None, lowest: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
    r"""The joint configurations that have the largest probabilities, or the largest perturbed log-probabilities.

    With Gumbel noise the result is what comes from perturbing the log-probability of *every* configuration. A
    prefix carries the largest perturbed value among its configurations, from which those of its continuations are
    drawn given that this is their maximum: so nothing outside the beam can be among the largest.

    Arguments:
        log_p: Log-probabilities, ``[*batch, K, C]``.
        width: Number S of configurations.
        noise: Gumbel noise, ``[*batch, K, S, C]``; without it the most probable configurations are found.
        lowest: Minus the largest of all (perturbed) values, ``[*batch]``, which is independent of whose it is.

    Returns:
        Category indices, the largest first, ``[S, *batch, K]``. Where there are fewer configurations with any
        probability, the first is repeated. And minus their values, ``[*batch, S]``, infinite for repetitions.
    """
    *batch, K, C = log_p.shape
    low = log_p.new_full((*batch, width), torch.inf)  # values of the prefixes in the beam, negative
    low[..., 0] = lowest
    total, finite = torch.zeros_like(low), log_p.clamp(min=-1e30)  # log-probabilities of the prefixes
    lower = -log_p.unsqueeze(-2) if noise is None else below_maximum(log_p.unsqueeze(-2) + noise)  # [*batch, K, S, C]
    steps = []
    for k in range(K):
        if noise is None:
            lows = low.unsqueeze(-1) + lower[..., k, :, :]
        else:
            lows = torch.logaddexp(low.unsqueeze(-1), lower[..., k, :, :] - total.unsqueeze(-1))
            total = total.unsqueeze(-1) + finite[..., k, None, :]
        low, chosen = lows.flatten(-2).topk(width, largest=False)
        total = total if noise is None else total.flatten(-2).gather(-1, chosen)
        steps.append(chosen)
    beam = torch.where(low == torch.inf, 0, torch.arange(width, device=log_p.device))
    places = []
    for chosen in reversed(steps):
        places.append(chosen.gather(-1, beam))
        beam = places[-1] // C
    return torch.stack(places[::-1], -1).movedim(-2, 0) % C, low


def below_maximum(perturbed: Tensor) -> Tensor:
    r"""What takes independent perturbed log-probabilities ``[..., C]`` below a given maximum, as of Gumbel noise.

    The result w, infinite for what has no probability and minus infinity for the largest, is such that
    ``-logaddexp(-maximum, w)`` is distributed as they are, given their maximum.
    """
    return (perturbed - perturbed.amax(-1, keepdim=True)).expm1_().neg_().log_() - perturbed


def log_prob_of_members(log_p: Tensor, z: Tensor) -> Tensor:
    r"""Log-probabilities of configurations ``[S, *batch, K]``: ``[S, *batch]``, minus infinity for repetitions."""
    log_prob = log_p.expand(len(z), *log_p.shape).gather(-1, z.unsqueeze(-1)).sum((-2, -1))
    log_prob[1:].masked_fill_((z[1:] == z[:1]).all(-1), -torch.inf)
    return log_prob


def log1mexp(x: Tensor) -> Tensor:
    r"""log(1 - exp(x)) for x of at most 0; minus infinity at 0, and where rounding has led above it."""
    x = x.clamp(max=0.0)
    return torch.where(x > -0.6931, x.expm1().neg().log(), x.exp().neg().log1p())


class SetWeights(nn.Module):
    r"""What each member's cost counts in the value, and in the baseline of each other member.

    Let h(A) be the probability that the members outside A are drawn next, in any order, once those in A have been.
    It follows from the larger subsets: the next member is some b, so ``h(A)`` is the sum over b outside A of
    ``p(b) / (1 - p(A)) h(A + b)``, and h is 1 where nothing is left to draw. The weight ``p(s) R(S, s)`` of s in the
    value is ``p(s) h(s)`` over its sum. All this is done in log space; weights sum to 1 whatever the probabilities.

    Arguments:
        size: Number S of members.
    """

    bits: Tensor
    contains: Tensor

    def __init__(self, size: int):
        super().__init__()
        self.size = size
        bits = 2 ** torch.arange(size)
        self.keep("bits", bits)
        self.keep("contains", (torch.arange(2**size).unsqueeze(-1) & bits) > 0)  # [2^S, S]
        for members in range(size - 1, 0, -1):
            these = [sum(2**i for i in A) for A in itertools.combinations(range(size), members)]
            others = [[b for b in range(size) if not A >> b & 1] for A in these]
            larger = [[A + 2**b for b in rest] for A, rest in zip(these, others, strict=True)]
            for name, found in (("these", these), ("others", others), ("larger", larger)):
                self.keep(f"{name}_{members}", torch.tensor(found))

    def keep(self, name: str, index: Tensor) -> None:
        r"""Makes an index once, on the device, rather than in every step."""
        self.register_buffer(name, index, persistent=False)

    def forward(self, log_prob: Tensor) -> tuple[Tensor, Tensor]:
        r"""Weights ``[*batch, S]``, and the baseline's ``[*batch, S, S]``.

        The baseline's rows sum to 1: p(s) is at (s, s), and ``p(t) h(s, t) / h(s)`` at (s, t).

        Arguments:
            log_prob: Log-probabilities of S different configurations, ``[*batch, S]``; minus infinity for none.
        """
        inside = log_prob.unsqueeze(-2).masked_fill(~self.contains, -torch.inf).logsumexp(-1)  # log p(A), [*batch, 2^S]
        outside = inside.flip(-1)  # of the members that are not in A
        left = torch.maximum(log1mexp(inside), outside)  # log(1 - p(A)): never below what is certainly left
        log_h = torch.zeros_like(inside)
        for members in range(self.size - 1, 0, -1):
            these, others, larger = (self.get_buffer(f"{n}_{members}") for n in ("these", "others", "larger"))
            h = (log_prob[..., others] + log_h[..., larger]).logsumexp(-1) - left[..., these]
            log_h[..., these] = h.masked_fill(outside[..., these] == -torch.inf, 0.0)
        alone = log_h[..., self.bits]
        of_two = log_h[..., self.bits | self.bits.unsqueeze(-1)]  # h(s) itself at (s, s)
        return (log_prob + alone).softmax(-1), (log_prob.unsqueeze(-2) + of_two - alone.unsqueeze(-1)).exp()
