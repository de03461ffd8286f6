import math

import torch
from torch import Tensor, nn

from estimators import sampling
from estimators.base import Estimator, at_least, one_of, positive, straight_through


class Temperature(nn.Module):
    r"""A positive temperature: fixed, lowered on a schedule, or learned with the model.

    After t optimiser steps the scheduled temperature is ``max(floor, initial * exp(-rate * t))``, where t is
    rounded down to a multiple of ``every``.

    References:
        | Categorical Reparameterization with Gumbel-Softmax (Jang et al., 2017), whose schedule this is
        | https://arxiv.org/abs/1611.01144

    Arguments:
        initial: Temperature at the start, above 0.
        rate: Decay per optimiser step, at least 0; 0 keeps the temperature fixed.
        floor: Lowest scheduled temperature, above 0 and at most ``initial``.
        every: Number of optimiser steps between updates.
        learned: Whether the temperature is a parameter, trained on the task's loss; excludes a ``rate``.
    """

    def __init__(self, initial: float, rate: float, floor: float, every: int, learned: bool):
        super().__init__()
        self.initial = positive(temperature=initial)
        self.rate = 0.0 if rate == 0 else positive(rate=rate)
        self.floor = positive(floor=floor)
        self.every = at_least(1, every=every)
        if one_of([True, False], learned=learned) and rate:
            raise ValueError(f"rate must be 0 when learned is true, got {rate}: a temperature is scheduled or learned")
        if rate and floor > initial:
            raise ValueError(f"floor must be at most the initial temperature {initial}, got {floor}")
        self.steps = 0
        if learned:
            self.log_value = nn.Parameter(torch.tensor(math.log(self.initial)))
        else:
            self.register_buffer("value", torch.tensor(self.initial, dtype=torch.float64))

    def forward(self) -> Tensor:
        r"""The temperature now, a scalar."""
        return self.log_value.exp() if hasattr(self, "log_value") else self.value

    def advance(self) -> None:
        r"""Counts an optimiser step, and follows the schedule."""
        self.steps += 1
        if self.rate and self.steps % self.every == 0:
            self.value.fill_(max(self.floor, self.initial * math.exp(-self.rate * self.steps)))

    def get_extra_state(self):
        return {"steps": self.steps}

    def set_extra_state(self, state):
        self.steps = state["steps"]


class GumbelSoftmax(Estimator):
    r"""Pathwise gradient through the relaxed sample ``softmax((logits + Gumbel noise) / temperature)``.

    Low variance, and unbiased for the *relaxed* expectation, which is another one than the discrete
    expectation: the higher the temperature, the further from it; the lower, the more variance. The objective
    must be defined, and make sense, inside the simplex.

    References:
        | Categorical Reparameterization with Gumbel-Softmax (Jang et al., 2017)
        | https://arxiv.org/abs/1611.01144
        | The Concrete Distribution (Maddison et al., 2017)
        | https://arxiv.org/abs/1611.00712

    Arguments:
        temperature: Initial temperature, above 0.
        rate: Decay of the temperature per optimiser step; 0 keeps it fixed. See :class:`Temperature`.
        floor: Lowest temperature of the schedule.
        every: Optimiser steps between updates of the schedule.
        learned: Whether the temperature is learned with the model instead of scheduled.
    """

    target, unbiased, differentiates_objective, attaches_log_q = "relaxed", False, True, True
    learns = "the temperature, with learned=true"

    def __init__(
        self,
        temperature: float = 1.0,
        rate: float = 0.0,
        floor: float = 0.5,
        every: int = 500,
        learned: bool = False,
    ):
        super().__init__()
        self.temperature = Temperature(temperature, rate, floor, every, learned)

    def estimate(self, logits, objective, context):
        return objective(self.sample(logits))[0]

    def sample(self, logits):
        return self.relaxed(logits + sampling.gumbel(logits, 1)).to(logits.dtype)

    def relaxed(self, perturbed: Tensor) -> Tensor:
        r"""The relaxed sample of perturbed logits, both ``[1, *batch, K, C]``."""
        return (perturbed / self.temperature()).softmax(-1)

    def advance(self):
        self.temperature.advance()


class StraightThroughGumbelSoftmax(GumbelSoftmax):
    r"""Straight-through Gumbel-softmax: the discrete draw forward, the relaxed sample of the same noise backward.

    The objective sees one-hot draws of the right distribution, so the value estimates the discrete
    expectation; the gradient is biased even for a linear objective.

    References:
        | Categorical Reparameterization with Gumbel-Softmax (Jang et al., 2017), Section 2.2
        | https://arxiv.org/abs/1611.01144

    Arguments:
        temperature: Of the backward pass, above 0; with ``rate``, ``floor``, ``every`` and ``learned`` as in
            :class:`GumbelSoftmax`.
    """

    target, attaches_log_q = "expectation", False

    def sample(self, logits):
        perturbed = logits + sampling.gumbel(logits, 1)
        hard = sampling.one_hot(perturbed.argmax(-1), logits)
        return straight_through(hard, self.relaxed(perturbed).to(logits.dtype))


class DecoupledSTGumbel(Estimator):
    r"""Straight-through Gumbel-softmax with one temperature for the draw and another one for the gradient.

    The draw is the argmax of ``logits / forward_temperature + noise``, the surrogate the softmax of
    ``logits / backward_temperature`` + the same noise. The noise is never divided: dividing it along with the
    logits would leave the argmax as it was, so that the forward temperature would do nothing.

    With a forward temperature other than 1 the draws, and thus the value, are those of
    ``softmax(logits / forward_temperature)``: the harness's exact figures and KL terms, which are about
    ``softmax(logits)``, then describe other variables than those that are drawn. With both at 1 it is
    :class:`StraightThroughGumbelSoftmax` at temperature 1, and as biased.

    References:
        | Improving Discrete Optimisation Via Decoupled Straight-Through Gumbel-Softmax (Shah et al., 2024)
        | https://arxiv.org/abs/2410.13331

    Arguments:
        forward_temperature: Of the draws, above 0; below 1 they explore less.
        backward_temperature: Of the surrogate, above 0; its reciprocal scales the gradient.
    """

    unbiased, differentiates_objective = False, True

    def __init__(self, forward_temperature: float = 1.0, backward_temperature: float = 1.0):
        super().__init__()
        self.forward_temperature = positive(forward_temperature=forward_temperature)
        self.backward_temperature = positive(backward_temperature=backward_temperature)
        self.target = "expectation" if forward_temperature == 1 else "relaxed"

    def estimate(self, logits, objective, context):
        return objective(self.sample(logits))[0]

    def sample(self, logits):
        noise = sampling.gumbel(logits, 1)
        hard = sampling.one_hot((logits / self.forward_temperature + noise).argmax(-1), logits)
        soft = (logits / self.backward_temperature + noise).softmax(-1)
        return straight_through(hard, soft.to(logits.dtype))
