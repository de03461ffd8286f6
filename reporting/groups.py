r"""Runs chosen and put together: those of one configuration, which differ in their seeds alone, are a group."""

import math
from collections import defaultdict
from dataclasses import dataclass, field

from hardmax.harness.contents import bounded_text
from hardmax.harness.shared import NOT_RESULTS, Refused, nearest

from .archives import shown
from .looks import Look, looks
from .runs import Run
from .settings import ABSENT, as_number, canonical, column_titles, differing, listed, same, texts, without_consequences

WATCHING = ("valid.every", "measure.")  # how closely training is watched, which leaves it as it is
CHOICES = ("estimator", "task", "seed")
PROBLEM = ("task.", "data.")  # what is to be solved, rather than how
# How a model is trained, in which runs on one problem may differ: figures are measured alike.
OF_TRAINING = ("task.kl", "task.gradient", "task.commitment", "task.codebook_decay")
MOST_LABEL_LETTERS = 160  # of a label


@dataclass
class Group:
    r"""Runs on one problem that are averaged.

    Attributes:
        task: The problem: the task's name, and settings that tell it from the task's other problems.
        label: Unique on the problem, and the same on another one for the same settings.
        settings: What was swept: values by the name of the column.
        runs: In whatever state, by seed.
        pooled: What its runs differ in beside their seeds: values by the name of the column.
        missing: Seeds that other groups on the problem have.
        keys: Of the config, by the name of the column.
        look: In charts and tables.
    """

    task: str
    label: str
    settings: dict[str, str]
    runs: list[Run]
    pooled: dict[str, list[str]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    look: Look | None = None

    @property
    def estimator(self) -> str:
        r"""The estimator of all runs; the label where they have several."""
        names = {run.estimator for run in self.runs}
        return names.pop() if len(names) == 1 else self.label

    @property
    def finished(self) -> list[Run]:
        return [run for run in self.runs if run.finished]

    def by_seed(self, metric: str) -> dict[tuple, float]:
        r"""Final figures of the finished runs where they are defined; seeds that came twice are told apart."""
        found = {}
        for run in self.finished:
            value = run.figures.get(metric)
            seed: tuple[object, ...] = (run.seed,)
            if value is not None and math.isfinite(value):
                while seed in found:
                    seed = (*seed, "again")
                found[seed] = value
        return found


def chosen(runs: list[Run], conditions: list[str]) -> list[Run]:
    r"""Runs that satisfy ``KEY=VALUE`` for every key, of whose values any will do.

    Raises:
        Refused: If no run has the key, or none the value.
    """
    wanted = defaultdict(list)
    for condition in conditions:
        key, equals, value = condition.partition("=")
        if not equals:
            raise Refused(f"--only {condition}: KEY=VALUE is expected")
        wanted[check_key(key, runs, "--only")].append(value)
    for key, values in wanted.items():
        known = sorted({run.config[key] for run in runs if key in run.config}, key=as_number)
        for value in values:
            if not any(same(value, other) for other in known):
                raise Refused(f"--only {key}={value}: no run has it; there are: {', '.join(known)}")
    return [run for run in runs if all(any(same(v, run.config.get(k)) for v in vs) for k, vs in wanted.items())]


def check_key(key: str, runs: list[Run], option: str) -> str:
    known = {key for run in runs for key in run.config}
    if key not in known:
        raise Refused(f"{option} {key}: no run has this key{nearest(key, sorted(known))}")
    return key


def grouped(runs: list[Run], by: list[str], known: list[str], notes: list[str]) -> dict[str, list[Group]]:
    r"""Groups by problem, each of the runs that share estimator and all settings, or the keys given.

    Arguments:
        runs: To be grouped.
        by: Keys; without any, a group is what differs in seeds alone.
        known: Names of estimators that are to have a colour, whether shown or not.
        notes: Gets what is left out because it was repeated.

    Raises:
        Refused: If no run has one of the keys.
    """
    for key in by:
        check_key(key, runs, "--by")
    found = {problem: on_one_problem(problem, own, by, notes) for problem, own in problems(runs).items()}
    every = [group for groups in found.values() for group in groups]
    appearance = looks({group.label: group.estimator for group in every}, known)
    for group in every:
        group.look = appearance[group.label]
    return found


def of_problem(key: str) -> bool:
    r"""Whether a key of the config says what is to be solved."""
    return key.startswith(PROBLEM) and key not in OF_TRAINING


def problems(runs: list[Run]) -> dict[str, list[Run]]:
    r"""Runs by what they solve: those of one task that differ in nothing of task and data."""
    found: dict[str, list[Run]] = {}
    used: set[str] = set()
    for task in sorted({run.task for run in runs}):
        of_task = [run for run in runs if run.task == task]
        keys = without_consequences(differing(of_task, of_problem), of_task)
        names, written = column_titles(keys), {key: texts(key, of_task) for key in keys}
        titled = defaultdict(list)
        for run in of_task:
            titled[tuple(written[key][canonical(run.config.get(key))] for key in keys)].append(run)
        for values in sorted(titled, key=lambda values: [as_number(value) for value in values]):
            settings = dict(zip(names.values(), values, strict=True))
            found[unused(", ".join(filter(None, [task, listed(settings)])), used)] = titled[values]
    return found


def on_one_problem(problem: str, runs: list[Run], by: list[str], notes: list[str]) -> list[Group]:
    r"""The groups of one problem by label, still without looks."""
    keys = swept(runs)
    every = list(dict.fromkeys([*by, *(key for own in keys.values() for key in own)]))
    written, names = {key: texts(key, runs) for key in ("estimator", *every)}, column_titles(every)
    value = lambda run, key: written[key][canonical(run.config.get(key))]
    groups: dict[tuple, list[Run]] = defaultdict(list)
    for run in latest(runs, keys, notes):
        varied = [key for key in keys[run.estimator] if key in run.config]
        groups[tuple((k, value(run, k)) for k in by or ["estimator", *varied])].append(run)
    labels = labels_of(list(groups), names)
    found = []
    for key, own in groups.items():
        settings = {names[k]: text for k, text in key if k != "estimator" and text != ABSENT}
        group = Group(problem, labels[key], settings, own, keys={names[k]: k for k, _ in key if k != "estimator"})
        apart = [k for k in ("estimator", *every) if k not in dict(key) and not k.startswith(WATCHING)]
        values = {names.get(k, k): list(dict.fromkeys(value(run, k) for run in own)) for k in apart}
        group.pooled = {name: sorted(v, key=as_number) for name, v in values.items() if len(v) > 1}
        found.append(group)
    seeds = {run.seed for run in runs}
    for group in found:
        group.missing = [] if by else sorted(seeds - {run.seed for run in group.runs}, key=as_number)
    return sorted(found, key=lambda group: [as_number(group.label)])


def swept(runs: list[Run]) -> dict[str, list[str]]:
    r"""Keys in which runs on one problem differ, by estimator: those of none, and its own."""
    left_out = lambda key: key in CHOICES or key.split(".")[0] in NOT_RESULTS or of_problem(key)
    shared = differing(runs, lambda key: not left_out(key) and not key.startswith("estimator."))
    shared = without_consequences(shared, runs)
    by_estimator = defaultdict(list)
    for run in runs:
        by_estimator[run.estimator].append(run)
    own = {name: differing(of_one, lambda key: key.startswith("estimator.")) for name, of_one in by_estimator.items()}
    return {name: shared + without_consequences(own[name], of_one) for name, of_one in by_estimator.items()}


def latest(runs: list[Run], keys: dict[str, list[str]], notes: list[str]) -> list[Run]:
    r"""Without runs that were repeated, or finished in another folder, later; these are noted."""
    by_identity = defaultdict(list)
    for run in runs:
        settings = (canonical(run.config.get(key)) for key in (*keys[run.estimator], "seed"))
        by_identity[run.estimator, *settings].append(run)
    kept = []
    for repeated in by_identity.values():
        *others, last = sorted(repeated, key=lambda run: (run.finished, run.made, run.folder))
        kept.append(last)
        for run in others:
            why = "repeated later" if run.finished or not last.finished else f"{run.status}, and finished elsewhere"
            notes.append(f"{why}, left out: {shown(run.folder)} ({shown(last.folder)} is taken)")
    return sorted(kept, key=lambda run: (as_number(run.seed), run.folder))


def labels_of(keys: list[tuple], names: dict[str, str]) -> dict[tuple, str]:
    r"""A label for each group, by estimator and settings; by how runs are watched only if nothing else differs."""

    def labels(hidden):
        return {key: label({k: v for k, v in key if not k.startswith(hidden)}, names) for key in keys}

    short = labels(WATCHING)
    found = short if len(set(short.values())) == len(keys) else labels(())
    used: set[str] = set()
    found = {key: unused(text, used) for key, text in found.items()}
    assert len(set(found.values())) == len(keys), "two groups of one label would share their figures"
    return found


def unused(text: str, used: set[str]) -> str:
    r"""A text from anyone, told apart from those that were used before; it is used then."""
    text = bounded_text(text, MOST_LABEL_LETTERS)
    while text in used:
        text += " (another)"
    used.add(text)
    return text


def label(key: dict[str, str], names: dict[str, str]) -> str:
    settings = listed({names[k]: text for k, text in key.items() if k != "estimator"})
    estimator = key.get("estimator")
    return settings if estimator is None else f"{estimator} ({settings})" if settings else estimator
