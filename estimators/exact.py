import torch
from torch import Tensor

from hardmax.checks import at_least

from . import sampling
from .base import Estimator, layers_of
from .objectives import WITHOUT_K, Objective


class Exact(Estimator):
    r"""Enumeration: the sum over all joint configurations of their probability times their cost.

    The yardstick for every other estimator: value and gradients are exact, without variance. It evaluates the
    objective at all :math:`C^K` configurations at once, so it is refused beyond ``limit``; of a task that nests
    choices, at those of all layers together.

    With gradients disabled it makes a single draw like every estimator; its value is then no longer exact.

    Arguments:
        limit: Largest number of joint configurations to enumerate.

    Raises:
        ValueError: At the first call, if the logits have more joint configurations than ``limit``.
    """

    target, unbiased, differentiates_objective = "expectation", True, False
    evaluations = "C ** K"
    also_known_as = ("enumeration", "marginalisation")

    def __init__(self, limit: int = 4096):
        super().__init__()
        self.limit = at_least(1, limit=limit)

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        index = configurations(logits, self.limit, layers_of(self))  # [N, K]
        chosen = logits.detach()[..., torch.arange(index.shape[1], device=index.device), index].movedim(-2, 0)
        impossible = chosen == -torch.inf  # [N, *batch, K]; in its place stands what may happen
        likeliest = (logits.argmax(-1, keepdim=True) == torch.arange(logits.shape[-1], device=index.device)).to(logits)
        z = sampling.one_hot(index, logits)  # [N, K, C]
        for _ in logits.shape[:-2]:
            z = z.unsqueeze(1)
        z = torch.where(impossible.unsqueeze(-1), likeliest, z)
        cost = objective(z)  # [N, *batch]
        return expectation(log_probabilities(logits, index).exp(), cost)


def expectation(weight: Tensor, cost: Tensor) -> Tensor:
    r"""Sum over configurations of costs ``[N, *batch]`` by weights that add up to 1; what never happens costs nothing.

    What all costs share is added afterwards: it has no gradient, and weighed it would have that of rounding.
    """
    cost = cost.masked_fill(weight == 0, 0.0)
    shared = (weight * cost).detach().sum(0)
    shared = shared.masked_fill(~shared.isfinite(), 0.0)
    return ((weight * (cost - shared)).sum(0) + shared).to(cost.dtype)


def configurations(logits: Tensor, limit: int, layers: int = 1) -> Tensor:
    r"""Category indices of all joint configurations of K C-way variables, ``[C ** K, K]``.

    Raises:
        ValueError: If as many layers of them have more than ``limit``.
    """
    K, C = logits.shape[-2:]
    hint = f"; {WITHOUT_K}" if logits.ndim == 2 else ""
    if limit < C ** (K * layers):
        raise ValueError(
            f"limit is {limit} joint configurations, but {K * layers} variables of {C} categories have "
            f"{C}^{K * layers}: raise limit, or take fewer variables or categories{hint}"
        )
    return torch.cartesian_prod(*[torch.arange(C, device=logits.device)] * K).reshape(-1, K)


def log_probabilities(logits: Tensor, index: Tensor) -> Tensor:
    r"""log q of the configurations ``index`` ``[N, K]`` under logits ``[*batch, K, C]``: ``[N, *batch]``, in nats.

    At least in float32: in less the probabilities do not add up to 1, and costs of any height weigh in with that.
    """
    log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    chosen = log_p[..., torch.arange(index.shape[1], device=index.device), index]  # [*batch, N, K]
    return chosen.sum(-1).movedim(-1, 0)
