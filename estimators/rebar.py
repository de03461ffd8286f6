import math

import torch
from torch import Tensor, nn

from hardmax.checks import at_least, finite, one_of, positive

from . import sampling
from .base import Estimator, graft
from .learning import evaluate_network, trained_on
from .objectives import Objective, depends_on, derivative


class Rebar(Estimator):
    r"""REINFORCE with a relaxation of the objective as control variate, whose own gradient is put back.

    With z = log p + Gumbel noise, the draw is b, the place of the maximum of z, and the control variate is
    :math:`c(z) = \mathrm{scale} \cdot f(\mathrm{softmax}(z / \mathrm{temperature}))`. The estimate is

    .. math:: (f(b) - c(z)) \, \nabla \log p(b) + \nabla c(z) - \nabla c(\tilde z),

    where :math:`\tilde z` is z as a function of the logits given b. Given b, the arrival times exp(-z) of the
    other categories are that of b, which all of them *share*, plus independent waits; the noise behind
    :math:`\tilde z` is chosen such that its value is z. So one relaxed evaluation serves both, and the two
    derivatives of :math:`z_j` with respect to log p_j are 1 and :math:`1 - e^{z_j - z_b}`.

    Unbiased whatever the temperature and the scale, which are trained on the square of the gradient. Two
    evaluations of the objective and one of its gradient, on points of the simplex: where it has no meaning there
    use leave-one-out REINFORCE. Where it has no derivative, this is REINFORCE without a baseline. Where it has one
    and jumps as well, as a lookup by argmax plus a linear term does, the gradient is *biased*.

    References:
        | REBAR: Low-variance, unbiased gradient estimates for discrete latent variable models (Tucker et al., 2017)
        | https://arxiv.org/abs/1703.07370

    Arguments:
        temperature: Of the relaxation at the start, above 0.
        scale: Of the control variate at the start.
        learned: Whether temperature and scale are trained.
    """

    target, unbiased, differentiates_objective = "expectation", True, True
    evaluations, learns = "2", "temperature and scale of the relaxation, on the gradient's square"
    compiles = False
    worth_trying = ({"temperature": 0.1}, {"temperature": 0.5})  # at the start; Tucker et al. begin with 0.5

    def __init__(self, temperature: float = 0.5, scale: float = 1.0, learned: bool = True):
        super().__init__()
        one_of([True, False], learned=learned)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(positive(temperature=temperature))), learned)
        self.scale = nn.Parameter(torch.tensor(finite(scale=scale)), learned)

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        fixed = logits.detach().to(torch.promote_types(logits.dtype, torch.float32))
        log_p = fixed.log_softmax(-1).clamp(min=-1e30)  # finite, so that 0 times it is 0
        z = log_p + sampling.gumbel(fixed, 1)  # [1, *batch, K, C]
        hard = sampling.one_hot(z.argmax(-1), fixed)
        cost = objective(hard.to(logits.dtype)).mean(0)
        train = self.training and any(p.requires_grad for p in self.parameters())
        gradient = self.gradient(cost.detach(), objective, log_p, z, hard, logits.dtype, train)[0]
        cost = graft(cost, logits, gradient)
        return trained_on(gradient.square().sum((-2, -1)).mean(), cost, self) if train else cost

    def gradient(
        self,
        cost: Tensor,
        objective: Objective,
        log_p: Tensor,
        z: Tensor,
        hard: Tensor,
        dtype: torch.dtype,
        train: bool,
    ) -> Tensor:
        r"""The estimate ``[1, *batch, K, C]``, as a function of this estimator's parameters if ``train``."""
        temperature = self.log_temperature.exp()
        y = sampling.softmax(z / temperature)  # [1, *batch, K, C]
        leaf = y if y.requires_grad else y.detach().requires_grad_()
        control = self.control(leaf, objective, dtype)  # [1, *batch]
        slope = derivative(control, leaf, create_graph=train)
        p = log_p.exp()
        through_z = y * (slope - (slope * y).sum(-1, keepdim=True)) / temperature
        through_z = through_z * (z - z.amax(-1, keepdim=True)).exp()  # less the derivative given the draw
        score = (cost - control)[..., None, None] * (hard - p)
        return score + through_z - p * through_z.sum(-1, keepdim=True)

    def control(self, y: Tensor, objective: Objective, dtype: torch.dtype) -> Tensor:
        r"""The control variate at relaxed samples y ``[1, *batch, K, C]``: ``[1, *batch]``.

        0 if the objective has no derivative there: it may still change from one y to another, as one of an argmax
        does, and the gradient of its expectation would be missing from the estimate.
        """
        cost = objective(y.to(dtype))
        without = y.requires_grad and not depends_on(cost, y)
        return torch.zeros_like(cost) if without else self.scale * cost


class Relax(Rebar):
    r""":class:`Rebar` with a network added to its control variate.

    :math:`c = \mathrm{scale} \cdot f(y) + r(y)`, y the relaxed sample and r a network with one hidden layer, which is 0
    at the start. Unbiased whatever r is, for a continuous objective, as :class:`Rebar`. The network pays only if it has
    time to learn what the relaxation misses: for short runs take :class:`Rebar`. It sees the relaxed sample alone, not
    the example that the logits were made from: what the control variate should be for one example it cannot tell from
    what it should be for another.

    References:
        | Backpropagation through the Void: Optimizing control variates for black-box gradient estimation
          (Grathwohl et al., 2018)
        | https://arxiv.org/abs/1711.00123

    Arguments:
        temperature: Of the relaxation at the start, above 0.
        scale: Of the objective in the control variate at the start; 0 is not trained, and leaves the network alone.
        width: Hidden units of the network, at least 1.
    """

    learns = "temperature and scale of the relaxation and a network, on the gradient's square"
    worth_trying = ({"temperature": 0.1}, {"temperature": 0.5})  # as for REBAR

    def __init__(self, temperature: float = 0.5, scale: float = 1.0, width: int = 100):
        super().__init__(temperature, scale)
        self.scale.requires_grad_(scale != 0)
        last = nn.Linear(at_least(1, width=width), 1)
        nn.init.zeros_(last.weight), nn.init.zeros_(last.bias)
        self.network = nn.Sequential(nn.LazyLinear(width), nn.Tanh(), last)

    def control(self, y: Tensor, objective: Objective, dtype: torch.dtype) -> Tensor:
        learned = self.network[0].in_features  # 0 before the first call
        if learned not in (0, y.shape[-2:].numel()):
            raise ValueError(f"Relax has learned for logits of K x C = {learned}: each choice has an object of its own")
        return super().control(y, objective, dtype) + evaluate_network(self.network, y.flatten(-2)).squeeze(-1)
