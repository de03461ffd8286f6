"""A sweep over rows of settings, and what runs after it. Hydra looks for sweepers in a package of this name."""

import copy
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf, flag_override

SPACES = (None, "default")


class Rows(BasicSweeper):
    r"""Hydra's own sweeper, crossed with rows of overrides that belong together.

    What the command line says of an option that rows set chooses among the rows; all else overrides as usual.

    Arguments:
        rows: Each a dictionary of overrides, such as ``{estimator: gumbel_rao, estimator.samples: 10}``; a value may be
            a sweep of its own, as text.
        optional: Options that not all jobs have, such as ``[estimator.temperature]``: what the command line says of
            them holds where there are such, and the others run once, without.
        space: ``default`` crosses every job with the settings that the class of its estimator calls worth trying.
        finals: What the best setting of each estimator on each problem runs with after all others, such as
            ``{seed: "2,3,4,5,6"}``. The best is that of the highest validation figure, in the mean over ``seed``.
        params, max_batch_size: As Hydra's own sweeper has them.
    """

    def __init__(
        self,
        rows: Sequence[dict] = (),
        optional: Sequence[str] = (),
        space: str | None = None,
        finals: dict | None = None,
        params: dict | None = None,
        max_batch_size: int | None = None,
    ):
        super().__init__(max_batch_size, params)
        self.rows, self.optional, self.space, self.finals = rows, optional, space, finals

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        assert self.hydra_context is not None
        assert self.config is not None
        loader = self.hydra_context.config_loader
        assert isinstance(loader, ConfigLoaderImpl)
        OmegaConf.save(self.config, Path(self.config.hydra.sweep.dir) / "multirun.yaml")
        composed = Composed(loader, self.config)
        tried = jobs(arguments, composed, self.rows, self.params, self.optional, self.space)
        returned = self.launch(tried, 0)
        if self.finals:
            best = best_of_each(tried, [job.return_value for job in returned])
            returned += self.launch(final_jobs(best, self.finals, OverridesParser.create(loader)), len(tried))
        return returned

    def launch(self, batch: list[list[str]], first: int) -> list[JobReturn]:
        r"""Runs jobs, of which the first has this number: as many at a time as ``max_batch_size`` says."""
        assert self.launcher is not None
        returned: list[JobReturn] = []
        for part in self.split_overrides_to_chunks(batch, self.max_batch_size) if batch else []:
            returned += self.launcher.launch(part, initial_job_idx=first + len(returned))
        return returned


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

    def worth_trying(self, job: list[str]) -> tuple[dict[str, Any], ...]:
        r"""Settings of its own options that the class of a job's estimator names."""
        return getattr(get_class(self.shared(self.split(job)[0]).estimator._target_), "worth_trying", ({},))

    def has(self, job: list[str], key: str) -> bool:
        r"""Whether what a job chooses from the groups has an option."""
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(self.shared(self.split(job)[0]), parent)
        return OmegaConf.is_dict(node) and name in node


def lines(settings: dict | None) -> list[str]:
    r"""Settings as overrides."""
    return [f"{key}={value}" for key, value in (settings or {}).items()]


def expanded(overrides: list[str], parser: OverridesParser) -> list[dict[str, str]]:
    r"""The settings of each job of a sweep that Hydra's own sweeper would make of these overrides."""
    (found,) = BasicSweeper.split_arguments(parser.parse_overrides(overrides), None)
    return [dict(line.split("=", 1) for line in job) for job in found]


def crossed(
    arguments: Sequence[str], rows: Sequence[dict] | None, params: dict | None, parser: OverridesParser
) -> list[dict[str, str]]:
    r"""The settings of the jobs that rows, params and the command line make; see :class:`Rows`.

    Raises:
        HydraException: If the command line asks for a value that no row has, or for a range.
    """
    table = [row for given in rows or [{}] for row in expanded(lines(given), parser)]
    columns = {key for row in table for key in row}
    chosen = [a for a in arguments if a.split("=", 1)[0] in columns]
    for argument in chosen:
        key = argument.split("=", 1)[0]
        wanted = [row[key] for row in expanded([argument], parser)]
        if absent := [value for value in wanted if all(row.get(key) != value for row in table)]:
            known = ", ".join(dict.fromkeys(row[key] for row in table if key in row))
            raise HydraException(f"{key}={absent[0]}: no row of the experiment has it; there are: {known}")
        table = [row for row in table if row.get(key) in wanted]
    others = expanded([*lines(params), *(a for a in arguments if a not in chosen)], parser)
    return [{**other, **row} for row in table for other in others]


def jobs(
    arguments: Sequence[str],
    composed: Composed,
    rows: Sequence[dict] | None = None,
    params: dict | None = None,
    optional: Sequence[str] = (),
    space: str | None = None,
) -> list[list[str]]:
    r"""The overrides of every job of a sweep but the finals.

    Arguments:
        arguments: Overrides from the command line.
        composed: Configs of the jobs.
        rows, params, optional, space: See :class:`Rows`.

    Raises:
        HydraException: As :func:`crossed`; if no job has an option that is optional; for a space that is not known.
    """
    if space not in SPACES:
        raise HydraException(f"hydra.sweeper.space must be default or null, got {space}")
    found = crossed(arguments, rows, params, OverridesParser.create(composed.loader))
    for key in [optional] if isinstance(optional, str) else optional:
        without = [lines({k: v for k, v in job.items() if k not in optional}) for job in found]
        lacking = [not composed.has(job, key) for job in without]
        if all(lacking):
            raise HydraException(f"hydra.sweeper.optional: {key} is no option of any job")
        drop = lambda job: {k: v for k, v in job.items() if k != key}
        found = [drop(job) if lacks else job for job, lacks in zip(found, lacking, strict=True)]
    if space:
        tried = [(job, setting) for job in found for setting in composed.worth_trying(lines(job))]
        found = [
            {f"estimator.{name}": as_text(value) for name, value in setting.items()} | job for job, setting in tried
        ]
    return [list(job) for job in dict.fromkeys(tuple(lines(job)) for job in found)]


def as_text(value: object) -> str:
    r"""A value as one writes it in an override."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def best_of_each(tried: list[list[str]], merits: Sequence[float | None]) -> list[dict[str, str]]:
    r"""The best setting of each estimator on each problem, by the mean of its merits over seeds; the first of a tie.

    Arguments:
        tried: Overrides of jobs.
        merits: Of each, the higher the better; None for a job without, which makes its setting the worst.
    """
    by_setting: dict[tuple[tuple[str, ...], ...], list[float]] = {}
    for job, merit in zip(tried, merits, strict=True):
        pairs = [tuple(line.split("=", 1)) for line in job if not line.startswith("seed=")]
        by_setting.setdefault(tuple(pairs), []).append(-math.inf if merit is None else merit)
    means = {setting: sum(found) / len(found) for setting, found in by_setting.items()}
    best: dict[tuple, tuple] = {}
    for setting, mean in means.items():
        problem = tuple((k, v) for k, v in setting if k == "estimator" or k.split(".")[0] in ("task", "data"))
        if mean > -math.inf and (problem not in best or mean > means[best[problem]]):
            best[problem] = setting
    return [dict(setting) for setting in best.values()]


def final_jobs(best: list[dict[str, str]], finals: dict, parser: OverridesParser) -> list[list[str]]:
    r"""The overrides of the jobs after all others: every one of these settings with what ``finals`` says."""
    return [lines({**setting, **final}) for setting in best for final in expanded(lines(finals), parser)]
