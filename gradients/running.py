r"""The variance of successive training gradients, as papers plot it."""

import torch
from torch import nn

from .moments import finite_or_none


class RunningVariance:
    r"""Variance of successive training gradients from running moments, as papers plot it.

    With weights that fall by ``decay`` per step and add up to 1: the running mean of the squares less the square of
    the running mean, summed over components. It mixes the noise of the estimator with that of minibatches and with
    the drift of the parameters. Nothing is read from the device, and nothing cancels; moments are in double precision,
    in which squares of gradients of 1e25 and of 1e-25 are numbers.

    References:
        | REBAR: Low-variance, unbiased gradient estimates for discrete latent variable models (Tucker et al., 2017)
        | https://arxiv.org/abs/1703.07370

    Arguments:
        parameters: Whose gradients.
        decay: Of the weights, from 0 up to but not including 1.
    """

    def __init__(self, parameters: list[nn.Parameter], decay: float):
        self.parameters, self.decay, self.steps = parameters, decay, 0
        self.mean, self.spread = ([torch.zeros_like(p, dtype=torch.float64) for p in parameters] for _ in range(2))

    @torch.no_grad()
    def update(self) -> None:
        r"""Takes in the gradients that the parameters have now."""
        self.steps += 1
        share = (1 - self.decay) / (1 - self.decay**self.steps)
        gradients = [(torch.zeros_like(p) if p.grad is None else p.grad).double() for p in self.parameters]
        change = torch._foreach_sub(gradients, self.mean)
        torch._foreach_add_(self.mean, change, alpha=share)
        torch._foreach_mul_(self.spread, 1 - share)
        torch._foreach_addcmul_(self.spread, change, change, value=share * (1 - share))

    def statistics(self) -> dict[str, float | None]:
        r"""``running_variance``, and ``running_variance_mean`` over components; None where undefined.

        They are before the second step, and from a gradient on that was not finite.
        """
        if self.steps < 2:
            return {"running_variance": None, "running_variance_mean": None}
        total = sum((x.sum() for x in self.spread), torch.zeros((), dtype=torch.float64))
        components = sum(x.numel() for x in self.spread)
        return {"running_variance": finite_or_none(total), "running_variance_mean": finite_or_none(total / components)}

    def state_dict(self) -> dict:
        return {"mean": self.mean, "spread": self.spread, "steps": self.steps}

    def load_state_dict(self, state: dict) -> None:
        self.steps = state["steps"]
        for name in ("mean", "spread"):
            for own, saved in zip(getattr(self, name), state[name], strict=True):
                own.copy_(saved)
