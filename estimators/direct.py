import torch
from torch import Tensor

from hardmax.checks import positive

from . import sampling
from .base import graft
from .local_expectation import LocalExpectation
from .objectives import Objective


class DirectOptimisation(LocalExpectation):
    r"""Direct optimisation through argmax: the draw against the one that the same noise gives with costs counted.

    Each variable's better draw is the argmax of perturbed logits less ``step`` times the cost of every category, the
    other variables being as drawn; the gradient is the difference of the two over the step. It needs only values: what
    :class:`IMLE` is with a derivative, this is without one, and as rarely other than 0 where the step is small. For one
    variable its mean is ``(softmax(logits) - softmax(logits - step f)) / step``, which tends to the gradient as the
    step goes to 0, while the variance grows as its reciprocal. The same evaluations make :class:`LocalExpectation`,
    which has no bias: use this to repeat what others have done.

    References:
        | Direct Optimization through arg max for Discrete Variational Auto-Encoder (Lorberbom et al., 2019)
        | https://arxiv.org/abs/1806.02867

    Arguments:
        step: What the costs are multiplied by beside the logits, above 0.
    """

    unbiased = False
    also_known_as = ("direct loss minimisation", "Direct-VAE")
    worth_trying = ({"step": 0.1}, {"step": 1.0})  # less bias or less variance: it depends on the size of the objective

    def __init__(self, step: float = 1.0):
        super().__init__()
        self.step = positive(step=step)

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        perturbed = logits.detach() + sampling.gumbel(logits, 1)
        z = perturbed.argmax(-1)  # [1, *batch, K]
        cost = objective(sampling.one_hot(z, logits))[0]
        costs = self.costs_of_changes(logits, objective, z, cost.detach(), self.changed(logits))
        better = (perturbed[0] - self.step * costs).masked_fill(logits == -torch.inf, -torch.inf).argmax(-1)
        return graft(cost, logits, (sampling.one_hot(z[0], logits) - sampling.one_hot(better, logits)) / self.step)
