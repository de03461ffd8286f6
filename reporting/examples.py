r"""What runs kept for people to look at, side by side."""

import base64
import csv
import itertools
from dataclasses import dataclass
from pathlib import Path

from .groups import Group

MOST_GROUPS = 40  # whose examples are shown; the best
MOST_BYTES = 500_000  # of a picture
MOST_EXAMPLES, MOST_LETTERS = 6, 300  # of a table: rows, and letters in each place
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Exhibit:
    r"""One kind of example by several groups, each from its first finished run that has it.

    Attributes:
        name: In words.
        pictures: Groups, seeds, and data URIs.
        heads: What a table's examples have in common, such as the sentences that were to be reconstructed.
        texts: Groups, seeds, and a text for each example.
    """

    name: str
    pictures: list[tuple[Group, str, str]]
    heads: list[str]
    texts: list[tuple[Group, str, list[str]]]


def exhibits(groups: list[Group], notes: list[str]) -> list[Exhibit]:
    r"""All that the groups' runs kept, pictures and tables by name; what cannot be shown is noted."""
    shown = [group for group in groups if group.finished][:MOST_GROUPS]
    kept: dict[str, list[tuple[Group, str, Path]]] = {}
    for group in shown:
        for name, (seed, path) in first_of_each(group).items():
            kept.setdefault(name, []).append((group, seed, path))
    found = [exhibit(Path(name), places, notes) for name, places in sorted(kept.items())]
    return [each for each in found if each.pictures or each.texts]


def first_of_each(group: Group) -> dict[str, tuple[str, Path]]:
    r"""Seed and path by the file's name."""
    found: dict[str, tuple[str, Path]] = {}
    for run in group.finished:
        for path in sorted(run.folder.glob("*.*")):
            if path.suffix in (".png", ".csv") and not path.name.startswith("measured"):
                found.setdefault(path.name, (run.seed, path))
    return found


def exhibit(name: Path, places: list[tuple[Group, str, Path]], notes: list[str]) -> Exhibit:
    title = name.stem.replace("_", " ")
    if name.suffix == ".png":
        uris = [(group, seed, data_uri(path, notes)) for group, seed, path in places]
        return Exhibit(title, [picture for picture in uris if picture[-1]], [], [])
    tables = [(group, seed, rows_of(path, notes)) for group, seed, path in places]
    tables = [table for table in tables if table[-1]]
    given = {tuple(row[0] for row in rows) for _, _, rows in tables if min(map(len, rows)) > 1}
    common = len(given) == 1 and all(min(map(len, rows)) > 1 for _, _, rows in tables)
    texts = [(group, seed, [" ".join(row[common:]) for row in rows]) for group, seed, rows in tables]
    return Exhibit(title, [], list(given.pop()) if common else [], texts)


def data_uri(path: Path, notes: list[str]) -> str:
    r"""A PNG file as text, or nothing where it is none or too large."""
    content = path.read_bytes() if path.stat().st_size <= MOST_BYTES else b""
    if not content.startswith(PNG):
        notes.append(f"not shown: {path} (no PNG of at most {MOST_BYTES // 1000} kB)")
        return ""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def rows_of(path: Path, notes: list[str]) -> list[list[str]]:
    r"""The first rows of a table without its head."""
    try:
        with path.open(newline="", errors="replace") as file:
            rows = itertools.islice(csv.reader(file), 1, 1 + MOST_EXAMPLES)
            return [[text[:MOST_LETTERS] for text in row] for row in rows if row]
    except (OSError, csv.Error) as error:
        notes.append(f"not shown: {path} ({type(error).__name__})")
        return []
