r"""Estimators that may be put on a problem: the library's and others, each with its settings that are worth trying."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from hardmax import estimators
from hardmax.estimators import MVE, sampling
from hardmax.estimators.base import Estimator
from hardmax.estimators.claims import evaluations_of
from hardmax.estimators.objectives import Objective, with_shape
from hardmax.tasks.base import Problem, Task

from .advice import Candidate, candidate_of
from .draws import Draws, add_draws
from .moments import BLOCKS, Moments, TrueGradient, finite_or_none
from .truth import LOOKS

TIMED_CALLS = 5  # of which the fastest tells what one draw takes: others had something in their way
NOT_FINITE, NO_TIME = "its gradient is not finite", "no time was left for it"
MISSED = "unbiased, but its draws are further from the true gradient than chance allows: they missed rare costs"
MOST_AT_FIRST = 25  # draws, of which a quarter are made to see how long they take
LARGEST_SYSTEMS = 1e11  # multiplications to solve the systems of one gradient draw, but for a small factor
LEARNING_STEPS, LEARNING_RATE = 100, 0.01  # of what an estimator learns, before it is measured


class OneProblem(Task):
    r"""A task of nothing but one problem, with logits of its own.

    Arguments:
        logits: ``[*batch, K, C]``, whose values are taken.
        objective: ``[S, *batch, K, C] -> [S, *batch]``; it is called with one leading dimension and no more.
        context, log_q: As an estimator takes them.
    """

    def __init__(self, logits: Tensor, objective: Objective, context: Tensor | None = None, log_q: bool = False):
        super().__init__()
        self.logits = torch.nn.Parameter(logits.detach().clone())
        self.given = Problem(self.logits, with_one_leading_dimension(objective, logits.ndim), 0.0, context, log_q)

    def problem(self, batch: object = None) -> Problem:
        return self.given

    def encoder_parameters(self) -> list[torch.nn.Parameter]:
        return [self.logits]


def check_finite(problem: Problem) -> None:
    r"""Refuses an objective whose expected cost is not finite, as far as a few draws show; its own errors come out."""
    with torch.no_grad():
        costs = torch.stack([problem.objective(sampling.draw(problem.logits, 2)) for _ in range(LOOKS)])
    if not costs.isfinite().all():
        odd = costs[~costs.isfinite()]
        share = f"{len(odd)} of {costs.numel()} costs of draws"
        raise ValueError(f"objective must give finite costs: {share} are not, the first is {odd[0].item()}")


def with_one_leading_dimension(objective: Objective, dimensions: int) -> Objective:
    r"""The objective for z with any number of leading dimensions, where it takes one beside those of the logits."""
    objective = with_shape(objective)

    def evaluated(z: Tensor) -> Tensor:
        lead = z.shape[: z.ndim - dimensions]
        cost = objective(z.reshape(-1, *z.shape[len(lead) :]))
        return cost.reshape(*lead, *cost.shape[1:])

    return evaluated


@dataclass
class Trial:
    r"""A setting of an estimator that does on a problem what it should.

    Attributes:
        label: How it is written in Python.
        making: Makes gradient draws of it, and knows how many evaluations one takes.
        ours: Whether its class is the library's.
        seconds: That one draw takes, its backward pass to the logits included.
        variance: Of one draw to the logits of an example, roughly.
    """

    label: str
    making: Draws
    ours: bool
    seconds: float
    variance: float

    @property
    def unbiased(self) -> bool:
        return self.making.estimator.unbiased

    @property
    def proven(self) -> bool:
        r"""Whether it is unbiased whatever the objective: by values alone, and certified."""
        return self.ours and self.unbiased and not self.making.estimator.differentiates_objective


class DoesNotApply(Exception):
    r"""Why an estimator is left out."""


def exported_estimators() -> list[type[Estimator]]:
    r"""The estimators that :mod:`hardmax.estimators` exports."""
    exported = (getattr(estimators, name) for name in estimators.__all__)
    return [x for x in exported if isinstance(x, type) and issubclass(x, Estimator) and x is not Estimator]


def settings_worth_trying(classes: Iterable[type[Estimator]]) -> dict[str, tuple[type[Estimator], dict]]:
    r"""Class and arguments of every setting worth trying, by how it is written in Python."""
    found: dict[str, tuple[type[Estimator], dict]] = {}
    for one in classes:
        for setting in one.worth_trying:
            arguments = ", ".join(f"{name}={value!r}" for name, value in setting.items())
            label = f"{one.__name__}({arguments})"
            if label in found and found[label][0] is not one:
                label = f"{one.__module__}.{label}"
            found[label] = (one, setting)
    return found


def claimed_evaluations(estimator: Estimator, K: int, C: int) -> int:
    r"""Evaluations of the objective for one draw, as the class's expression of K, C and S says, or the most."""
    return evaluations_of(estimator.evaluations, K, C, getattr(estimator, "samples", 1))


def applying(made: Estimator, problem: Problem, has_derivative: bool, most_evaluations: int) -> Estimator:
    r"""The estimator, if it can be compared on a problem.

    Raises:
        DoesNotApply: If it cannot: with the reason.
    """
    K, C = problem.logits.shape[-2:]
    if made.target == "bound":
        raise DoesNotApply("its gradient is that of a bound, and not that of the expected cost")
    if made.differentiates_objective and not has_derivative:
        raise DoesNotApply("it needs a derivative, which the objective does not have")
    if isinstance(made, MVE) and problem.logits.numel() * C**2 > LARGEST_SYSTEMS:
        raise DoesNotApply("it solves a C x C system for every variable, which takes too long for so many categories")
    if claimed_evaluations(made, K, C) > most_evaluations:
        raise DoesNotApply(f"it takes more than most_evaluations={most_evaluations} evaluations a draw")
    return made


def try_out(label: str, made: Estimator, ours: bool, task: OneProblem, until: float, end: float) -> Trial:
    r"""Lets an estimator learn, times it, and looks at its noise; not much longer than until that time.

    Raises:
        DoesNotApply: If it refuses the problem, its gradient is not finite, or there is no time before the ``end``.
    """
    problem = task.problem()
    try:
        gradient_draw(made.eval(), problem)  # learned parts take their sizes
        learn(made, problem, until)
        took: list[float] = []
        while len(took) < TIMED_CALLS and (not took or now(problem) < until):
            start = now(problem)
            gradient_draw(made, problem)
            took.append(now(problem) - start)
        if now(problem) + BLOCKS * min(took) > end:
            raise DoesNotApply(NO_TIME)
        making, moments = Draws(task, made, problem), Moments()
        making.make(1)  # counts the evaluations, which decide how many draws can be made at a time
        add_round(making, moments, BLOCKS)
    except DoesNotApply:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DoesNotApply(reason) from error
    variance = finite_or_none(moments.replicates().V[0].mean())
    if variance is None:
        raise DoesNotApply(NOT_FINITE)
    return Trial(label, making, ours, min(took), variance)


def add_round(making: Draws, moments: Moments, n: int) -> None:
    r"""Adds n draws to moments, as many to each block: at once, where memory has room for them."""
    if n > making.at_most():
        add_draws(making, {"logits": moments}, n)
        return
    for block, part in enumerate(making.make(n)[0].chunk(BLOCKS)):
        moments.add(part, block)


def gradient_draw(estimator: Estimator, problem: Problem) -> Tensor:
    r"""One draw of the gradient to the logits."""
    leaf = problem.logits.detach().requires_grad_()
    cost = estimator(leaf, problem.objective, problem.context, problem.log_q)
    return torch.autograd.grad(cost.sum(), leaf)[0]


def learn(estimator: Estimator, problem: Problem, until: float) -> None:
    r"""Trains what an estimator learns beside the model, by Adam, and leaves the objective's parameters alone."""
    parameters = [p for p in estimator.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, LEARNING_RATE) if parameters else None
    estimator.train()
    for _ in range(LEARNING_STEPS if estimator.learns else 0):
        if now(problem) > until:
            break
        leaf = problem.logits.detach().requires_grad_()
        cost = estimator(leaf, problem.objective, problem.context, problem.log_q).mean()
        if optimizer is not None:
            found = torch.autograd.grad(cost, parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, found, strict=True):
                parameter.grad = gradient
            optimizer.step()
        estimator.advance()
    estimator.eval()


def now(problem: Problem) -> float:
    r"""Seconds, once all that was begun is done."""
    if problem.logits.is_cuda:
        torch.cuda.synchronize(problem.logits.device)
    return time.perf_counter()


def measure_until(trial: Trial, truth: TrueGradient, until: float, most: int) -> Candidate | None:
    r"""One candidate, from as many draws as the time allows."""
    moments, cost = Moments(truth), trial.making.cost
    cost.clear()
    add_until(trial, moments, until, most)
    figures: dict[str, float | None] = dict(moments.statistics())
    figures |= {"evaluations": cost.rows / moments.draws, "draws": moments.draws}
    figures["objective_gradients"] = cost.differentiated / moments.draws
    return candidate_of(trial.label, trial.unbiased, figures, trial.seconds)


def add_until(trial: Trial, moments: Moments, until: float, most: int) -> None:
    r"""Adds draws to moments until the time is over, or there are so many; at least one to each block."""
    making, problem = trial.making, trial.making.problem
    took = trial.seconds  # at most, for a draw
    while moments.draws < most:
        start = now(problem)
        room = min(max((until - start) / max(took, 1e-9), 0.0), max(moments.draws, MOST_AT_FIRST) * 4)
        more = BLOCKS * int(min(room, most - moments.draws) / BLOCKS) or BLOCKS * (not moments.draws)
        if not more:
            return
        add_round(making, moments, more)
        took = (now(problem) - start) / more
