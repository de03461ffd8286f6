"""A sweep over the rows of a published table. Hydra looks for sweepers in a package of this name."""

import copy
from collections.abc import Callable, Sequence
from functools import cache

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, flag_override


class Rows(BasicSweeper):
    r"""Hydra's own sweeper, crossed with rows of overrides that belong together.

    What the command line says of an option that rows set chooses among the rows; all else overrides as usual.

    Arguments:
        rows: Each a dictionary of overrides, such as ``{estimator: gumbel_rao, estimator.samples: 10}``; a value may be
            a sweep of its own, as text.
        optional: Options that not all jobs have, such as ``[estimator.temperature]``: what the command line says of
            them holds where there are such, and the others run once, without.
        params, max_batch_size: As Hydra's own sweeper has them.
    """

    def __init__(
        self,
        rows: Sequence[dict] = (),
        optional: Sequence[str] = (),
        params: dict | None = None,
        max_batch_size: int | None = None,
    ):
        super().__init__(max_batch_size, params)
        self.rows, self.optional = rows, optional

    def sweep(self, arguments: list[str]):
        assert self.hydra_context is not None
        assert self.config is not None
        loader = self.hydra_context.config_loader
        assert isinstance(loader, ConfigLoaderImpl)
        has = Composed(loader, self.config).has
        self.jobs = jobs(self.rows, self.params, arguments, OverridesParser.create(loader), self.optional, has)
        return super().sweep(arguments)

    def split_arguments(  # type: ignore[override]  # a static method there, which knows no rows
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        return list(self.split_overrides_to_chunks(self.jobs, max_batch_size))

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        r"""Nothing: all jobs have been composed and looked at before."""


class Composed:
    r"""Configs of the jobs of a sweep: what those with the same choices of groups share is composed once.

    Arguments:
        loader: Hydra's.
        master: The config of the sweep.
    """

    def __init__(self, loader: ConfigLoaderImpl, master: DictConfig):
        self.loader, self.master, self.groups = loader, master, set(loader.list_groups(""))
        self.parse = cache(OverridesParser.create(loader).parse_override)
        self.shared = cache(self.compose)

    def compose(self, choices: tuple[str, ...]) -> DictConfig:
        r"""What jobs with these choices share, without Hydra's own part, as jobs get it."""
        cfg = self.loader.load_sweep_config(self.master, list(choices))
        with flag_override(cfg, ["struct", "readonly"], False):
            del cfg["hydra"]
        return cfg

    def split(self, job: list[str]) -> tuple[tuple[str, ...], list[Override]]:
        r"""The choices of groups among overrides, and the others."""
        overrides = [self.parse(line) for line in job]
        of_group = [o.package is not None or o.key_or_group.split("/")[0] in self.groups for o in overrides]
        pairs = list(zip(overrides, of_group, strict=True))
        return tuple(str(o.input_line) for o, chooses in pairs if chooses), [o for o, chooses in pairs if not chooses]

    def config(self, job: list[str]) -> DictConfig:
        r"""The config of a job; :class:`HydraException` if its overrides fit nothing."""
        choices, others = self.split(job)
        cfg = copy.deepcopy(self.shared(choices))
        ConfigLoaderImpl._apply_overrides_to_config(others, cfg)
        return cfg

    def has(self, job: list[str], key: str) -> bool:
        r"""Whether what a job chooses from the groups has an option."""
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(self.shared(self.split(job)[0]), parent)
        return OmegaConf.is_dict(node) and name in node


def jobs(
    rows: Sequence[dict] | None,
    params: dict | None,
    arguments: Sequence[str],
    parser: OverridesParser,
    optional: Sequence[str] = (),
    has: Callable[[list[str], str], bool] = lambda job, key: True,
) -> list[list[str]]:
    r"""The overrides of every job of a sweep.

    Arguments:
        rows, params, optional: See :class:`Rows`.
        arguments: Overrides from the command line.
        parser: Hydra's.
        has: Whether a job with these overrides has an option.

    Raises:
        HydraException: If the command line asks for a value that no row has, or for a range; or if no job has an option
            that is optional.
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
    found = [{**other, **row} for row in table for other in others]
    for key in [optional] if isinstance(optional, str) else optional:
        without = [lines({k: v for k, v in job.items() if k not in optional}) for job in found]
        lacking = [not has(job, key) for job in without]
        if all(lacking):
            raise HydraException(f"hydra.sweeper.optional: {key} is no option of any job")
        drop = lambda job: {k: v for k, v in job.items() if k != key}
        found = [drop(job) if lacks else job for job, lacks in zip(found, lacking, strict=True)]
    return [list(job) for job in dict.fromkeys(tuple(lines(job)) for job in found)]
