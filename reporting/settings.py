r"""What runs differ in, and how their settings are written where people read."""

import contextlib
import functools
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable

from .runs import Run

ABSENT = "absent"  # the text of a setting that a run does not have
WRITTEN, EXACT_DIGITS = 7, 17  # of a number: more are no person's; that many tell any two apart


@functools.lru_cache(100_000)
def canonical(value: str | None) -> Hashable:
    r"""What the text of a setting stands for: a number, or several of them, or the text itself."""
    if value is None:
        return None
    if value.startswith("[") and value.endswith("]"):
        return tuple(canonical(part) for part in value[1:-1].split(","))
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            number = kind(value)
            return number if number == number else value  # NaN is not equal to itself
    return value


def same(value: str | None, other: str | None) -> bool:
    r"""Whether two texts are equal, or the same number; both may be absent."""
    return canonical(value) == canonical(other)


def as_number(value: str) -> tuple:
    r"""Orders numbers by their size, before all other texts."""
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value


def differing(runs: list[Run], counted: Callable[[str], bool]) -> list[str]:
    r"""Keys in which runs differ, of those that count; to be absent is a value of its own."""
    keys = dict.fromkeys(key for run in runs for key in run.config if counted(key))
    return [key for key in keys if len({canonical(run.config.get(key)) for run in runs}) > 1]


def without_consequences(keys: list[str], runs: list[Run]) -> list[str]:
    r"""Keys without those that some runs lack because their class has no such option: what class it is tells it all."""

    def follows(key: str, target: str) -> bool:
        by_class = {(canonical(run.config.get(target)), canonical(run.config.get(key))) for run in runs}
        absent = any(value is None for _, value in by_class)
        return absent and len({name for name, _ in by_class}) == len(by_class)

    targets = [key for key in keys if key.endswith("_target_")]
    of = lambda key: [t for t in targets if t != key and key.startswith(t.removesuffix("_target_"))]
    return [key for key in keys if not any(follows(key, target) for target in of(key))]


def texts(key: str, runs: list[Run]) -> dict[Hashable, str]:
    r"""How the values that runs have of a key are written, by :func:`canonical` value: shortly, and never two alike."""
    written = {canonical(run.config.get(key)): run.config.get(key, ABSENT) for run in runs}
    for attempt in (choices(key, runs), *distinct_texts(written, key.endswith("_target_"))):
        if attempt.keys() == written.keys() and len(set(attempt.values())) == len(written):
            return attempt
    return written


def choices(key: str, runs: list[Run]) -> dict[Hashable, str]:
    r"""Of what was chosen from a group of configs: its name on the command line, where this tells classes apart."""
    if not key.endswith("._target_"):
        return {}
    group = key.removesuffix("._target_")
    named = {(canonical(run.config.get(key)), run.choices.get(group)) for run in runs}
    unique = len(named) == len({value for value, _ in named}) == len({name for _, name in named})
    return {value: name or ABSENT for value, name in named} if unique and any(name for _, name in named) else {}


def distinct_texts(written: dict[Hashable, str], are_classes: bool) -> Iterable[dict[Hashable, str]]:
    r"""Ever longer texts for values: numbers with more digits, classes with more of their modules."""
    for n in range(EXACT_DIGITS - 3):
        part = lambda text, n=n: ".".join(text.split(".")[-1 - n :]) if are_classes else text
        yield {
            value: in_digits(value, 4 + n) if isinstance(value, int | float) else part(text)
            for value, text in written.items()
        }


def in_digits(number: float, digits: int) -> str:
    r"""A number as a person has written it, or, if it has more digits than that, with so many."""
    if math.isfinite(number) and number == int(number) and abs(number) < 1e15:
        return str(int(number))
    written = f"{number:.{WRITTEN}g}"
    return written if float(written) == number else f"{number:.{digits}g}"


def column_titles(keys: Iterable[str]) -> dict[str, str]:
    r"""What keys are called: without what goes without saying, unless two would be called the same."""
    short = {key: column_title(key) for key in dict.fromkeys(keys)}
    count = Counter(short.values())
    return {key: name if count[name] == 1 else key for key, name in short.items()}


def column_title(key: str) -> str:
    if key in ("estimator._target_", "task._target_"):
        return "class"
    for group in ("estimator.", "task."):
        key = key.removeprefix(group)
    return key.removesuffix("._target_")


def listed(settings: dict[str, str]) -> str:
    return ", ".join(f"{name}={text}" for name, text in settings.items())
