r"""Each estimator at its best setting, chosen by validation figures and reported by runs of other seeds, if any."""

import functools
import math
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from hardmax.numbers import with_error

from .final_figures import Results, results_of
from .groups import Group, check_key, unused
from .looks import looks
from .pairs import Pair, pairs_of
from .runs import Run, said_by
from .settings import as_number, canonical, listed
from .statistics import Mean, mean_of
from .validation import CostLimit
from .words import Words, by_importance, words

FEWER = "†"  # marks an estimator with fewer trials than others
MOST_SEEDS = 4  # that are listed one by one
ENOUGH_TRIED = 3  # numbers, for one to lie between others


@dataclass
class Setting:
    r"""Runs of one setting that was tried.

    Attributes:
        group: These, in whatever state.
        values: What was chosen among, by the name of the column.
        seeds: By which it is judged.
        figures: Validation figures of the runs with these seeds, by seed: of those that have one.
    """

    group: Group
    values: dict[str, str]
    seeds: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def lacking(self) -> int:
        r"""Of its runs with these seeds, those without a figure: failed, unfinished, missing or diverged."""
        return len(self.seeds) - len(self.figures)

    @functools.cached_property
    def mean(self) -> Mean | None:
        return mean_of(list(self.figures.values())) if self.figures else None

    def score(self, better: int) -> tuple[int, float]:
        r"""The higher the better: a run without a figure is worse than any with one."""
        return -self.lacking, better * self.mean.value if self.mean else -math.inf

    def value(self, better: int) -> float:
        r"""The mean of its figures; infinitely bad if it lacks one."""
        return self.mean.value if self.mean and not self.lacking else -better * math.inf


@dataclass
class Entry:
    r"""An estimator with all of its settings that were tried.

    Attributes:
        label: Its name, and settings that were not to be chosen.
        estimator: Its name.
        fixed: Those settings.
        settings: What was tried, by their values.
        chosen: The best of them; None if no run has a figure.
        tied: How many others are as good as that one, which comes first.
        reported: Runs of the chosen setting that say how good it is.
        others: Whether their seeds are others than those by which it was chosen.
    """

    label: str
    estimator: str
    fixed: dict[str, str]
    settings: list[Setting]
    chosen: Setting | None = None
    tied: int = 0
    reported: list[Run] = field(default_factory=list)
    others: bool = False

    @property
    def runs(self) -> list[Run]:
        return [run for setting in self.settings for run in setting.group.runs]


@dataclass(eq=False)
class Tuned:
    r"""The comparison on one problem.

    Attributes:
        task: The problem.
        metric: The validation figure by which settings are chosen.
        words: About it.
        budget: What each run may spend, if that is limited; reported is then the validation figure too.
        entries: In the order of the results.
        results: Reported figures, in which each entry is a group.
        keys, known: As they were given.
    """

    task: str
    metric: str
    words: Words
    budget: CostLimit | None
    entries: list[Entry]
    results: Results
    keys: list[str]
    known: list[str]

    @property
    def heading(self) -> str:
        r"""What is compared."""
        return f"tuned, best figures up to {self.budget}" if self.budget else "tuned, final figures"

    @functools.cached_property
    def most_trials(self) -> int:
        return max(len(entry.settings) for entry in self.entries)


def tuned(task: str, groups: list[Group], keys: list[str], known: list[str], budget: CostLimit | None) -> Tuned | None:
    r"""The comparison of estimators at their best settings; None without a validation figure to choose by.

    Arguments:
        groups: On one problem, each of one setting.
        keys: Of the config, among whose values are chosen; without any, among all that was swept.
        known: Names of estimators that are to have a colour, whether shown or not.
        budget: That each run counts up to; None: its end.

    Raises:
        Refused: If no run has one of the keys.
    """
    runs = [run for group in groups for run in group.runs]
    for key in keys:
        check_key(key, runs, "--tune")
    said = said_by(runs)
    figures = by_importance({metric for run in runs for metric in run.validation}, said)
    metric = next((metric for metric in figures if words(metric, said).better), None)
    if metric is None:
        return None
    entries = [chosen_at(entry, metric, words(metric, said).better, budget) for entry in entries_of(groups, keys)]
    appearance = looks({entry.label: entry.estimator for entry in entries}, known)
    most = max(len(entry.settings) for entry in entries)
    found = [entry_group(task, entry, words(metric, said), most) for entry in entries]
    for group in found:
        group.look = appearance[group.label]
        if budget:
            group.runs = [replace(run, figures={metric: figure_of(run, metric, budget)}) for run in group.runs]
    results = results_of(task, found, "valid/" if budget else "test/")
    results.shown = [name for name in results.shown if name.startswith(("test/", "valid/", "cost/"))]
    order = [group.label for group in results.groups]
    entries.sort(key=lambda entry: order.index(entry.label))
    return Tuned(task, metric, words(metric, said), budget, entries, results, keys, known)


def entries_of(groups: list[Group], keys: list[str]) -> list[Entry]:
    r"""Estimators with their settings; what was swept and is not to be chosen keeps entries apart."""
    found: dict[tuple, Entry] = {}
    used: set[str] = set()
    for group in groups:
        values = {name: text for name, text in group.settings.items() if not keys or group.keys[name] in keys}
        fixed = {name: text for name, text in group.settings.items() if name not in values}
        key = group.estimator, *fixed.items()
        if key not in found:
            label = f"{group.estimator} ({listed(fixed)})" if fixed else group.estimator
            found[key] = Entry(unused(label, used), group.estimator, fixed, [])
        found[key].settings.append(Setting(group, values))
    for entry in found.values():
        entry.settings.sort(key=lambda setting: [as_number(text) for text in setting.values.values()])
    return list(found.values())


def figure_of(run: Run, metric: str, budget: CostLimit | None) -> float | None:
    r"""A finished run's validation figure, or the best up to a budget; None where undefined."""
    found = run.validation.get(metric)
    if not run.finished or found is None:
        return None
    if budget is None:
        return found.final
    value = float(found.best_until(budget.axis, np.array(budget.amount)))
    return value if math.isfinite(value) else None


def chosen_at(entry: Entry, metric: str, better: int, budget: CostLimit | None) -> Entry:
    r"""The entry with the setting that has the best mean over the tuning seeds, and the runs by which it is reported.

    Tuning seeds are those with which more than half of the settings were tried. A setting is the worse for every one of
    them with which it has no figure, whether a run of it failed, diverged, was not finished or never began.
    """
    shared, settings = tuning_seeds(entry.settings), []
    for setting in entry.settings:
        own = {run.seed: figure_of(run, metric, budget) for run in setting.group.runs}
        seeds = shared or sorted(own, key=as_number)
        figures = {seed: value for seed in seeds if (value := own.get(seed)) is not None}
        settings.append(Setting(setting.group, setting.values, seeds, figures))
    scores = [setting.score(better) for setting in settings]
    best = max((score for score in scores if score[1] > -math.inf), default=None)
    if best is None:
        return replace(entry, settings=settings, chosen=None, reported=entry.runs, others=False)
    chosen = settings[scores.index(best)]
    others = [run for run in chosen.group.runs if run.seed not in chosen.seeds]
    there_are = any(run.finished for run in others)
    reported = others if there_are else [run for run in chosen.group.runs if run.seed in chosen.seeds]
    tied = scores.count(best) - 1
    return replace(entry, settings=settings, chosen=chosen, tied=tied, reported=reported, others=there_are)


def tuning_seeds(settings: list[Setting]) -> list[str]:
    r"""Seeds with which more than half of the settings were tried; none if there are no such."""
    count = Counter(seed for setting in settings for seed in {run.seed for run in setting.group.runs})
    return sorted((seed for seed, n in count.items() if 2 * n > len(settings)), key=as_number)


def entry_group(task: str, entry: Entry, about: Words, most: int) -> Group:
    r"""The runs by which an entry is reported, as a group whose settings say how it was chosen."""
    chosen = (listed(entry.chosen.values) or "–") if entry.chosen else "none, as no run has a figure"
    trials = len(entry.settings)
    settings = {**entry.fixed, "best setting": chosen}
    settings["chosen from"] = f"{trials:,}{f' {FEWER}' * (trials < most)} ({count_of(len(entry.runs), 'run')})"
    settings["tuning seeds"] = seeds_text(entry.chosen.seeds) if entry.chosen else "–"
    mean = entry.chosen.mean if entry.chosen else None
    settings[f"{about.title} when chosen"] = with_error(mean.value, mean.error) if mean else "–"
    settings["reported seeds"] = reported_seeds(entry)
    return Group(task, entry.label, settings, entry.reported)


def reported_seeds(entry: Entry) -> str:
    if entry.chosen is None:
        return "–"
    seeds = seeds_text([run.seed for run in entry.reported])
    return seeds if entry.others or len(entry.settings) == 1 else f"{seeds} (the same)"


def seeds_text(seeds: list[str]) -> str:
    r"""Such as ``1, 3`` or, of more, ``1–6``, or ``1, 3, … (9)``."""
    numbers = [int(seed) for seed in seeds if seed.isdecimal()]
    if len(seeds) > 2 and len(numbers) == len(seeds) and max(numbers) - min(numbers) == len(seeds) - 1:
        return f"{min(numbers)}–{max(numbers)}"
    if len(seeds) > MOST_SEEDS:
        return f"{', '.join(seeds[: MOST_SEEDS - 1])}, … ({len(seeds)})"
    return ", ".join(seeds)


def count_of(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def ended_before(tuned: Tuned) -> list[str]:
    r"""Labels of entries of which a reported run ends before its budget, and counts with what it has by then."""
    budget = tuned.budget
    if budget is None:
        return []
    ends = {
        entry.label: [v.end(budget.axis) for run in entry.reported if (v := run.validation.get(tuned.metric))]
        for entry in tuned.entries
    }
    return [label for label, found in ends.items() if any(end < budget.amount for end in found)]


def at_edges(found: Tuned) -> list[str]:
    r"""Such as ``optimizer.lr=0.003, the highest: carms, zgr``: where the best of three numbers or more is the last."""
    edges: dict[str, list[str]] = {}
    for entry in found.entries:
        for name, text in entry.chosen.values.items() if entry.chosen else ():
            numbers = {canonical(setting.values.get(name)) for setting in entry.settings}
            tried = sorted(n for n in numbers if isinstance(n, int | float))
            if len(tried) >= ENOUGH_TRIED and (value := canonical(text)) in (tried[0], tried[-1]):
                edge = f"{name}={text}, the {'lowest' if value == tried[0] else 'highest'}"
                edges.setdefault(edge, []).append(entry.label)
    return [f"{edge}: {', '.join(labels)}" for edge, labels in edges.items()]


def expected_best(values: list[float], better: int) -> list[float]:
    r"""Expected best of n of these values, drawn without replacement, for n from 1 to all of them.

    The mean over all subsets of n: unbiased for the best of n independent trials of the same search. Where infinitely
    bad values are among them, it is infinitely bad too until n exceeds their number.

    References:
        | Show Your Work: Improved Reporting of Experimental Results (Dodge et al., 2019)
        | Showing Your Work Doesn't Always Work (Tang et al., 2020)
    """
    ordered = sorted(better * value for value in values)
    total, found = len(ordered), []
    for n in range(1, total + 1):
        shares = [math.comb(rank, n - 1) / math.comb(total, n) for rank in range(total)]  # in which it is the best
        found.append(better * sum(share * value for share, value in zip(shares, ordered, strict=True) if share))
    return found


def trials_of(found: Tuned) -> dict[str, list[float]]:
    r"""The expected best of 1, 2, ... settings of each entry that had some to choose from, by label."""
    better = found.words.better
    return {
        entry.label: expected_best([setting.value(better) for setting in entry.settings], better)
        for entry in found.entries
        if len(entry.settings) > 1
    }


@functools.cache
def tested_pairs(found: Tuned) -> list[Pair]:
    r"""All pairs of entries by the reported figure."""
    metric = merit_reported(found)
    values = {group.label: group.by_seed(metric) for group in found.results.groups} if metric else {}
    return pairs_of(values)


def merit_reported(found: Tuned) -> str | None:
    r"""The reported figure by which entries are ordered."""
    return next((metric for metric in found.results.shown if found.results.words(metric).better), None)
