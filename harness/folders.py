r"""The folders of runs: their names, and the lock that keeps all processes but one from working in one."""

import contextlib
import copy
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.conf import HydraConf
from omegaconf import DictConfig, OmegaConf

from hardmax.files import write_whole

from .config import key_of
from .shared import BY_NAME, NOT_RESULTS, NotWritten, Refused

LONGEST_NAME = 128  # letters of a name at W&B


def runs_of(output: str, task: str, estimator: str, seed: int, key: str) -> list[Path]:
    r"""Folders of the runs made from one config so far, oldest first."""
    parent = Path(output) / task / estimator
    again = [p for p in parent.glob(f"{seed}-{key}-*") if p.name.rsplit("-", 1)[1].isdigit()]
    return [parent / f"{seed}-{key}"] * (parent / f"{seed}-{key}").is_dir() + sorted(
        again, key=lambda p: int(p.name.rsplit("-", 1)[1])
    )


class RunIsLocked(Refused):
    r"""Another process works on the run."""


def new_folder(output: str, task: str, estimator: str, seed: int, key: str, fresh: bool) -> Path:
    r"""Makes ``output/task/estimator/seed-key``; if that is taken and ``fresh``, the same with -2, -3, ...

    Not fresh, it may be there by now: of several processes that make it at once, :func:`claimed` lets one go on.

    Raises:
        Refused: If it cannot be made, or not be written to.
    """
    base, count = Path(output) / task / estimator / f"{seed}-{key}", 1
    while True:
        folder = base if count == 1 else base.with_name(f"{base.name}-{count}")
        try:
            folder.mkdir(parents=True, exist_ok=not fresh)
            return folder
        except FileExistsError:
            if not folder.is_dir():
                raise Refused(f"output={output}: {folder} is a file, where a folder is needed") from None
            count += 1
        except OSError as error:
            raise Refused(f"output={output}: cannot make {folder}: {error.strerror}") from error


@contextlib.contextmanager
def claimed(folder: Path, patience: float) -> Iterator[None]:
    r"""Within it, no other process works on the run.

    The lock is the operating system's: a process that dies does not keep it.

    Arguments:
        folder: The run's.
        patience: Seconds to wait for a process that may be about to end.

    Raises:
        RunIsLocked: If another process works on it.
        NotWritten: If there is no room for the lock.
    """
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=patience)
    except Timeout as error:  # an OSError too, but not one of writing
        instead = "wait for it, or make a run beside it with fresh=true"
        raise RunIsLocked(f"another process works on {folder}: {instead}") from error
    except OSError as error:
        raise NotWritten(f"{folder / 'lock'}: {error.strerror or error}") from error
    try:
        for partial in folder.glob("*.partial"):  # of a process that was killed as it wrote
            partial.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


class OpenFolder:
    r"""A folder that is found again when it, or one that it is in, is renamed.

    Arguments:
        path: Where it is now.
    """

    def __init__(self, path: Path):
        self.known, self.descriptor = path, os.open(path, os.O_RDONLY)

    def path(self) -> Path:
        r"""Where it is now.

        Raises:
            NotWritten: If it has been deleted, or where the system does not tell: renamed.
        """
        if not self.is_at(self.known):
            with contextlib.suppress(OSError):
                moved = Path(os.readlink(f"/proc/self/fd/{self.descriptor}"))
                if self.is_at(moved):
                    self.known = moved
                    return moved
            raise NotWritten(f"{self.known}: the folder is gone")
        return self.known

    def is_at(self, path: Path) -> bool:
        r"""Whether the folder at ``path`` is this one, rather than none or another."""
        with contextlib.suppress(OSError):
            return os.path.samestat(path.stat(), os.fstat(self.descriptor))
        return False

    def close(self) -> None:
        os.close(self.descriptor)


def fill_in_names(config: dict, labels: dict, overrides: list[str], about: dict | None) -> None:
    r"""Fills in what W&B shows and was left open, and adds task and estimator to the tags.

    A run is named after task, estimator, seed, key and the options in which the jobs of its sweep differ. A group are
    runs that differ in their seed alone, or the trials of a search: it has the key of what they have in common, so that
    no two settings are one group.

    Arguments:
        config: The resolved config, plain; it is changed.
        labels: ``task``, ``estimator`` and ``seed``.
        overrides: Of the command line, of this job.
        about: What is known of the job's sweep, if it is of one.
    """
    varied = {*about["varied"]} if about else set()
    searched = varied if about and about["searching"] else set()
    settings = "".join(f" {each}" for each in settings_among(overrides, varied - {*labels, *NOT_RESULTS}))
    of_all, common = f"{labels['task']}-{labels['estimator']}", copy.deepcopy(config)
    for key in {"seed", *searched}:
        remove(common, key.lstrip("+"))
    own, shared = key_of(config), key_of(common)
    config["name"] = config["name"] or f"{of_all}-{labels['seed']}-{own}{settings}"[:LONGEST_NAME]
    config["wandb"]["group"] = (
        config["wandb"]["group"] or f"{of_all}-{shared}{'' if searched else settings}"[:LONGEST_NAME]
    )
    config["wandb"]["tags"] = list(dict.fromkeys([*config["wandb"]["tags"], labels["task"], labels["estimator"]]))


def keep_hydra(folder: Path, cfg: DictConfig, hydra: HydraConf) -> None:
    r"""Keeps in a run's folder what Hydra keeps of a job: its config, Hydra's own and the overrides, in ``.hydra``."""
    place = folder / ".hydra"
    if place.is_symlink():
        place.unlink()
    place.mkdir(exist_ok=True)
    parts = {"config": cfg, "hydra": OmegaConf.create({"hydra": hydra}), "overrides": hydra.overrides.task}
    for name, part in parts.items():
        write_whole(place / f"{name}.yaml", OmegaConf.to_yaml(part))


def settings_among(overrides: list[str], keys: Collection[str]) -> list[str]:
    r"""What overrides say of some keys, as short as can be."""
    pairs = [override.lstrip("+").split("=", 1) for override in overrides if "=" in override]
    return [f"{key.rpartition('.')[2]}={shortest(value)}" for key, value in pairs if key in keys]


def link_by_name(folder: Path, output: str, labels: dict, overrides: list[str], about: dict | None) -> None:
    r"""Makes a link to a run's folder that is named after what people know of it; where there can be none, nothing.

    The name says task, estimator, what was varied and the seed, as ``dvae-arsm-lr=0.01-3``; of two runs of one name the
    second has its key there as well.

    Arguments:
        folder: The run's.
        output: The folder below which it lies.
        labels: ``task``, ``estimator`` and ``seed``.
        overrides: Of the command line, of this job.
        about: What is known of the job's sweep, if it is of one; else all overrides are what was varied.
    """
    keys = about["varied"] if about else [override.partition("=")[0] for override in overrides]
    unsaid = {"seed", *NOT_RESULTS} - {"extra"}
    varied = {key.lstrip("+") for key in keys} - {"task", "estimator"}
    varied = {key for key in varied if key.split(".")[0] not in unsaid}
    words = [labels["task"], labels["estimator"], *settings_among(overrides, varied)]
    name = re.sub(r"[^\w.,=+\[\]-]+", "_", "-".join(words), flags=re.ASCII)[:LONGEST_NAME] + f"-{labels['seed']}"
    place = Path(output) / BY_NAME
    with contextlib.suppress(OSError):
        place.mkdir(exist_ok=True)
        for link in (place / name, place / f"{name}-{folder.name.partition('-')[2]}"):
            if link.is_symlink() and not link.exists():  # to a run that was deleted
                link.unlink(missing_ok=True)
            with contextlib.suppress(FileExistsError):
                link.symlink_to(os.path.relpath(folder, place), target_is_directory=True)
            if link.samefile(folder):
                return


def remove(config: dict, key: str) -> None:
    r"""Takes a key with dots out of a plain config, if it is there."""
    *path, last = key.split(".")
    at: Any = config
    for part in path:
        at = at.get(part)
        if not isinstance(at, dict):
            return
    at.pop(last, None)


def shortest(value: str) -> str:
    r"""A number in its shortest form, and other text as it is."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            number = kind(value)
            return str(number) if float(f"{number:g}") != number else f"{number:g}"
    return value
