r"""What runs kept for people to look at, side by side."""

import base64
import csv
import io
import itertools
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from hardmax.files import read_bytes, read_text
from hardmax.harness.contents import printable, reason_of

from .groups import Group

MOST_GROUPS = 40  # whose examples are shown; the best
MOST_KINDS = 20  # of examples on a task
MOST_PICTURES = 100  # on a page
MOST_SHOWN, MOST_SIDE = 100_000, 800  # bytes of a picture on a page, and pixels along a side; a larger one is scaled
MOST_READ, MOST_PIXELS = 10_000_000, 20_000_000  # of a file: bytes, and pixels of a picture
MOST_EXAMPLES, MOST_COLUMNS, MOST_CELL_LETTERS = 6, 10, 300  # of a table: rows, columns, and letters in each place


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


def exhibits(groups: list[Group], notes: list[str], pictures: list[str]) -> list[Exhibit]:
    r"""All that the groups' runs kept, pictures and tables by name; what cannot be shown is noted.

    Arguments:
        groups: On one task, the best first.
        notes: Gets what is not shown, and why.
        pictures: Those that are on the page already; gets the others.
    """
    shown = [group for group in groups if group.finished][:MOST_GROUPS]
    kept: dict[str, list[tuple[Group, str, Path]]] = {}
    for group in shown:
        for name, (seed, path) in first_of_each(group).items():
            kept.setdefault(name, []).append((group, seed, path))
    if len(kept) > MOST_KINDS:
        notes.append(f"not shown: {len(kept) - MOST_KINDS} of {len(kept)} kinds of examples of {groups[0].task}")
    found = [exhibit(Path(name), kept[name], notes, pictures) for name in sorted(kept)[:MOST_KINDS]]
    return [each for each in found if each.pictures or each.texts]


def first_of_each(group: Group) -> dict[str, tuple[str, Path]]:
    r"""Seed and path by the file's name."""
    found: dict[str, tuple[str, Path]] = {}
    for run in group.finished:
        for path in sorted(run.folder.glob("*.*")):
            if path.suffix in (".png", ".csv") and not path.name.startswith("measured"):
                found.setdefault(path.name, (run.seed, path))
    return found


def exhibit(name: Path, places: list[tuple[Group, str, Path]], notes: list[str], pictures: list[str]) -> Exhibit:
    title = printable(name.stem.replace("_", " "))
    if name.suffix == ".png":
        uris = [(group, seed, data_uri(path, notes, pictures)) for group, seed, path in places]
        return Exhibit(title, [picture for picture in uris if picture[-1]], [], [])
    tables = [(group, seed, first_rows(path, notes)) for group, seed, path in places]
    tables = [table for table in tables if table[-1]]
    given = {tuple(row[0] for row in rows) for _, _, rows in tables if min(map(len, rows)) > 1}
    common = len(given) == 1 and all(min(map(len, rows)) > 1 for _, _, rows in tables)
    texts = [(group, seed, [" ".join(row[common:]) for row in rows]) for group, seed, rows in tables]
    return Exhibit(title, [], list(given.pop()) if common else [], texts)


def data_uri(path: Path, notes: list[str], pictures: list[str]) -> str:
    r"""A PNG file as text for a page, or nothing where it cannot be read or the page has enough of them."""
    if len(pictures) >= MOST_PICTURES:
        notes.append(f"not shown: {path} (beyond the first {MOST_PICTURES} pictures)")
        return ""
    try:
        content = scaled(read_bytes(path, MOST_READ))
    except Exception as error:  # whatever a decoder says of a picture of anyone's
        notes.append(f"not shown: {path} ({reason_of(error)})")
        return ""
    pictures.append(f"data:image/png;base64,{base64.b64encode(content).decode()}")
    return pictures[-1]


def scaled(content: bytes) -> bytes:
    r"""A PNG as it is, or scaled down to the size that a page has room for.

    Raises:
        Exception: Of any kind, if it is none, or has more pixels than are worth decoding.
    """
    image: Image.Image = Image.open(io.BytesIO(content), formats=["PNG"])
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels are too many")
    for side in (MOST_SIDE, MOST_SIDE // 2, MOST_SIDE // 4, MOST_SIDE // 8):
        if len(content) <= MOST_SHOWN and max(image.size) <= MOST_SIDE:
            break
        image = image.convert("RGB")
        image.thumbnail((side, side))
        packed = io.BytesIO()
        image.save(packed, "PNG", optimize=True)
        content = packed.getvalue()
    return content


def first_rows(path: Path, notes: list[str]) -> list[list[str]]:
    r"""The first rows of a table without its head."""
    try:
        rows = itertools.islice(csv.reader(io.StringIO(read_text(path, MOST_READ), "")), 1, 1 + MOST_EXAMPLES)
        return [[printable(text[:MOST_CELL_LETTERS]) for text in row[:MOST_COLUMNS]] for row in rows if row]
    except (OSError, csv.Error) as error:
        notes.append(f"not shown: {path} ({reason_of(error)})")
        return []
