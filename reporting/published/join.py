r"""Published figures beside those of runs that were made under the published settings, with a verdict."""

import functools
import math
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.stats

from hardmax.harness.contents import is_figure, lines
from hardmax.harness.shared import NOT_RESULTS
from hardmax.paths import CONFIGS

from ..groups import WATCHING
from ..runs import Run
from ..statistics import LEVEL
from .experiments import fits, group_settings, in_small, ran_in_full, was_run_as_published
from .values import Value

AGREES, DIFFERS, UNDECIDED = "agrees", "differs", "undecided"
INCOMPLETE, SMALLER, NOT_RUN = "settings incomplete", "smaller budget", "not run"


NO_SPREAD = 1e-9  # of figures, as a share: rounding
LOG_DECIMALS = 6  # of logarithms of published figures, which have as many digits or more


@dataclass(frozen=True)
class Comparison:
    r"""A published value and what was measured.

    Attributes:
        published: The value.
        runs: Under the published settings, finished, in full; without any, those of the small budget.
        mean, error: Of the measured figures, and its standard error; None without, or with a single run. The geometric
            mean of figures that are compared as logarithms.
        difference: Measured less published.
        in_errors: The difference over its standard deviation among runs like ours; None where that is not known.
        freedom: Of Student's t, the law of ``in_errors`` for runs like ours: its degrees; 0 where no spread is known.
        chance: How often a figure of runs like ours would lie as far from our mean; None where that is not known.
        verdict: ``agrees``, ``differs``, ``undecided``, ``settings incomplete``, ``smaller budget`` or ``not run``.
        notes: What a reader should know: of runs with smaller budgets or other settings, for one.
    """

    published: Value
    runs: tuple[Run, ...]
    mean: float | None
    error: float | None
    difference: float | None
    in_errors: float | None
    freedom: int
    chance: float | None
    verdict: str
    notes: tuple[str, ...]


def compare_with_runs(value: Value, runs: list[Run]) -> Comparison:
    r"""A published value beside the runs that have its settings."""
    if value.experiment:
        runs = [run for run in runs if run.config.get("experiment") == value.experiment]
    fitting = [run for run in runs if fits(run, value.where)]
    finished = [run for run in fitting if run.finished]
    full = [run for run in finished if was_run_as_published(run, value)]
    notes = other_runs(fitting, full)
    taken, note = one_setting(value, full)
    measured = with_figures(value, taken)
    if len(measured) < len([run for run in taken if ran_in_full(run)]):
        notes.append(f"{len(taken) - len(measured)} without {value.metric}" + at_step(value))
    notes = [*note, *notes]
    if not measured:
        taken, note = one_setting(value, [run for run in finished if in_small(run)])
        if smaller := with_figures(value, taken):
            return replace(judged(value, smaller, [*note, *notes]), verdict=SMALLER, in_errors=None, chance=None)
    return judged(value, measured, notes)


def with_figures(value: Value, runs: list[Run]) -> list[tuple[Run, float]]:
    r"""The runs that have a figure in the place of a published value, and that."""
    return [(run, found) for run in runs if (found := figure(value, run)) is not None]


def other_runs(fitting: list[Run], full: list[Run]) -> list[str]:
    r"""Words about runs that do not count."""
    counts: dict[str, int] = defaultdict(int)
    for run in fitting:
        if not run.finished:
            counts[run.status] += 1
        elif run not in full:
            counts["of a smaller budget" if run.config.get("budget") == "small" else "with other settings"] += 1
    return [f"{count} {what}" for what, count in counts.items()]


def at_step(value: Value) -> str:
    return "" if value.step is None else f" at step {value.step:,}"


def one_setting(value: Value, runs: list[Run]) -> tuple[list[Run], list[str]]:
    r"""Of runs that differ in more than seeds, those of one setting, and words about the choice."""
    keys, groups = varied(value, runs), defaultdict(list)
    for run in once_a_seed(keys, runs):
        groups[identity(keys, run)].append(run)
    if len(groups) <= 1:
        return [run for group in groups.values() for run in group], []
    if not value.choose:
        return [], [f"several settings fit, which differ in {', '.join(keys)}"]
    sign = 1 if value.choose["best"] == "lowest" else -1
    of_run = lambda run: [figure for _, figure in course(run, value.choose["metric"])]
    merit = lambda group: mean_or_none([sign * min(sign * f for f in found) for run in group if (found := of_run(run))])
    best = min(groups.values(), key=lambda group: math.inf if (mean := merit(group)) is None else sign * mean)
    chosen = ", ".join(f"{k}={setting(best[0], k)}" for k in keys)
    return best, [f"{chosen}, best of {len(groups)} by {value.choose['metric']}"]


def once_a_seed(keys: list[str], runs: list[Run]) -> list[Run]:
    r"""Of runs that differ in nothing, the longest one, and of those the last."""
    kept = {(identity(keys, run), run.seed): run for run in sorted(runs, key=lambda run: (run.steps, run.made))}
    return list(kept.values())


def identity(keys: list[str], run: Run) -> tuple:
    r"""What the runs that are averaged share."""
    return tuple(setting(run, key) for key in keys)


def varied(value: Value, runs: list[Run]) -> list[str]:
    r"""Keys of which runs have several values; for a value at a stated step, they may have gone on for longer or not.

    Runs on a processor and on a GPU have the same settings, and are averaged.
    A run that lacks an option is older than it, and counts as having its default.
    """
    free = ("seed", "device", *(("steps", "stop_after") if value.step is not None else ()))
    keys = {key for run in runs for key in run.config}
    keys = {k for k in keys if k not in free and k.split(".")[0] not in NOT_RESULTS and not k.startswith(WATCHING)}
    return sorted(key for key in keys if len({setting(run, key) for run in runs}) > 1)


def setting(run: Run, key: str) -> str | None:
    r"""A value of a run's config; where it has none, that of the project's config of its task or estimator."""
    group = key.partition(".")[0]
    if key in run.config or group not in ("task", "estimator"):
        return run.config.get(key)
    choice = run.config[group]
    known = re.fullmatch(r"\w{1,99}", choice) and (CONFIGS / group / f"{choice}.yaml").is_file()
    return dict(group_settings(group, choice)).get(key) if known else None


def mean_or_none(numbers: list[float]) -> float | None:
    return float(np.mean(numbers)) if numbers else None


def course(run: Run, metric: str) -> list[tuple[int, float]]:
    r"""Steps and values of a metric, as the run has them."""
    path = run.folder / "metrics.jsonl"
    about = path.stat() if path.is_file() else None
    rows = rows_in(path, about and (about.st_mtime_ns, about.st_size))
    return [(row["step"], row[metric]) for row in rows if is_figure(row.get(metric))]


@functools.lru_cache(maxsize=500)
def rows_in(path: Path, version: tuple[int, int] | None) -> list[dict]:
    r"""All rows of a run, as they are at a version of its file: many published figures look for theirs among them."""
    return list(lines(path, []))


def figure(value: Value, run: Run) -> float | None:
    r"""What a run has in the place of a published value; None if it has none."""
    found = course(run, value.metric)
    if value.step is not None:
        found = [(step, content) for step, content in found if step == value.step]
    steps, series = np.array(found, float).reshape(-1, 2).T
    if value.window:
        ends = steps[steps >= value.window]
        series = np.array([series[(steps > end - value.window) & (steps <= end)].mean() for end in ends])
    if not len(series):
        return None
    picks: dict[str, Callable[[np.ndarray], float]] = {"lowest": np.min, "highest": np.max, "": lambda s: s[-1]}
    return float(picks[value.best](series * value.scale))


def judged(value: Value, measured: list[tuple[Run, float]], notes: list[str]) -> Comparison:
    r"""The comparison of a published value with figures of runs."""
    if not measured:
        return Comparison(value, (), None, None, None, None, 0, None, NOT_RUN, tuple(notes))
    runs = tuple(run for run, _ in measured)
    found = np.array([figure for _, figure in measured])
    if value.log and value.value > 0 and (found > 0).all():
        logs = replace(value, log=False, value=math.log(value.value), decimals=LOG_DECIMALS, std=None, error=None)
        of_logs = judged(logs, [(run, math.log(figure)) for run, figure in measured], notes)
        assert of_logs.mean is not None
        mean = math.exp(of_logs.mean)
        return replace(of_logs, published=value, mean=mean, error=None, difference=mean - value.value)
    n, mean = len(found), float(found.mean())
    error = float(found.std(ddof=1) / math.sqrt(n)) if n > 1 and not value.exact else None
    difference = mean - value.value
    beyond = max(abs(difference) - value.rounding, 0.0)
    if value.exact:
        verdict = AGREES if beyond <= value.exact * abs(value.value) else DIFFERS
        return Comparison(value, runs, mean, None, difference, None, 0, None, verdict, tuple(notes))
    deviation, freedom = expected_deviation(value, found)
    chance = None
    if freedom:
        chance = float(2 * scipy.stats.t.sf(beyond / deviation, freedom)) if deviation else float(beyond == 0)
        verdict = AGREES if chance >= 1 - LEVEL else DIFFERS
    else:
        verdict = UNDECIDED if beyond else AGREES
        notes = [*notes, "one run: how much others would differ is not known"]
    return Comparison(
        value,
        runs,
        mean,
        error,
        difference,
        difference / deviation if deviation > NO_SPREAD * abs(mean) else None,
        freedom,
        None if value.unpublished else chance,
        INCOMPLETE if value.unpublished else verdict,
        tuple(notes),
    )


def expected_deviation(value: Value, found: np.ndarray) -> tuple[float, int]:
    r"""How far a published value would be from the mean of ours, were it made of runs like ours: a standard deviation.

    A value is the mean of m runs, ours of n, all of one variance: that of the difference is (1 / m + 1 / n) times it,
    pooled over both where the spread of theirs is published. Of a standard error without a number of runs, the square
    takes the place of theirs; then the degrees of freedom are at least those of ours.

    Returns:
        The deviation, and its degrees of freedom; 0 and 0 where nothing is known of any spread.
    """
    n, m = len(found), value.runs
    squares, freedom = float(np.square(found - found.mean()).sum()), n - 1
    if value.error is not None and not value.seeds:
        return (math.hypot(math.sqrt(squares / freedom / n), value.error), freedom) if freedom else (0.0, 0)
    theirs = value.std if value.error is None else value.error * math.sqrt(m)
    if theirs is not None:
        squares, freedom = squares + (m - 1) * theirs**2, freedom + m - 1
    return (math.sqrt(squares / freedom * (1 / m + 1 / n)), freedom) if freedom else (0.0, 0)
