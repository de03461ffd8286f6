import torch
from torch import Tensor

from hardmax.checks import at_least, positive

from . import sampling
from .bounds import VIMCO, with_scores
from .objectives import Objective, depends_on


class TVO(VIMCO):
    r"""Fits q by the thermodynamic variational objective; the gradient of the multi-sample bound for all else.

    The logarithm of the evidence is the integral over :math:`\beta` from 0 to 1 of the mean log-weight under
    :math:`\pi_\beta \propto q \, e^{\beta l}`, which rises with :math:`\beta`: a sum over steps that takes each at its
    start bounds it, and is the evidence lower bound for a single step. The gradient is a covariance under each
    :math:`\pi_\beta` of log-weights and scores, by S draws of q with their weights normalised: consistent, but biased
    for finite S. It is no gradient of the value, minus the bound of S draws, which only the objective's own parameters
    follow. Where the steps cannot be tuned prefer :class:`VIMCO`, which has none.

    With gradients disabled its one evaluation gives the bound of a single draw.

    References:
        | The Thermodynamic Variational Objective (Masrani et al., 2019)
        | https://arxiv.org/abs/1907.00031

    Arguments:
        samples: Number S of draws, at least 2.
        steps: Number of steps from 0 to 1, at least 1; the starts of all but the first are evenly spaced in their
            logarithm.
        second: Where the second step starts, above 0 and below 1; with one step there is none.

    Raises:
        ValueError: For a second step that starts at 1 or above.
    """

    unbiased, compiles = False, False
    also_known_as = ("thermodynamic variational objective",)
    worth_trying = ({"second": 0.03}, {"second": 0.3})  # Masrani et al. find it between these

    beta: Tensor

    def __init__(self, samples: int = 4, steps: int = 2, second: float = 0.1):
        super().__init__(samples)
        steps, second = at_least(1, steps=steps), positive(second=second)
        if second >= 1:
            raise ValueError(f"second must be below 1, got {second}")
        places = torch.linspace(0, 1, steps, dtype=torch.float64) if steps > 1 else torch.ones(1, dtype=torch.float64)
        self.register_buffer("beta", torch.cat([torch.zeros(1), second ** (1 - places)]), persistent=False)

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        z = sampling.draw(logits, self.samples)  # [S, *batch, K, C]
        log_weight = -objective(z)  # [S, *batch]
        values, S = log_weight.detach(), self.samples
        own = float(depends_on(log_weight, logits))  # through log q, which makes of q^1 e^(beta l) q^(1 - beta)
        weight = -own * values.softmax(0)  # takes the bound's own gradient away
        for beta, end in zip(self.beta[:-1], self.beta[1:], strict=True):
            w = (beta * values).softmax(0)
            covariance = S / (S - 1) * w * (values - (w * values).sum(0))
            weight = weight - (end - beta) * ((1 - own * beta) * covariance - own * w)
        return with_scores(log_weight, weight, z, logits)
