import math

import torch
from torch import Tensor

from hardmax.checks import at_least, positive

from . import sampling
from .base import Estimator, layers_of, straight_through, with_log_q
from .exact import expectation
from .objectives import Objective, check_logits
from .pathwise import Pathwise


class Sparsemax(Pathwise):
    r"""The deterministic relaxation by sparsemax: the objective at the point of the simplex nearest to the logits.

    As :class:`Softmax`, but unlikely categories have exactly no weight, and exactly no gradient: where the right
    category is among them nothing brings it back. Another problem than the discrete one, as every relaxation is.

    References:
        | From Softmax to Sparsemax: A Sparse Model of Attention and Multi-Label Classification
          (Martins and Astudillo, 2016)
        | https://arxiv.org/abs/1602.02068

    Arguments:
        temperature: Divides the logits, above 0. Below 1 fewer categories have weight.
    """

    target, attaches_log_q = "relaxed", True
    worth_trying = ({"temperature": 0.5}, {"temperature": 2.0})  # sparser, and softer than it is mostly used

    def __init__(self, temperature: float = 1.0):
        super().__init__()
        self.temperature = positive(temperature=temperature)

    def draw(self, logits: Tensor) -> Tensor:
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return self.project(wide / self.temperature).to(logits.dtype).unsqueeze(0)

    def project(self, logits: Tensor) -> Tensor:
        r"""The point of the simplex that the logits are mapped to, ``[..., C]``."""
        return sparsemax(logits)


class Entmax(Sparsemax):
    r"""The deterministic relaxation by 1.5-entmax, halfway between softmax and sparsemax.

    Unlikely categories have exactly no weight, but only far from the others: weights fall to 0 smoothly, as a square.
    What :class:`Sparsemax` warns of holds here too, later.

    References:
        | Sparse Sequence-to-Sequence Models (Peters et al., 2019)
        | https://arxiv.org/abs/1905.05702

    Arguments:
        temperature: Divides the logits, above 0. Below 1 fewer categories have weight.
    """

    target, attaches_log_q = "relaxed", True
    worth_trying = ({"temperature": 0.5}, {"temperature": 2.0})  # as for sparsemax

    def project(self, logits: Tensor) -> Tensor:
        return entmax(logits)


class StraightThroughSparsemax(Sparsemax):
    r"""Straight-through with sparsemax backward: a draw of the categorical variables forward.

    As :class:`StochasticStraightThrough`, whose Jacobian spreads the gradient over all categories, this one over those
    of sparsemax's support alone: a category drawn from outside of it gets no gradient itself. Biased even for a linear
    objective, since the draws are the softmax's: use it where sparse gradients are wanted for their own sake.

    References:
        | From Softmax to Sparsemax: A Sparse Model of Attention and Multi-Label Classification
          (Martins and Astudillo, 2016), whose Jacobian it is
        | https://arxiv.org/abs/1602.02068

    Arguments:
        temperature: Divides the logits in the backward pass, above 0; its reciprocal scales the gradient.
    """

    target, attaches_log_q = "expectation", False
    worth_trying = ({"temperature": 0.5}, {"temperature": 2.0})  # as for sparsemax

    def draw(self, logits: Tensor) -> Tensor:
        return straight_through(sampling.draw(logits, 1), super().draw(logits))


class StraightThroughEntmax(StraightThroughSparsemax):
    r"""Straight-through with 1.5-entmax backward: a draw of the categorical variables forward.

    See :class:`StraightThroughSparsemax`, to which this is what :class:`Entmax` is to :class:`Sparsemax`; as biased.

    References:
        | Sparse Sequence-to-Sequence Models (Peters et al., 2019), whose Jacobian it is
        | https://arxiv.org/abs/1905.05702

    Arguments:
        temperature: Divides the logits in the backward pass, above 0; its reciprocal scales the gradient.
    """

    worth_trying = ({"temperature": 0.5}, {"temperature": 2.0})  # as for sparsemax

    def project(self, logits: Tensor) -> Tensor:
        return entmax(logits)


class SparseExpectation(Estimator):
    r"""The exact expectation under sparsemax of the logits, which takes only the categories that have weight.

    The variables are others than all other estimators': their probabilities are the sparsemax of the logits, not the
    softmax. Under those, value and gradient are exact, without variance, and need only values of the objective. The
    more certain the model becomes the fewer evaluations it takes: those of all configurations of the variables'
    supports, at most ``limit``. What is outside of a support gets no gradient, and training does not come back to it.
    The harness's exact figures, biases and KL terms are about the softmax's variables, and so about others than these;
    only with ``log_q``, which adds the logarithm of sparsemax's probabilities, is a KL about them.

    References:
        | Efficient Marginalization of Discrete and Structured Latent Variables via Sparsity (Correia et al., 2020)
        | https://arxiv.org/abs/2007.01919

    Arguments:
        limit: Largest number of joint configurations to evaluate.

    Raises:
        ValueError: At a call, if the supports have more joint configurations than ``limit``.
    """

    target, unbiased, differentiates_objective = "draws", False, False
    evaluations, compiles = "at most C ** K", False

    def __init__(self, limit: int = 4096):
        super().__init__()
        self.limit = at_least(1, limit=limit)

    def forward(
        self, logits: Tensor, objective: Objective, context: Tensor | None = None, log_q: bool = False
    ) -> Tensor:
        if log_q:
            check_logits(logits)
            own = log_sparsemax(logits).to(logits.dtype)
            objective = with_log_q(self.checked(objective, logits), own, self.attaches_log_q)
        return super().forward(logits, objective, context)

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        log_p = log_sparsemax(logits)
        index = supported(log_p, self.limit, layers_of(self))
        chosen = log_p.expand(len(index), *log_p.shape).gather(-1, index.unsqueeze(-1)).squeeze(-1)
        cost = objective(sampling.one_hot(index, logits))
        return expectation(chosen.sum(-1).exp(), cost)

    def draw(self, logits: Tensor) -> Tensor:
        return sampling.draw(log_sparsemax(logits), 1).to(logits.dtype)


def sparsemax(logits: Tensor) -> Tensor:
    r"""The point of the simplex nearest to logits ``[..., C]``: those above a threshold, less the threshold.

    The threshold is the largest of those that the k highest would have, were they the support.
    """
    x = below_top(logits)
    highest, k = x.detach().sort(-1, descending=True).values, torch.arange(1, x.shape[-1] + 1, device=x.device)
    inside = x > ((highest.cumsum(-1) - 1) / k).amax(-1, keepdim=True)
    threshold = ((x * inside).sum(-1, keepdim=True) - 1) / inside.sum(-1, keepdim=True)
    return ((x - threshold) * inside).clamp(min=0)


def entmax(logits: Tensor) -> Tensor:
    r"""1.5-entmax of logits ``[..., C]``: halves of those above a threshold, less the threshold, squared.

    The k highest would have the threshold mean - root((1 - sum of squared deviations) / k), were they the support; they
    are as long as that is not above the last of them.
    """
    x = below_top(logits / 2)
    highest, k = x.detach().sort(-1, descending=True).values, torch.arange(1, x.shape[-1] + 1, device=x.device)
    mean = highest.cumsum(-1) / k
    variance = highest.square().cumsum(-1) / k - mean.square()
    thresholds = (mean - (1 / k - variance).clamp(min=0).sqrt()).clamp(min=-1)
    inside = x > thresholds.gather(-1, (thresholds <= highest).sum(-1, keepdim=True).clamp(min=1) - 1)
    size = inside.sum(-1, keepdim=True)
    mean = (x * inside).sum(-1, keepdim=True) / size
    spread = ((x - mean) * inside).square().sum(-1, keepdim=True)
    return ((x - mean + ((1 - spread) / size).sqrt()) * inside).square()


def below_top(x: Tensor) -> Tensor:
    r"""x less its highest entry, at least -1: what is lower has no weight."""
    return (x - x.detach().amax(-1, keepdim=True)).clamp(min=-1)


def log_sparsemax(logits: Tensor) -> Tensor:
    r"""Logarithm of the sparsemax of logits ``[..., C]``; minus infinity, and no gradient, outside the support.

    At least in float32.
    """
    p = sparsemax(logits.to(torch.promote_types(logits.dtype, torch.float32)))
    return p.masked_fill(p == 0, 1.0).log().masked_fill(p == 0, -torch.inf)


def supported(log_p: Tensor, limit: int, layers: int = 1) -> Tensor:
    r"""Category indices ``[N, *batch, K]`` of all configurations of the supports, of as many as the largest has.

    Raises:
        ValueError: If as many layers of them have more than ``limit``.
    """
    K, C = log_p.shape[-2:]
    sizes = (log_p > -torch.inf).sum(-1).reshape(-1, K).amax(0).clamp(min=1).tolist()  # none are inside of NaN
    found = math.prod(sizes)
    if found**layers > limit:
        told = str(found) if found < 10**9 else f"10^{math.log10(found):.0f}"
        raise ValueError(
            f"limit is {limit} joint configurations, but the supports of {K * layers} variables of {C} categories have "
            f"{told}{f'^{layers}' if layers > 1 else ''}: raise limit, or take fewer variables or categories"
        )
    ranks = torch.cartesian_prod(*(torch.arange(size, device=log_p.device) for size in sizes)).reshape(found, -1)
    order = log_p.argsort(-1, descending=True)  # [*batch, K, C]
    return order[..., torch.arange(K, device=log_p.device), ranks].movedim(-2, 0)
