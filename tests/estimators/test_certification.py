"""The conformance suite is itself tested: estimators that are wrong on purpose must fail it."""

import certification as c
import pytest
import torch
from torch import nn

from hardmax.estimators import AR, ARS, ARSM, Exact, GumbelSoftmax, Reinforce, Softmax, StraightThrough, sampling
from hardmax.estimators.base import Estimator, graft


class FlippedSign(Reinforce):
    def estimate(self, logits, objective, context):
        cost = super().estimate(logits, objective, context)
        (gradient,) = torch.autograd.grad(cost.sum(), logits, retain_graph=True)
        return graft(cost, logits, -2 * gradient)


class OwnCostInBaseline(Reinforce):
    def subtracted(self, cost, logits, objective):
        return cost.mean(0)


class MissingProbabilities(Estimator):
    target, unbiased, differentiates_objective = "expectation", True, False

    def estimate(self, logits, objective, context):
        z = sampling.draw(logits, 1)
        cost = objective(z)[0]
        return graft(cost, logits, cost[..., None, None] * z[0])


class GradientThroughBaseline(Reinforce):
    def estimate(self, logits, objective, context):
        z = sampling.draw(logits, 1)
        cost = objective(z)
        greedy = objective(sampling.one_hot(logits.argmax(-1), logits).unsqueeze(0))
        advantage = (cost - greedy)[..., None, None]
        return graft((cost - greedy + greedy.detach())[0], logits, (advantage * (z - logits.softmax(-1)))[0])


class BaselineOverEverything(Reinforce):
    """Looks across leading dimensions, its own draw included."""

    def subtracted(self, cost, logits, objective):
        return cost.mean()


class StateInACall(Reinforce):
    def estimate(self, logits, objective, context):
        cost = super().estimate(logits, objective, context)
        self.advance()
        return cost


class TwoEvaluations(Reinforce):
    def forward(self, logits, objective, context=None, log_q=False):
        if not torch.is_grad_enabled():
            objective(sampling.draw(logits, 1))
        return super().forward(logits, objective, context, log_q)


class NoLogQ(Reinforce):
    def forward(self, logits, objective, context=None, log_q=False):
        return super().forward(logits, objective, context)


class HalfOfLogQ(Softmax):
    """A relaxation that detaches log q though it says that it attaches it."""

    def forward(self, logits, objective, context=None, log_q=False):
        self.attaches_log_q = False
        cost = super().forward(logits, objective, context, log_q)
        self.attaches_log_q = True
        return cost


class OneLeadingDimension(Estimator):
    target, unbiased, differentiates_objective = "expectation", True, False

    def estimate(self, logits, objective, context):
        z = sampling.draw(logits, 1)
        cost = objective(z)[0]
        gradient = torch.einsum("b...,bkc->bkc", cost, z[0] - logits.softmax(-1))
        return graft(cost, logits, gradient)


class SoftValue(StraightThrough):
    """Evaluates the objective at the probabilities though its target is the mode."""

    def draw(self, logits):
        return logits.softmax(-1).unsqueeze(0)


class MeanOverReferences(ARSM):
    def gradient(self, race, cost, objective):
        return super().gradient(race, cost, objective) / race.logits.shape[-1]


class SwapsWithGradients(ARSM):
    """Evaluates a pseudo-action with gradients, and lets it into the cost with value zero."""

    def estimate(self, logits, objective, context):
        cost = super().estimate(logits, objective, context)
        other = objective(sampling.draw(logits, 1))[0]
        return cost + other - other.detach()


class UncenteredNoise(AR):
    def gradient(self, race, cost, objective):
        return -cost[..., None, None] * race.logits.shape[-1] * race.pi()


class NextReference(ARS):
    """Pairs the swaps with another category's noise."""

    def gradient(self, race, cost, objective):
        return super().gradient(race, cost, objective).roll(1, -1)


class NoReciprocalTemperature(GumbelSoftmax):
    def draw(self, logits):
        y = super().draw(logits)
        return y.detach() + self.temperature() * (y - y.detach())


class TemperatureFromNoise(GumbelSoftmax):
    """Draws noise at half the scale."""

    def draw(self, logits):
        return ((logits + 0.5 * sampling.gumbel(logits, 1)) / self.temperature()).softmax(-1)


class ProbabilitiesDetached(Exact):
    def estimate(self, logits, objective, context):
        return super().estimate(logits.detach() + 0.5 * (logits - logits.detach()), objective, context)


class AuxiliaryLossReachesModel(Reinforce):
    """Predicts its cost from the logits, and lets the error of the prediction train them too."""

    def __init__(self):
        super().__init__(baseline="none")
        self.bias = nn.Parameter(torch.zeros(()))

    def estimate(self, logits, objective, context):
        cost = super().estimate(logits, objective, context)
        if not self.training:
            return cost
        error = (logits.sum((-2, -1)) + self.bias - cost.detach()).square().mean()
        return cost + error - error.detach()


WRONG = {
    "flipped sign": lambda: FlippedSign(baseline="none"),
    "own cost in the baseline": lambda: OwnCostInBaseline(samples=2, baseline="none"),
    "missing probabilities": MissingProbabilities,
    "gradient through the baseline": GradientThroughBaseline,
    "baseline over everything": lambda: BaselineOverEverything(baseline="none"),
    "state moves in a call": StateInACall,
    "two evaluations without gradients": TwoEvaluations,
    "log q left out": NoLogQ,
    "log q detached in a relaxation": lambda: HalfOfLogQ(temperature=0.5),
    "one leading dimension": OneLeadingDimension,
    "soft value": SoftValue,
    "mean over references": MeanOverReferences,
    "swaps with gradients": SwapsWithGradients,
    "noise not centred": UncenteredNoise,
    "another reference": NextReference,
    "no 1 / temperature": lambda: NoReciprocalTemperature(temperature=0.5),
    "half the noise": TemperatureFromNoise,
    "probabilities half detached": ProbabilitiesDetached,
    "auxiliary loss reaches the model": AuxiliaryLossReachesModel,
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_estimators_are_rejected(name):
    with pytest.raises((AssertionError, RuntimeError)):  # RuntimeError: shapes that do not even multiply
        c.certify(WRONG[name]())


@pytest.mark.parametrize("make", [Exact, lambda: Reinforce(baseline="none"), Softmax, ARSM])
def test_right_estimators_are_certified(make):
    c.certify(make())
