r"""Bias, noise and cost of gradient estimators, from what was measured along runs or by ``measure.py``."""

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hardmax.files import read_text
from hardmax.harness.contents import MOST_ENTRIES, bounded_text, is_figure, reason_of

from .archives import shown
from .curves import with_limits
from .final_figures import relative_bias
from .groups import Group
from .rounding import without_rounding
from .runs import MEASURED_AT, Found
from .words import PLACES


@dataclass(frozen=True)
class Point:
    r"""One estimator.

    Attributes:
        label, estimator: What it is called, and whose colour it has.
        bias: Norm of the bias over the norm of the true gradient; an upper limit if ``limit``.
        deviation: Root of the total variance of one gradient draw, over the norm of the true gradient.
        evaluations: Of the objective, per draw and example.
        seconds: That one draw took; NaN where unknown.
    """

    label: str
    estimator: str
    bias: float
    limit: bool
    deviation: float
    evaluations: float
    seconds: float

    @property
    def at_equal_cost(self) -> float:
        r"""The deviation of a mean over as many draws as one evaluation would pay for."""
        return self.deviation * math.sqrt(self.evaluations)


@dataclass(frozen=True)
class BiasComparison:
    r"""Estimators that were measured in one place, and where that was."""

    title: str
    points: list[Point]


def by_problem(found: Found, groups: dict[str, list[Group]]) -> list[tuple[str, Path]]:
    r"""Files of ``measure.py`` with their problems; one that is of none of the groups' is noted."""
    problem_of = {run.folder: problem for problem, own in groups.items() for group in own for run in group.runs}
    files = [(problem_of.get(path.parent, task), path) for task, path in found.measured]
    absent = [path for problem, path in files if problem not in groups]
    found.notes += [f"not shown, as it is of none of the problems here: {path}" for path in absent]
    return [(problem, path) for problem, path in files if problem in groups]


def comparisons(
    task: str, groups: list[Group], measured: list[tuple[str, Path]], notes: list[str]
) -> list[BiasComparison]:
    r"""Everything on a task that is worth a picture: the runs' own ends, their rivals, and ``measured.csv`` files.

    Arguments:
        measured: Problems and files.
        notes: Gets the files that cannot be read.
    """
    found = []
    for where in MEASURED_AT:
        points = [point_of(group, "", where) for group in groups]
        title = f"gradient {PLACES[where]}; each at the parameters that its own runs have reached"
        found.append(BiasComparison(title, [point for point in points if point]))
    for group in groups:
        found += [of_rivals(group, where) for where in MEASURED_AT]
    for on, path in measured:
        if on == task:
            found += of_file(path, notes)
    return [comparison for comparison in found if len(comparison.points) > 1]


def point_of(group: Group, rival: str, where: str) -> Point | None:
    r"""The group's own estimator, or a rival at the same parameters; None where it was not measured beside a truth."""
    prefix = f"gradient/rivals/{rival}" if rival else "gradient"
    figures = [run.figures for run in group.finished]
    norm = f"gradient/{where}/true_norm"
    figures = [f | {f"{prefix}/{where}/true_norm": f.get(norm)} for f in figures]
    bias = relative_bias(figures, [run.largest_cost for run in group.finished], f"{prefix}/{where}")
    variances = [f.get(f"{prefix}/{where}/variance") for f in figures]
    cost = [f.get(f"{prefix}/evaluations") for f in figures]
    if bias is None or None in variances or None in cost:
        return None
    norms = [f[norm] for f in figures]
    relative = [v / n**2 for v, n in zip(variances, norms, strict=True) if v is not None and n is not None]
    deviation = float(without_rounding(math.sqrt(np.mean(relative))))
    seconds = [f.get(f"{prefix}/seconds") for f in figures]
    mean_seconds = float(np.mean(np.array(seconds, float)))  # NaN where one is not known
    name = rival or group.label
    estimator = rival.partition("(")[0] if rival else group.estimator
    return Point(name, estimator, bias[0], bias[2], deviation, float(np.mean(np.array(cost, float))), mean_seconds)


def of_rivals(group: Group, where: str) -> BiasComparison:
    r"""A group's own estimator and its rivals, all at the parameters that its runs have reached."""
    start = "gradient/rivals/"
    keys = {key for run in group.finished for key in run.figures if key.startswith(start)}
    rivals = sorted({key.removeprefix(start).partition("/")[0] for key in keys} - {group.label})
    points = [point_of(group, name, where) for name in ["", *rivals]] if rivals else []
    title = f"gradient {PLACES[where]}; all at the parameters that the runs of {group.label} have reached"
    return BiasComparison(title, [point for point in points if point])


def of_file(path: Path, notes: list[str]) -> list[BiasComparison]:
    r"""What ``measure.py`` has saved, for the logits and for the encoder, without what has no known bias."""
    title = "gradient {}; all at one place, as measured in {}"
    measured = measured_in(path, notes)
    name = bounded_text(shown(path))
    return [BiasComparison(title.format(PLACES[where], name), drawable(points)) for where, points in measured.items()]


def measured_in(path: Path, notes: list[str]) -> dict[str, list[Point]]:
    r"""All that ``measure.py`` has saved, by place; if the file cannot be read, a note and nothing."""
    try:
        rows = table_of(path)
        return {where: points_of(rows[rows["where"] == where]) for where in MEASURED_AT}
    except Exception as error:  # anything may be in a file of anyone's
        notes.append(f"cannot be read: {path} ({reason_of(error)})")
        return {}


def table_of(path: Path) -> pd.DataFrame:
    r"""A table in CSV whose texts are of bounded length; numbers with which one cannot reckon are NaN.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is none, or has more rows or columns than anyone measures.
    """
    table = pd.read_csv(io.StringIO(read_text(path)))
    if max(table.shape) > MOST_ENTRIES:
        raise ValueError(f"more than {MOST_ENTRIES} rows or columns")
    return table.map(
        lambda cell: bounded_text(cell) if isinstance(cell, str) else cell if is_figure(cell) else math.nan
    )


def truths_in_words(rows: pd.DataFrame) -> str:
    r"""What biases were measured against."""
    for column in (c for c in rows if c.startswith("truth/") and rows[c].notna().any()):
        name, draws = column.removeprefix("truth/"), rows[column].dropna().iloc[0]
        count = f"{draws:.0f}" if pd.api.types.is_number(draws) else "some"
        return "the exact gradient" if name == "exact" else f"{count} draws of {name}"
    return "none"


def points_of(rows: pd.DataFrame) -> list[Point]:
    r"""The estimators that ``measure.py`` has measured in one place; NaN where bias and deviation are not known."""
    bias, known = relative_biases(rows)
    deviation = without_rounding(np.sqrt(rows.variance.to_numpy(float)) / rows.true_norm.to_numpy(float))
    columns = (bias, ~known, deviation, rows.evaluations.to_numpy(float), rows.seconds.to_numpy(float))
    return [
        Point(name, name.partition("(")[0].strip(), float(b), bool(limit), float(d), float(cost), float(seconds))
        for name, b, limit, d, cost, seconds in zip(rows.estimator, *columns, strict=True)
    ]


def drawable(points: list[Point]) -> list[Point]:
    return [point for point in points if math.isfinite(point.bias) and math.isfinite(point.deviation)]


def relative_biases(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    r"""Biases over the true norm, and whether they are more than two standard errors; if not, upper limits."""
    absent = pd.Series(np.nan, rows.index)
    bias2, error, norm = (rows.get(k, absent).to_numpy(float) for k in ("bias2", "bias2_error", "true_norm"))
    value, _, _, limit = with_limits(bias2 / norm**2, error / norm**2)
    return value, ~limit
