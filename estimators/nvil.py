from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from hardmax.checks import all_at_least, one_of

from . import sampling
from .base import Estimator, RunningMean, graft
from .learning import evaluate_network, with_loss
from .objectives import WITHOUT_K, Objective, check_logits


class Baseline(nn.Module):
    r"""A learned number for every example: a scalar, plus a network of the example's features if there are any.

    The network takes its input size from the first features it sees, on their device, and the scalar's precision.

    Arguments:
        widths: Widths of the hidden layers, of tanh units.
    """

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        self.widths = all_at_least(1, widths=widths)
        self.scalar = nn.Parameter(torch.zeros(()))
        self.network = nn.Sequential()  # until there are features

    def take_size(self, features: Tensor) -> None:
        r"""Makes the network for features ``[*batch, D]``, once.

        Raises:
            ValueError: For features of another number than the first ones.
        """
        D = features.shape[-1]
        if not len(self.network):
            device, dtype = features.device, self.scalar.dtype
            with torch.inference_mode(False):  # it is to be trained, wherever it is first seen
                for before, after in pairwise([D, *self.widths]):
                    self.network.extend([nn.Linear(before, after, device=device, dtype=dtype), nn.Tanh()])
                self.network.append(nn.Linear([D, *self.widths][-1], 1, bias=False, device=device, dtype=dtype))
        elif self.network[0].in_features != D:
            raise ValueError(f"context must have the {self.network[0].in_features} features of the first, got {D}")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        if not len(self.network) and (first := state_dict.get(f"{prefix}network.0.weight")) is not None:
            self.take_size(first[:1])
        super()._load_from_state_dict(state_dict, prefix, *others)

    def forward(self, features: Tensor | None) -> Tensor:
        r"""The baseline ``[*batch]`` of features ``[*batch, D]``, and a scalar without them."""
        if features is None:
            return self.scalar
        wide = torch.promote_types(features.dtype, self.scalar.dtype)
        return self.scalar + evaluate_network(self.network, features.detach().to(wide)).squeeze(-1)


class NVIL(Estimator):
    r"""REINFORCE with a learned baseline b(x), a running mean c, and if wanted a running variance v to divide by.

    One draw: ``(f(z) - b(x) - c) / max(1, sqrt(v))`` times the gradient of log q(z), where c and v are of
    ``f(z) - b(x)`` at earlier steps. Worth it where one evaluation is all that is affordable, since b has to be
    learned: with two, leave-one-out REINFORCE needs no learning. With ``normalise`` the gradient is that of the
    expectation over ``max(1, sqrt(v))``; parts of the loss that are added outside, an analytic KL divergence for
    one, are not scaled along, and so weigh more.

    References:
        | Neural Variational Inference and Learning in Belief Networks (Mnih and Gregor, 2014)
        | https://arxiv.org/abs/1402.0030

    Arguments:
        widths: Widths of the hidden layers of b, a network of the context. Without a context b is a learned scalar.
        decay: Of the running mean and variance, per optimiser step, from 0 up to but not including 1.
        normalise: Whether to divide by the running standard deviation where it exceeds 1; not unbiased then.

    Raises:
        ValueError: At the call, for a context that does not fit the logits, or the network made for the first one.
    """

    target, unbiased, differentiates_objective = "expectation", True, False
    learns = "a baseline network of the context, by the squared error; running mean and variance of cost less baseline"
    worth_trying = ({"normalise": False}, {"normalise": True})  # Mnih and Gregor normalise

    def __init__(self, widths: Sequence[int] = (100,), decay: float = 0.8, normalise: bool = False):
        super().__init__()
        self.baseline = Baseline(widths)
        self.running = RunningMean(decay, (2,))  # mean and variance of f - b
        self.normalise = one_of([True, False], normalise=normalise)
        self.unbiased = not normalise

    def forward(
        self, logits: Tensor, objective: Objective, context: Tensor | None = None, log_q: bool = False
    ) -> Tensor:
        check_logits(logits)
        if context is not None:
            if context.shape[:-1] != logits.shape[:-2]:
                shapes = f"{list(context.shape)} for logits {list(logits.shape)}"
                hint = f"; {WITHOUT_K}" if context.shape[:-1] == logits.shape[:-1] else ""
                raise ValueError(f"context must be [*batch, D], got {shapes}{hint}")
            self.baseline.take_size(context)  # also where there are no gradients
        return super().forward(logits, objective, context, log_q)

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        z = sampling.draw(logits, 1)[0]
        cost = objective(z.unsqueeze(0))[0]
        mean, variance = self.running()
        left = cost.detach() - self.baseline(context)
        advantage = (left - mean).detach()
        if self.normalise:
            advantage = advantage / variance.sqrt().clamp(min=1)
        if self.training:
            loss = (left - mean).double().square().mean()  # reaches nothing but the baseline; 1e30 squared is finite
            cost = with_loss(cost, loss)
            left = left.detach().double()
            self.running.note(torch.stack([left.mean(), left.var(correction=0)]))
        return graft(cost, logits, advantage[..., None, None] * (z - logits.softmax(-1)))

    def advance(self) -> None:
        self.running.advance()
