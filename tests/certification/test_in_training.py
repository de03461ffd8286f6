"""Mistakes that show only in use: as costs are weighted, features given, learned parts moved, and in other calls."""

import pytest
import torch
from torch import nn

from hardmax.certification import Sampler, failures
from hardmax.certification.certificate import calls
from hardmax.estimators import Estimator, Exact, Reinforce, sampling
from hardmax.estimators.base import RunningMean, graft, straight_through


class Own(Estimator):
    """REINFORCE, as one would write it."""

    target, unbiased, differentiates_objective, compiles = "expectation", True, False, False

    def estimate(self, logits, objective, context):
        z = sampling.draw(logits, 1)
        cost = objective(z)[0]
        return self.joined(cost, logits, self.advantage(cost, z, context)[..., None, None] * (z[0] - self.p(logits)))

    def p(self, logits):
        return logits.softmax(-1)

    def advantage(self, cost, z, context):
        return cost.detach()

    def joined(self, cost, logits, gradient):
        return graft(cost, logits, gradient)


class MovingBaseline(Own):
    """What the mean is multiplied by is not the score, which nothing shows before it has moved."""

    def __init__(self):
        super().__init__()
        self.running = RunningMean(0.9)

    def estimate(self, logits, objective, context):
        z = sampling.draw(logits, 1)
        cost = objective(z)[0]
        b = self.running().to(cost.dtype)
        self.running.note(cost.detach().mean())
        return graft(cost, logits, cost.detach()[..., None, None] * (z[0] - self.p(logits)) - b * z[0])

    def advance(self):
        self.running.advance()


class BaselineOfItsDraw(Own):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def advantage(self, cost, z, context):
        return (cost - self.weight * z[0, ..., 0].sum(-1)).detach()


class _Graft(torch.autograd.Function):
    @staticmethod
    def forward(ctx, cost, logits, gradient):
        ctx.save_for_backward(gradient)
        return cost.clone()

    @staticmethod
    def backward(ctx, upstream):
        return upstream, ctx.saved_tensors[0], None


class NoWeights(Own):
    def joined(self, cost, logits, gradient):
        return _Graft.apply(cost, logits, gradient.detach())


class Hook(Own):
    def joined(self, cost, logits, gradient):
        logits.register_hook(lambda _: gradient.detach())
        return cost + 0 * logits.sum((-2, -1))


class ContextTrained(Own):
    def advantage(self, cost, z, context):
        self.extra = 0.0 if context is None else context.square().mean(-1)
        return cost.detach()

    def joined(self, cost, logits, gradient):
        return graft(cost + self.extra - (self.extra.detach() if torch.is_tensor(self.extra) else 0), logits, gradient)


class ContextOfAnotherShape(Own):
    def advantage(self, cost, z, context):
        return (cost - 0.0 if context is None else (cost - context[..., :1]).mean(-1)).detach()


class Derivative(Estimator):
    target, unbiased, differentiates_objective, compiles = "expectation", False, False, False

    def estimate(self, logits, objective, context):
        return objective(straight_through(sampling.draw(logits, 1), logits.softmax(-1)))[0]


class Clamped(Own):
    def estimate(self, logits, objective, context):
        return super().estimate(logits.softmax(-1).clamp(min=1e-2).log(), objective, context)


class Top8(Own):
    def estimate(self, logits, objective, context):
        least = logits.topk(min(8, logits.shape[-1]), -1).values[..., -1:]
        return super().estimate(logits.masked_fill(logits < least, -torch.inf), objective, context)


class Kept(Own):
    def __init__(self):
        super().__init__()
        self.kept = {}

    def p(self, logits):
        return self.kept.setdefault(logits.shape, logits.detach().softmax(-1))


class InPlace(Own):
    def estimate(self, logits, objective, context):
        shifted = logits.detach()
        shifted -= shifted.amax(-1, keepdim=True)
        return super().estimate(logits, objective, context)


WRONG = {
    MovingBaseline: "the same after steps of training",
    BaselineOfItsDraw: "the same after steps of training",
    NoWeights: "weights of costs, and penalties",
    Hook: "weights of costs, and penalties",
    ContextTrained: "a context",
    ContextOfAnotherShape: "a context",
    Derivative: "values of the objective alone",
    Clamped: "the same with more categories, variables, a rare category",
    Top8: "the same with more categories, variables, a rare category",
    Kept: "logits of other calls",
    InPlace: "logits of other calls",
}


@pytest.mark.parametrize("made", WRONG, ids=lambda made: made.__name__)
def test_a_mistake_that_shows_in_use_is_found(made):
    estimator = made()
    assert any(call.message(estimator) for call in calls(estimator)[WRONG[made]])


def test_what_is_right_is_found_so():
    assert failures(Own()) == []


def test_many_draws_take_no_more_memory_than_there_is():
    """Which have more outcomes together than can be gone through; samples are drawn then."""
    estimator = Reinforce(samples=16, baseline="leave_one_out")
    tried = calls(estimator)
    assert not [c.message(estimator) for c in tried["nested in its own objective"] if c.message(estimator)]


def test_draws_in_two_leading_dimensions_are_counted():
    class Two(Own):
        evaluations = "4"

        def estimate(self, logits, objective, context):
            z = sampling.draw(logits, 4)
            cost = objective(z.unflatten(0, (2, 2))).flatten(0, 1)
            score = z - logits.softmax(-1)
            return graft(cost.mean(0), logits, (cost.detach()[..., None, None] * score).mean(0))

    estimator = Two()
    assert not [c.message(estimator) for c in calls(estimator)["evaluations of the objective"] if c.message(estimator)]


def first_example(logits):
    row = logits[(0,) * (logits.ndim - 2)].expand_as(logits) if logits.ndim > 2 else logits
    return straight_through(sampling.draw(row, 1)[0], logits.softmax(-1))


def reseeding(logits):
    torch.manual_seed(0)
    return straight_through(sampling.draw(logits, 1)[0], logits.softmax(-1))


def right(logits):
    return straight_through(sampling.draw(logits, 1)[0], logits.softmax(-1))


@pytest.mark.parametrize(
    ("function", "claim"),
    [(first_example, "one-hot z have the softmax's law"), (reseeding, "draws are independent"), (right, None)],
)
def test_samplers_that_look_at_one_example_or_seed_themselves_are_found(function, claim):
    sampler = Sampler(function)
    tried = {name: calls(sampler)[name] for name in ("one-hot z have the softmax's law", "draws are independent")}
    found = {name for name, each in tried.items() if any(call.message(sampler) for call in each)}
    assert found == ({claim} if claim else set())


def test_an_impossible_category_may_cost_anything():
    logits = torch.tensor([[0.0, 1.0, -torch.inf]], requires_grad=True)
    cost = Exact()(logits, lambda z: torch.where(z.argmax(-1) == 2, torch.inf, 0.0).sum(-1))
    (g,) = torch.autograd.grad(cost, logits)
    assert cost == 0
    assert g.isfinite().all()
