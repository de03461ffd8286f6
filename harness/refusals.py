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

import hydra
import torch
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, QuotedString
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hardmax.paths import CONFIGS

from . import options
from .names import meant
from .shared import NotWritten, Refused, innermost, nearest, one_line, program, some_of
from .train import NotFinite

FULL_ERROR = os.environ.get("HYDRA_FULL_ERROR") == "1"
QUOTES = "text with special characters needs quotes within quotes, as in 'notes=\"a (b)\"'"
# Options of Hydra's that nothing here goes by, and the values that change nothing.
NOT_HONOURED: dict[str, tuple] = {"hydra.run.dir": (".",), "hydra.sweep.subdir": (".",), "hydra.output_subdir": (None,)}
NOT_HONOURED |= {"hydra.job.chdir": (None, False)}


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


def user_error_line(error: BaseException, arguments: list[str] | None = None) -> str | None:
    r"""The one line for what a user got wrong, or None if the program is at fault.

    Arguments:
        error: What was raised.
        arguments: Overrides of which it came; None: those of the command line.
    """
    if isinstance(error, Refused | NotFinite | NotWritten):
        return str(error)
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        known = sorted(error.options)
        if group.startswith("estimator/"):  # the options are those of the folder above
            group, inner = group.split("/", 1)
            choice = f"{inner}/{choice}"
            known = sorted(f"{inner}/{p.stem}" for p in (CONFIGS / group / inner).glob("*.yaml")) or known
        hint = meant(choice, known) if group == "estimator" else nearest(choice, known)
        return f"{group}={choice} does not exist{hint}; there are: {some_of(known)}"
    if isinstance(error, HydraException | OmegaConfBaseException | ValueError) and not is_of_a_run(error):
        found = one_line(error), one_line(innermost(error))
        return composition_error(*found, sys.argv[1:] if arguments is None else arguments)
    return None


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


def composition_error(text: str, cause: str, arguments: list[str]) -> str:
    r"""Hydra's complaint about one of the overrides ``arguments``, with what would be accepted."""
    if match := re.match(r"(?:In '(.+)': )?Could not override '([^']+)'", text):
        if match[2] == "data":
            return "data: this task takes none" + f", but {match[1]} chooses some".replace("/", "=") * bool(match[1])
        known, key = known_keys(arguments), match[2]
        group = key.split(".")[0]
        takes = [k.removeprefix(f"{group}.") for k in known if k.startswith(f"{group}.") and "_target_" not in k]
        hint = f"{group} takes: {', '.join(takes)}" if takes else f"{program()} --help lists them"
        choice = next((a for a in reversed(arguments) if "." in key and a.startswith(f"{group}=")), None)
        if choice and choice not in sys.argv:
            hint += f", with {choice}, which is among the jobs: {group}=NAME chooses those that take it, "
            hint += f"hydra.sweeper.optional=[{key}] passes the others over"
        elif (CONFIGS / group).is_dir() and {"-m", "--multirun"} & set(sys.argv):
            more = f"with -m say {group}=NAME too, and of several of them {key}=choice(VALUE)"
            if key in known:
                return f"{key} is no option of the config that the jobs vary: {more}"
            hint += f"; {more}"
        alike = takes or [k for k in known if ("." in k) >= ("." in key) and not k.endswith("_target_")]
        tail = key.removeprefix(f"{group}.")
        meant = nearest(tail, alike, f"{group}.", 0.55) if takes else nearest(key, alike)
        return f"{key} is no option{meant}; {hint}"
    if match := re.match(r"Could not append to config\. An item is already at '[^']*'.*?: '(.*?)' Or add", text):
        return f"+{match[1]}: the option is there already, and is set without the +"
    if match := re.match(r"Error merging override (\+*)([^= ]+)=(\S*)", text):
        key, parent = match[2], match[2].rpartition(".")[0]
        if not options.expected(key) and (accepted := options.expected(parent)):
            return f"{key} is no option; {parent}: {accepted}"
        if cause == "Cannot merge DictConfig with ListConfig":
            cause = "a list such as [64,32] is expected"
        return f"{key}={match[3]}: {options.expected(key) or cause}"
    return text.split(" See https")[0]


def known_keys(arguments: list[str]) -> list[str]:
    r"""Every option, with dots, of the config with the first choice of each group among the overrides."""
    groups = [
        a.split(",")[0]
        for a in arguments
        if re.fullmatch(r"(experiment|estimator|task|data|optimizer|schedule)=[\w/,]+", a)
    ]
    GlobalHydra.instance().clear()  # within a sweep it is in the way; the program ends with the complaint
    for chosen in (groups, []):
        try:
            with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
                cfg = hydra.compose("config", chosen)
            break
        except HydraException:  # a choice from a folder of the user's own
            continue

    def walk(node, prefix):
        for key in node:
            yield f"{prefix}{key}"
            if not OmegaConf.is_missing(node, key) and OmegaConf.is_dict(node[key]):
                yield from walk(node[key], f"{prefix}{key}.")

    return list(walk(cfg, ""))


def exit_with(error: BaseException, arguments: list[str] | None = None) -> NoReturn:
    r"""Ends the program with one line: exit code 1 for a run that failed, 2 for what :func:`user_error_line` knows."""
    refused = user_error_line(error, arguments)
    if refused is None and FULL_ERROR:
        traceback.print_exception(error)
    print(f"error: {refused or bug_line(error)}", file=sys.stderr)
    sys.exit(1 if refused is None or isinstance(error, NotFinite | NotWritten) else 2)
