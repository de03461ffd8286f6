import torch
from torch import Tensor, nn

from hardmax.checks import at_least

from . import sampling
from .base import Estimator, graft
from .double_cv import others, with_slope
from .learning import trained_on
from .objectives import Objective


class Rodeo(Estimator):
    r"""Leave-one-out REINFORCE with control variates from a discrete Stein operator.

    The Gibbs operator :math:`(A h)(z) = \frac1K \sum_i [\sum_c p_{ic} h(z_{-i}, c) - h(z)]` has expectation 0 for
    any function h. Here :math:`h_k` is a network of two numbers, the mean cost of the draws other than k and their
    linearisation at z: its neighbour values are cheap, and no further evaluation of the objective is needed. One
    output of the network corrects the costs in the baseline, the other the gradient. The published form is for
    binary variables; this one is for categories, and width and activation of its network are not those of the paper.
    With more than two draws the authors' code prefers the mean of the network's outputs at the other draws to its
    output at their mean, which is taken here: as unbiased, and with two draws the same.
    Uses the objective's derivative at the draws, if it has one, and needs time to train the network: for short runs
    take leave-one-out REINFORCE.

    References:
        | Gradient Estimation with Discrete Stein Operators (Shi et al., 2022)
        | https://arxiv.org/abs/2202.09497

    Arguments:
        samples: Number S of draws, at least 2.
        width: Hidden units of the network, at least 1.
    """

    target, unbiased, differentiates_objective = "expectation", True, True
    evaluations, learns = "S", "two coefficients and a network, on the gradient's square"
    compiles = False
    worth_trying = ({"samples": 2}, {"samples": 3})  # Shi et al. use both

    def __init__(self, samples: int = 2, width: int = 32):
        super().__init__()
        self.samples = at_least(2, samples=samples)
        self.beta, self.gamma = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
        self.network = nn.Sequential(nn.Linear(2, at_least(1, width=width)), nn.Tanh(), nn.Linear(width, 2))

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        z = sampling.draw(logits, self.samples)  # [S, *batch, K, C]
        cost, slope = with_slope(objective, z)
        z, f, p = z.detach(), cost.detach(), sampling.softmax(logits.detach())
        of_cost, of_gradient = self.surrogate(z, f, slope)  # [S, *batch, K, C] each
        stein = self.stein(of_cost, p, z)
        advantage = f - others(f + self.beta * stein)
        along = self.stein(of_gradient, p, z)
        weighted = p * of_gradient
        aside = (weighted - weighted.sum(-1, keepdim=True) * z) / logits.shape[-2]
        score = z - p
        gradient = advantage[..., None, None] * score + self.gamma * (along[..., None, None] * score + aside)
        gradient = gradient.mean(0)
        cost = graft(cost.mean(0), logits, gradient)
        return trained_on(gradient.square().sum((-2, -1)).mean(), cost, self) if self.training else cost

    def stein(self, h: Tensor, p: Tensor, z: Tensor) -> Tensor:
        r"""The Gibbs operator's value ``[S, *batch]``, of a function's values h as :meth:`surrogate` has them."""
        return ((p - z) * h).sum((-2, -1)) / h.shape[-2]

    def surrogate(self, z: Tensor, f: Tensor, slope: Tensor) -> Tensor:
        r"""The network's outputs at each draw with one variable's category changed, or left as it is.

        Arguments:
            z, slope: Draws and derivatives of the cost there, ``[S, *batch, K, C]``.
            f: Costs, ``[S, *batch]``.

        Returns:
            ``[2, S, *batch, K, C]``.
        """
        mean_slope = others(slope)
        here = (mean_slope * z).sum((-2, -1)) - others((slope * z).sum((-2, -1)))
        near = here[..., None, None] + mean_slope - (mean_slope * z).sum(-1, keepdim=True)
        x = torch.stack([others(f)[..., None, None].expand_as(near), near])
        # Features first, and tanh(x) as 2 sigmoid(2 x) - 1: each halves the network's time.
        w, b, v, c = (parameter.to(x.dtype) for parameter in self.network.parameters())
        hidden = torch.addmm(2 * b.unsqueeze(-1), 2 * w, x.flatten(1)).sigmoid()
        return torch.addmm((c - v.sum(-1)).unsqueeze(-1), 2 * v, hidden).view_as(x)
