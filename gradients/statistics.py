r"""Statistics of an estimator's gradients on one fixed batch."""

from hardmax.estimators.base import Estimator
from hardmax.tasks.base import Problem, Task

from .draws import WHERE, Draws, add_draws, evaluating, places
from .moments import Moments
from .truth import Truth, truth_of

MOST_TIMES_THE_DRAWS = 100  # times the number of draws asked for, at most, for the sake of a precision


def measure(
    task: Task,
    estimator: Estimator,
    problem: Problem,
    draws: int,
    truth: Truth | None = None,
    precision: float | None = None,
) -> dict[str, float | None]:
    r"""Statistics of M independent gradient draws on one fixed problem: the noise and bias of the estimator alone.

    ``logits/...`` is about the gradient of each example's cost to its own logits, with statistics per example,
    averaged over the batch; ``encoder/...`` about the gradient of the batch mean to the parameters that
    produce the logits: see :meth:`Moments.statistics`. A penalty added outside the estimator is left out: it has no
    noise. ``draws`` is M; ``truth/<name>`` the number of draws behind the truth, 0 for ``exact``; ``evaluations`` and
    ``objective_gradients`` count rows on which the objective was evaluated and differentiated with respect to z, per
    draw and example, of nested objectives as :class:`Evaluations` says; ``work_variance`` is the variance times the
    former. There is no truth for a bound's gradient.

    Nothing but the random stream is touched; call it under :func:`forked_random`. Memory is bounded: draws are
    made a few at a time and only their moments kept.

    Arguments:
        task, estimator: As trained so far; nested estimators are the estimator's own.
        problem: Of the task, for B examples; a truth is of the same one.
        draws: Number M of draws, at least 2.
        truth: From :func:`truth_of`; None: the exact one, where it is known.
        precision: Go on, up to 100 M draws, until the standard errors of both variances are at most this share of
            them.
    """
    if estimator.target == "bound":
        truth = None
    elif truth is None:
        truth = truth_of(task, problem)
    moments = {where: Moments(None if truth is None else truth[where]) for where in places(task)}
    with evaluating(task, estimator):
        making = Draws(task, estimator, problem)
        more = draws
        while more:
            add_draws(making, moments, more)
            found = {f"{where}/{k}": v for where, x in moments.items() for k, v in x.statistics().items()}
            made = moments["encoder"].draws
            enough = precision is None or precise(found, precision)
            more = 0 if enough else min(made, MOST_TIMES_THE_DRAWS * draws - made)
    rows, differentiated = (n / made for n in (making.cost.rows, making.cost.differentiated))
    for where in moments:
        for end in ("", "_error"):
            variance = found[f"{where}/variance{end}"]
            found[f"{where}/work_variance{end}"] = None if variance is None else variance * rows
    known = {} if truth is None else {f"truth/{truth['encoder'].name}": truth["encoder"].draws}
    return found | {"draws": made, **known, "evaluations": rows, "objective_gradients": differentiated}


def precise(found: dict[str, float | None], precision: float) -> bool:
    r"""Whether the standard errors of both variances are at most this share of them."""
    pairs = [(found[f"{at}/variance_error"], found[f"{at}/variance"]) for at in WHERE if f"{at}/variance" in found]
    return all(error is not None and v is not None and error <= precision * v for error, v in pairs)
