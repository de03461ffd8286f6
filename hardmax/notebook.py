r"""What the commands do, for Python: configs, runs in this process, and runs of a folder as tables."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import hydra
import pandas as pd
import torch
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_search_path import SearchPathElement
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, flag_override
from omegaconf.errors import OmegaConfBaseException

from hardmax.harness import options
from hardmax.harness.contents import lines
from hardmax.harness.refusals import check_own_configs, user_error_line
from hardmax.harness.run import run_from_config as run_config
from hardmax.harness.shared import Refused, one_line
from hardmax.paths import CONFIGS
from hardmax.reporting.archives import shown
from hardmax.reporting.runs import find_runs


@dataclass
class FinishedRun:
    r"""A run that has come to its end.

    Attributes:
        folder: Where everything of it lies.
        figures: Final figures by metric, such as ``test/elbo``; None where undefined.
        rows: What was logged, a row each, with ``step`` and a column for each metric.
    """

    folder: Path
    figures: dict[str, float | None]
    rows: pd.DataFrame


def compose(overrides: list[str] | tuple[str, ...] = (), config_dir: str | Path | None = None) -> DictConfig:
    r"""The config of a run with these overrides, such as ``["estimator=arsm", "steps=100"]``.

    Arguments:
        overrides: As on the command line.
        config_dir: A folder of your own with ``estimator/NAME.yaml`` and so on.

    Raises:
        Refused: In one line, if there is no such option or choice.
    """
    with composed(list(overrides), config_dir) as cfg:
        return cfg


def run(*overrides: str, config_dir: str | Path | None = None, **settings: object) -> FinishedRun:
    r"""Runs in this process what ``hardmax run`` would with the same overrides, and returns what came out.

    ``hardmax.run("estimator=arsm", "task=toy", steps=500)``; a run that has finished before is not made again, and one
    that was interrupted goes on. Random numbers and threads of the process are afterwards as they were. Not for
    sweeps: those have a process each, on the command line.

    Arguments:
        overrides: As on the command line.
        config_dir: A folder of your own with ``estimator/NAME.yaml`` and so on; ``_target_: __main__.Mine`` finds a
            class of the notebook.
        settings: More overrides, of options without a dot in their names.

    Raises:
        Refused: In one line, if an option is not there or a value is not accepted; before any work.
    """
    more = [f"{name}={written(value)}" for name, value in settings.items()]
    threads = torch.get_num_threads()
    try:
        with composed([*overrides, *more], config_dir) as cfg, torch.random.fork_rng():
            _, folder = run_config(cfg)
    finally:
        torch.set_num_threads(threads)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return FinishedRun(folder, {k: v for k, v in summary.items() if k.startswith("test/")}, logged_rows(folder))


def runs(*folders: str | Path) -> pd.DataFrame:
    r"""All runs below folders: a row each, with where it lies, its status, every setting, and its final figures.

    Settings are columns such as ``estimator.temperature``, as text; figures are columns such as ``test/elbo``. What
    cannot be read is left out.
    """
    found = find_runs([Path(folder) for folder in folders or ["output"]]).runs
    return pd.DataFrame(
        {"folder": shown(r.folder), "status": r.status, "step": r.step} | r.config | r.figures for r in found
    )


def rows(*folders: str | Path) -> pd.DataFrame:
    r"""What all runs below folders have logged: a row each, with ``folder``, ``task``, ``estimator`` and ``seed``."""
    tables = []
    for r in find_runs([Path(folder) for folder in folders or ["output"]]).runs:
        labels = {"folder": shown(r.folder), "task": r.task, "estimator": r.estimator, "seed": r.seed}
        tables.append(logged_rows(r.folder).assign(**labels))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def logged_rows(folder: Path) -> pd.DataFrame:
    r"""What the run of a folder has logged, a row each."""
    return pd.DataFrame(list(lines(folder / "metrics.jsonl", [])))


@contextmanager
def composed(overrides: list[str], config_dir: str | Path | None) -> Iterator[DictConfig]:
    r"""Within it Hydra is at the config's disposal, as in a run from the command line."""
    options.register()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        if config_dir is not None:
            add_to_search_path(Path(config_dir))
        try:
            cfg = hydra.compose("config", overrides, return_hydra_config=True)
            HydraConfig.instance().set_config(cfg)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise Refused(user_error_line(error, overrides) or one_line(error)) from error
        with flag_override(cfg, ["struct", "readonly"], False):
            del cfg["hydra"]  # as for a job
        yield cfg


def add_to_search_path(config_dir: Path) -> None:
    r"""Lets Hydra look for configs in a folder too, as ``--config-dir`` does on the command line.

    Raises:
        Refused: If there is no such folder, or a config in it would not be found, as the project has one of its name.
    """
    if not config_dir.is_dir():
        raise Refused(f"config_dir={config_dir}: there is no such folder")
    check_own_configs(config_dir)
    loader = GlobalHydra.instance().config_loader()
    assert isinstance(loader, ConfigLoaderImpl)
    path = loader.get_search_path()
    path.get_path().insert(-1, SearchPathElement("config_dir", f"file://{config_dir.resolve()}"))  # the schema is last
    loader.repository.initialize_sources(path)


def written(value: object) -> str:
    r"""A value as it stands in an override."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{written(entry)}' for key, entry in value.items())}}}"
    if isinstance(value, str) and not re.fullmatch(r"[\w./+-]+", value):
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{quoted}"'
    return str(value)
