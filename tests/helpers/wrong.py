"""Estimators that are wrong on purpose, which the conformance suite must reject."""

import torch
from torch import nn

from hardmax.estimators import (
    AR,
    ARS,
    ARSM,
    IMLE,
    VIMCO,
    DisARMIW,
    Exact,
    GumbelSoftmax,
    Reinforce,
    Softmax,
    StraightThrough,
    sampling,
)
from hardmax.estimators.base import Estimator, graft
from hardmax.estimators.carms import InverseCDF
from hardmax.estimators.released import given
from hardmax.estimators.straight_through import PulledBack
from helpers.laws import law_in_order


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


class UphillJacobian(StraightThrough):
    """Subtracts the probabilities where they belong added: the value is right, and every step goes uphill."""

    def draw(self, logits):
        soft = logits.softmax(-1)
        return super().draw(logits).detach() - (soft - soft.detach()).unsqueeze(0)


class UphillNoise(GumbelSoftmax):
    """The same of a relaxation by noise, for straight-through use: the value is that of its draws."""

    target = "draws"

    def draw(self, logits):
        y = super().draw(logits)
        return 2 * y.detach() - y


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


class DetachedLogQ(VIMCO):
    attaches_log_q = False


class ByDefinition(Estimator):
    """REBAR as published: independent conditional noise, both relaxations evaluated, derivatives by autograd.

    ``shared`` is whether the categories that lost share the clock of the one that won; if not, every one of them
    uses its own noise twice (v_i for v_b), as published code does.
    """

    target, unbiased, differentiates_objective = "expectation", True, True

    def __init__(self, shared, temperature=0.7):
        super().__init__()
        self.shared, self.temperature = shared, temperature

    def estimate(self, logits, objective, context):
        leaf = logits.detach().requires_grad_()
        log_p = leaf.log_softmax(-1)
        z = log_p + sampling.gumbel(logits, 1)
        hard = sampling.one_hot(z.argmax(-1), logits)
        conditional = given(hard, log_p, (-sampling.gumbel(logits, 1)).exp(), self.shared)
        cost = objective(hard)[0]
        relaxed = [objective((x / self.temperature).softmax(-1))[0] for x in (z, conditional)]
        (difference,) = torch.autograd.grad((relaxed[0] - relaxed[1]).sum(), leaf)
        advantage = (cost - relaxed[1])[..., None, None]
        return graft(cost, logits, advantage * (hard[0] - log_p.exp()) + difference)


class Unsorted(DisARMIW):
    def order(self, logits):
        return torch.arange(logits.shape[-1]).expand(logits.shape)


class FixedOrder(InverseCDF):
    """One order of the categories, in which neighbours are never drawn together."""

    def ratio(self, log_p, first, second):
        p = log_p.reshape(-1, log_p.shape[-1])[0].exp()
        law = law_in_order(p, list(range(len(p))), 2)
        return torch.where(law > 1e-15, torch.outer(p, p) / law, 0.0)[first, second]


class Clipped(InverseCDF):
    """The released ratio: (p p' + 0.001) / (P + 0.001), between 0.01 and 10."""

    def ratio(self, log_p, first, second):
        p = log_p.exp()
        of_pair = p.expand(*first.shape, -1).gather(-1, first.unsqueeze(-1)).squeeze(-1)
        of_pair = of_pair * p.expand(*first.shape, -1).gather(-1, second.unsqueeze(-1)).squeeze(-1)
        ratio = super().ratio(log_p, first, second)
        return ((of_pair + 1e-3) / (of_pair / ratio + 1e-3)).clamp(0.01, 10)


class Undivided(IMLE):
    """The difference of the two draws as it is, not over the step between their logits."""

    def change(self, logits, perturbed, g):
        return self.step * super().change(logits, perturbed, g)


class DiagonalJacobian(PulledBack):
    """Stochastic straight-through, of whose softmax only the diagonal of the Jacobian is taken."""

    def pullback(self, logits, hard):
        p = logits.softmax(-1)
        return lambda g: p * (1 - p) * g


class MissingDecoderGradient(Reinforce):
    """Evaluates without gradients, so that the objective's own parameters get none."""

    def estimate(self, logits, objective, context):
        detached = lambda z: objective(z).detach()
        return super().estimate(logits, detached, context)


class SharedDraw(Reinforce):
    """One draw for all copies along the leading dimension."""

    def estimate(self, logits, objective, context):
        z = sampling.draw(logits[:1], 1).expand(1, *logits.shape)
        cost = objective(z)
        score = cost.detach()[..., None, None] * (z - logits.softmax(-1))
        return graft(cost[0], logits, score[0])


class SharedNoise(GumbelSoftmax):
    """The same noise for all copies along the leading dimension."""

    def draw(self, logits):
        return ((logits + sampling.gumbel(logits[:1], 1)) / self.temperature()).softmax(-1)


class MoreEvaluations(Reinforce):
    """Evaluates once more than it says, without gradients."""

    def estimate(self, logits, objective, context):
        with torch.no_grad():
            objective(sampling.draw(logits, 1))
        return super().estimate(logits, objective, context)


class OwnLogits(Reinforce):
    """Breaks where a category has probability 0: 0 times minus infinity."""

    def estimate(self, logits, objective, context):
        z = sampling.draw(logits, 1)
        log_prob = (z * logits.log_softmax(-1)).sum((-2, -1))
        cost = objective(z)
        return (cost + cost.detach() * (log_prob - log_prob.detach()))[0]


class MeanCost(Reinforce):
    """One cost for the whole batch."""

    def estimate(self, logits, objective, context):
        return super().estimate(logits, objective, context).mean()


class WrongValue(Reinforce):
    """Twice the cost, with the gradient of one."""

    def estimate(self, logits, objective, context):
        cost = super().estimate(logits, objective, context)
        return cost + cost.detach()


class UnbiasedRelaxation(Softmax):
    """Claims to be unbiased for the discrete expectation, though it estimates another one."""

    unbiased = True


class NotCompiled(Reinforce):
    """Looks at a value in the middle of a call."""

    def estimate(self, logits, objective, context):
        if float(logits.detach().sum()) > 1e30:
            print("large")
        return super().estimate(logits, objective, context)


class RoundedDraws(Reinforce):
    """Rounds probabilities to the precision of the logits before it draws."""

    def estimate(self, logits, objective, context):
        p = logits.softmax(-1)
        steps = 2 ** (2 if logits.dtype == torch.bfloat16 else 40)
        z = sampling.draw(((p.double() * steps).round() / steps).log(), 1).to(logits.dtype)
        cost = objective(z)[0]
        return graft(cost, logits, cost[..., None, None] * (z[0] - p))


class AnotherSample(GumbelSoftmax):
    """Has the relaxed sample of another temperature for rsample."""

    def rsample(self, logits):
        return super().rsample(0.9 * logits)


def uniform_draws(logits):
    """One-hot draws that take no notice of the logits but in their gradient."""
    soft = logits.softmax(-1)
    index = torch.randint(logits.shape[-1], logits.shape[:-1])
    return torch.nn.functional.one_hot(index, logits.shape[-1]).to(soft) + soft - soft.detach()


def shared_noise(logits):
    """The same Gumbel noise for all rows."""
    noise = -torch.empty(logits.shape[-1], dtype=logits.dtype).exponential_().log()
    return (logits + noise).softmax(-1)


def hard_without_gradient(logits):
    """One-hot draws, detached."""
    return torch.nn.functional.gumbel_softmax(logits, hard=True).detach()


def uphill(logits):
    soft = logits.softmax(-1)
    z = torch.nn.functional.one_hot(torch.distributions.Categorical(logits=logits).sample(), logits.shape[-1])
    return z - (soft - soft.detach())


def sigmoids(logits):
    """Not on the simplex."""
    return logits.sigmoid()


def log_of_softmax(logits):
    """A Gumbel-softmax through log(softmax), which is NaN in the gradient where a probability is 0."""
    p = logits.softmax(-1)
    return (p.log() - torch.empty_like(p).exponential_().log()).softmax(-1)


class DividedByTheOthers(Reinforce):
    """Divides each difference from the other draws by their standard deviation, its own cost left out."""

    def estimate(self, logits, objective, context):
        z = sampling.draw(logits, self.samples)
        cost = objective(z)
        others = torch.stack(
            [torch.cat([cost[:s], cost[s + 1 :]]) for s in range(len(cost))]
        ).detach()  # [S, S - 1, ...]
        advantage = (cost.detach() - others.mean(1)) / (others.std(1) + 1e-4)
        score = (advantage[..., None, None] * (z - logits.softmax(-1))).mean(0)
        return graft(cost.mean(0), logits, score)


class NothingLeftOut(Reinforce):
    """Leaves out the draws j of which ``~i`` is false, and no ``~i`` is: for an index it is -i - 1, never 0."""

    def subtracted(self, cost, logits, objective):
        kept = [[cost[j] for j in range(len(cost)) if ~i] for i in range(len(cost))]
        return torch.stack([torch.stack(own).mean(0) for own in kept])


class ClampedLog(Reinforce):
    """Takes the logarithm of probabilities that are held above 1e-8."""

    def estimate(self, logits, objective, context):
        z = sampling.draw(logits, self.samples)
        cost = objective(z)
        log_prob = (z * logits.softmax(-1).clamp(min=1e-8).log()).sum((-2, -1))
        return (cost + cost.detach() * (log_prob - log_prob.detach())).mean(0)


class RelaxedRebar(GumbelSoftmax):
    """Calls itself REBAR, and has its relaxed sample alone: no discrete draw, and no correction by one."""

    target, unbiased = "expectation", True


class MeanThatMovesFirst(Reinforce):
    """Moves the running mean to the cost before it is subtracted from that cost."""

    def subtracted(self, cost, logits, objective):
        decay = self.running.decay
        return decay * self.running().to(cost.dtype) + (1 - decay) * cost


class AddedCosts(Estimator):
    """DisARM of binary variables with half of the sum of the two costs where half of their difference belongs."""

    target, unbiased, differentiates_objective = "expectation", True, False

    def estimate(self, logits, objective, context):
        p = logits.softmax(-1)
        u = torch.rand_like(p[..., 0])
        pair = torch.stack([v < p[..., 1] for v in (u, 1 - u)]).long()
        z = torch.nn.functional.one_hot(pair, 2).to(logits.dtype)
        cost = objective(z)
        weight = (z[0] - z[1]) * p.amax(-1, keepdim=True)
        return graft(cost.mean(0), logits, cost.mean(0)[..., None, None] * weight / 2)


class BinaryRebar(Estimator):
    """REBAR of binary variables whose noise given the draw has pluses for minuses: log p + log(1 + p) + ..."""

    target, unbiased, differentiates_objective = "expectation", True, True

    def __init__(self, sign, temperature=0.5):
        super().__init__()
        self.sign, self.temperature = sign, temperature

    def estimate(self, logits, objective, context):
        leaf = logits.detach().requires_grad_()
        p = leaf.softmax(-1)[..., 1]
        u, v = torch.rand_like(p), torch.rand_like(p)
        logit = lambda x, sign=-1: x.log() + sign * (sign * x).log1p()
        z = logit(p) + logit(u)
        b = (z > 0).to(p.dtype).detach()
        given_draw = b * (v * p + 1 - p) + (1 - b) * v * (1 - p)
        other = logit(p, self.sign) + logit(given_draw, self.sign)
        both = [torch.stack([1 - y, y], -1) for y in ((x / self.temperature).sigmoid() for x in (z, other))]
        hard = torch.stack([1 - b, b], -1)
        cost, relaxed = objective(hard.unsqueeze(0))[0], [objective(y.unsqueeze(0))[0] for y in both]
        (difference,) = torch.autograd.grad((relaxed[0] - relaxed[1]).sum(), leaf)
        return graft(cost, logits, (cost - relaxed[1])[..., None, None] * (hard - logits.softmax(-1)) + difference)


class WithoutInit(Reinforce):
    def __init__(self, baseline="none"):
        self.baseline = baseline


class BoundOfNoDraws(MissingProbabilities):
    target = "bound"


class SamplesUnset(MissingProbabilities):
    """Makes three draws, and says S without an attribute of that name."""

    evaluations = "S"

    def estimate(self, logits, objective, context):
        return objective(sampling.draw(logits, 3)).mean(0)


class DrawsInFloat32(MissingProbabilities):
    """Takes over the precision of the noise, which is never below float32."""

    def estimate(self, logits, objective, context):
        noisy = logits + sampling.gumbel(logits, 1)
        return objective(sampling.one_hot(noisy.argmax(-1), noisy))[0]


class NumberInWords(Reinforce):
    """Has a number of draws that is none, so that every call raises."""

    def __init__(self):
        super().__init__(baseline="none")
        self.samples = "five"


class Modest(Reinforce):
    """Denies that it is unbiased, and says that it takes a derivative: neither is so."""

    def __init__(self):
        super().__init__(baseline="none")
        self.unbiased, self.differentiates_objective = False, True
