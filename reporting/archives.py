r"""Archives of runs: compressed files of JSON lines, a run a line, which pandas reads as well.

A line has the run's key, when it was finished, and the text of its files. Reading one is reading run folders: they are
unpacked into a temporary one, names and sizes checked, and nothing in them is run.
"""

import atexit
import functools
import lzma
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import orjson

from hardmax.files import open_regular
from hardmax.harness.contents import MOST_ROWS_BYTES, is_figure
from hardmax.harness.shared import FIGURES, FINISHED

ENDING = ".jsonl.xz"
MOST_ARCHIVED_RUNS = 100_000
TEXTS = ("config.yaml", "environment.json", FIGURES, FINISHED, "measured.csv")
ROWS_OF_A_RUN = ("metrics.jsonl", "timings.jsonl")
NAME = re.compile(r"\w[\w.,=+ -]{0,250}")


def is_archive(path: Path) -> bool:
    r"""Whether a file is an archive, by its name."""
    return path.name.endswith(ENDING)


def read_archive(path: Path) -> Iterator[dict]:
    r"""The lines of an archive, of anyone's.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is none, has no end, or a name in it leads anywhere else.
    """
    try:
        with open_regular(path) as file, lzma.open(file) as content:
            left = MOST_ROWS_BYTES
            for number in range(MOST_ARCHIVED_RUNS):
                line = content.readline(left + 1)
                if not line:
                    return
                left -= len(line)
                if left < 0:
                    raise ValueError(f"unpacks to more than {MOST_ROWS_BYTES:,} bytes")
                yield checked(orjson.loads(line), number)
            raise ValueError(f"more than {MOST_ARCHIVED_RUNS:,} runs")
    except (lzma.LZMAError, EOFError) as error:
        raise ValueError(f"no archive of runs ({error})") from error


def checked(entry: object, number: int) -> dict:
    r"""A line of an archive, if that is what it is."""
    if not isinstance(entry, dict) or entry.keys() != {"key", "made", "files"}:
        raise ValueError(f"line {number + 1} is no run")
    key, files = entry["key"], entry["files"]
    parts = key.split("/") if isinstance(key, str) else []
    if len(parts) != 3 or not all(map(NAME.fullmatch, parts)):
        raise ValueError(f"line {number + 1}: no key of a run")
    if not isinstance(files, dict) or not is_figure(entry["made"]) or not 0 <= entry["made"] < 2**40:
        raise ValueError(f"line {number + 1} is no run")
    known = {*TEXTS, *ROWS_OF_A_RUN}
    if not all(name in known and isinstance(text, str) for name, text in files.items()):
        raise ValueError(f"line {number + 1}: files that a run does not have")
    return entry


@functools.cache
def unpacking_folder() -> Path:
    r"""The folder below which archives are unpacked, until the program ends."""
    folder = tempfile.TemporaryDirectory(prefix="hardmax-runs-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def unpacked_runs(path: Path) -> Iterator[Path]:
    r"""Folders of the runs of an archive, unpacked one after the other; :func:`shown` says where they come from.

    Raises:
        OSError, ValueError: As :func:`read_archive`.
    """
    to = Path(tempfile.mkdtemp(dir=unpacking_folder()), *path.absolute().parts[1:])
    seen: Counter[str] = Counter()
    for entry in read_archive(path):
        key, place = entry["key"], to / entry["key"]
        while place.exists():  # of other code
            seen[key] += 1
            place = to / f"{key}-{seen[key] + 1}"
        place.mkdir(parents=True)
        for name, text in entry["files"].items():
            (place / name).write_text(text, encoding="utf-8", errors="replace")
            os.utime(place / name, (entry["made"], entry["made"]))
        yield place


def shown(text: Path | str) -> str:
    r"""A path, or a text with paths, with those of unpacked runs as they lie within their archive."""
    here = re.escape(str(Path().absolute())) + "/"
    return re.sub(rf"{re.escape(str(unpacking_folder()))}/[^/]+({here}|(?=/))", "", str(text))
