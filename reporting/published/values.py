r"""Published figures as files list them: the project's own, and a user's."""

import functools
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from decimal import Decimal
from pathlib import Path

from omegaconf import OmegaConf

from hardmax.files import read_text
from hardmax.harness.contents import LAST_STEP, flat, is_figure, text
from hardmax.harness.shared import Refused, nearest
from hardmax.paths import CONFIGS

from ..runs import Run

FACTS = Path(__file__).parent / "published.yaml"
MORE_FACTS = Path(__file__).parent / "series.yaml"


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
        window: Number of steps over which values are averaged first; 0: they are not.
        best: ``lowest`` or ``highest`` over the run; empty: not over the run.
        choose: ``metric`` and ``best``, which one of several settings that fit is taken: that whose metric is best, at
            any step of the run; empty: there must be one.
        decimals: To which the value is rounded; None: those it is written with.
        std, error: Over seeds, and of the mean, if published.
        seeds: Behind the value, if published; with a ``std`` it is taken for the mean of two, otherwise for one run.
        unpublished: Settings that are not published, or not as published here.
        remark: What became of a difference.
        exact: Share of the value within which ours agrees, where both are computed, not sampled; 0 where they are not.
        log: Whether figures are compared as logarithms, as those that are positive and spread over magnitudes are.
        series, along, at: Of which series it is a point, along what, and where; empty and 0 for a value by itself.
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
    window: int = 0
    best: str = ""
    choose: dict[str, str] = field(default_factory=dict)
    decimals: int | None = None
    std: float | None = None
    error: float | None = None
    seeds: int | None = None
    unpublished: tuple[str, ...] = ()
    remark: str = ""
    exact: float = 0.0
    log: bool = False
    series: str = ""
    along: str = ""
    at: float = 0.0

    @property
    def rounding(self) -> float:
        r"""By how much the value may be off because it was rounded."""
        written = -int(Decimal(repr(float(self.value))).as_tuple().exponent)
        return 0.5 * 10.0 ** -(written if self.decimals is None else self.decimals)

    @property
    def runs(self) -> int:
        r"""Of how many runs it is the mean; the fewest there can be, if that is not published."""
        return self.seeds or (1 if self.std is None else 2)

    @property
    def standard_error(self) -> float | None:
        r"""Of the value, if it is published or follows from what is."""
        if self.error is None and self.std is not None and self.seeds:
            return self.std / math.sqrt(self.seeds)
        return self.error


def read_published(paths: Sequence[Path], runs: Sequence[Run] = ()) -> list[Value]:
    r"""The published values of this project and of a user's files, which are about these runs, among others.

    The long series of this project, which take seconds to read, are left out where no run is of an experiment.

    Raises:
        Refused: In one line, if a file cannot be read, or an entry is wrong, or names a setting that there is not.
    """
    of_none = bool(runs) and all(run.config.get("experiment", "null") == "null" for run in runs)
    facts = [FACTS] if of_none else [FACTS, MORE_FACTS]
    found = [value for path in facts for table in entries(path, "tables") for value in values(path, table)]
    known = {key for run in runs for key in run.config} | config_keys() if paths else set()
    for path in paths:
        for value in (value for table in entries(path, "tables") for value in values(path, table)):
            for key in value.where.keys() - known:
                near = nearest(key, sorted(known)) or ": keys of a run's config, such as optimizer.lr, are expected"
                raise Refused(f"{path}: {value.table}, {value.name}: where: no run and no config has {key}{near}")
            found.append(value)
    return found


def content_of(path: Path) -> dict:
    r"""A file of the project's configs as a plain dictionary, its interpolations as they are written."""
    content = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(content, dict)
    return content


@functools.cache
def config_keys() -> set[str]:
    r"""Keys of all settings that the project's configs name."""
    found = set(flat(content_of(CONFIGS / "config.yaml")))
    for path in CONFIGS.glob("*/*.yaml"):
        content = content_of(path)
        found |= {path.parent.name, *flat(content if path.parent.name == "experiment" else {path.parent.name: content})}
    return found


def entries(path: Path, part: str):
    try:
        content = read_text(path.resolve())  # which the user has named, link or not
    except OSError as error:
        raise Refused(f"{path}: cannot be read: {error.strerror}") from error
    try:
        found = parsed(content)
    except Exception as error:  # YAML's own, of many kinds
        raise Refused(f"{path}: no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict) or part not in found:
        raise Refused(f"{path}: {part} is missing: a list of tables with their values is expected")
    if not isinstance(found[part] or [], dict if part == "experiments" else list):
        raise Refused(f"{path}: {part} must be a list, got {found[part]!r}")
    return found[part] or []


@functools.cache
def parsed(content: str) -> object:
    return OmegaConf.to_container(OmegaConf.load(io.StringIO(content)), resolve=True)


def values(path: Path, table: object) -> list[Value]:
    r"""The values of a table, each with what they share.

    Raises:
        Refused: If an entry has an unknown key, lacks one, or has one of the wrong kind.
    """
    if not isinstance(table, dict):
        raise Refused(f"{path}: tables must be a list of entries with table, metric and values, got {table!r}")
    name = f"{path}: {table.get('table', 'a table')}"
    listed = table.get("values") or []
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise Refused(f"{name}: values must be a list of entries with name and value, got {listed!r}")
    shared = {key: content for key, content in table.items() if key != "values"}
    found = []
    for entry in listed:
        place = f"{name}, {entry.get('name', 'a value')}"
        found += [one_value(place, *both) for both in points(place, shared, entry)]
    return found


def points(name: str, shared: dict, entry: dict) -> list[tuple[dict, dict]]:
    r"""What the table shares and the entry itself; of a series, a pair for each of its points.

    A series has ``along``, and lists of the same length in place of single numbers: ``at``, ``value`` and, if it is
    published, ``std``. Along steps, ``at`` is the ``step``; elsewhere ``{at}`` in ``metric`` stands for it.

    Raises:
        Refused: If the lists are none, or not of one length.
    """
    if "at" not in entry:
        return [(shared, entry)]
    lists = {key: entry[key] for key in ("at", "value", "std") if key in entry}
    if not all(isinstance(content, list) and len(content) == len(entry["at"]) for content in lists.values()):
        raise Refused(f"{name}: at, value and std of a series must be lists of one length")
    along = entry.get("along", shared.get("along"))
    found = []
    for n, at in enumerate(entry["at"]):
        point = entry | {key: content[n] for key, content in lists.items()}
        point |= {"series": entry.get("name"), "name": f"{entry.get('name')}, {along} {at}"}
        if along == "step":
            point["step"] = at
        elif isinstance(metric := entry.get("metric", shared.get("metric")), str):
            point["metric"] = metric.replace("{at}", str(at))
        found.append((shared, point))
    return found


def one_value(name: str, shared: dict, entry: dict) -> Value:
    known, merged = [f.name for f in fields(Value)], {**shared, **entry}
    for key in merged:
        if key not in known:
            raise Refused(f"{name}: {key} is no key{nearest(str(key), known)}; there are: values, {', '.join(known)}")
    for key in REQUIRED:
        if key not in merged:
            raise Refused(f"{name}: {key} is missing")
    merged = {key: content for key, content in merged.items() if content is not None or key in REQUIRED}
    for part in (shared, entry):
        for key, content in part.items():
            what, fits = KINDS[key]
            if (content is not None or key in REQUIRED) and not fits(content):
                raise Refused(f"{name}: {key} must be {what}, got {content!r}")
    where = {**(shared.get("where") or {}), **(entry.get("where") or {})}
    merged["where"] = {str(key): text(content) for key, content in where.items()}
    return Value(**{**merged, "unpublished": tuple(merged.get("unpublished", ()))})


def is_text(content: object) -> bool:
    return isinstance(content, str)


def is_count(content: object) -> bool:
    return type(content) is int and 0 < content <= LAST_STEP


def is_choice(content: object) -> bool:
    return isinstance(content, dict) and content.keys() == {"metric", "best"} and content["best"] in WAYS_TO_BE_BEST


REQUIRED = ("table", "name", "value", "metric")
WAYS_TO_BE_BEST = ("lowest", "highest")
KINDS = {  # of what every key is to be, in words and as a check
    **dict.fromkeys(("table", "name", "metric", "experiment", "quantity", "source", "remark"), ("a text", is_text)),
    **dict.fromkeys(("series", "along"), ("a text", is_text)),
    **dict.fromkeys(("value", "at"), ("a number", is_figure)),
    "log": ("true or false", lambda content: isinstance(content, bool)),
    "exact": ("a number of at least 0", lambda content: is_figure(content) and content >= 0),
    "scale": ("a number other than 0", lambda content: is_figure(content) and content != 0),
    "std": ("a number of at least 0", lambda content: is_figure(content) and content >= 0),
    "error": ("a number of at least 0", lambda content: is_figure(content) and content >= 0),
    "step": ("a whole number of at least 0", lambda content: content == 0 or is_count(content)),
    "window": ("a whole number of at least 1", is_count),
    "seeds": ("a whole number of at least 1", is_count),
    "decimals": ("a whole number from 0 to 20", lambda content: type(content) is int and 0 <= content <= 20),
    "best": ("lowest or highest", lambda content: content in WAYS_TO_BE_BEST),
    "choose": ("metric: ... and best: lowest or highest", is_choice),
    "where": ("settings of runs by their keys", lambda content: isinstance(content, dict)),
    "unpublished": ("a list of texts", lambda content: isinstance(content, list) and all(map(is_text, content))),
}
