r"""A certificate: what an estimator claims, what its gradients are worth, and whether all that it claims holds."""

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field

import torch

from hardmax.estimators import Estimator

from . import behaviour, checks, in_training, limits, samplers, text
from .measurement import Measurement, measure_on
from .problems import LINEAR, PROBLEMS, SMALL, SmallProblem, fitting
from .samplers import Sampler

BEYOND_CHANCE, NO_BIAS = 3.0, 1e-9  # of a bias: in standard errors, and where there are none
LINE = 116  # of characters, for what need not be read to its end
LARGER = [SmallProblem(1, 12, extreme=0.3), SmallProblem(4, 2, extreme=0.5)]


@dataclass
class Call:
    r"""One check on one problem; ``str`` gives it as Python, ``estimator`` being what is checked."""

    check: Callable
    arguments: tuple = ()
    options: dict = field(default_factory=dict)

    def __str__(self) -> str:
        told = [*map(repr, self.arguments), *(f"{k}={v!r}" for k, v in self.options.items())]
        return f"{self.check.__name__}({', '.join(['estimator', *told])})"

    def message(self, estimator: Estimator) -> str:
        r"""What is wrong, in one line; empty if nothing is. The estimator and the random stream are left alone."""
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(0)
            try:
                self.check(copy.deepcopy(estimator), *self.arguments, **self.options)
            except AssertionError as error:
                return first_line(error)
            except Exception as error:
                return f"{type(error).__name__}: {first_line(error)}"
        return ""


@dataclass
class Outcome:
    r"""Whether a claim holds; if not what is wrong on the first problem that shows it, and code that shows it again.

    A ``remark`` says what is special about one that holds, what could not be told, or what was not checked.
    """

    claim: str
    holds: bool
    message: str = ""
    code: str = ""
    remark: str = ""


@dataclass
class Certificate:
    r"""What :func:`certify` has found.

    Attributes:
        name: Of the estimator or the sampler, with its options.
        claims: What it says of itself, by the names of :class:`~hardmax.estimators.Estimator`; None for a sampler,
            which says nothing.
        target: What its value estimates; for a sampler, as it was seen to be.
        measurements: Its figures, for each problem.
        outcomes: Whether each claim holds.
        remarks: What holds on these problems and is not claimed.
        seconds: How long this took.
        torch: Version of PyTorch.
    """

    name: str
    claims: dict | None
    target: str
    measurements: list[Measurement] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    seconds: float = 0.0
    torch: str = str(torch.__version__)

    @property
    def holds(self) -> bool:
        r"""Whether everything that is claimed holds."""
        return all(o.holds for o in self.outcomes)

    @property
    def shows_bias(self) -> bool:
        r"""Whether the gradient is further from the true one, on any of the problems, than chance may have it."""
        return any(m.bias > max(BEYOND_CHANCE * m.bias_error, NO_BIAS) for m in self.measurements)

    def mean_ratio(self, to: str, work: bool = False) -> float:
        r"""Mean over the problems of the variance over another's, see :meth:`Measurement.ratio`."""
        return sum(m.ratio(to, work) for m in self.measurements) / len(self.measurements)

    def to_dict(self) -> dict:
        r"""Everything, of types that JSON has; what is not finite is None."""
        found = asdict(self) | {"holds": self.holds, "ratios": None}
        if self.measurements and self.target != "bound":
            found["ratios"] = {
                f"{'work_' if work else ''}{to}": self.mean_ratio(to, work)
                for to in ("reinforce", "leave_one_out")
                for work in (False, True)
            }
        for figures in [*found["measurements"], found["ratios"] or {}]:
            figures.update({k: None for k, v in figures.items() if isinstance(v, float) and not math.isfinite(v)})
        return found


def calls(estimator: Estimator) -> dict[str, list[Call]]:
    r"""The checks that an estimator, or a sampler, must pass, by what each of them is about."""
    small, problems = fitting(estimator, SMALL), [fitting(estimator, p) for p in PROBLEMS]
    of_limits = {
        "finite at extreme logits": [
            Call(limits.check_extreme_logits, (logits, precision))
            for precision in limits.PRECISIONS
            for logits in limits.EXTREME
        ],
        "one category, one variable": [Call(limits.check_smallest_problem, size) for size in [(1, 1), (3, 1), (1, 2)]],
        "float32 and bfloat16 have the mean of float64": [
            Call(limits.check_precision, (small, precision)) for precision in ("float32", "bfloat16")
        ],
    }
    downhill = {"downhill where the cost is linear": [Call(checks.check_downhill, (fitting(estimator, LINEAR),))]}
    if isinstance(estimator, Sampler):
        law = [*(Call(samplers.check_law, (p,)) for p in problems), Call(samplers.check_law_of_each, (small,))]
        return {
            "z is one-hot or on the simplex, any dimensions": [Call(samplers.check_simplex, (p,)) for p in problems],
            **({"one-hot z have the softmax's law": law} if estimator.target != "relaxed" else {}),
            "draws are independent": [
                Call(samplers.check_independent_samples, (small,)),
                Call(samplers.check_fresh_noise, (small,)),
            ],
            "a gradient reaches the logits": [Call(samplers.check_gradient_reaches_logits, (small,))],
            **downhill,
            **of_limits,
            f"{samplers.DRAWS_WITHOUT_NAN:,} draws are finite": [
                Call(samplers.check_many_draws_are_finite, (precision,)) for precision in limits.PRECISIONS
            ],
        }
    batches = [(1, 2, batch) for batch in behaviour.BATCHES if batch or not small.batch]
    found = {
        "claims fit together": [Call(checks.check_claims)],
        "one cost for each example": [Call(behaviour.check_shapes)],
        "a call moves no state": [Call(behaviour.check_state, (small,))],
        "draws are independent": [Call(behaviour.check_independent_draws, (small,))],
        "expected value and gradients": [Call(checks.check_expectation, (p,)) for p in problems],
        "the same with log q in the objective": [Call(checks.check_expectation, (small,), {"log_q": True})],
        "the same with leading dimensions": [
            Call(checks.check_expectation, (SmallProblem(*sizes, extreme=0.4),)) for sizes in batches
        ],
        "the same after steps of training": [Call(in_training.check_after_steps, (small,))],
        "the same with more categories, variables, a rare category": [
            *(Call(checks.check_expectation, (p,)) for p in LARGER),
            Call(checks.check_rare_category, (SmallProblem(1, 3, rare=9.0),)),
        ],
        **downhill,
        "weights of costs, and penalties": [Call(in_training.check_weighted_costs, (small,))],
        "a context": [Call(in_training.check_features, (small,))],
        "logits of other calls": [Call(in_training.check_other_calls, (small,))],
        "values of the objective alone": [Call(in_training.check_values_alone, (small,))],
        "evaluations of the objective": [Call(behaviour.check_evaluations, (p,)) for p in problems],
        "one evaluation without gradients": [Call(behaviour.check_without_gradients, (small,))],
        "nested in its own objective": [Call(behaviour.check_nested)],
        "rsample": [Call(behaviour.check_rsample, (small,))],
        **of_limits,
        "torch.compile": [Call(limits.check_compiles, (small,))],
    }
    if small.batch:  # a baseline over examples needs examples: the nested problem has none
        del found["nested in its own objective"]
    if small.batch or not estimator.unbiased or estimator.target != "expectation":
        del found["the same with more categories, variables, a rare category"]
    if estimator.unbiased or estimator.target == "bound":
        del found["downhill where the cost is linear"]
    if estimator.differentiates_objective:
        del found["values of the objective alone"]
    if type(estimator).rsample is Estimator.rsample:
        del found["rsample"]
    if not estimator.compiles:
        del found["torch.compile"]
    return found


def outcomes(estimator: Estimator, code: str) -> Iterator[Outcome]:
    r"""Whether each claim holds, one after another; whether it can be called alone, if it cannot."""
    if broken := outcome_of_a_call(estimator, code):
        yield broken
        return
    for claim, tried in calls(estimator).items():
        yield outcome(claim, tried, estimator, code)


def outcome_of_a_call(estimator: Estimator, code: str) -> Outcome | None:
    r"""What is wrong where not even the plainest call can be made; None where it can."""
    check = samplers.check_draw if isinstance(estimator, Sampler) else behaviour.check_call
    call = Call(check, (fitting(estimator, SMALL),))
    if not (found := outcome("a call of the plainest kind", [call], estimator, code)).holds:
        found.message, found.remark = shortened(found.message), "no other check was made, as all of them begin with it"
        return found
    return None


def shortened(message: str) -> str:
    r"""A message in one line of a terminal."""
    return message if len(message) <= LINE else f"{message[: LINE - 3]}..."


def outcome(claim: str, tried: list[Call], estimator: Estimator, code: str) -> Outcome:
    r"""That of the first call that fails, if one does."""
    for call in tried:
        if message := call.message(estimator):
            return Outcome(claim, False, message, reproduction(call, code))
    return Outcome(claim, True)


def reproduction(call: Call, code: str) -> str:
    r"""Lines of Python that fail as the call does, after those that make ``estimator``."""
    names = sorted({call.check.__name__, *(type(a).__name__ for a in call.arguments if isinstance(a, SmallProblem))})
    lines = ["import torch", f"from hardmax.certification import {', '.join(names)}", code, "torch.manual_seed(0)"]
    return "\n".join([*(["from math import inf"] if "inf" in str(call) else []), *lines, str(call)])


def certify(
    estimator: Estimator, name: str = "", code: str = "", say: Callable[[str], None] = lambda line: None
) -> Certificate:
    r"""Measures an estimator or a :class:`~hardmax.certification.Sampler`, and checks all that it claims.

    Three small problems can be enumerated, which is why their figures can be trusted. They say nothing of many
    categories or long training: measure gradients of a model of one's own, or train it, for that.

    Arguments:
        estimator: What to certify; it is copied, never moved. On the processor, whatever device it is for.
        name: What to call it; its class by default.
        code: Python that makes it, which reproductions of failures begin with.
        say: Called with each line of the certificate as soon as it is known.
    """
    start, name = time.perf_counter(), name or type(estimator).__name__
    sampler = isinstance(estimator, Sampler)
    keys = ("target", "unbiased", "differentiates_objective", "attaches_log_q", "evaluations", "learns", "compiles")
    claims = None if sampler else {k: getattr(estimator, k) for k in keys}
    found = Certificate(name, claims, estimator.target)
    for line in text.certificate_heading(found):
        say(line)
    code = code or f"estimator = ...  # {name}"
    if not outcome_of_a_call(estimator, code):
        for line in measured(estimator, found):
            say(line)
    for each in outcomes(estimator, code):
        found.outcomes.append(each)
        for line in text.verdict(each):
            say(line)
    if found.measurements and not sampler:
        found.remarks += unclaimed(estimator, found)
    found.seconds = time.perf_counter() - start
    for line in text.ending(found):
        say(line)
    return found


def measured(estimator: Estimator, found: Certificate) -> Iterable[str]:
    r"""Adds its figures to a certificate, and gives lines of them."""
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(0)
            for problem in PROBLEMS:
                found.measurements.append(measure_on(copy.deepcopy(estimator), fitting(estimator, problem)))
        return text.figure_lines(found)
    except Exception as error:  # what is wrong with it the checks will say
        found.measurements.clear()
        return [f"cannot be measured: {type(error).__name__}: {first_line(error)}"]


def unclaimed(estimator: Estimator, found: Certificate) -> Iterator[str]:
    r"""What holds on the problems and could be claimed."""
    less = "claims less than holds on these problems"
    if estimator.target == "expectation" and not estimator.unbiased and not found.shows_bias:
        yield f"unbiased=False {less}: the gradient has no bias that can be told"
    if estimator.differentiates_objective and not estimator.learns:  # what is learned may begin without the derivative
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            problems = [fitting(estimator, p) for p in PROBLEMS]
            if not any(in_training.uses_derivative(copy.deepcopy(estimator), p) for p in problems):
                yield f"differentiates_objective=True {less}: gradients are the same with any derivative"


def failures(estimator: Estimator, first: bool = False) -> list[str]:
    r"""What does not hold of all that an estimator claims, a line each; empty if everything holds. For tests:

    >>> from hardmax.estimators import Exact
    >>> failures(Exact())
    []

    Takes up to a minute. Not for a gradient's quality: a biased estimator that says so fails nothing.

    Arguments:
        estimator: Any :class:`~hardmax.estimators.Estimator`, or a function wrapped in a
            :class:`~hardmax.certification.Sampler`.
        first: Whether to stop at the first failure.
    """
    found = []
    for each in outcomes(estimator, "estimator = ..."):
        if not each.holds:
            found.append(f"{each.claim}: {each.message}")
            if first:
                break
    return found


def first_line(error: BaseException) -> str:
    r"""The message of an exception, or its type without one."""
    return " ".join(str(error).split())[:300] or type(error).__name__
