r"""The contract between an estimator and whatever it is used on, and the few ideas that estimators share."""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, Self

import torch
from torch import Tensor, nn

from hardmax.checks import fraction, one_of

from . import sampling
from .claims import check_expression
from .objectives import Objective, check_logits, depends_on, with_derivative, with_shape

TARGETS = ("expectation", "relaxed", "mode", "bound", "draws")
BYTES = 1024  # of memory for each number worked on at a time; a step of Rodeo, which takes the most, takes 900
FORGOTTEN = 1000  # calls without advance(): there are never so many in one optimiser step


class Estimator(nn.Module):
    r"""Estimates the expected cost of K independent C-way categorical variables, and its gradient.

    ``cost = estimator(logits, objective)`` has a *value* that estimates :attr:`target` and a *gradient* to
    ``logits`` that is the estimator. The gradient to whatever else ``objective`` uses (a decoder, say) is the
    ordinary one. Costs are minimised: the gradient estimates :math:`+\partial E[f(z)] / \partial` logits.

    A subclass writes :meth:`estimate`, and :meth:`draw` if its objective is not to be evaluated at discrete
    draws. It never assumes how many leading dimensions there are: ``logits.expand(M, *batch, K, C)`` gives M
    independent gradient draws. State never moves in a call, only in :meth:`advance`.

    With gradients disabled every estimator makes one draw and one evaluation, so that the cost of estimators
    nested in each other's objectives does not multiply.

    A subclass that lacks one of the first three attributes below is refused as it is defined; its ``__init__`` may
    give them other values, where options decide. ``half()``, ``double()`` and the like convert its parameters:
    buffers, which count steps and average costs, keep their precision.

    Attributes:
        target: What the value estimates: ``expectation`` (of the objective under the discrete variables), ``relaxed``
            (under a relaxation, and the expected gradient is that of this value), ``mode`` (at the most probable
            categories), ``bound``, or ``draws``: at the estimator's own draws, whose law is not the softmax's; of its
            gradient nothing is claimed then.
        unbiased: Whether the expected gradient is that of the discrete expectation (of the bound, for a bound).
        differentiates_objective: Whether the gradient to the logits uses the objective's derivative.
        attaches_log_q: Whether ``log_q`` lets gradients through log q(z)'s own logits.
        evaluations: Rows on which the objective is evaluated for one gradient draw of one example, as a Python
            expression of K, C and S, after ``at most`` where it depends on the logits.
        learns: What is trained or adapted beside the model, in words; empty for nothing.
        compiles: Whether ``torch.compile`` can trace a call. It cannot where derivatives are taken within.
        also_known_as: Other names that users look for it by; where one means settings, followed by these, as in
            ``"RLOO: samples=4 baseline=leave_one_out"``. A subclass does not take over these, nor the next.
        worth_trying: Settings of its own options that a comparison should try, each as arguments of its class.
    """

    target: str
    unbiased: bool
    differentiates_objective: bool
    attaches_log_q: bool = False
    evaluations: str = "1"
    learns: str = ""
    compiles: bool = True
    also_known_as: tuple[str, ...] = ()
    worth_trying: tuple[dict[str, Any], ...] = ({},)
    _costs = 0  # that were made while training
    _learned_before: dict[str, Tensor] = {}  # sum of each parameter after the first of them

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        cls.also_known_as, cls.worth_trying = (
            cls.__dict__.get("also_known_as", ()),
            cls.__dict__.get("worth_trying", ({},)),
        )
        missing = [n for n in ("target", "unbiased", "differentiates_objective") if not hasattr(cls, n)]
        if missing:
            raise TypeError(f"{cls.__name__} must declare {' and '.join(missing)}: see hardmax.estimators.Estimator")
        one_of(TARGETS, target=cls.target)
        one_of([True, False], unbiased=cls.unbiased)
        one_of([True, False], differentiates_objective=cls.differentiates_objective)
        check_expression(cls.evaluations)
        if not isinstance(cls.worth_trying, tuple) or not all(isinstance(each, dict) for each in cls.worth_trying):
            raise TypeError(f"worth_trying must be a tuple of dictionaries of arguments, got {cls.worth_trying!r}")

    @classmethod
    def other_names(cls) -> dict[str, list[str]]:
        r"""The settings ``option=value`` that every other name means; none for one of the class itself."""
        parts = (name.partition(": ") for name in cls.also_known_as)
        return {name: settings.split() for name, _, settings in parts}

    def forward(
        self, logits: Tensor, objective: Objective, context: Tensor | None = None, log_q: bool = False
    ) -> Tensor:
        r"""The cost whose backward pass is the gradient estimate.

        Arguments:
            logits: Unnormalised log-probabilities, ``[*batch, K, C]``; minus infinity rules a category out.
            objective: Cost to minimise, ``[S, *batch, K, C] -> [S, *batch]``, of one-hot ``z`` or, for
                relaxations, of points of the simplex. It must not close over ``logits``.
            context: Features that a learned baseline may look at, ``[*batch, D]``.
            log_q: Whether to add log q(z), in nats, to the objective (a sampled KL divergence).

        Returns:
            Cost, ``[*batch]``, in float32 at least; NaN for an example whose logits have one.

        Raises:
            ValueError: If a shape is not as above; for an objective without a derivative at z, if the estimator is
                biased and differentiates it. An unbiased one does without its control variate then.
            TypeError: If logits or costs are not floating point.
        """
        check_logits(logits)
        objective = self.checked(objective, logits)
        if log_q:
            objective = with_log_q(objective, logits, self.attaches_log_q)
        undefined = logits.detach().amax((-2, -1)) * 0  # NaN where a logit is, or none is finite; a draw would hide it
        if not torch.is_grad_enabled():
            cost = objective(self.draw(logits))[0]
            return cost + undefined.to(cost.dtype)
        cost = self.estimate(logits, objective, context)
        if self.training and not torch.compiler.is_compiling():
            self.watch_learning()
        if cost.shape != logits.shape[:-2]:
            due = f"{list(logits.shape[:-2])}, one cost per example"
            raise ValueError(f"{type(self).__name__}.estimate must return {due}, got shape {list(cost.shape)}")
        return cost + undefined.to(cost.dtype)

    def watch_learning(self) -> None:
        r"""Warns if, after so many costs, a parameter that gets gradients is what it was after the first."""
        self._costs += 1
        if self._costs in (1, FORGOTTEN):
            learned = {n: p for n, p in self.named_parameters() if p.requires_grad and not nn.parameter.is_lazy(p)}
            now = {name: p.detach().double().sum().cpu() for name, p in learned.items()}
            unmoved = [name for name, before in self._learned_before.items() if before.equal(now.get(name, before))]
            stuck = [name for name in unmoved if name in learned and learned[name].grad is not None]
            self._learned_before = now
            if stuck and self._costs == FORGOTTEN:
                warnings.warn(
                    f"{FORGOTTEN:,} costs, and {', '.join(stuck)} of {type(self).__name__} have not moved: give the "
                    "optimiser the estimator's parameters(), after a first call in which they take their sizes",
                    stacklevel=4,
                )

    def checked(self, objective: Objective, logits: Tensor) -> Objective:
        r"""The objective, refusing what it returns if the estimate would silently be wrong."""
        objective = with_shape(objective)
        if self.differentiates_objective and not self.unbiased and logits.requires_grad:
            return with_derivative(objective, type(self).__name__)
        return objective

    def estimate(self, logits: Tensor, objective: Objective, context: Tensor | None) -> Tensor:
        r"""What :meth:`forward` returns while gradients are enabled; the estimator itself."""
        raise NotImplementedError

    def draw(self, logits: Tensor) -> Tensor:
        r"""One draw of what the objective is evaluated at, ``[1, *batch, K, C]``."""
        return sampling.draw(logits, 1)

    @torch.no_grad()
    def sample(self, logits: Tensor) -> Tensor:
        r"""One draw of what the objective is evaluated at, without gradients, ``[..., C] -> [..., C]``."""
        return one_draw(self, logits)

    def rsample(self, logits: Tensor) -> Tensor:
        r"""One draw through which the gradient flows, ``[..., C] -> [..., C]``, where the estimator has such draws.

        Raises:
            NotImplementedError: If it does not: its gradient is made of values of the cost, and needs a function.
        """
        name = type(self).__name__
        raise NotImplementedError(
            f"{name} needs values of the cost, so it has no rsample: write cost = {name}(...)(logits, objective), "
            "where objective(z) gives the cost of z, [S, *batch, K, C] -> [S, *batch]"
        )

    def advance(self) -> None:
        r"""Moves schedules and running averages; called once after every optimiser step."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        precise = {id(buffer) for buffer in self.buffers()}

        def moved(x: Tensor) -> Tensor:
            if nn.parameter.is_lazy(x):  # PyTorch refuses some precisions for what has no size yet
                new = fn(torch.empty(0, dtype=x.dtype, device=x.device))
                made: type = nn.UninitializedParameter  # whose arguments PyTorch says wrongly
                return made(x.requires_grad, new.device, new.dtype)
            new = fn(x)
            return x.to(new.device) if id(x) in precise and new.dtype != x.dtype else new

        return super()._apply(moved, recurse)


def layers_of(estimator: Estimator) -> int:
    r"""How many choices a task nests in each other, with a copy of the estimator for each: 1 where it nests none."""
    return 1 + len(getattr(estimator, "inner", ()))


def one_draw(estimator: Estimator, logits: Tensor) -> Tensor:
    r"""One of the estimator's draws, for logits with any leading dimensions: ``[..., C] -> [..., C]``.

    Raises:
        ValueError: If the logits are a scalar, or empty.
        TypeError: If they are not floating point.
    """
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, got {logits.dtype}")
    if logits.ndim < 1 or 0 in logits.shape:
        raise ValueError(f"logits must be [..., C], all at least 1, got {list(logits.shape)}")
    return estimator.draw(logits.unsqueeze(0))[0, 0] if logits.ndim == 1 else estimator.draw(logits)[0]


class _Graft(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cost: Tensor, logits: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return cost.clone()

    @staticmethod
    def backward(ctx: Any, cost_gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return cost_gradient, cost_gradient[..., None, None] * gradient, None


def graft(cost: Tensor, logits: Tensor, gradient: Tensor) -> Tensor:
    r"""``cost`` with its value unchanged and ``gradient`` added to its gradient with respect to ``logits``.

    A category of probability 0 (a logit of minus infinity) gets no gradient, nor does the only one that has any.

    Arguments:
        cost: ``[*batch]``.
        logits: ``[*batch, K, C]``.
        gradient: ``[*batch, K, C]``, in any precision; taken as a constant.
    """
    impossible = logits == -torch.inf
    decided = impossible.sum(-1, keepdim=True) == logits.shape[-1] - 1
    return _Graft.apply(cost, logits, gradient.detach().to(logits.dtype).masked_fill(impossible | decided, 0.0))


def remind(calls: int, consequence: str) -> None:
    r"""Warns when there have been so many ``calls`` since :meth:`Estimator.advance` that it must be forgotten."""
    if calls == FORGOTTEN:
        warnings.warn(
            f"{FORGOTTEN:,} costs without advance(), and so {consequence}: "
            "call the estimator's advance() after every optimiser step",
            stacklevel=3,
        )


class RunningMean(nn.Module):
    r"""Exponentially weighted mean of what is noted between optimiser steps, as it was before the present one.

    The weights add up to 1 from the first step on; before it the mean is 0.

    Arguments:
        decay: Of the weights, per optimiser step, from 0 up to but not including 1.
        size: Shape of the mean.
    """

    sum: Tensor
    noted: Tensor
    total: Tensor
    weight: Tensor

    def __init__(self, decay: float, size: tuple[int, ...] = ()):
        super().__init__()
        self.decay = fraction(decay=decay)
        self.pending = 0  # calls of note since the last optimiser step
        self.register_buffer("sum", torch.zeros(size, dtype=torch.float64), persistent=False)  # of what they noted
        self.register_buffer("noted", torch.zeros((), dtype=torch.float64), persistent=False)  # how many that were
        self.register_buffer("total", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("weight", torch.zeros((), dtype=torch.float64))

    def forward(self) -> Tensor:
        r"""The mean, float64."""
        return self.total / self.weight.clamp(min=1e-12)

    def note(self, value: Tensor) -> None:
        r"""Takes a value in with the next :meth:`advance`, if it is finite; warns if that is never called."""
        self.pending += 1
        value = value.detach().double()
        finite = value.isfinite().all()
        self.sum, self.noted = self.sum + torch.where(finite, value, 0.0), self.noted + finite
        remind(self.pending, "without a baseline")

    def advance(self) -> None:
        r"""Moves the mean by the average of what was noted, if anything was."""
        if self.pending:
            share = (1 - self.decay) * (self.noted > 0)
            self.total.lerp_((self.sum / self.noted.clamp(min=1)).to(self.total.dtype), share.to(self.total.dtype))
            self.weight.lerp_(torch.ones_like(self.weight), share.to(self.weight.dtype))
            self.pending, self.sum, self.noted = 0, torch.zeros_like(self.sum), torch.zeros_like(self.noted)


def copies_in_cache(logits: Tensor) -> int:
    r"""How many copies of ``logits`` to work on at a time: what the processor's cache holds, and memory bears."""
    return max(1, numbers_at_once(logits.device) // max(1, logits.numel()))


def numbers_at_once(device: torch.device) -> int:
    r"""How many numbers to work on at a time: what the processor's cache holds; on a GPU, what memory bears.

    For each number there are ``BYTES`` of memory. The result is a power of two, and the same on every GPU with room
    enough: how work is divided shows in the last bits.
    """
    if device.type != "cuda":
        return 2**17
    return min(2**24, 2 ** max(10, (memory_of(device) // BYTES).bit_length() - 1))


# As torch.compiler.assume_constant_result has it, which would take seconds to import for those who compile nothing.
numbers_at_once._dynamo_marked_constant = True  # type: ignore[attr-defined]


@cache
def memory_of(device: torch.device) -> int:
    r"""Bytes that this process had on a GPU, or could have, when it first asked."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device)


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    r"""The value of ``hard`` with the gradient of ``soft``."""
    return hard + (soft - soft.detach())


def log_prob(logits: Tensor, z: Tensor) -> Tensor:
    r"""log q(z) in nats, extended linearly from one-hot ``z`` to the simplex.

    Arguments:
        logits: ``[*batch, K, C]``. Categories of probability 0 add nothing, rather than 0 times minus infinity.
        z: ``[S, *batch, K, C]``.

    Returns:
        ``[S, *batch]``.
    """
    log_p = logits.log_softmax(-1)
    return (z * log_p.masked_fill(log_p == -torch.inf, 0.0)).sum((-2, -1))


def with_log_q(objective: Objective, logits: Tensor, attached: bool) -> Objective:
    r"""``objective(z) + log q(z)``, with gradients through q's own logits only if ``attached``.

    Where the objective has no derivative with respect to z the sum has none either, rather than a part of it.
    """
    logits = logits if attached else logits.detach()

    def added(z: Tensor) -> Tensor:
        cost = objective(z)
        return cost + log_prob(logits, z if depends_on(cost, z) else z.detach())

    return added
