r"""Published figures beside measured ones, as texts for tables."""

from collections import defaultdict

from hardmax.numbers import decimals_of, with_error, with_minus

from .join import SMALLER, Comparison

HEADS = ["", "published", "measured", "seeds", "difference", "in standard deviations", "verdict", "notes"]


def by_table(comparisons: list[Comparison]) -> list[tuple[str, str, list[Comparison]]]:
    r"""Comparisons by published table: its name, what it is about and where it was read, its values."""
    found = defaultdict(list)
    for c in comparisons:
        about = "; ".join(filter(None, [c.published.quantity, c.published.source]))
        found[c.published.table, about].append(c)
    return [(*key, group) for key, group in found.items()]


def cells(c: Comparison) -> list[str]:
    r"""A comparison as texts."""
    value = c.published
    as_written = value.decimals is not None and not value.exact
    written = f"{value.value:.{value.decimals}f}" if as_written else f"{value.value:g}"
    if value.standard_error:
        written += f" ± {value.standard_error:.2g}"
    elif value.std is not None:
        written += f" (std {value.std:g})"
    written = with_minus(written)
    notes = "; ".join([*c.notes, *([value.remark] if value.remark and c.runs and c.verdict != SMALLER else [])])
    if c.mean is None:
        return [value.name, written, "", "0", "", "", c.verdict, notes]
    errors = "" if c.in_errors is None else with_minus(f"{c.in_errors:+.1f}")
    digits = ".1e" if value.exact else f".{decimals_of(c.mean, c.error)}f"
    return [
        value.name,
        written,
        with_error(c.mean, c.error),
        str(len(c.runs)),
        with_minus(f"{c.difference:+{digits}}"),
        errors,
        c.verdict,
        notes,
    ]
