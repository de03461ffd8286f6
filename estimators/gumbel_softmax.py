import math

import torch
from torch import Tensor, nn

from hardmax.checks import at_least, one_of, positive

from . import sampling
from .annealing import StandsStill, annealed, check_annealing
from .base import straight_through
from .objectives import Objective, check_logits
from .pathwise import Pathwise


class Temperature(nn.Module):
    r"""A positive temperature: fixed, lowered on a schedule, or learned with the model.

    After t optimiser steps the scheduled temperature is ``max(floor, initial * exp(-rate * t))``, where t is
    rounded down to a multiple of ``every``. With ``over`` instead of a rate it goes from ``initial`` to ``floor`` in so
    many steps, a little in each of them, as ``annealing`` says, and stays there.

    References:
        | Categorical Reparameterization with Gumbel-Softmax (Jang et al., 2017), whose schedule this is
        | https://arxiv.org/abs/1611.01144

    Arguments:
        initial: Temperature at the start, above 0.
        rate: Decay per optimiser step, at least 0; 0 keeps the temperature fixed.
        floor: Lowest scheduled temperature, above 0 and at most ``initial``.
        every: Number of optimiser steps between updates by the rate.
        learned: Whether the temperature is a parameter, trained on the task's loss; excludes ``rate`` and ``over``.
        annealing: ``exponential``, ``linear`` or ``cosine``; other than exponential only with ``over``.
        over: Number of optimiser steps from ``initial`` to ``floor``; None: the rate says how fast it goes. In a config
            ``${share:0.5}`` is half of the run's steps.
    """

    value: Tensor  # where it is not learned

    def __init__(
        self,
        initial: float,
        rate: float,
        floor: float,
        every: int,
        learned: bool,
        annealing: str = "exponential",
        over: int | None = None,
    ):
        super().__init__()
        self.initial = positive(temperature=initial)
        self.rate = 0.0 if rate == 0 else positive(rate=rate)
        self.floor = positive(floor=floor)
        self.every = at_least(1, every=every)
        check_annealing(annealing, over, rate, "exponential")
        self.annealing, self.over = annealing, over
        if one_of([True, False], learned=learned) and (rate or over):
            none, told = ("rate must be 0", rate) if rate else ("over must be None", over)
            raise ValueError(f"{none} when learned is true, got {told}: a temperature is scheduled or learned")
        if (rate or over) and floor > initial:
            raise ValueError(f"floor must be at most the initial temperature {initial}, got {floor}")
        self.steps, self.still = 0, StandsStill()
        if learned:
            self.log_value = nn.Parameter(torch.tensor(math.log(self.initial)))
        else:
            self.register_buffer("value", torch.tensor(self.initial, dtype=torch.float64))

    def forward(self) -> Tensor:
        r"""The temperature now, a scalar."""
        if self.rate or self.over:
            self.still.look(self.training)
        return self.log_value.exp() if hasattr(self, "log_value") else self.value

    def advance(self) -> None:
        r"""Counts an optimiser step, and follows the schedule."""
        self.steps, self.still.looks = self.steps + 1, 0
        if self.over:
            share = torch.tensor(self.steps / self.over, dtype=torch.float64)
            self.value.fill_(float(annealed(self.initial, self.floor, share, self.annealing)))
        elif self.rate and self.steps % self.every == 0:
            self.value.fill_(max(self.floor, self.initial * math.exp(-self.rate * self.steps)))

    def get_extra_state(self) -> dict[str, int]:
        return {"steps": self.steps}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.steps = state["steps"]


class GumbelSoftmax(Pathwise):
    r"""Pathwise gradient through the relaxed sample ``softmax((logits + Gumbel noise) / temperature)``.

    Low variance, and unbiased for the *relaxed* expectation, which is another one than the discrete
    expectation: the higher the temperature, the further from it; the lower, the more variance. The objective
    must be defined, and make sense, inside the simplex.

    References:
        | Categorical Reparameterization with Gumbel-Softmax (Jang et al., 2017)
        | https://arxiv.org/abs/1611.01144
        | The Concrete Distribution: A Continuous Relaxation of Discrete Random Variables (Maddison et al., 2017)
        | https://arxiv.org/abs/1611.00712

    Arguments:
        temperature: Initial temperature, above 0.
        rate: Decay of the temperature per optimiser step; 0 keeps it fixed. See :class:`Temperature`.
        floor: Lowest temperature of the schedule.
        every: Optimiser steps between updates by the rate.
        learned: Whether the temperature is learned with the model instead of scheduled.
        relaxed_kl: What a sampled KL divergence is about: log q of the categorical variables, extended linearly to
            the relaxed sample, or with true the density of the relaxed sample itself. The latter makes the value
            a bound on the relaxed model's likelihood: with ``log_q`` it adds the log-ratio of the sample's
            density to that of a relaxed *uniform* prior, less K log C, the constant that a sampled KL from
            uniform categorical variables adds for its prior. Categories of probability 0 are left out of all three.
        prior_temperature: Of the relaxed uniform prior, above 0.
        annealing, over: A number of steps in place of the rate; see :class:`Temperature`.
    """

    target, attaches_log_q = "relaxed", True
    also_known_as: tuple[str, ...] = ("Concrete",)
    learns = "the temperature, with learned=true"
    # Jang et al. anneal from 1 to 0.5; lower ones have less bias
    worth_trying = ({"temperature": 0.3}, {"temperature": 1.0})

    def __init__(
        self,
        temperature: float = 1.0,
        rate: float = 0.0,
        floor: float = 0.5,
        every: int = 500,
        learned: bool = False,
        relaxed_kl: bool = False,
        prior_temperature: float = 1.0,
        annealing: str = "exponential",
        over: int | None = None,
    ):
        super().__init__()
        self.temperature = Temperature(temperature, rate, floor, every, learned, annealing, over)
        self.learns = type(self).learns if learned else ""
        self.relaxed_kl = one_of([True, False], relaxed_kl=relaxed_kl)
        self.prior_temperature = positive(prior_temperature=prior_temperature)

    def forward(
        self, logits: Tensor, objective: Objective, context: Tensor | None = None, log_q: bool = False
    ) -> Tensor:
        if not (log_q and self.relaxed_kl):
            return super().forward(logits, objective, context, log_q)
        check_logits(logits)
        log_y = self.log_draw(logits)
        cost = self.checked(objective, logits)(log_y.exp().to(logits.dtype))[0]
        return cost + self.log_ratio(log_y, logits.to(log_y.dtype))[0].to(cost.dtype)

    def log_draw(self, logits: Tensor) -> Tensor:
        r"""Logarithm of one relaxed draw, ``[1, *batch, K, C]``, at least in float32."""
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return self.scaled(wide + sampling.gumbel(logits, 1)).log_softmax(-1)

    def log_ratio(self, log_y: Tensor, logits: Tensor) -> Tensor:
        r"""log q(y) - log p(y) - K log C in nats, ``[S, *batch]``, p being the relaxed uniform prior.

        Arguments:
            log_y: Logarithms of relaxed samples, ``[S, *batch, K, C]``.
            logits: Of q, ``[*batch, K, C]``.
        """
        impossible = logits == -torch.inf
        prior = torch.zeros_like(logits).masked_fill(impossible, -torch.inf)
        log_q = log_concrete(log_y, logits, self.temperature())
        log_p = log_concrete(log_y, prior, torch.tensor(self.prior_temperature, dtype=torch.float64))
        return (log_q - log_p - (~impossible).sum(-1).log()).sum(-1)

    def draw(self, logits: Tensor) -> Tensor:
        return self.relaxed(logits + sampling.gumbel(logits, 1)).to(logits.dtype)

    def relaxed(self, perturbed: Tensor) -> Tensor:
        r"""The relaxed sample of perturbed logits, both ``[1, *batch, K, C]``."""
        return sampling.softmax(self.scaled(perturbed))

    def scaled(self, perturbed: Tensor) -> Tensor:
        r"""Perturbed logits over the temperature, finite: minus infinity would make a learned temperature NaN."""
        return perturbed.clamp(min=-1e30) / self.temperature()

    def advance(self) -> None:
        self.temperature.advance()


def log_concrete(log_y: Tensor, logits: Tensor, temperature: Tensor) -> Tensor:
    r"""Log-density of the *logarithm* of a relaxed sample, in nats, by variable: ``[S, *batch, K]``.

    Of ``softmax((logits + Gumbel noise) / temperature)``, with respect to the first C - 1 differences of log y
    from its last entry. Densities of log y, unlike those of y, stay finite where entries of y underflow, and their
    ratios are the same. Categories of probability 0 do not count among the C.

    Arguments:
        log_y: ``[S, *batch, K, C]``.
        logits: ``[*batch, K, C]``.
        temperature: A scalar above 0.
    """
    impossible = logits == -torch.inf
    C = logits.shape[-1] - impossible.sum(-1)
    a = logits.masked_fill(impossible, 0.0) - temperature * log_y.masked_fill(impossible, 0.0)
    top = a.masked_fill(impossible, -torch.inf).logsumexp(-1)
    return torch.lgamma(C.to(a.dtype)) + (C - 1) * temperature.log() + a.sum(-1) - C * top


class StraightThroughGumbelSoftmax(GumbelSoftmax):
    r"""Straight-through Gumbel-softmax: the discrete draw forward, the relaxed sample of the same noise backward.

    The objective sees one-hot draws of the right distribution, so the value estimates the discrete
    expectation; the gradient is biased even for a linear objective.

    References:
        | Categorical Reparameterization with Gumbel-Softmax (Jang et al., 2017), Section 2.2
        | https://arxiv.org/abs/1611.01144

    Arguments:
        temperature: Of the backward pass, above 0; with ``rate``, ``floor``, ``every``, ``learned``, ``annealing`` and
            ``over`` as in :class:`GumbelSoftmax`.
    """

    target, attaches_log_q = "expectation", False
    also_known_as = ("STGS", "hard Gumbel-softmax")
    worth_trying = ({"temperature": 0.3}, {"temperature": 1.0})  # as for Gumbel-softmax

    def __init__(
        self,
        temperature: float = 1.0,
        rate: float = 0.0,
        floor: float = 0.5,
        every: int = 500,
        learned: bool = False,
        annealing: str = "exponential",
        over: int | None = None,
    ):
        super().__init__(temperature, rate, floor, every, learned, annealing=annealing, over=over)

    def draw(self, logits: Tensor) -> Tensor:
        perturbed = logits + sampling.gumbel(logits, 1)
        hard = sampling.one_hot(perturbed.argmax(-1), logits)
        return straight_through(hard, self.relaxed(perturbed).to(logits.dtype))


class DecoupledSTGumbel(Pathwise):
    r"""Straight-through Gumbel-softmax with one temperature for the draw and another one for the gradient.

    The draw is the argmax of ``logits / forward_temperature + noise``, the surrogate the softmax of the sum of logits
    and the same noise over ``backward_temperature``: with a forward temperature of 1 this is
    :class:`StraightThroughGumbelSoftmax` at the backward one, and as biased. The draw's noise is not divided: that
    would leave the argmax as it was, so that the forward temperature would do nothing.

    With a forward temperature other than 1 the draws, and thus the value, are those of
    ``softmax(logits / forward_temperature)``: the harness's exact figures and KL terms, which are about
    ``softmax(logits)``, then describe other variables than those that are drawn.

    References:
        | Improving Discrete Optimisation Via Decoupled Straight-Through Gumbel-Softmax (Shah et al., 2024)
        | https://arxiv.org/abs/2410.13331

    Arguments:
        forward_temperature: Of the draws, above 0; below 1 they explore less.
        backward_temperature: Of the surrogate, above 0; its reciprocal scales the gradient.
    """

    # Shah et al. tune it apart from the forward one
    worth_trying = ({"backward_temperature": 0.3}, {"backward_temperature": 2.0})

    def __init__(self, forward_temperature: float = 1.0, backward_temperature: float = 1.0):
        super().__init__()
        self.forward_temperature = positive(forward_temperature=forward_temperature)
        self.backward_temperature = positive(backward_temperature=backward_temperature)
        self.target = "expectation" if forward_temperature == 1 else "draws"

    def draw(self, logits: Tensor) -> Tensor:
        noise = sampling.gumbel(logits, 1)
        hard = sampling.one_hot((logits / self.forward_temperature + noise).argmax(-1), logits)
        soft = sampling.softmax((logits + noise) / self.backward_temperature)
        return straight_through(hard, soft.to(logits.dtype))
