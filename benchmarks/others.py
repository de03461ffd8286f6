"""Other libraries' estimators and samplers, in the forms that ``hardmax certify`` takes.

They come with ``pip install -c constraints.txt -e '.[libraries]'``. Samplers are functions of logits, for
``--sampler benchmarks.others:reinmax tau=1.0``; estimators that need values of the cost are classes, for
``hardmax certify benchmarks.others.PydrobertRebar``. Nothing of theirs is changed.
"""

import torch
from torch import Tensor

from hardmax.estimators import Estimator
from hardmax.estimators.base import graft


def reinmax(logits: Tensor, tau: float = 1.0) -> Tensor:
    """The reinmax package's draw, ``[..., C]``."""
    from reinmax import reinmax as theirs

    return theirs(logits, tau)[0]


def pyro_relaxed(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Pyro's relaxed one-hot categorical, ``[..., C]``."""
    from pyro.distributions import RelaxedOneHotCategorical

    return RelaxedOneHotCategorical(logits.new_tensor(temperature), logits=logits).rsample()


def pyro_straight_through(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Pyro's straight-through relaxed one-hot categorical, ``[..., C]``."""
    from pyro.distributions import RelaxedOneHotCategoricalStraightThrough

    return RelaxedOneHotCategoricalStraightThrough(logits.new_tensor(temperature), logits=logits).rsample()


class PyroReinforce(Estimator):
    """Pyro's ``Trace_ELBO`` of a model that draws z as the guide does and has minus the cost as a factor."""

    target, unbiased, differentiates_objective, compiles = "expectation", True, False, False

    def estimate(self, logits, objective, context):
        import pyro
        from pyro.distributions import OneHotCategorical
        from pyro.infer import Trace_ELBO

        leaf = logits.detach().requires_grad_()

        def draw(logits, factor=False):
            with pyro.plate_stack("batch", logits.shape[:-2]):
                pyro.sample("z", OneHotCategorical(logits=logits).to_event(1))
                if factor:
                    pyro.factor("cost", -cost.detach())

        drawn = pyro.poutine.trace(draw).get_trace(leaf)
        cost = objective(drawn.nodes["z"]["value"].unsqueeze(0))[0]
        model, guide = lambda: draw(logits.detach(), factor=True), pyro.poutine.replay(lambda: draw(leaf), trace=drawn)
        loss = Trace_ELBO(max_plate_nesting=logits.ndim - 2).differentiable_loss(model, guide)
        (gradient,) = torch.autograd.grad(loss, leaf)
        return graft(cost, logits, gradient)


class Pydrobert(Estimator):
    """What the estimators of pydrobert-pytorch share: a draw, its cost, and a function that gives the gradient."""

    target, unbiased, differentiates_objective, compiles = "expectation", True, False, False

    def estimate(self, logits, objective, context):
        from pydrobert.torch import estimators as theirs

        fixed = logits.detach()
        z = theirs.to_z(fixed, "onehot", warn=False)
        b = theirs.to_b(z, "onehot").detach().to(logits.dtype)
        cost = objective(b.unsqueeze(0))[0]
        gradient = self.gradient(theirs, fixed, z, b, cost.detach(), objective)
        return graft(cost, logits, gradient.detach())

    def gradient(self, theirs, logits, z, b, cost, objective):
        """Of the cost's expectation to the logits, by one of the library's functions."""
        raise NotImplementedError


class PydrobertReinforce(Pydrobert):
    """Its ``reinforce``."""

    def gradient(self, theirs, logits, z, b, cost, objective):
        return theirs.reinforce(cost.unsqueeze(-1), b, logits.requires_grad_(), "onehot")


class PydrobertRebar(Pydrobert):
    """Its ``relax`` with its ``REBARControlVariate``, neither trained."""

    differentiates_objective, evaluations = True, "3"

    def gradient(self, theirs, logits, z, b, cost, objective):
        c = theirs.REBARControlVariate(lambda y: objective(y.unsqueeze(0))[0].unsqueeze(-1), "onehot", start_temp=0.5)
        return theirs.relax(cost.unsqueeze(-1), b, logits, z, c.to(logits.dtype), "onehot")


class PydrobertRelax(Pydrobert):
    """Its ``relax`` with a fixed network as control variate, the same for every variable."""

    def gradient(self, theirs, logits, z, b, cost, objective):
        weight = torch.linspace(-1.0, 1.0, z.shape[-1], dtype=z.dtype)
        return theirs.relax(cost.unsqueeze(-1), b, logits, z, lambda y: (y.tanh() * weight).sum(-1), "onehot")
