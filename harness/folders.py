r"""The folders of runs: their names, and the lock that keeps all processes but one from working in one."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from .shared import NOT_RESULTS, NotWritten, Refused


def runs_of(output: str, task: str, estimator: str, seed: int, key: str) -> list[Path]:
    r"""Folders of the runs made from one config so far, oldest first."""
    parent = Path(output) / task / estimator
    again = [p for p in parent.glob(f"{seed}-{key}-*") if p.name.rsplit("-", 1)[1].isdigit()]
    return [parent / f"{seed}-{key}"] * (parent / f"{seed}-{key}").is_dir() + sorted(
        again, key=lambda p: int(p.name.rsplit("-", 1)[1])
    )


def new_folder(output: str, task: str, estimator: str, seed: int, key: str) -> Path:
    r"""Makes ``output/task/estimator/seed-key``, or the same with -2, -3, ... if that is taken.

    Raises:
        Refused: If it cannot be made, or not be written to.
    """
    base, count = Path(output) / task / estimator / f"{seed}-{key}", 1
    while True:
        folder = base if count == 1 else base.with_name(f"{base.name}-{count}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if not folder.is_dir():
                raise Refused(f"output={output}: {folder} is a file, where a folder is needed") from None
            count += 1
        except OSError as error:
            raise Refused(f"output={output}: cannot make {folder}: {error.strerror}") from error


@contextlib.contextmanager
def locked(folder: Path, patience: float = 10) -> Iterator[bool]:
    r"""Within it, no other process works on the run; False if one still does after ``patience`` seconds.

    The lock is the operating system's: a process that dies does not keep it.
    """
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=patience)
    except Timeout:  # an OSError too, but not one of writing
        yield False
        return
    except OSError as error:
        raise NotWritten(f"{folder / 'lock'}: {error.strerror or error}") from error
    try:
        yield True
    finally:
        lock.release()


def fill_in_names(config: dict, labels: dict, overrides: list[str], about: dict | None) -> None:
    r"""Fills in what W&B shows and was left open, and adds task and estimator to the tags.

    A run is named after task, estimator, seed and the options in which the jobs of its sweep differ. A group are runs
    that differ in their seed alone, or the trials of a search.

    Arguments:
        config: The resolved config, plain; it is changed.
        labels: ``task``, ``estimator`` and ``seed``.
        overrides: Of the command line, of this job.
        about: What is known of the job's sweep, if it is of one.
    """
    pairs = [override.lstrip("+").split("=", 1) for override in overrides]
    named = {*about["varied"]} - {*labels, *NOT_RESULTS} if about else set()
    settings = "".join(f" {key.rpartition('.')[2]}={shortened(value)}" for key, value in pairs if key in named)
    of_all = f"{labels['task']}-{labels['estimator']}"
    of_group = of_all if about and about["searching"] else of_all + settings
    config["name"] = config["name"] or f"{of_all}-{labels['seed']}{settings}"[:128]
    config["wandb"]["group"] = config["wandb"]["group"] or of_group[:128]
    config["wandb"]["tags"] = list(dict.fromkeys([*config["wandb"]["tags"], labels["task"], labels["estimator"]]))


def shortened(value: str) -> str:
    r"""A number with four digits, and other text as it is."""
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return value
