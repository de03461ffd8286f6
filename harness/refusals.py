r"""What is wrong, in one line that names the option, its value, and what would be accepted."""

import contextlib
import os
import re
import sys
import traceback
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import torch
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, QuotedString
from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from hardmax.paths import CONFIGS

from . import options
from .complaints import choices_of, composition_error
from .names import meant
from .shared import NotWritten, Refused, innermost, nearest, one_line, program, some_of
from .train import NotFinite

FULL_ERROR = os.environ.get("HYDRA_FULL_ERROR") == "1"
QUOTES = "text with special characters needs quotes within quotes, as in 'notes=\"a (b)\"'"
# Options of Hydra's that nothing here goes by, and the values that change nothing.
NOT_HONOURED: dict[str, tuple] = {"hydra.run.dir": (".",), "hydra.sweep.subdir": (".",), "hydra.output_subdir": (None,)}
NOT_HONOURED |= {"hydra.job.chdir": (None, False)}
CONFIGS_OF_USERS = ("experiment", "estimator", "task", "data")


def debugging() -> bool:
    r"""Whether tracebacks are asked for: by Hydra's own variable, or by debug=fast."""
    return FULL_ERROR or any(argument.startswith("debug=") for argument in sys.argv)


def with_flags_first(arguments: list[str]) -> list[str]:
    r"""The arguments as Hydra can read them, which takes no overrides after a flag that follows some."""
    if not flags_parser().parse_known_args(arguments)[1]:
        return arguments
    found = vars(flags_parser().parse_intermixed_args(arguments))
    overrides = found.pop("overrides")
    given = {f"--{name.replace('_', '-')}": value for name, value in found.items() if value}
    return [name if value is True else f"{name}={value}" for name, value in given.items()] + overrides


def flags_parser() -> ArgumentParser:
    r"""Hydra's own, which refuses in one line."""

    def refuse(message: str) -> NoReturn:
        raise Refused(f"{message}; {program()} --help lists what there is")

    flags = get_args_parser()
    flags.error = refuse  # type: ignore[method-assign]
    return flags


def check_arguments(arguments: list[str]) -> None:
    r"""Refuses an override that cannot be read, and the choice of a group by anything but a name."""
    reader = OverridesParser.create()
    given, places = flags_parser().parse_args(arguments), []
    for text in given.overrides:
        try:
            override = reader.parse_override(text)
            value = override.value()
        except HydraException as error:
            raise Refused(why_unparsable(text, one_line(error))) from error
        group = override.key_or_group
        if not group:
            raise Refused(f"{text}: the name of the option is missing: NAME{text}")
        if group in NOT_HONOURED and value not in NOT_HONOURED[group]:
            raise Refused(f"{text} would change nothing: runs lie in output=FOLDER, a sweep in hydra.sweep.dir=FOLDER")
        if group == "hydra.searchpath" and isinstance(value, list):
            places += [str(place).removeprefix("file://") for place in value]
        if (CONFIGS / group).is_dir() and not override.is_delete():
            known = sorted(p.stem for p in (CONFIGS / group).glob("*.yaml"))
            for choice in value.list if isinstance(value, ChoiceSweep) else [value]:
                if group == "logger" and isinstance(choice, list):
                    continue
                if not isinstance(choice, str | dict | QuotedString | Glob):
                    raise Refused(f"{text}: the name of one choice is expected; there are: {some_of(known)}")

    for place in filter(None, [given.config_dir, *places]):
        check_own_configs(Path(place))


def check_own_configs(place: Path) -> None:
    r"""Refuses a config of the user's own with the name of one of the project's, which would be taken in its place."""
    for path in sorted(place.rglob("*.yaml")):
        ours = CONFIGS / path.relative_to(place)
        if ours.is_file() and ours.read_bytes() != path.read_bytes():
            name = path.relative_to(place).with_suffix("").as_posix()
            raise Refused(f"{path}: there is a {name} of the project's own, which would be taken: give it another name")


def why_unparsable(text: str, reason: str) -> str:
    r"""Why an override cannot be read, for people: Hydra's own ``reason`` is its parser's."""
    if "=" not in text:
        return f"{text}: a value is missing: {text}=VALUE"
    if found := re.search(r"evaluating .*?: (.*)|token recognition (error at: .*)", reason):
        return f"{text} cannot be read: {found[1] or found[2]}; {QUOTES}"
    return f"{text} cannot be read; {QUOTES}"


def user_error_line(
    error: BaseException, arguments: list[str] | None = None, asked: list[str] | None = None
) -> str | None:
    r"""The one line for what a user got wrong, or None if the program is at fault.

    Arguments:
        error: What was raised.
        arguments: Overrides of which it came; None: those of the command line.
        asked: The command line, of which they may be one job; None where there is none, as in Python.
    """
    typed = asked is not None
    arguments = sys.argv[1:] if arguments is None else arguments
    asked = arguments if asked is None else asked
    if isinstance(error, Refused | NotFinite | NotWritten):
        return str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        known = options.CHOICES_OFFERED.get(group) or sorted(error.options or choices_of(group, own_places(asked)))
        if group.startswith("estimator/"):  # the options are those of the folder above
            group, inner = group.split("/", 1)
            choice = f"{inner}/{choice}"
            known = sorted(f"{inner}/{p.stem}" for p in (CONFIGS / group / inner).glob("*.yaml")) or known
        hint = meant(choice, known) if group == "estimator" else nearest(choice, known)
        elsewhere = typed and group in CONFIGS_OF_USERS and not own_places(asked)
        where = "; --config-dir FOLDER says where yours is" * elsewhere
        return f"{group}={choice} does not exist{hint}; there are: {some_of(known)}{where}"
    if isinstance(error, HydraException | OmegaConfBaseException | ValueError) and not is_of_a_run(error):
        found = one_line(error), one_line(innermost(error))
        return composition_error(*found, arguments, asked, own_places(asked))
    return None


def own_places(arguments: list[str]) -> list[str]:
    r"""The folders of configs of the user's own that arguments name, as Hydra has them."""
    given, found = flags_parser().parse_known_args(arguments)[0], []
    if given.config_dir:
        found.append(f"file://{Path(given.config_dir).resolve()}")
    for override in given.overrides:
        if override.startswith("hydra.searchpath=["):
            value = OverridesParser.create().parse_override(override).value()
            found += map(str, value) if isinstance(value, list) else []
    return found


def out_of_memory(error: BaseException) -> bool:
    r"""Whether the machine or its accelerator had no more memory to give."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or (isinstance(error, RuntimeError) and "DefaultCPUAllocator: " in str(error))


def bug_line(error: BaseException) -> str:
    r"""One line for what is no refusal: what was raised, in which line, and how to see the traceback."""
    if out_of_memory(error):
        wanted = re.search(r"allocate (\d+ bytes|[\d.]+ [KMGT]iB)", str(error))
        asked = f" ({wanted[1]} more were asked for)" if wanted else ""
        return f"out of memory{asked}: lower batch_size, the samples of the estimator, or the sizes of the task"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    notes = getattr(error, "__notes__", None) or ["HYDRA_FULL_ERROR=1 shows the traceback"]
    where = f"{Path(frame.filename).name}:{frame.lineno}"
    return f"{type(error).__name__}: {one_line(error)[:300]} ({where}); {notes[-1]}"


@contextlib.contextmanager
def of_a_run() -> Iterator[None]:
    r"""Within it, exceptions are marked as those of a run, for :func:`is_of_a_run`."""
    try:
        yield
    except Exception as error:
        error.of_a_run = True  # type: ignore[attr-defined]
        raise


def is_of_a_run(error: BaseException) -> bool:
    r"""Whether the exception left a run, rather than the composition of its config."""
    return getattr(error, "of_a_run", False)


def exit_with(error: BaseException, arguments: list[str] | None = None) -> NoReturn:
    r"""Ends the program with one line: exit code 1 for a run that failed, 2 for what :func:`user_error_line` knows.

    Arguments:
        error: What was raised.
        arguments: Overrides of which it came, as of one job; None: those of the command line.
    """
    refused = user_error_line(error, arguments, sys.argv[1:])
    if refused is None and FULL_ERROR:
        traceback.print_exception(error)
    print(f"error: {refused or bug_line(error)}", file=sys.stderr)
    sys.exit(1 if refused is None or isinstance(error, NotFinite | NotWritten) else 2)
