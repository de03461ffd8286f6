import torch
from torch import Tensor

from . import sampling
from .base import Estimator, graft
from .objectives import Objective


class StochasticTriples(Estimator):
    r"""Draws by inversion, and the cost of one draw that an infinitesimal change of the logits would make another.

    A category is where a uniform falls between the steps of the distribution function. As logit j rises, the steps
    below category j come down and those from j on go up, and a draw c beside a step jumps over it: to the next
    category at the rate :math:`p_j F_c / p_c` if c is below j, to the one before at :math:`p_j (1 - F_{c-1}) / p_c` if
    it is above. Of all such jumps, of all variables, one is drawn in proportion to its rate summed over j (pruning).

    Two evaluations, whatever K and C. Needs only values of the objective. Neighbouring categories are compared: order
    them so that they are alike. Rare categories have large rates, and a draw says something of few variables: with many
    variables leave-one-out REINFORCE with two samples has less variance.

    References:
        | Automatic Differentiation of Programs with Discrete Randomness (Arya et al., 2022)
        | https://arxiv.org/abs/2210.08572
    """

    target, unbiased, differentiates_objective = "expectation", True, False
    evaluations = "2"

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        z = sampling.categorical(logits, 1)[0]  # [*batch, K]
        cost = objective(sampling.one_hot(z, logits).unsqueeze(0))[0]
        p = sampling.softmax(logits.detach().double())
        rates = jumps(p, z)  # [*batch, K, 2, C]
        total = rates.sum(-1).flatten(-2)  # [*batch, 2 K]
        of_all = total.sum(-1, keepdim=True)
        log_total = torch.where(of_all > 0, total.log(), 0.0)  # certain draws jump nowhere
        jump = sampling.categorical(log_total.unsqueeze(-2), 1)[0]  # [*batch, 1]
        other = z.scatter(-1, jump // 2, neighbours(p, z).flatten(-2).gather(-1, jump))
        with torch.no_grad():
            difference = objective(sampling.one_hot(other, logits).unsqueeze(0))[0] - cost.detach()
        of_jump = total.gather(-1, jump)
        scale = torch.where(of_jump > 0, of_all / of_jump, 0.0) * difference.unsqueeze(-1)  # [*batch, 1]
        chosen = torch.zeros_like(total).scatter_(-1, jump, scale).unflatten(-1, (-1, 2))  # [*batch, K, 2]
        return graft(cost, logits, (chosen.unsqueeze(-1) * rates).sum(-2))


def jumps(p: Tensor, z: Tensor) -> Tensor:
    r"""Rates at which a draw jumps to the category before and to the next one as each logit rises.

    Arguments:
        p: Probabilities, ``[*batch, K, C]``.
        z: Category indices, ``[*batch, K]``.

    Returns:
        ``[*batch, K, 2, C]``: before and next, by the logit that rises.
    """
    c, j = z.unsqueeze(-1), torch.arange(p.shape[-1], device=p.device)
    up_to = (p * (j <= c)).sum(-1, keepdim=True)
    from_on = (p * (j >= c)).sum(-1, keepdim=True)
    of_draw = p.gather(-1, c)
    share = torch.where(of_draw > 0, p / of_draw, 0.0)  # nothing of probability 0 is drawn
    return torch.stack([share * from_on * (j < c), share * up_to * (j > c)], -2)


def neighbours(p: Tensor, z: Tensor) -> Tensor:
    r"""Possible categories before and after those drawn, ``[*batch, K, 2]``; the draw itself where there is none."""
    c, j = z.unsqueeze(-1), torch.arange(p.shape[-1], device=p.device)
    before = torch.where((p > 0) & (j < c), j, -1).amax(-1)
    after = torch.where((p > 0) & (j > c), j, p.shape[-1]).amin(-1)
    return torch.stack([torch.where(before < 0, z, before), torch.where(after == p.shape[-1], z, after)], -1)
