import torch
from torch import Tensor

from . import sampling
from .base import Estimator, copies_in_cache, graft
from .objectives import Objective


class LocalExpectation(Estimator):
    r"""One joint draw, and for each variable the exact gradient given what all the others drew.

    Needs only values of the objective, K (C - 1) more than the draw's own and without gradients; with one variable
    the gradient is exact. It removes what a variable's own draw contributes to the variance, not what the others'
    do: with many variables compare it with REINFORCE and as many leave-one-out samples.

    References:
        | Local Expectation Gradients for Black Box Variational Inference (Titsias and Lázaro-Gredilla, 2015)
        | https://arxiv.org/abs/1503.01494
        | Differentiable Sampling of Categorical Distributions Using the CatLog-Derivative Trick
          (De Smet et al., 2023), which finds the same estimator
        | https://arxiv.org/abs/2311.12569
        | GO Gradient for Expectation-Based Objectives (Cong et al., 2019), whose mean over each variable this is
        | https://arxiv.org/abs/1901.06020
    """

    target, unbiased, differentiates_objective = "expectation", True, False
    evaluations = "K * (C - 1) + 1"
    also_known_as = ("LEG", "IndeCateR", "CatLog-derivative", "GO gradient", "summed measure-valued derivative")

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        z = sampling.categorical(logits, 1)  # [1, *batch, K]
        cost = objective(sampling.one_hot(z, logits))[0]
        costs = self.costs_of_changes(logits, objective, z, cost.detach())
        costs = costs.masked_fill(logits == -torch.inf, 0.0)  # whatever it costs, it is never drawn
        p = sampling.softmax(logits.detach())
        return graft(cost, logits, p * (costs - (p * costs).sum(-1, keepdim=True)))

    @torch.no_grad()
    def costs_of_changes(self, logits: Tensor, objective: Objective, z: Tensor, cost: Tensor) -> Tensor:
        r"""The cost when variable k is category c and the others are as drawn, ``[*batch, K, C]``."""
        K, C = logits.shape[-2:]
        which = torch.arange(K, device=z.device).repeat_interleave(C - 1)  # the variable that changes, by turns
        change = torch.arange(1, C, device=z.device).repeat(K).reshape(-1, *[1] * cost.ndim, 1)
        at = (which.unsqueeze(-1) == torch.arange(K, device=z.device)).long().reshape(-1, *[1] * cost.ndim, K)
        costs = cost[..., None, None].expand(logits.shape).clone()
        if C > 1:
            copies = copies_in_cache(logits)
            changes = zip(at.split(copies), change.split(copies), strict=True)
            rows = [objective(sampling.one_hot((z + a * b) % C, logits)) for a, b in changes]
            category = (z[0].unsqueeze(-1) + torch.arange(1, C, device=z.device)) % C
            costs.scatter_(-1, category, torch.cat(rows).unflatten(0, (K, C - 1)).movedim((0, 1), (-2, -1)))
        return costs
