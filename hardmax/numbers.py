r"""How numbers are written where people read."""

import math
import re
from typing import TypeGuard

EXPONENT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MOST_DIGITS, WITHOUT_ERROR = 5, 4  # of a number


def with_error(value: float, error: float | None = None) -> str:
    r"""A value to the second digit of its standard error, and to five digits at most; without an error, to four.

    An error of few runs may be small by chance, and promises no more digits than that.
    """
    error = error if is_known(error) else None
    power = power_of(value, error)
    if not -4 < power < 6:
        scaled = with_error(value / 10**power, error and error / 10**power)
        return f"{scaled if error is None else f'({scaled})'} × 10{str(power).translate(EXPONENT)}"
    decimals = decimals_of(value, error)
    text = f"{value:,.{decimals}f}"
    if error is None:
        text = re.sub(r"(\.\d*?)0+$", r"\1", text).removesuffix(".")
    elif error >= 0.5 * 10.0**-decimals:
        text += f" ± {error:,.{decimals}f}"
    else:
        text += f" ± < {10.0**-decimals:.{decimals}f}"
    return with_minus(text)


def without_error(value: float, error: float) -> str:
    r"""A value with the digits that its error leaves, and without that."""
    return re.sub(r" ± [^)]*|[()]", "", with_error(value, error))


def decimals_of(value: float, error: float | None) -> int:
    r"""Decimals with which :func:`with_error` writes a value."""
    error, power = (error if is_known(error) else None), power_of(value, error)
    if error is None:
        return max(WITHOUT_ERROR - 1 - power, 0)
    return max(min(1 - math.floor(math.log10(error)), MOST_DIGITS - 1 - power), 0)


def is_known(error: float | None) -> TypeGuard[float]:
    return error is not None and error > 0 and math.isfinite(error)


def power_of(value: float, error: float | None) -> int:
    r"""The power of ten of the first digit that is written."""
    size = max(abs(value), error if is_known(error) else 0.0)
    return math.floor(math.log10(size)) if size > 0 and math.isfinite(size) else 0


def with_minus(text: str) -> str:
    return text.replace("-", "−")
