r"""Published figures beside those of runs that were made under the published settings, with a verdict."""

import functools
import math
import re
from collections import defaultdict
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import scipy.stats
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hardmax.harness.shared import NOT_RESULTS, Refused, nearest
from hardmax.paths import CONFIGS
from hydra_plugins.hardmax_rows import jobs

from .groups import WATCHING
from .numbers import decimals_of, with_error, with_minus
from .runs import Run, flat, is_number, lines, text
from .settings import same

FACTS = Path(__file__).parent / "published.yaml"
NOT_SAID = ("defaults", "hydra", "output")  # parts of an experiment's file that are no settings
UNRECORDED = ("data.folder",)  # by a run
LEVEL = 0.95  # of intervals
AGREES, DIFFERS, INCOMPLETE, NOT_RUN = "agrees", "differs", "settings incomplete", "not run"


@dataclass(frozen=True)
class Value:
    r"""A published figure.

    Attributes:
        table, name: Where it stands, for people.
        value: As published.
        metric: Of a run, what corresponds to it once multiplied by ``scale``.
        where: Settings that runs must have, as text by dotted key.
        experiment: Whose runs count; empty: any.
        quantity, source: For people.
        scale: See ``metric``.
        step: At which the metric is taken; None: the last one that has it.
        window: Number of values in a row that are averaged first.
        best: ``lowest`` or ``highest`` over the run; empty: not over the run.
        choose: ``metric`` and ``best``, which one of several settings that fit is taken; empty: there must be one.
        decimals: To which the value is rounded; None: those it is written with.
        std, error: Over seeds, and of the mean, if published.
        seeds: Behind the value, if published.
        open: Settings that are not published.
        remark: What became of a difference.
    """

    table: str
    name: str
    value: float
    metric: str
    where: dict[str, str]
    experiment: str = ""
    quantity: str = ""
    source: str = ""
    scale: float = 1.0
    step: int | None = None
    window: int = 1
    best: str = ""
    choose: dict[str, str] = field(default_factory=dict)
    decimals: int | None = None
    std: float | None = None
    error: float | None = None
    seeds: int | None = None
    open: tuple[str, ...] = ()
    remark: str = ""

    @property
    def rounding(self) -> float:
        r"""By how much the value may be off because it was rounded."""
        written = len(repr(float(self.value)).partition(".")[2])
        return 0.5 * 10.0 ** -(written if self.decimals is None else self.decimals)

    @property
    def standard_error(self) -> float | None:
        r"""Of the value, if it is published or follows from what is."""
        if self.error is None and self.std is not None and self.seeds:
            return self.std / math.sqrt(self.seeds)
        return self.error


@dataclass(frozen=True)
class Beside:
    r"""A published value and what was measured.

    Attributes:
        published: The value.
        runs: Under the published settings, finished, in full.
        mean, error: Of the measured figures, and its standard error; None without, or with a single run.
        difference: Measured less published.
        in_errors: The difference over the standard error of both; None where that is not known.
        verdict: ``agrees``, ``differs``, ``settings incomplete`` or ``not run``.
        notes: What a reader should know: of runs with smaller budgets or other settings, for one.
    """

    published: Value
    runs: tuple[Run, ...]
    mean: float | None
    error: float | None
    difference: float | None
    in_errors: float | None
    verdict: str
    notes: tuple[str, ...]


# ---------------------------------------------------------------- what is published


def facts(paths: list[Path]) -> list[Value]:
    r"""The published values of this project and of a user's files.

    Raises:
        Refused: In one line, if a file cannot be read or an entry has an unknown key, or lacks one.
    """
    return [value for path in (FACTS, *paths) for table in entries(path, "tables") for value in values(path, table)]


def entries(path: Path, part: str):
    try:
        found = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OSError, OmegaConfBaseException, ValueError) as error:
        raise Refused(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error
    except Exception as error:  # YAML's own
        raise Refused(f"{path}: no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict) or part not in found:
        raise Refused(f"{path}: {part} is missing: a list of tables with their values is expected")
    return found[part] or []


def values(path: Path, table: dict) -> list[Value]:
    known = {f.name: f for f in fields(Value)}
    required = ("table", "name", "value", "metric")
    found = []
    shared = {key: content for key, content in table.items() if key != "values"}
    for entry in table.get("values") or []:
        merged = {**shared, **entry}
        merged["where"] = {k: text(v) for k, v in {**shared.get("where", {}), **entry.get("where", {})}.items()}
        name = f"{path}: {merged.get('table', 'a table')}, {merged.get('name', 'a value')}"
        for key in merged.keys() - known.keys():
            raise Refused(f"{name}: {key} is no key{nearest(key, list(known))}; there are: values, {', '.join(known)}")
        for key in required:
            if key not in merged:
                raise Refused(f"{name}: {key} is missing")
        if not is_number(merged["value"]):
            raise Refused(f"{name}: value must be a number, got {merged['value']!r}")
        if merged.get("best") not in (None, "", "lowest", "highest"):
            raise Refused(f"{name}: best must be lowest or highest, got {merged['best']!r}")
        found.append(Value(**{**merged, "open": tuple(merged.get("open") or ())}))
    return found


# ---------------------------------------------------------------- which runs count


@dataclass(frozen=True)
class Experiment:
    r"""What an experiment's file says.

    Attributes:
        rows: Settings that belong together, as text by dotted key; estimator and task by their last names.
        said: All settings of each row at the full budget that the file states.
        defaults: Those of each row that it leaves to the groups, such as the optimiser's.
        params: Options that are swept whatever the row, with their values.
        about: The comment at the head of the file.
    """

    rows: list[dict[str, str]]
    said: list[dict[str, str]]
    defaults: list[dict[str, str]]
    params: dict[str, list[str]]
    about: str


@functools.cache
def experiment(name: str) -> Experiment | None:
    r"""The experiment of this name; None if it is a user's own."""
    path = CONFIGS / f"experiment/{name}.yaml"
    if not re.fullmatch(r"\w{1,99}", name) or not path.is_file():
        return None
    config = OmegaConf.load(path)
    OmegaConf.register_new_resolver("by_budget", lambda full, small: full, replace=True)
    sweeper = config.hydra.sweeper
    params = {key: str(values).split(",") for key, values in (sweeper.get("params") or {}).items()}
    table = jobs(sweeper.get("rows"), None, [], OverridesParser.create())
    choices = {key.split("/")[-1]: choice for entry in config.defaults for key, choice in entry.items()}
    own = OmegaConf.to_container(OmegaConf.masked_copy(config, [k for k in config if k not in NOT_SAID]), resolve=True)
    rows, said, defaults = [], [], []
    for job in table:
        row = dict(line.split("=", 1) for line in job)
        chosen = {group: row.get(group, choice) for group, choice in choices.items() if group != "sweeper"}
        rows.append({key: text(yaml.safe_load(Path(content).name)) for key, content in row.items()})
        said.append(counted({**flat(own), **rows[-1], "budget": "full"}, params))
        defaults.append(
            counted({k: v for group, choice in chosen.items() for k, v in group_settings(group, choice)}, params)
        )
    lines_ = path.read_text().splitlines()[1:]
    head = [line[2:] for line in lines_[: next(n for n, line in enumerate(lines_) if not line.startswith("#"))]]
    return Experiment(rows, said, defaults, params, "\n".join(head))


@functools.cache
def group_settings(group: str, choice: str) -> list[tuple[str, str]]:
    r"""Settings of a choice of a config group, as text by dotted key; without those that refer to others."""
    content = OmegaConf.to_container(OmegaConf.load(CONFIGS / group / f"{choice}.yaml"))
    content.pop("defaults", None)
    return [(f"{group}.{key}", value) for key, value in flat(content).items() if "${" not in value]


def counted(settings: dict[str, str], params: dict[str, list[str]]) -> dict[str, str]:
    r"""Those on which results hang, and which are not swept whatever the row."""
    skipped = lambda key: key in params or key.startswith(WATCHING) or key in UNRECORDED
    return {key: value for key, value in settings.items() if not skipped(key)}


def deviations(run: Run) -> list[str]:
    r"""Settings in which a run of an experiment is not what the experiment says, in words; none: it counts in full."""
    found = experiment(run.config.get("experiment", ""))
    if found is None:
        return []
    each = [
        [f"{k}={run.config.get(k, 'absent')}" for k, v in said.items() if not same(v, run.config.get(k))]
        # An older run may lack an option that has come since.
        + [
            f"{k}={run.config[k]}"
            for k, v in defaults.items()
            if k in run.config and k not in said and not same(v, run.config[k])
        ]
        for row, said, defaults in zip(found.rows, found.said, found.defaults, strict=True)
        if fits(run, row)
    ]
    return min(each, key=len, default=["no row of the experiment"])


def fits(run: Run, where: dict[str, str]) -> bool:
    r"""Whether a run has the settings."""
    return all(same(value, run.config.get(key)) for key, value in where.items())


def in_full(run: Run) -> bool:
    return run.config.get("budget", "full") == "full" and not deviations(run)


def counts(run: Run, value: Value) -> bool:
    r"""Whether a run was made under all published settings, as far as the step of the value."""
    if in_full(run) or not value.experiment:
        return run.config.get("budget", "full") == "full"
    # The first steps of a longer run are the same, unless what is left of them sets the learning rate.
    shorter = [d.partition("=")[0] for d in deviations(run)] == ["steps"] and run.config.get("budget") == "full"
    steady = run.config.get("schedule._target_") == "hardmax.harness.schedules.Constant"
    return shorter and steady and value.step is not None


# ---------------------------------------------------------------- the join


def compare(value: Value, runs: list[Run]) -> Beside:
    r"""A published value beside the runs that have its settings."""
    fitting = [run for run in runs if fits(run, value.where)]
    if value.experiment:
        fitting = [run for run in fitting if run.config.get("experiment") == value.experiment]
    finished = [run for run in fitting if run.finished]
    full = [run for run in finished if counts(run, value)]
    notes = other_runs(fitting, full)
    taken, note = one_setting(value, full)
    measured = [(run, found) for run in taken if (found := figure(value, run)) is not None]
    if len(measured) < len([run for run in taken if in_full(run)]):
        notes.append(f"{len(taken) - len(measured)} without {value.metric}" + at_step(value))
    return judged(value, [run for run, _ in measured], [found for _, found in measured], [*note, *notes])


def other_runs(fitting: list[Run], full: list[Run]) -> list[str]:
    r"""Words about runs that do not count."""
    counts = defaultdict(int)
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
    key = lambda group: mean_of([f for run in group if (f := last(run, value.choose["metric"])) is not None])
    sign = 1 if value.choose["best"] == "lowest" else -1
    best = min(groups.values(), key=lambda group: sign * (key(group) if key(group) is not None else math.inf * sign))
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

    A run that lacks an option is older than it, and counts as having its default.
    """
    free = ("seed", "steps") if value.step is not None else ("seed",)
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


def mean_of(numbers: list[float]) -> float | None:
    return float(np.mean(numbers)) if numbers else None


def course(run: Run, metric: str) -> list[tuple[int, float]]:
    r"""Steps and values of a metric, as the run has them."""
    rows = lines(run.folder / "metrics.jsonl", [])
    return [(row["step"], row[metric]) for row in rows if is_number(row.get(metric))]


def last(run: Run, metric: str) -> float | None:
    found = course(run, metric)
    return found[-1][1] if found else None


def figure(value: Value, run: Run) -> float | None:
    r"""What a run has in the place of a published value; None if it has none."""
    found = course(run, value.metric)
    if value.step is not None:
        found = [(step, content) for step, content in found if step == value.step]
    if len(found) < value.window:
        return None
    series = np.array([content for _, content in found]) * value.scale
    if value.window > 1:
        series = np.convolve(series, np.full(value.window, 1 / value.window), "valid")
    pick = {"lowest": np.min, "highest": np.max, "": lambda s: s[-1]}[value.best]
    return float(pick(series))


def judged(value: Value, runs: list[Run], measured: list[float], notes: list[str]) -> Beside:
    r"""The comparison of a published value with figures of runs."""
    if not measured:
        return Beside(value, (), None, None, None, None, NOT_RUN, tuple(notes))
    n, mean, theirs = len(measured), float(np.mean(measured)), value.standard_error
    error = float(np.std(measured, ddof=1) / math.sqrt(n)) if n > 1 else None
    difference = mean - value.value
    both = math.hypot(error or 0.0, theirs or 0.0)
    verdict = AGREES if abs(difference) <= allowed(value, error, n) else DIFFERS
    if n == 1:
        notes = [*notes, "one seed: how much others would differ is not known"]
    elif error and value.seeds == 1:
        spreads = abs(difference) / (error * math.sqrt(n))
        notes = [*notes, f"theirs is one run, {spreads:.1f} standard deviations of ours away"]
    return Beside(
        value,
        tuple(runs),
        mean,
        error,
        difference,
        difference / both if both else None,
        INCOMPLETE if value.open else verdict,
        tuple(notes),
    )


def allowed(value: Value, error: float | None, n: int) -> float:
    r"""Up to which difference a figure agrees: half of the 95 % interval of ours, rounding, their standard error."""
    half = 0.0 if error is None else float(scipy.stats.t.ppf((1 + LEVEL) / 2, n - 1)) * error
    return half + value.rounding + (value.standard_error or 0.0)


# ---------------------------------------------------------------- as texts

HEADS = ["", "published", "measured", "seeds", "difference", "in standard errors", "verdict", "notes"]


def by_table(comparisons: list[Beside]) -> list[tuple[str, str, list[Beside]]]:
    r"""Comparisons by published table: its name, what it is about and where it was read, its values."""
    found = defaultdict(list)
    for c in comparisons:
        about = "; ".join(filter(None, [c.published.quantity, c.published.source]))
        found[c.published.table, about].append(c)
    return [(*key, group) for key, group in found.items()]


def cells(c: Beside) -> list[str]:
    r"""A comparison as texts."""
    value = c.published
    written = f"{value.value:.{value.decimals}f}" if value.decimals is not None else f"{value.value:g}"
    if value.std is not None:
        written += f" ± {value.standard_error:.2g}" if value.standard_error else f" (std {value.std:g})"
    written = with_minus(written)
    notes = "; ".join([*c.notes, *([value.remark] if value.remark and c.runs else [])])
    if c.mean is None:
        return [value.name, written, "", "0", "", "", c.verdict, notes]
    errors = "" if c.in_errors is None else with_minus(f"{c.in_errors:+.1f}")
    return [
        value.name,
        written,
        with_error(c.mean, c.error),
        str(len(c.runs)),
        with_minus(f"{c.difference:+.{decimals_of(c.mean, c.error)}f}"),
        errors,
        c.verdict,
        notes,
    ]
