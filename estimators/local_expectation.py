import torch
from torch import Tensor

from hardmax.checks import at_least

from . import sampling
from .base import Estimator, copies_in_cache, graft
from .objectives import Objective


class LocalExpectation(Estimator):
    r"""One joint draw, and for each variable the exact gradient given what all the others drew.

    Needs only values of the objective, K (C - 1) more than the draw's own and without gradients; with one variable
    the gradient is exact. It removes what a variable's own draw contributes to the variance, not what the others'
    do: with many variables compare it with REINFORCE and as many leave-one-out samples.

    References:
        | Local Expectation Gradients for Doubly Stochastic Variational Inference (Titsias, 2015)
        | https://arxiv.org/abs/1503.01494
        | Differentiable Sampling of Categorical Distributions Using the CatLog-Derivative Trick
          (De Smet et al., 2023), which finds the same estimator
        | https://arxiv.org/abs/2311.12569
        | GO Gradient for Expectation-Based Objectives (Cong et al., 2019), whose mean over each variable this is
        | https://arxiv.org/abs/1901.06020
    """

    target, unbiased, differentiates_objective = "expectation", True, False
    evaluations = "K * (C - 1) + 1"
    also_known_as: tuple[str, ...] = (
        "LEG", "IndeCateR", "CatLog-derivative", "GO gradient", "summed measure-valued derivative"
    )  # fmt: skip

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        z = sampling.categorical(logits, 1)  # [1, *batch, K]
        cost = objective(sampling.one_hot(z, logits))[0]
        which = self.changed(logits)  # [*batch, V]
        own = which.unsqueeze(-1).expand(*which.shape, logits.shape[-1])
        costs = self.costs_of_changes(logits, objective, z, cost.detach(), which) - cost.detach()[..., None, None]
        costs = costs.masked_fill(logits.gather(-2, own) == -torch.inf, 0.0)  # whatever it costs, it is never drawn
        wide = logits.detach().to(torch.promote_types(logits.dtype, torch.float32))  # else p does not add up to 1
        p = sampling.softmax(wide).gather(-2, own)
        gradient = p * (costs - (p * costs).sum(-1, keepdim=True)) * (logits.shape[-2] / which.shape[-1])
        return graft(cost, logits, torch.zeros_like(logits, dtype=gradient.dtype).scatter_(-2, own, gradient))

    def changed(self, logits: Tensor) -> Tensor:
        r"""The V variables whose gradients are taken, ``[*batch, V]``."""
        return torch.arange(logits.shape[-2], device=logits.device).expand(logits.shape[:-1])

    @torch.no_grad()
    def costs_of_changes(self, logits: Tensor, objective: Objective, z: Tensor, cost: Tensor, which: Tensor) -> Tensor:
        r"""The cost when a variable of ``which`` is category c and the others are as drawn, ``[*batch, V, C]``."""
        K, C = logits.shape[-2:]
        V = which.shape[-1]
        costs = cost[..., None, None].expand(*which.shape, C).clone()
        if C > 1:
            turns = torch.arange(V, device=z.device).repeat_interleave(C - 1)  # the variable that changes, by turns
            change = torch.arange(1, C, device=z.device).repeat(V).reshape(-1, *[1] * cost.ndim, 1)
            variable, others = torch.arange(K, device=z.device), cost.new_empty(len(turns), *cost.shape)
            parts = others.split(copies_in_cache(logits))  # filled as they come: small ones would scatter large memory
            for part, turn, by in zip(parts, *(x.split(len(parts[0])) for x in (turns, change)), strict=True):
                at = which.movedim(-1, 0)[turn].unsqueeze(-1) == variable  # [n, *batch, K]
                moved = (z + at * by) % C  # [n, *batch, K]
                log_p = logits.expand(*moved.shape, C).gather(-1, moved.unsqueeze(-1)).squeeze(-1)
                moved = torch.where(log_p == -torch.inf, z, moved)  # whose cost has no weight, and may not be asked for
                part.copy_(objective(sampling.one_hot(moved, logits)))
            category = (z[0].gather(-1, which).unsqueeze(-1) + torch.arange(1, C, device=z.device)) % C
            costs.scatter_(-1, category, others.unflatten(0, (V, C - 1)).movedim((0, 1), (-2, -1)))
        return costs


class RandomLocalExpectation(LocalExpectation):
    r"""Local expectation of V of the K variables, chosen at random, times K / V; that of the others is 0 in a draw.

    As many evaluations as categories, for one variable at a time, where :class:`LocalExpectation` takes them for each.
    The choice adds variance of its own, K / V - 1 times the sum of the squares of all variables' gradients: where all
    variables matter as much, REINFORCE with as many leave-one-out samples moves all of them at once.

    References:
        | Local Expectation Gradients for Doubly Stochastic Variational Inference (Titsias, 2015)
        | https://arxiv.org/abs/1503.01494
        | Gradient Estimation for Binary Latent Variables via Gradient Variance Clipping (Kunes et al., 2022), whose
          bitflip-1 is this for two categories and one variable
        | https://arxiv.org/abs/2208.06124

    Arguments:
        variables: Number of variables whose gradients are taken in a draw, at least 1; all if there are no more.
    """

    evaluations = "C"
    also_known_as = ("bitflip-1",)  # of two categories
    worth_trying = ({"variables": 1}, {"variables": 4})  # what more evaluations buy

    def __init__(self, variables: int = 1):
        super().__init__()
        self.variables = at_least(1, variables=variables)
        self.evaluations = "C" if variables == 1 else f"min(K, {variables}) * (C - 1) + 1"

    def changed(self, logits: Tensor) -> Tensor:
        K = logits.shape[-2]
        if self.variables >= K:
            return super().changed(logits)
        left = torch.zeros(*logits.shape[:-2], 1, K, dtype=torch.float64, device=logits.device)
        drawn = []
        for _ in range(self.variables):  # without replacement
            drawn.append(sampling.categorical(left, 1)[0])
            left = left.scatter(-1, drawn[-1].unsqueeze(-1), -torch.inf)
        return torch.cat(drawn, -1)
