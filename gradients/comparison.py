r"""Every estimator on somebody's own logits and objective, within a minute or so: which one to take."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hardmax.checks import at_least, one_of, positive
from hardmax.estimators import sampling
from hardmax.estimators.base import Estimator, copies_in_cache
from hardmax.estimators.objectives import Objective, check_logits, check_objective, depends_on, with_shape
from hardmax.numbers import with_error
from hardmax.tasks.base import Problem

from .advice import (
    APART,
    AVERAGED,
    DISPROVED,
    Candidate,
    Ranking,
    by_evaluations,
    by_seconds,
    or_nan,
    recommend,
)
from .candidates import (
    MISSED,
    NO_TIME,
    NOT_FINITE,
    DoesNotApply,
    OneProblem,
    Trial,
    add_until,
    applying,
    check_finite,
    claimed_evaluations,
    exported_estimators,
    measure_until,
    now,
    settings_worth_trying,
    try_out,
)
from .moments import Moments, TrueGradient
from .streams import Stream, forked_random
from .truth import ENUMERATED, truth_of

TRYING, OF_TRUTH, OF_ALL = 0.4, 0.25, 0.6  # shares of the time that is left, in this order; the rest is the best ones'
MOST_DRAWS = 20_000  # of one estimator
ROUNDED_AWAY = 1e-5  # relative biases below this are rounding


@dataclass(frozen=True, repr=False)
class EstimatorComparison:
    r"""What :func:`compare` has found; a notebook shows it as a table.

    Attributes:
        table: A row for each setting of each estimator, the best at equal cost first; ``pandas.DataFrame`` takes it.
        advice: One sentence: what to take, why, and how sure that is.
        left_out: Why the others are not in the table, by setting.
        truth: What biases are measured against.
        averaged: Evaluations over which gradients were taken to be averaged.
        earlier: An earlier comparison to be shown beside it.
    """

    table: list[Candidate]
    advice: str
    left_out: dict[str, str]
    truth: str
    averaged: float
    earlier: "EstimatorComparison | None" = None

    @property
    def ranking(self) -> Ranking:
        r"""The candidates by squared error at equal evaluations, with standard errors."""
        return by_evaluations(self.table, self.averaged)

    def titles(self) -> list[str]:
        found = ["estimator", "bias / |g|", "variance / |g|²", "squared error / |g|²", "x evaluations", "x ms"]
        found += [f"at {self.averaged:,g} evaluations", "evaluations", "ms", "draws"]
        return found + ["place before"] * (self.earlier is not None)

    def lines(self) -> list[list[str]]:
        r"""The table in words; squares are over that of the true gradient, if it is known."""
        before = [c.estimator for c in self.earlier.table] if self.earlier else []
        errors, found = self.ranking.errors, []
        for c in self.table:
            scale = c.true_norm**2 if c.true_norm else 1.0
            over = lambda value, error=None, scale=scale: with_error(value / scale, error and error / scale)
            line = [c.estimator, bias_in_words(c), over(c.variance, c.variance_error), over(c.mse, c.mse_error)]
            line += [over(c.mse_per_evaluation), over(1e3 * c.mse_per_second), over(*errors[c.estimator])]
            line += [f"{c.evaluations:g}", f"{1e3 * c.seconds:.2g}", f"{c.draws:,}"]
            if self.earlier:
                line.append(str(before.index(c.estimator) + 1) if c.estimator in before else "")
            found.append(line)
        return found

    def about(self) -> list[str]:
        r"""What is said below the table."""
        found = [f"Per example; g is {self.truth}. ± is one standard error, < an upper limit of two."]
        classes = {c.estimator.partition("(")[0] for c in self.table}
        reasons: dict[str, list[str]] = {}
        for label, reason in self.left_out.items():
            name = label.partition("(")[0]
            reasons.setdefault(reason, []).append(label if name in classes else name)
        return found + [f"Left out: {', '.join(dict.fromkeys(who))}: {reason}." for reason, who in reasons.items()]

    def __repr__(self) -> str:
        lines = [self.titles(), *self.lines()]
        width = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rows = [
            "  ".join([line[0].ljust(width[0]), *(x.rjust(w) for x, w in zip(line[1:], width[1:], strict=True))])
            for line in lines
        ]
        return "\n".join([self.advice, "", *rows, "", *self.about()])

    def _repr_html_(self) -> str:
        row = lambda cells, tag: f"<tr>{''.join(f'<{tag}>{html.escape(x)}</{tag}>' for x in cells)}</tr>"
        body = "".join(row(line, "td") for line in self.lines())
        about = "<br>".join(map(html.escape, self.about()))
        return (
            f"<p><b>{html.escape(self.advice)}</b></p><table><thead>{row(self.titles(), 'th')}</thead>"
            f"<tbody>{body}</tbody></table><p><small>{about}</small></p>"
        )


def bias_in_words(c: Candidate) -> str:
    r"""Bias over the true gradient's norm, or its upper limit where it cannot be told from 0."""
    if not c.true_norm:
        return "undefined"
    error = or_nan(c.bias2_error)
    if not c.bias2 > (DISPROVED if c.unbiased else APART) * error:
        highest = math.sqrt(max(c.bias2, 0.0) + APART * error) / c.true_norm
        return "0" if highest < ROUNDED_AWAY else f"< {highest:.2g}"
    bias = math.sqrt(c.bias2) / c.true_norm
    return "0" if bias < ROUNDED_AWAY else with_error(bias, c.relative_bias_error)


def compare(
    logits: Tensor,
    objective: Objective,
    seconds: float = 60.0,
    *,
    own: Sequence[type[Estimator]] = (),
    context: Tensor | None = None,
    log_q: bool = False,
    most_evaluations: int = 256,
    averaged: float = AVERAGED,
    earlier: EstimatorComparison | None = None,
    seed: int = 0,
) -> EstimatorComparison:
    r"""Measures every estimator on a problem of one's own, and recommends one.

    Of each estimator the settings in its ``worth_trying`` are measured: bias, variance, squared error of one gradient
    draw to the logits of an example, and cost. Biases are against the exact gradient where all configurations can be
    gone through, else against many draws of the best unbiased estimator. Where the objective has no derivative,
    estimators that take one are left out; those of bounds always are, as theirs is the gradient of something else, and
    so are unbiased ones whose few draws missed rare costs. What an estimator learns, it learns in a hundred steps
    before, within the same time.

    Neither the logits nor the objective's parameters get gradients, and the process's random numbers go on as if
    nothing had been drawn.

    Arguments:
        logits: ``[*batch, K, C]``: those of a batch, as a model has them now.
        objective: Cost to minimise, ``[S, *batch, K, C] -> [S, *batch]``, as estimators take it.
        seconds: That this may take, by and large. What is known well enough takes less. The first call of a process
            takes a few more, in which PyTorch loads what it needs.
        own: Estimators to compare with the library's: classes.
        context: Features for learned baselines, ``[*batch, D]``.
        log_q: Whether estimators add log q(z) to the objective.
        most_evaluations: Of the objective for one draw; what takes more is left out.
        averaged: Evaluations over which training averages gradients, as momentum, batches and small steps do. The
            advice weighs bias against noise by it: squared bias + variance x evaluations of a draw / averaged.
        earlier: Of the same problem earlier in training, to see what has moved.
        seed: Of all draws.

    Raises:
        ValueError, TypeError: If an argument is not as above, the objective closes over the logits, couples draws or
            examples, or gives a cost that is not finite, or nothing can be measured in so few seconds.
    """
    check_compared(logits, objective, own, context, earlier)
    positive(seconds=seconds), positive(averaged=averaged), at_least(1, most_evaluations=most_evaluations)
    one_of([True, False], log_q=log_q), at_least(0, seed=seed)
    with torch.inference_mode(False), torch.enable_grad(), forked_random(logits.device, seed, Stream.FIT):
        check_objective(logits, objective)
        load_pytorch(logits.device)
        task = OneProblem(logits, objective, context, log_q)
        check_finite(task.given)
        end = now(task.given) + seconds
        derivative = has_derivative(task.given)
        trials, left_out = try_all(
            task, [*exported_estimators(), *own], derivative, most_evaluations, part(task, end, TRYING)
        )
        with forked_random(logits.device, seed, Stream.TRUTH):
            truth = true_gradient(task, trials, part(task, end, OF_TRUTH)) if trials else None
        found = measure_all(task, trials, truth, averaged, end, seed) if truth else {}
    left_out |= {t.label: NO_TIME for t in trials if t.label not in found}
    missing = {t.label for t in trials if t.proven and t.label in found and found[t.label].disproved}
    if len(missing) < len(found):
        left_out |= dict.fromkeys(missing, MISSED)
        found = {label: c for label, c in found.items() if label not in missing}
    if truth is None or not found:
        reasons = list(left_out.values())
        reason = next((why for why in (NOT_FINITE, NO_TIME) if why in reasons), reasons[0])
        raise ValueError(f"nothing can be measured in seconds={seconds:g}: {reason}")
    table = by_evaluations(list(found.values()), averaged).order
    sentence = recommend(table, averaged, derivative=derivative)
    if earlier is not None:
        first = earlier.table[0].estimator
        moved = "so it did before" if first == table[0].estimator else f"before, {first} led"
        sentence = f"{sentence.removesuffix('.')}; {moved}."
    against = f"that of {truth.draws:,} draws of {truth.name}" if truth.draws else "the exact gradient"
    return EstimatorComparison(table, sentence, left_out, against, averaged, earlier)


def load_pytorch(device: torch.device) -> None:
    r"""Makes PyTorch load what its first batched gradient and step of Adam need, which takes seconds."""
    x = torch.nn.Parameter(torch.ones(1, device=device))
    (x.grad,) = torch.autograd.grad(2 * x, x, torch.ones(1, 1, device=device), is_grads_batched=True)[0]
    torch.optim.Adam([x]).step()


def check_compared(logits: object, objective: Objective, own: object, context: object, earlier: object) -> None:
    r"""Refuses what is of another type or shape than :func:`compare` takes."""
    check_logits(logits)
    assert isinstance(logits, Tensor)
    if not logits.amax(-1).isfinite().all():  # NaN, infinity, or nothing that is possible
        few = "with a number for one category of each variable at least"
        raise ValueError(f"logits must be numbers or minus infinity, {few}; got {odd_variable(logits)}")
    with_shape(objective)  # refuses what is no function
    if not isinstance(own, Sequence) or isinstance(own, str):
        raise TypeError(f"own must be a list of subclasses of Estimator, got {own!r}")
    for each in own:
        if not isinstance(each, type) or not issubclass(each, Estimator) or each is Estimator:
            raise TypeError(f"own must be a list of subclasses of Estimator, got {each!r} in it")
    shape = tuple(logits.shape[:-2])
    if context is not None and not (isinstance(context, Tensor) and context.shape[:-1] == shape):
        got = list(context.shape) if isinstance(context, Tensor) else repr(context)
        raise ValueError(f"context must be None or a tensor [*batch, D] with batch {list(shape)}, got {got}")
    if earlier is not None and not isinstance(earlier, EstimatorComparison):
        raise TypeError(f"earlier must be what hardmax.compare returned before, got {earlier!r}")


def odd_variable(logits: Tensor) -> list[float]:
    r"""The logits of the first variable whose probabilities are not defined."""
    return logits.detach()[~logits.amax(-1).isfinite()][0].tolist()


def part(task: OneProblem, end: float, share: float) -> float:
    r"""When a share of the time that is left is over."""
    start = now(task.given)
    return start + share * (end - start)


def has_derivative(problem: Problem) -> bool:
    r"""Whether the objective can be differentiated with respect to z."""
    z = sampling.draw(problem.logits.detach(), 1).requires_grad_()
    return depends_on(problem.objective(z), z)


def try_all(
    task: OneProblem, classes: list[type[Estimator]], derivative: bool, most_evaluations: int, until: float
) -> tuple[list[Trial], dict[str, str]]:
    r"""Tries every setting, those of few evaluations first, and says why some are left out."""
    problem, ours, fitting, left_out = task.given, exported_estimators(), {}, {}
    for label, (of, setting) in settings_worth_trying(classes).items():
        try:
            fitting[label] = applying(of(**setting), problem, derivative, most_evaluations)
        except (DoesNotApply, ValueError, TypeError) as reason:
            left_out[label] = " ".join(str(reason).split())
    trials = []
    K, C = problem.logits.shape[-2:]
    order = sorted(fitting, key=lambda label: claimed_evaluations(fitting[label], K, C))
    for n, label in enumerate(order):
        if now(problem) > until:
            left_out[label] = NO_TIME
            continue
        made = fitting[label].to(problem.logits.device)
        try:
            share = part(task, until, 1 / (len(order) - n))
            trials.append(try_out(label, made, type(made) in ours, task, share, until))
        except DoesNotApply as reason:
            left_out[label] = str(reason)
    return trials, left_out


def true_gradient(task: OneProblem, trials: list[Trial], until: float) -> TrueGradient | None:
    r"""The exact gradient if there is time for that, else many draws of the unbiased estimator with the least noise."""
    if enumerable(task, until) and (exact := truth_of(task, task.given)):
        with torch.no_grad():
            costs = task.given.objective(sampling.draw(task.given.logits, 1))
        found = exact["logits"]
        if not found.mean.isfinite().all():
            raise ValueError("objective must give finite costs: the exact gradient is not finite, so some are not")
        rounding = torch.finfo(costs.dtype).eps * costs.abs().max()
        return found if (found.norm > rounding).any() else TrueGradient("exact", torch.zeros_like(found.mean[0]))
    unbiased = [t for t in trials if t.ours and t.unbiased]
    if not unbiased:
        return None
    best = min(unbiased, key=lambda t: t.variance * t.seconds)
    moments = Moments(coordinates=True)
    add_until(best, moments, until, 10 * MOST_DRAWS)
    return TrueGradient(best.label, moments)


def enumerable(task: OneProblem, until: float) -> bool:
    r"""Whether all configurations can be gone through before that time, by how long some of them take."""
    logits = task.given.logits
    K, C = logits.shape[-2:]
    if K * math.log(C) > math.log(ENUMERATED):
        return False
    rows = min(C**K, copies_in_cache(logits))
    z = sampling.draw(logits.detach(), rows)
    with torch.no_grad():
        start = now(task.given)
        task.given.objective(z)
        end = now(task.given)
    return end + (end - start) * C**K / rows < until


def measure_all(
    task: OneProblem, trials: list[Trial], truth: TrueGradient, averaged: float, end: float, seed: int
) -> dict[str, Candidate]:
    r"""All candidates by label: first in equal time each, then anew those that may be the best."""
    found: dict[str, Candidate] = {}
    contenders = trials
    for turn, until in enumerate((part(task, end, OF_ALL), end)):
        for n, trial in enumerate(contenders):
            if now(task.given) > end or (turn and len(contenders) < 2):
                break
            with forked_random(task.logits.device, seed, turn, Stream.MEASURE):
                share = part(task, until, 1 / (len(contenders) - n))
                new = measure_until(trial, truth, share, MOST_DRAWS * (1 + 9 * turn))
            if new and (trial.label not in found or new.draws > found[trial.label].draws):
                found[trial.label] = new
        rankings = [rank(list(found.values()), averaged) for rank in (by_evaluations, by_seconds)] if found else []
        names = {c.estimator for r in rankings for c in (r.order[0], *r.tied)}
        contenders = [t for t in trials if t.label in names]
    return found
