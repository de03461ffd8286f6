from torch import Tensor

from hardmax.checks import positive

from .gumbel_softmax import GumbelSoftmax
from .sparse import sparsemax


class HardConcrete(GumbelSoftmax):
    r"""Gumbel-softmax stretched beyond the simplex and projected back onto it, so that weights can be exactly 0 and 1.

    The point is the sparsemax of ``1 + 2 margin`` times the relaxed sample. Of two categories that is the sample
    stretched to ``(-margin, 1 + margin)`` and clipped to [0, 1]: a gate that is shut, or open, with a probability above
    0. The gradient is pathwise, unbiased for the *relaxed* expectation, and 0 for a variable that is drawn on a corner.

    Use it for gates and masks that stay relaxed once trained, as the objective sees points inside the simplex too.
    Where discrete draws will be used in the end it is one more relaxation, further from them than
    :class:`GumbelSoftmax` at a lower temperature. Its density has atoms, so a sampled KL divergence is about the log q
    of the categorical variables, extended linearly.

    References:
        | Learning Sparse Neural Networks through L0 Regularization (Louizos et al., 2018), of two categories
        | https://arxiv.org/abs/1712.01312
        | Sparse Communication via Mixed Distributions (Farinhas et al., 2022), of more: K-D Hard Concrete
        | https://arxiv.org/abs/2108.02658

    Arguments:
        temperature: Of the relaxed sample, above 0; with ``rate``, ``floor``, ``every``, ``learned``, ``annealing`` and
            ``over`` as in :class:`GumbelSoftmax`. The default is that of Louizos et al.
        margin: How far beyond 0 and 1 a relaxed sample of two categories is stretched, above 0.
    """

    target, attaches_log_q = "relaxed", True
    also_known_as = ("K-D Hard Concrete", "L0 gates")  # the latter of two categories
    worth_trying = ({"temperature": 0.3}, {"temperature": 1.0})  # as for Gumbel-softmax

    def __init__(
        self,
        temperature: float = 2 / 3,
        rate: float = 0.0,
        floor: float = 0.5,
        every: int = 500,
        learned: bool = False,
        margin: float = 0.1,
        annealing: str = "exponential",
        over: int | None = None,
    ):
        super().__init__(temperature, rate, floor, every, learned, annealing=annealing, over=over)
        self.margin = positive(margin=margin)

    def relaxed(self, perturbed: Tensor) -> Tensor:
        return sparsemax((1 + 2 * self.margin) * super().relaxed(perturbed))
