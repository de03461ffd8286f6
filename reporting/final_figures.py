r"""Final figures of the groups on one task, and how each compares with the best."""

import functools
from dataclasses import dataclass, field

import numpy as np

from .curves import with_limits
from .groups import Group
from .rounding import relative_square
from .runs import MEASURED_AT, said_by
from .statistics import UNTESTED, Mean, Verdict, mean_of, verdicts
from .words import Words, by_importance, words


@dataclass
class Results:
    r"""What came out on one task.

    Attributes:
        task: Its problem.
        groups: Best first, by the figure that says most; those without finished runs come last.
        means: Final figures by label, then by metric.
        verdicts: By metric, then by label; of metrics that can be better or worse, unless options are pooled.
        shown: Metrics of the final table, in its order; of held-out figures, those that can be better or worse.
    """

    task: str
    groups: list[Group]
    means: dict[str, dict[str, Mean]] = field(default_factory=dict)
    verdicts: dict[str, dict[str, Verdict]] = field(default_factory=dict)
    shown: list[str] = field(default_factory=list)

    @property
    def metrics(self) -> set[str]:
        return {metric for found in self.means.values() for metric in found}

    @property
    def pooled(self) -> list[str]:
        r"""Options of which any group averages over several values."""
        return list(dict.fromkeys(name for group in self.groups for name in group.pooled))

    @property
    def over(self) -> str:
        r"""What means are over, in words."""
        return " and ".join(["seeds", *self.pooled])

    @functools.cached_property
    def said(self) -> dict[str, Words]:
        return said_by([run for group in self.groups for run in group.runs])

    def words(self, metric: str) -> Words:
        return words(metric, self.said)

    def bias(self, label: str, where: str) -> tuple[float, float, bool] | None:
        r"""Bias over the true gradient's norm, its standard error, and whether it is an upper limit instead."""
        (group,) = [group for group in self.groups if group.label == label]
        costs = [run.largest_cost for run in group.finished]
        return relative_bias([run.figures for run in group.finished], costs, f"gradient/{where}")


def relative_bias(figures: list[dict], costs: list[float], prefix: str) -> tuple[float, float, bool] | None:
    r"""The bias over several runs as in :meth:`Results.bias`; None if it is not known in all of them.

    Arguments:
        figures: Of each run.
        costs: The largest of each run, as :func:`relative_square` takes it.
        prefix: Of the metrics.
    """
    found = [[f.get(f"{prefix}/{k}") for k in ("bias2", "true_norm")] for f in figures]
    errors = [f.get(f"{prefix}/bias2_error") for f in figures]
    relative = [relative_square(b, e, n, cost) for (b, n), e, cost in zip(found, errors, costs, strict=True)]
    if not relative or None in relative:
        return None
    square, errors = map(list, zip(*relative, strict=True))
    mean = mean_of(square)
    error = max(np.nan_to_num(mean.error), float(np.sqrt(np.square(errors).sum())) / len(errors))
    value, low, high, limit = with_limits(np.array([mean.value]), np.array([error]))
    return float(value[0]), float(high[0] - low[0]) / 2, bool(limit[0])


def results_of(task: str, groups: list[Group], held_out: str = "test/") -> Results:
    r"""Means, verdicts and the order of groups, by the first held-out figure of the test or the validation split."""
    results = Results(task, groups)
    for group in groups:
        metrics = {metric for run in group.finished for metric in run.figures}
        values = {metric: list(group.by_seed(metric).values()) for metric in sorted(metrics)}
        results.means[group.label] = {metric: mean_of(found) for metric, found in values.items() if found}
    for metric in results.metrics if not results.pooled else ():
        if better := results.words(metric).better:
            results.verdicts[metric] = verdicts_on(metric, groups, better)
    figures = by_importance({metric for metric in results.metrics if metric.startswith(held_out)}, results.said)
    figures = [metric for metric in figures if results.words(metric).better] or figures
    where = next((w for w in MEASURED_AT if f"gradient/{w}/variance" in results.metrics), MEASURED_AT[0])
    wanted = [*figures, "train/loss", f"gradient/{where}/variance", f"gradient/{where}/relative_bias"]
    same_length = len({run.step for group in groups for run in group.finished}) == 1
    wanted += ["cost/evaluations_per_step", *["cost/evaluations"] * (not same_length), "cost/seconds"]
    results.shown = [metric for metric in wanted if metric in results.metrics]
    results.groups = sorted(groups, key=lambda group: rank(results, group.label))
    return results


def verdicts_on(metric: str, groups: list[Group], better: int) -> dict[str, Verdict]:
    r"""Verdicts by label; a group that lacks the figure in some runs is untested: the rest may be the lucky ones."""
    values = {group.label: group.by_seed(metric) for group in groups}
    whole = [group.label for group in groups if len(values[group.label]) == len(group.finished)]
    partly = {label: Verdict(UNTESTED) for label, found in values.items() if found and label not in whole}
    return verdicts({label: values[label] for label in whole}, better) | partly


def rank(results: Results, label: str) -> tuple:
    r"""A sort key that puts the best label first, by the first figure shown that can be better or worse."""
    metric = next((m for m in results.shown if results.words(m).better), None)
    mean = results.means[label].get(metric) if metric else None
    if metric is None or mean is None:
        return not results.means[label], 1, 0.0, label
    return False, 0, -results.words(metric).better * mean.value, label
