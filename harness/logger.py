r"""What takes the rows of a run, wherever they go, and those rows."""

import json
from collections.abc import Iterator
from pathlib import Path

from hardmax.files import open_regular

ROWS, TIMINGS = "metrics.jsonl", "timings.jsonl"
LONGEST_ROW = 10_000_000  # bytes


class Logger:
    r"""Takes the rows of a run in their order, each once.

    One of your own is a subclass with a config in ``logger/NAME.yaml``, ``NAME: {_target_: module.Class}``, where its
    options stand as well.

    Arguments:
        folder: The run's own.
        config: The plain config, with ``choices``.

    Attributes:
        needs: The package that it takes, if that is an extra.
        there: How many rows had been taken when an interrupted run went on.
    """

    needs: str | None = None
    there = 0

    def __init__(self, folder: Path, config: dict):
        self.entries = 0

    def take(self, row: dict) -> None:
        r"""The next row: ``step`` and figures by name, None where undefined."""
        raise NotImplementedError

    def send(self, row: dict) -> None:
        r"""The next row, unless it is there already."""
        if self.entries >= self.there:
            self.take(row)
        self.entries += 1

    def send_rows(self, folder: Path) -> None:
        r"""The rows that the run's files hold so far."""
        for row in rows_to_send(folder):
            self.send(row)

    def send_examples(self, folder: Path) -> None:
        r"""Tables and pictures that the run has kept."""

    def summarise(self, summary: dict) -> None:
        r"""Final figures."""

    def send_model(self, folder: Path, summary: dict) -> None:
        r"""The checkpoint in the run's folder."""

    def finish(self, exit_code: int) -> None:
        r"""Ends the run, with 0 if it went well."""


def rows_to_send(folder: Path) -> Iterator[dict]:
    r"""The whole rows in the files of a run, each with the seconds that belong to it.

    Raises:
        OSError, ValueError: If one cannot be read.
    """

    def lines(name):
        with open_regular(folder / name) as file:
            while line := file.readline(LONGEST_ROW):
                if line.endswith(b"\n"):
                    yield json.loads(line)
                elif len(line) == LONGEST_ROW:
                    raise ValueError(f"a row of more than {LONGEST_ROW:,} bytes in {name}")  # else it was being written

    timings = lines(TIMINGS) if (folder / TIMINGS).is_file() else iter(())
    for row in lines(ROWS):
        yield row | next(timings, {})
