import torch
from torch import Tensor

from hardmax.checks import at_least

from . import sampling
from .base import Estimator, graft
from .objectives import Objective
from .unordered_set import beam_search, log1mexp, log_prob_of_members

NEGLIGIBLE_REST = 1e-12  # probability of the rest below which it is left out: smaller ones are rounding errors


class SumAndSample(Estimator):
    r"""Sums over the S - 1 most probable joint configurations, and draws one of the rest.

    All terms are costs relative to the mean over the most probable ones, times the gradient of log q(z); that baseline
    is not the paper's, which leaves the choice open. Needs only values of the objective. It pays where few
    configurations carry most of the probability; where none does, the sum is worth nothing and the variance is that
    of one draw.

    References:
        | Rao-Blackwellized Stochastic Gradients for Discrete Distributions (Liu et al., 2019)
        | https://arxiv.org/abs/1810.04777

    Arguments:
        samples: Number S of evaluated configurations, at least 2: S - 1 are summed over and one is drawn. Those that
            exceed the number of configurations have no weight.
    """

    target, unbiased, differentiates_objective = "expectation", True, False
    evaluations = "S"
    worth_trying = ({"samples": 2}, {"samples": 4})  # what more evaluations buy

    def __init__(self, samples: int = 4):
        super().__init__()
        self.samples = at_least(2, samples=samples)

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        log_p = logits.detach().double().log_softmax(-1)
        top = beam_search(log_p, self.samples - 1)  # [S - 1, *batch, K]
        log_prob = log_prob_of_members(log_p, top)
        one_hot = sampling.one_hot(torch.cat([top, draw_from_rest(log_p, top)]), logits)
        cost = objective(one_hot)  # [S, *batch]
        summed = log_prob.exp()
        rest = log1mexp(log_prob.logsumexp(0, keepdim=True)).exp()
        weight = torch.cat([summed, torch.where(rest > NEGLIGIBLE_REST, rest, 0.0)])
        values = cost.detach().double()
        baseline = (log_prob.softmax(0) * values[:-1]).sum(0)  # the same whatever is drawn from the rest
        score = (weight * (values - baseline))[..., None, None]
        gradient = (score * one_hot).sum(0) - score.sum(0) * log_p.exp()
        return graft((weight.to(cost.dtype) * cost).sum(0), logits, gradient)


@torch.no_grad()
def draw_from_rest(log_p: Tensor, top: Tensor) -> Tensor:
    r"""A draw from all configurations but those of ``top``, and from all where hardly any other is left.

    One variable after another: a category's probability is what it leaves outside ``top``, given the ones before.

    Arguments:
        log_p: Log-probabilities, ``[*batch, K, C]``.
        top: Category indices, ``[T, *batch, K]``.

    Returns:
        Category indices, ``[1, *batch, K]``.
    """
    of_top = log_p.expand(len(top), *log_p.shape).gather(-1, top.unsqueeze(-1)).squeeze(-1)  # [T, *batch, K]
    later = (of_top.flip(-1).cumsum(-1).flip(-1) - of_top).exp()  # probability of the later variables
    agrees = torch.ones_like(later[..., 0])  # whether the draw is that of the configuration so far
    drawn = []
    for k in range(log_p.shape[-2]):
        of_category, here = log_p[..., k, :], top[..., k]
        taken = (agrees * later[..., k]).movedim(0, -1)  # of a category's probability, by each configuration
        taken = torch.zeros_like(of_category).scatter_add_(-1, here.movedim(0, -1), taken)
        left = of_category + (1 - taken).clamp(min=0).log()
        left = torch.where((left > -torch.inf).any(-1, keepdim=True), left, of_category)
        drawn.append(sampling.categorical(left.unsqueeze(-2), 1))  # [1, *batch, 1]
        agrees = agrees * (here == drawn[-1].squeeze(-1))
    return torch.cat(drawn, -1)
