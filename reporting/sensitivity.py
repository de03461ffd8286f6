r"""How much the figure of an estimator depends on the numbers that were swept."""

import math
from dataclasses import dataclass

from .settings import canonical, listed
from .tuning import Entry, Setting, Tuned

DECADE = 8  # largest over smallest value, from which on an axis is logarithmic


@dataclass
class Panel:
    r"""The figure of an entry against one number, or two.

    Attributes:
        label: Of the entry.
        options: Names of the numbers.
        rows: With the values of the options as ``x`` and ``y``, ``mean``, ``low``, ``high`` and ``runs``, whether it
            ``failed`` to have a figure, and the whole ``setting``.
        line: Whether there is one figure for each value.
    """

    label: str
    options: list[str]
    rows: list[dict]
    line: bool = True

    @property
    def log(self) -> bool:
        values = [row["x"] for row in self.rows]
        return min(values) > 0 and max(values) >= DECADE * min(values)


def panels(tuned: Tuned) -> list[Panel]:
    r"""For every entry of which numbers were swept: one panel of two numbers, if these are all, else one of each."""
    found = []
    for entry in tuned.entries:
        names, numeric = swept_names(entry), swept_numbers(entry)
        whole = is_grid(entry, names)
        if whole and len(names) == len(numeric) == 2:
            places = {"x": numeric[0], "y": numeric[1]}
            found.append(Panel(entry.label, numeric, [row_of(setting, places) for setting in entry.settings]))
            continue
        for name in numeric:
            settings = best_of_each(entry, name, tuned.words.better) if whole else entry.settings
            rows = sorted((row_of(setting, {"x": name}) for setting in settings), key=lambda row: row["x"])
            found.append(Panel(entry.label, [name], rows, line=whole))
    return found


def swept_names(entry: Entry) -> list[str]:
    r"""Names of what differs between settings."""
    names = dict.fromkeys(name for setting in entry.settings for name in setting.values)
    return [name for name in names if len({setting.values.get(name) for setting in entry.settings}) > 1]


def swept_numbers(entry: Entry) -> list[str]:
    r"""Names of what is a number in all settings, and not the same in all."""
    values = lambda name: [canonical(setting.values.get(name)) for setting in entry.settings]
    is_number = lambda value: isinstance(value, int | float) and math.isfinite(value)
    return [name for name in swept_names(entry) if all(map(is_number, values(name)))]


def is_grid(entry: Entry, names: list[str]) -> bool:
    r"""Whether every value of each was tried with all of the others."""
    counts = [len({setting.values.get(name) for setting in entry.settings}) for name in names]
    return len(entry.settings) == math.prod(counts)


def best_of_each(entry: Entry, name: str, better: int) -> list[Setting]:
    r"""For each value of one option, the best of the settings that have it."""
    texts = dict.fromkeys(setting.values[name] for setting in entry.settings)
    of = lambda text: [setting for setting in entry.settings if setting.values[name] == text]
    return [max(of(text), key=lambda setting: setting.score(better)) for text in texts]


def row_of(setting: Setting, places: dict[str, str]) -> dict:
    mean = None if setting.lacking else setting.mean
    row: dict[str, object] = {place: float(str(setting.values[name])) for place, name in places.items()}
    row |= {"setting": listed(setting.values), "failed": mean is None, "runs": len(setting.figures)}
    if mean is None:
        return row | dict.fromkeys(("mean", "low", "high"))
    error = mean.error if math.isfinite(mean.error) else 0.0
    return row | {"mean": mean.value, "low": mean.value - error, "high": mean.value + error}
