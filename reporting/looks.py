r"""How an estimator looks in every chart and table: its colour, and line and marker, which grey print tells apart."""

import zlib
from collections import Counter
from dataclasses import dataclass

# Okabe and Ito's colours, which the colour-blind can tell apart, without the yellow that white paper swallows.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A8A8A"]
DASHES = [(), (8, 3), (2, 2), (9, 3, 2, 3), (4, 2), (14, 4), (9, 3, 2, 3, 2, 3), (2, 5)]  # drawn, left out, ...
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left"]


@dataclass(frozen=True)
class Look:
    colour: str
    dash: tuple[int, ...]
    shape: str


def looks(estimators: dict[str, str], known: list[str]) -> dict[str, Look]:
    r"""A look for each label, given its estimator: 64 different ones before any comes again.

    An estimator has one colour, the first that is least used from the one on which its name falls, so that it is as
    good as always the same; with a single estimator, each label has a colour. Lines and markers are those of the
    options, which a label names after its estimator; they always differ within a colour, and where there are no options
    among all labels as long as there are enough.

    Arguments:
        estimators: By label, which begins with it where anything follows.
        known: Estimators that have a colour beside those, so that it is the same whether all are shown or not.
    """
    alone = len(set(estimators.values())) == 1
    colour: dict[str, int] = {}
    used: Counter[int] = Counter()
    for name in sorted(estimators if alone else {*estimators.values(), *known}):
        colour[name] = next_of(len(COLOURS), used, zlib.crc32(name.encode()))
    option = {label: label.removeprefix(estimators[label]) for label in estimators}
    place = {name: n % len(DASHES) for n, name in enumerate(sorted(set(option.values())))}
    found: dict[str, Look] = {}
    styles: Counter[int] = Counter()
    within: dict[int, Counter[int]] = {}
    for label in sorted(estimators):
        c = colour[label if alone else estimators[label]]
        used, own = within.setdefault(c, Counter()), place[option[label]]
        rank = lambda s, used=used, own=own: (used[s], s != own if len(place) > 1 else styles[s], s)
        style = min(range(len(DASHES)), key=rank)
        styles[style] += 1
        used[style] += 1
        found[label] = Look(COLOURS[c], DASHES[style], SHAPES[style])
    return found


def next_of(count: int, used: Counter, start: int) -> int:
    r"""The least used of so many, the first from ``start`` on; it is counted as used."""
    chosen = min(((start + n) % count for n in range(count)), key=lambda c: used[c])
    used[chosen] += 1
    return chosen
