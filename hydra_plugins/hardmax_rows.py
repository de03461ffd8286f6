"""A sweep over the rows of a published table. Hydra looks for sweepers in a package of this name."""

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException


class Rows(BasicSweeper):
    r"""Hydra's own sweeper, crossed with rows of overrides that belong together.

    What the command line says of an option that rows set chooses among the rows; all else overrides as usual.

    Arguments:
        rows: Each a dictionary of overrides, such as ``{estimator: gumbel_rao, estimator.samples: 10}``; a value may be
            a sweep of its own, as text.
        params, max_batch_size: As Hydra's own sweeper has them.
    """

    def __init__(self, rows: Sequence[dict] = (), params: dict | None = None, max_batch_size: int | None = None):
        super().__init__(max_batch_size, params)
        self.rows = rows

    def sweep(self, arguments: list[str]):
        self.jobs = jobs(self.rows, self.params, arguments, OverridesParser.create(self.hydra_context.config_loader))
        return super().sweep(arguments)

    def split_arguments(self, overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        return list(self.split_overrides_to_chunks(self.jobs, max_batch_size))


def jobs(
    rows: Sequence[dict] | None, params: dict | None, arguments: Sequence[str], parser: OverridesParser
) -> list[list[str]]:
    r"""The overrides of every job of a sweep.

    Arguments:
        rows, params: See :class:`Rows`.
        arguments: Overrides from the command line.
        parser: Hydra's.

    Raises:
        HydraException: If the command line asks for a value that no row has, or for a range.
    """

    def expanded(lines: list[str]) -> list[dict[str, str]]:
        (found,) = BasicSweeper.split_arguments(parser.parse_overrides(lines), None)
        return [dict(line.split("=", 1) for line in job) for job in found]

    def lines(settings: dict | None) -> list[str]:
        return [f"{key}={value}" for key, value in (settings or {}).items()]

    table = [line for row in rows or [{}] for line in expanded(lines(row))]
    columns = {key for row in table for key in row}
    chosen = [a for a in arguments if a.split("=", 1)[0] in columns]
    for argument in chosen:
        key = argument.split("=", 1)[0]
        wanted = [row[key] for row in expanded([argument])]
        if absent := [value for value in wanted if all(row.get(key) != value for row in table)]:
            known = ", ".join(dict.fromkeys(row[key] for row in table if key in row))
            raise HydraException(f"{key}={absent[0]}: no row of the experiment has it; there are: {known}")
        table = [row for row in table if row.get(key) in wanted]
    others = expanded([*lines(params), *(a for a in arguments if a not in chosen)])
    return [lines({**other, **row}) for row in table for other in others]
