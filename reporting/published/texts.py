r"""Published figures beside measured ones, as texts for tables."""

import math
from collections import defaultdict

from .join import SMALLER, Beside

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
    notes = "; ".join([*c.notes, *([value.remark] if value.remark and c.runs and c.verdict != SMALLER else [])])
    if c.mean is None:
        return [value.name, written, "", "0", "", "", c.verdict, notes]
    errors = "" if c.in_errors is None else f"{c.in_errors:+.1f}"
    digits = digits_of(c.mean, c.error)
    return [
        value.name,
        written,
        number(c.mean, c.error),
        str(len(c.runs)),
        f"{c.difference:+.{digits}f}",
        errors,
        c.verdict,
        notes,
    ]


def digits_of(mean: float, error: float | None) -> int:
    r"""Decimals with which a mean is written: two digits of its error, or five of its own."""
    scale = error * 10 if error else abs(mean) / 1000
    return 3 if not scale else min(12, max(0, 2 - math.floor(math.log10(scale))))


def number(mean: float, error: float | None) -> str:
    r"""A mean and its standard error as text."""
    if error == 0:
        return f"{number(mean, None)} ± 0"
    if mean and abs(mean) < 1e-4:
        return f"{mean:.3g}" + (f" ± {error:.1g}" if error is not None else "")
    digits = digits_of(mean, error)
    return f"{mean:.{digits}f}" + (f" ± {error:.{digits}f}" if error is not None else "")
