r"""What those who write runs and those who read them share; nothing here takes long to import."""

import contextlib
import difflib
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from hardmax.files import write_whole

# Files in a run's folder; of the two last checkpoints, the earlier is there in case the other cannot be read.
FINISHED, FAILED, CHECKPOINT, CHECKPOINT_BEFORE = "summary.json", "failed.txt", "state.pt", "state.before.pt"
FIGURES = "figures.json"  # what the task says of its figures
LONGEST_LIST = 1000  # characters of a list of names
BY_NAME = "by-name"  # a folder beside those of runs, with links to them

# Options that cannot change a run's results, and are therefore no part of its identity.
NOT_RESULTS = ("output", "wandb", "fresh", "retry", "checkpoint_every", "name", "notes", "extra", "logger")

# Options that came after the first runs, and the values at which these are what they were: of all runs, and of
# estimators and tasks.
NEW_OPTIONS: dict = {"stop_after": None, "patience": 0}
EXPONENTIAL = {"annealing": "exponential", "over": None}
NEW_SETTINGS: dict[str, dict] = {
    "hardmax.estimators.Reinforce": {"normalise": "none"},
    "hardmax.estimators.SumAndSample": {"baseline": "summed"},
    "hardmax.estimators.GumbelSoftmax": EXPONENTIAL,
    "hardmax.estimators.StraightThroughGumbelSoftmax": EXPONENTIAL,
    "hardmax.estimators.GumbelRao": EXPONENTIAL,
    "hardmax.estimators.MVE": EXPONENTIAL,
    "hardmax.estimators.SlopeAnnealed": {"annealing": "linear", "over": None},
    "hardmax.tasks.dvae.DiscreteVAE": {"network": "perceptron"},
    "hardmax.tasks.structured.Structured": {"network": "perceptron"},
}


def with_new_settings(config: dict) -> dict:
    r"""A plain config with the options that it, its estimator and its task did not have yet when it was written."""
    config = NEW_OPTIONS | config
    for part, new in new_settings(config).items():
        config = config | {part: config[part] | {k: v for k, v in new.items() if k not in config[part]}}
    return config


def without_new_settings(config: dict) -> dict:
    r"""A plain config without those options, where they have the values that change nothing."""
    for part, new in new_settings(config).items():
        config = config | {part: {k: v for k, v in config[part].items() if k not in new or v != new[k]}}
    return config


def new_settings(config: dict) -> dict[str, dict]:
    r"""Those options, with the values that change nothing, of the config's estimator and task."""
    parts = {part: config[part] for part in ("estimator", "task") if isinstance(config.get(part), dict)}
    return {part: NEW_SETTINGS.get(str(settings.get("_target_")), {}) for part, settings in parts.items()}


def some_of(names: list[str]) -> str:
    r"""Names for a line that says what there is: the last of many are left out, and how many there are is said."""
    return textwrap.shorten(", ".join(names), LONGEST_LIST, placeholder=f" ... ({len(names)} in all)")


def said_once(config: dict) -> dict:
    r"""A plain config without its task's data, which are said at the top as well."""
    task = config.get("task")
    if isinstance(task, dict) and task.get("data") is not None and task["data"] == config.get("data"):
        return config | {"task": {key: value for key, value in task.items() if key != "data"}}
    return config


def program() -> str:
    r"""What is typed to make a run, as it was for this one."""
    return "hardmax run" if sys.argv[0].startswith("hardmax ") else "python run.py"


class Refused(ValueError):
    r"""A request that is refused before any work starts; its text is the one line that the user sees."""


class NotWritten(OSError):
    r"""A file of a run could not be written; the text says which, and why."""


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    r"""Within it, an error of the system is raised as :class:`NotWritten`."""
    try:
        yield
    except NotWritten:
        raise
    except OSError as error:
        raise NotWritten(f"{error.filename or folder}: {error.strerror or error}") from error


def write_json(path: Path, content: dict) -> None:
    r"""Writes a file that is either whole and on disk or not there."""
    write_whole(path, f"{json.dumps(content, indent=2)}\n".encode())


def nearest(word: str, known: list[str], prefix: str = "", alike: float = 0.6) -> str:
    r"""A suggestion in parentheses, or nothing if none is as much ``alike``, from 0 to 1."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=alike)
    return f" (did you mean {prefix}{close[0]}?)" if close else ""


def simplified(name: str) -> str:
    r"""A name without what people write in several ways: small letters and digits."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def innermost(error: BaseException) -> BaseException:
    r"""The exception at the bottom of a chain of causes."""
    while (cause := error.__cause__ or (None if error.__suppress_context__ else error.__context__)) is not None:
        error = cause
    return error


def one_line(error: BaseException) -> str:
    r"""The first paragraph of an exception's text in one line."""
    paragraph = str(error).strip().split("\n\n")[0].split("\n    full_key: ")[0]  # the rest is OmegaConf's internals
    return " ".join(paragraph.split()) or type(error).__name__
