import torch
from torch import Tensor, nn

from hardmax.checks import at_least, one_of

from . import sampling
from .base import Estimator, graft
from .objectives import Objective
from .unordered_set import beam_search, log1mexp, log_prob_of_members

NEGLIGIBLE_REST = 1e-12  # probability of the rest below which it is left out: smaller ones are rounding errors


class SumAndSample(Estimator):
    r"""Sums over the S - 1 most probable joint configurations, and draws one of the rest.

    All terms are costs relative to a baseline, times the gradient of log q(z); the paper leaves its choice open. Needs
    only values of the objective. It pays where few configurations carry most of the probability; where none does, the
    sum is worth nothing and the variance is that of one draw.

    References:
        | Rao-Blackwellized Stochastic Gradients for Discrete Distributions (Liu et al., 2019)
        | https://arxiv.org/abs/1810.04777

    Arguments:
        samples: Number S of evaluated configurations, at least 2: S - 1 are summed over and one is drawn. Those that
            exceed the number of configurations have no weight.
        baseline: What is subtracted from every cost. ``summed`` (the mean over the S - 1 most probable ones, which
            takes no evaluation); ``sample`` (the cost of one more draw, another evaluation).
    """

    target, unbiased, differentiates_objective = "expectation", True, False
    evaluations = "S"
    worth_trying = ({"samples": 2}, {"samples": 4})  # what more evaluations buy

    def __init__(self, samples: int = 4, baseline: str = "summed"):
        super().__init__()
        self.samples = at_least(2, samples=samples)
        self.baseline = one_of(("summed", "sample"), baseline=baseline)
        self.evaluations = "S + 1" if baseline == "sample" else "S"

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        log_p = logits.detach().double().log_softmax(-1)
        top = beam_search(log_p, self.samples - 1)  # [S - 1, *batch, K]
        log_prob = log_prob_of_members(log_p, top)
        z = torch.cat([top, draw_from_rest(log_p, top)])
        cost = objective(sampling.one_hot(z, logits))  # [S, *batch]
        summed = log_prob.exp()
        rest = log1mexp(log_prob.logsumexp(0, keepdim=True)).exp()
        weight = torch.cat([summed, torch.where(rest > NEGLIGIBLE_REST, rest, 0.0)])
        advantage = cost.detach().double() - self.subtracted(cost.detach().double(), log_prob, logits, objective)
        score = (weight * advantage).movedim(0, -1).unsqueeze(-2)  # [*batch, 1, S]
        gradient = -score.sum(-1, keepdim=True) * log_p.exp()
        gradient.scatter_add_(-1, z.movedim(0, -1), score.expand(*log_p.shape[:-1], -1))
        return graft((weight.to(cost.dtype) * cost).sum(0), logits, gradient)

    @torch.no_grad()
    def subtracted(self, cost: Tensor, log_prob: Tensor, logits: Tensor, objective: Objective) -> Tensor:
        r"""The baseline for costs ``[S, *batch]``, broadcastable to them: the same whatever is drawn from the rest.

        Arguments:
            log_prob: Log-probabilities of the S - 1 most probable configurations, ``[S - 1, *batch]``.
        """
        if self.baseline == "sample":
            return objective(sampling.draw(logits, 1))
        return (log_prob.softmax(0) * cost[:-1]).sum(0)


@torch.no_grad()
def draw_from_rest(log_p: Tensor, top: Tensor) -> Tensor:
    r"""A draw from all configurations but those of ``top``, and from all where hardly any other is left.

    Such a draw agrees with some of ``top`` up to a variable, where it takes a category that none of those takes, and is
    free from there on. All such ways out are drawn from at once.

    Arguments:
        log_p: Log-probabilities, ``[*batch, K, C]``.
        top: Category indices, ``[T, *batch, K]``.

    Returns:
        Category indices, ``[1, *batch, K]``.
    """
    T, K, C = len(top), *log_p.shape[-2:]
    member = torch.arange(T, device=top.device).view(-1, *[1] * (top.ndim - 1))
    same = (top == top.unsqueeze(1)).to(torch.uint8).cumprod(-1)  # [T, T, *batch, K]
    agree = nn.functional.pad(same[..., :-1], (1, 0), value=1)  # in the variables before
    first = T - ((T - member).unsqueeze(1) * agree).amax(0)  # of those that agree, [T, *batch, K]
    of_top = log_p.expand(T, *log_p.shape).gather(-1, top.unsqueeze(-1)).squeeze(-1)  # [T, *batch, K]
    agreed = (of_top.cumsum(-1) - of_top).masked_fill_(first != member, -torch.inf)  # each way once
    out = (agreed.movedim(0, -1).unsqueeze(-1) + log_p.unsqueeze(-2)).flatten(-2)  # [*batch, K, T * C]
    out = out.scatter_(-1, (first * C + top).movedim(0, -1), -torch.inf)
    left = (out > -torch.inf).flatten(-2).any(-1, keepdim=True)
    at_first = torch.where(left, out[..., 0, :C], log_p[..., 0, :])  # where all agree
    ways = torch.cat([at_first, out[..., 1:, :].flatten(-2)], -1)
    way = sampling.categorical(ways.unsqueeze(-2), 1) + (T - 1) * C  # [1, *batch, 1]
    at, variable = way // (T * C), torch.arange(K, device=top.device)
    along = top.gather(0, (way // C % T).expand(1, *top.shape[1:]))
    free = nn.functional.pad(sampling.categorical(log_p[..., 1:, :], 1), (1, 0))
    return torch.where(variable < at, along, torch.where(variable == at, way % C, free))
