r"""What files of a run hold, whoever wrote them: nothing that steers a terminal, has no end or breaks arithmetic."""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

import orjson
import yaml

from hardmax.files import read_bytes, read_text

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DEEPEST = 50  # levels of a config
MOST_LETTERS = 500  # of a text
MOST_ENTRIES = 300  # of a list or dictionary, and settings of a config
MOST_ROWS, MOST_ROWS_BYTES = 1_000_000, 200_000_000
MOST_NAMED = 3  # lines of a file that cannot be read; more are counted
SMALLEST, LARGEST = 1e-100, 1e100  # numbers whose squares, and quotients of those, are numbers too
LAST_STEP = 10**15
NUMBER_TYPES = {int, float}  # and no truth values
IN_WORDS = {True: "true", False: "false", None: "null"}


def saved_config(folder: Path) -> dict:
    r"""The config of a run, whoever made it: none that would take more memory than its file, or much of the stack.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is none.
    """
    content = read_text(folder / "config.yaml")
    try:
        check_nesting(content)
        return yaml.load(content, LOADER)
    except (yaml.YAMLError, LookupError, AttributeError, TypeError, OverflowError) as error:  # what its tags may raise
        raise ValueError("no config") from error


def check_nesting(content: str) -> None:
    r"""ValueError if YAML is nested deeply, or names parts to have them again, which takes a line and doubles all."""
    depth = 0
    for event in yaml.parse(content, LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST or isinstance(event, yaml.AliasEvent):
            raise ValueError("nested too deeply, or parts named again")


def flat(config: dict, prefix: str = "") -> dict[str, str]:
    r"""A nested config as one dictionary with dotted keys, and values as text as on the command line."""
    found: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            found |= {} if key == "choices" and not prefix else flat(value, f"{prefix}{key}.")
        else:
            found[bounded_text(f"{prefix}{key}")] = text(value)
    return found


def text(value: object) -> str:
    r"""A value as on the command line."""
    return bounded_text(as_written(value))


def as_written(value: object) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(as_written, value))}]"
    return IN_WORDS[value] if value is None or isinstance(value, bool) else str(value)


def printable(content: str) -> str:
    r"""A text from anyone without characters that steer a terminal, or that no picture can have."""
    if content.isprintable():
        return content
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in content)


def bounded_text(content: str, most: int = MOST_LETTERS) -> str:
    r"""A printable text of bounded length; of two long ones that differ, what is left differs too."""
    if len(content) <= most:
        return printable(content)
    digest = hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{printable(content[:most])} … ({len(content):,} letters, {digest})"


def json_of(path: Path) -> dict:
    r"""The dictionary that a file holds, with texts and parts of bounded length; NaN and Infinity are null.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it holds none.
    """
    try:
        value = bounded(json.loads(read_text(path), parse_constant=lambda _: None))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("no dictionary")
    return value


def bounded(value: object) -> object:
    r"""JSON without long or unprintable texts, and without what is beyond the first entries of its parts."""
    if isinstance(value, dict):
        return {bounded_text(key): bounded(entry) for key, entry in list(value.items())[:MOST_ENTRIES]}
    if isinstance(value, list):
        return [bounded(entry) for entry in value[:MOST_ENTRIES]]
    return bounded_text(value) if isinstance(value, str) else value


def lines(path: Path, notes: list[str]) -> Iterator[dict]:
    r"""The rows of a file that can be read and have a step; what is left out is noted.

    Raises:
        OSError: If the file is there and cannot be read.
        ValueError: If it has no end.
    """
    try:
        content = io.BytesIO(read_bytes(path, MOST_ROWS_BYTES))
    except FileNotFoundError:
        notes.append(f"is not there: {path}")
        return
    unread = 0
    for number, line in enumerate(content, 1):
        if number > MOST_ROWS:
            raise ValueError(f"{path.name} has more than {MOST_ROWS:,} lines")
        try:
            row = orjson.loads(line) if line.strip() else None
            if row and type(row["step"]) in NUMBER_TYPES and 0 <= row["step"] <= LAST_STEP:
                yield row
            elif row is not None:
                raise ValueError("no step")
        except (ValueError, TypeError, KeyError):
            unread += 1
            if not line.endswith(b"\n"):
                notes.append(f"half-written last line left out: {path}")
            elif unread <= MOST_NAMED:
                notes.append(f"line {number}, which cannot be read, left out: {path}")
    if unread > MOST_NAMED:
        notes.append(f"{unread:,} lines left out: {path}")


def is_figure(value: Any) -> TypeGuard[float]:
    r"""Whether a value is a number with which one can reckon: finite, and no larger or smaller than any figure is."""
    return type(value) in NUMBER_TYPES and (value == 0 or SMALLEST <= abs(value) <= LARGEST)


def reason_of(error: Exception) -> str:
    r"""Why something could not be done, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        name = f"{Path(str(error.filename)).name}: " if error.filename else ""
        return bounded_text(f"{name}{error.strerror}")
    return bounded_text(f"{type(error).__name__}: {error}") if str(error) else type(error).__name__
