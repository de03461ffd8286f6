r"""Checks of options, which every room makes of what it is given: the value, or an error that names the option."""

import math
import sys
from collections.abc import Iterable, Sequence
from typing import TypeGuard, TypeVar

Choice = TypeVar("Choice", bound=str | bool)


def at_least(minimum: int, **option: int) -> int:
    r"""The one option given by name; TypeError if no integer, ValueError below ``minimum`` or above ``sys.maxsize``."""
    ((name, value),) = option.items()
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        kind = ValueError if isinstance(value, int | float) else TypeError
        raise kind(f"{name} must be an integer of at least {minimum}, got {in_brief(value)}")
    if value > sys.maxsize:
        raise ValueError(f"{name} must be at most {sys.maxsize}, got {value}")
    return value


def all_at_least(minimum: int, **option: Sequence[int]) -> list[int]:
    r"""The one option given by name, a list of integers; raises as :func:`at_least` does for one, naming the option."""
    ((name, values),) = option.items()
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise TypeError(f"{name} must be a list of integers of at least {minimum}, got {in_brief(values)}")
    return [at_least(minimum, **{f"each of {name}": value}) for value in values]


def positive(**option: float) -> float:
    r"""The one option given by name; ValueError unless finite and above 0, TypeError if it is no number, naming it."""
    ((name, value),) = option.items()
    if not is_number(value) or not 0 < value < float("inf"):
        raise (ValueError if is_number(value) else TypeError)(f"{name} must be a number above 0, got {in_brief(value)}")
    return float(value)


def finite(**option: float) -> float:
    r"""The one option given by name; ValueError unless finite, TypeError if it is no number, naming it."""
    ((name, value),) = option.items()
    if not is_number(value) or not math.isfinite(value):
        raise (ValueError if is_number(value) else TypeError)(f"{name} must be a finite number, got {in_brief(value)}")
    return float(value)


def fraction(**option: float) -> float:
    r"""The one option given by name; ValueError unless from 0 up to but not including 1, TypeError if no number."""
    ((name, value),) = option.items()
    if not is_number(value) or not 0 <= value < 1:
        kind = ValueError if is_number(value) else TypeError
        raise kind(f"{name} must be from 0 up to but not including 1, got {in_brief(value)}")
    return float(value)


def in_brief(value: object) -> str:
    r"""A wrong value in one line of at most 100 characters: a tensor given for an option fills no screen."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


def is_number(value: object) -> TypeGuard[float]:
    r"""Whether a value is an integer or a float, and not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def one_of(choices: Iterable[Choice], **option: object) -> Choice:
    r"""The one option given by name; ValueError, or TypeError for another type, that names it and lists ``choices``."""
    ((name, value),) = option.items()
    accepted = list(choices)
    for choice in accepted:
        if type(value) is type(choice) and value == choice:
            return choice
    kind = ValueError if type(value) in map(type, accepted) else TypeError
    raise kind(f"{name} must be one of {', '.join(map(str, accepted))}, got {in_brief(value)}")
