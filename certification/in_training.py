r"""The checks of what comes with training a model: weights of costs, features of examples, steps, and other calls."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from hardmax.estimators import Estimator
from hardmax.gradients.enumeration import require

from .checks import check_expectation, runner
from .expectations import EXACT
from .problems import SmallProblem

FEATURES = 3  # of each example
STEPS, RATE, MOVED = 5, 0.05, 0.1  # of training, its rate, and by how much what is learned moves beside


def with_examples(problem: SmallProblem) -> SmallProblem:
    r"""The problem, with three examples if it has no batch."""
    return problem if problem.batch else SmallProblem(problem.K, problem.C, (3,), extreme=0.3)


def gradient(estimator: Estimator, problem: SmallProblem, loss: Callable, objective: Callable | None = None) -> Tensor:
    r"""Gradient to the logits ``[50, *batch, K, C]`` of a loss of cost and logits, always from one random stream."""
    torch.manual_seed(1)
    logits, parameters = problem.leaves(50)
    cost = estimator(logits, objective or problem.objective(parameters))
    total = loss(cost, logits)
    found = torch.autograd.grad(total, logits, allow_unused=True)[0] if total.requires_grad else None
    return torch.zeros_like(logits) if found is None else found


def check_weighted_costs(estimator: Estimator, problem: SmallProblem) -> None:
    r"""What the loss does with a cost is done to its gradient, and what else it has of the logits is added to that."""
    problem = with_examples(problem)
    plain = lambda cost, logits: cost.sum()
    gradient(estimator, problem, plain)  # lets learned parts take their sizes
    weights = 1 + torch.rand(50, *problem.batch, dtype=torch.float64)
    own = gradient(estimator, problem, plain)
    weighted = gradient(estimator, problem, lambda cost, logits: (weights * cost).sum())
    require(
        (weighted - weights[..., None, None] * own).abs().max() < EXACT,
        "a cost's weight in the loss, as in a mean, is not that of its gradient: backward must use what comes to it",
    )
    added = gradient(estimator, problem, lambda cost, logits: cost.sum() + logits.square().sum())
    more = added - own - 2 * problem.leaves(50)[0].detach()
    require(more.abs().max() < EXACT, "a penalty's gradient to the logits is not added to that of the cost")


def check_features(estimator: Estimator, problem: SmallProblem) -> None:
    r"""With features of the examples costs have the same shape, and the features no gradient."""
    problem = with_examples(problem)
    features = torch.randn(4, *problem.batch, FEATURES, dtype=torch.float64, requires_grad=True)
    logits, parameters = problem.leaves(4)
    cost = estimator(logits, problem.objective(parameters), features)
    require(cost.shape == logits.shape[:-2], f"with a context the cost has shape {list(cost.shape)}")
    if cost.requires_grad:
        found = torch.autograd.grad(cost.sum(), features, allow_unused=True)[0]
        require(found is None or not found.any(), "the context gets a gradient, which would train what it is made by")


def check_values_alone(estimator: Estimator, problem: SmallProblem) -> None:
    r"""An estimator that claims to take values of the objective alone has the same draws without its derivative."""
    if estimator.differentiates_objective:
        return
    plain, objective = (lambda cost, logits: cost.sum()), problem.objective(problem.parameters)
    gradient(estimator, problem, plain)
    with_derivative, without = (
        gradient(estimator, problem, plain, f) for f in (objective, lambda z: objective(z.detach()))
    )
    require(
        torch.equal(with_derivative, without),
        "the gradient uses the objective's derivative, which differentiates_objective=False denies",
    )


def uses_derivative(estimator: Estimator, problem: SmallProblem) -> bool:
    r"""Whether its draws are others where the objective has another derivative, and the same values."""
    plain, objective = (lambda cost, logits: cost.sum()), problem.objective(problem.parameters)
    gradient(estimator, problem, plain)  # lets learned parts take their sizes
    own, *others = (
        gradient(estimator, problem, plain, lambda z, k=factor: objective(z.detach() + k * (z - z.detach())))
        for factor in (1, -100, 100)
    )
    return not all(torch.equal(own, other) for other in others)


def check_after_steps(estimator: Estimator, problem: SmallProblem) -> None:
    r"""The expectation after some steps of training, which move what is learned, and averages."""
    runner(estimator, problem)(1)  # lets learned parts take their sizes
    learned = [p for p in estimator.parameters() if p.requires_grad]
    for _ in range(STEPS):
        logits, parameters = problem.leaves(4)
        cost = estimator(logits, problem.objective(parameters)).mean()
        if learned and cost.requires_grad:
            found = torch.autograd.grad(cost, learned, allow_unused=True)
            with torch.no_grad():
                for parameter, g in zip(learned, found, strict=True):
                    parameter.sub_(torch.zeros_like(parameter) if g is None else RATE * g)
        estimator.advance()
    with torch.no_grad():
        for parameter in learned:
            parameter.add_(MOVED * torch.randn_like(parameter))
    check_expectation(estimator, problem)


def check_other_calls(estimator: Estimator, problem: SmallProblem) -> None:
    r"""A call leaves the logits as they are, and what it gives does not depend on logits of earlier calls."""
    fresh, plain = copy.deepcopy(estimator), lambda cost, logits: cost.sum()
    logits, parameters = problem.leaves(50)
    before = logits.detach().clone()
    estimator(logits, problem.objective(parameters))
    require(torch.equal(before, logits), "a call changes the logits that it is given")
    other = problem.to("cpu", torch.float64)
    other.logits = 1.3 * problem.logits.flip(-1) + 0.2
    if any(True for _ in estimator.parameters()):
        gradient(fresh, problem, plain)  # in which learned parts take their sizes, and numbers for them
    require(
        torch.equal(gradient(estimator, other, plain), gradient(fresh, other, plain)),
        "a call depends on the logits of the calls before it",
    )
