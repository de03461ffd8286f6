r"""Published figures as files list them: the project's own, and a user's."""

import functools
import io
import math
from dataclasses import dataclass, field, fields
from pathlib import Path

from omegaconf import OmegaConf

from hardmax.files import read_text
from hardmax.harness.shared import Refused, nearest

from ..contents import is_number, text

FACTS = Path(__file__).parent / "published.yaml"


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


def facts(paths: list[Path]) -> list[Value]:
    r"""The published values of this project and of a user's files.

    Raises:
        Refused: In one line, if a file cannot be read or an entry has an unknown key, or lacks one.
    """
    return [value for path in (FACTS, *paths) for table in entries(path, "tables") for value in values(path, table)]


def entries(path: Path, part: str):
    try:
        found = parsed(read_text(path))
    except OSError as error:
        raise Refused(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:  # YAML's own, of many kinds
        raise Refused(f"{path}: no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict) or part not in found:
        raise Refused(f"{path}: {part} is missing: a list of tables with their values is expected")
    return found[part] or []


@functools.cache
def parsed(content: str) -> object:
    return OmegaConf.to_container(OmegaConf.load(io.StringIO(content)), resolve=True)


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
