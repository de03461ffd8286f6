r"""Runs chosen and put together: those of one configuration, which differ in their seeds alone, are a group."""

from collections import defaultdict
from dataclasses import dataclass, field

from hardmax.harness.shared import NOT_RESULTS, Refused, nearest

from .contents import shortened
from .looks import Look, looks
from .runs import Run

OBSERVING = ("valid.every", "measure.", "log_every")  # how closely training is watched, which leaves it as it is
MOST_LETTERS = 160  # of a label
ONLY_NAMES = (
    "estimator._target_",
    "task._target_",
    "estimator",
    "task",
    "seed",
)  # said by the choices, or not compared


@dataclass
class Group:
    r"""Runs on one task that are averaged.

    Attributes:
        task: Its name.
        label: Unique on the task, and the same on another one for the same settings.
        settings: What was swept: values by the name of the column.
        runs: In whatever state, by seed.
        blocks: What pairs a run with one of another group: its seed, and what else was swept in both.
        missing: Seeds that other groups on the task have.
        look: In charts and tables.
    """

    task: str
    label: str
    settings: dict[str, str]
    runs: list[Run]
    blocks: list[tuple]
    missing: list[str] = field(default_factory=list)
    look: Look | None = None

    @property
    def estimator(self) -> str:
        r"""The estimator of all runs; the label where they have several."""
        names = {run.estimator for run in self.runs}
        return names.pop() if len(names) == 1 else self.label

    @property
    def finished(self) -> list[Run]:
        return [run for run in self.runs if run.finished]

    def by_block(self, metric: str) -> dict[tuple, float]:
        r"""Final figures of the finished runs where they are defined; blocks that came twice are told apart."""
        found = {}
        for run, block in zip(self.runs, self.blocks, strict=True):
            if run.finished and run.figures.get(metric) is not None:
                while block in found:
                    block = (*block, "again")
                found[block] = run.figures[metric]
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


def same(value: str, other: str | None) -> bool:
    r"""Whether two texts are equal, or the same number."""
    if value == other or other is None:
        return value == other
    try:
        return float(value) == float(other)
    except ValueError:
        return False


def as_number(value: str) -> tuple:
    r"""Orders numbers by their size, before all other texts."""
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value


def grouped(runs: list[Run], by: list[str], known: list[str], notes: list[str]) -> dict[str, list[Group]]:
    r"""Groups by task, each of the runs that share estimator and all settings, or the keys given.

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
    found = {}
    for task in sorted({run.task for run in runs}):
        of_task = [run for run in runs if run.task == task]
        found[task] = on_one_task(task, of_task, by, notes)
    every = [group for groups in found.values() for group in groups]
    appearance = looks({group.label: group.estimator for group in every}, known)
    for group in every:
        group.look = appearance[group.label]
    return found


def on_one_task(task: str, runs: list[Run], by: list[str], notes: list[str]) -> list[Group]:
    r"""The groups of one task by label, still without looks."""
    shared, own = swept(runs)
    settings = {id(run): {k: run.config[k] for k in shared + own[run.estimator] if k in run.config} for run in runs}
    groups: dict[tuple, Group] = {}
    for run in latest(runs, settings, notes):
        others = settings[id(run)]
        key = {k: run.config.get(k, "none") for k in by} or {"estimator": run.estimator, **others}
        columns = {column(k): value_of(k, v) for k, v in key.items() if k != "estimator"}
        group = groups.setdefault(tuple(key.items()), Group(task, "", columns, [], []))
        group.runs.append(run)
        group.blocks.append((run.seed, *(value for k, value in others.items() if by and k not in by and k in shared)))
    name_all(groups)
    seeds = {run.seed for run in runs}
    for group in groups.values():
        group.missing = [] if by else sorted(seeds - {run.seed for run in group.runs}, key=as_number)
    return sorted(groups.values(), key=lambda group: [as_number(group.label)])


def swept(runs: list[Run]) -> tuple[list[str], dict[str, list[str]]]:
    r"""Keys in which runs on one task differ: those of no estimator, and those of each estimator.

    A key that a run lacks, because its optimiser or an earlier version has none such, tells it apart from no other.
    """

    def differing(runs, of_estimator):
        values = defaultdict(set)
        for run in runs:
            for key, value in run.config.items():
                if key.startswith("estimator.") == of_estimator and key.split(".")[0] not in NOT_RESULTS:
                    values[key].add(value)
        return [key for key, found in values.items() if len(found) > 1 and key not in ONLY_NAMES]

    by_estimator = defaultdict(list)
    for run in runs:
        by_estimator[run.estimator].append(run)
    return differing(runs, False), {name: differing(of_one, True) for name, of_one in by_estimator.items()}


def latest(runs: list[Run], settings: dict[int, dict], notes: list[str]) -> list[Run]:
    r"""Without runs that were repeated, or finished in another folder, later; these are noted."""
    by_identity = defaultdict(list)
    for run in runs:
        by_identity[run.estimator, tuple(settings[id(run)].items()), run.seed].append(run)
    kept = []
    for repeated in by_identity.values():
        *others, last = sorted(repeated, key=lambda run: (run.finished, run.made, run.folder))
        kept.append(last)
        for run in others:
            why = "repeated later" if run.finished or not last.finished else f"{run.status}, and finished elsewhere"
            notes.append(f"{why}, left out: {run.folder} ({last.folder} is taken)")
    return sorted(kept, key=lambda run: (as_number(run.seed), run.folder))


def column(key: str) -> str:
    r"""What a swept key is called: without what goes without saying."""
    return key.removeprefix("estimator.").removesuffix("._target_")


def value_of(key: str, value: str) -> str:
    return value.rpartition(".")[2] if key.endswith("._target_") else value


def name_all(groups: dict[tuple, Group]) -> None:
    r"""Labels groups by estimator and settings; by how runs are watched only if nothing else differs."""

    def labels(hidden):
        return [label({k: v for k, v in key if not k.startswith(hidden)}) for key in groups]

    short = labels(OBSERVING)
    names = short if len(set(short)) == len(groups) else labels(())
    for group, name in zip(groups.values(), names, strict=True):
        group.label = name


def label(key: dict[str, str]) -> str:
    settings = ", ".join(f"{column(k)}={value_of(k, v)}" for k, v in key.items() if k != "estimator")
    estimator = key.get("estimator")
    whole = settings if estimator is None else f"{estimator} ({settings})" if settings else estimator
    return shortened(whole, MOST_LETTERS)
