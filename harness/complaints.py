r"""What Hydra has against overrides, in words: the option, its value, and what would be accepted."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hardmax.paths import CONFIGS

from . import options
from .shared import nearest, program
from .sources import CODE_GROUPS, parameters_of

MULTIRUN = {"-m", "--multirun"}
CHOICE = re.compile(r"(experiment|estimator|task|data|optimizer|schedule|hydra/launcher|hydra/sweeper)=([\w/,]+)")
UNCHOSEN = {"basic": "serial"}  # what Hydra calls the launcher that it takes where none is chosen


def composition_error(text: str, cause: str, arguments: list[str], asked: list[str], places: list[str]) -> str:
    r"""Hydra's complaint about an override, with what would be accepted.

    Arguments:
        text: The complaint.
        cause: What it came of.
        arguments: The overrides.
        asked: The command line, where they are those of one of its jobs; else the same.
        places: Folders of configs of the user's own.
    """
    if match := re.match(r"(?:In '(.+)': )?Could not override '([^']+)'", text):
        if match[2] == "data":
            return "data: this task takes none" + f", but {match[1]} chooses some".replace("/", "=") * bool(match[1])
        if accepted := options.expected(match[2]):  # of a dictionary, whose keys are not there yet
            return f"{match[2]}: {accepted}"
        return unknown_option(match[2], arguments, asked, places)
    if match := re.match(r"Could not append to config\. An item is already at '[^']*'.*?: '(.*?)' Or add", text):
        return f"+{match[1]}: the option is there already, and is set without the +"
    if match := re.match(r"Error merging override (\+*)([^= ]+)=(\S*)", text):
        key, parent = match[2], match[2].rpartition(".")[0]
        if not options.expected(key) and (accepted := options.expected(parent)):
            return f"{key} is no option; {parent}: {accepted}"
        if cause == "Cannot merge DictConfig with ListConfig":
            wanted = "list such as [64,32]" if match[3].startswith("{") else "dictionary such as {NAME:VALUE}"
            cause = f"a {wanted} is expected"
        return f"{key}={match[3]}: {options.expected(key) or options.what_is_expected(cause)}"
    if match := re.match(r"Ambiguous value for argument '(.*)' 1\. |Sweep parameters '(.*)' requires --multirun", text):
        return several_values(match[1] or match[2])
    return options.what_is_expected(text.split(" See https")[0])


def several_values(given: str) -> str:
    r"""What to say of an override with a sweep of values where there is none."""
    key, _, values = given.partition("=")
    kind = options.expected(key) or ""
    if key == "logger" or kind.startswith("a list"):
        return f"{given}: a list is expected, as in '{key}=[{values}]'"
    hint = f"; text needs quotes within quotes, as in '{key}=\"{values}\"'" * kind.startswith("text")
    hint += f"; a list is '{key}=[{values}]'" * ("." in key and not kind)
    return f"{given}: several values are a sweep, which needs -m{hint}"


def unknown_option(key: str, arguments: list[str], asked: list[str], places: list[str]) -> str:
    r"""What to say of an option that the config does not have; see :func:`composition_error`."""
    group, _, tail = key.partition(".")
    if group == "hydra":
        return unknown_option_of_hydra(key, arguments, places)
    given = next((a for a in reversed(arguments) if "." in key and a.startswith(f"{group}=")), "")
    several = given.partition("=")[2].split(",") if CHOICE.fullmatch(given) and "," in given else []
    found = [config_with([*arguments, f"{group}={name}"], places, group) for name in several]
    configs = [cfg for cfg in found or [config_with(arguments, places, group)] if cfg is not None]
    known = list(options_in(configs[0])) if configs else []
    takes = [k.removeprefix(f"{group}.") for k in known if k.startswith(f"{group}.") and "_target_" not in k]
    choices = {k.partition("@")[0]: name for k, name in configs[0].hydra.runtime.choices.items()} if configs else {}
    hint = f"{f'{group}={choices[group]}' if several else group} takes: {', '.join(takes)}" if takes else where_listed()
    if given and given not in asked:
        hint += f", with {given}, which is among the jobs: {group}=NAME chooses those that take it, "
        hint += f"hydra.sweeper.optional=[{key}] passes the others over"
    elif (CONFIGS / group).is_dir() and MULTIRUN & {*asked} and (several or not given):
        more = f"with -m say {group}=NAME too, and of several of them {key}=choice(VALUE)"
        if any(key in options_in(cfg) for cfg in configs):
            return f"{key} is no option of the config that the jobs vary: {more}"
        hint += f"; {more}"
    if group in CODE_GROUPS and takes and tail in parameters_of(target := configs[0][group].get("_target_")):
        where = f"{group}={choices[group]}"
        return f"{key} is not in the YAML of {where}, but {target} takes it: list it there, or say +{key}=VALUE"
    alike = takes or [k for k in known if ("." in k) >= ("." in key) and not k.endswith("_target_")]
    meant = nearest(tail, alike, f"{group}.", 0.55) if takes else nearest(key, alike)
    return f"{key} is no option{meant}; {hint}"


def unknown_option_of_hydra(key: str, arguments: list[str], places: list[str]) -> str:
    r"""What to say of an option that Hydra does not have, or the launcher or sweeper that was chosen."""
    _, part, tail = [*key.split(".", 2), ""][:3]
    cfg = config_with(arguments, places, f"hydra/{part}")
    if cfg is None:
        return f"{key} is no option"
    if part not in ("launcher", "sweeper"):
        known = [f"hydra.{each}" for each in options_in(cfg.hydra)]
        return f"{key} is no option{nearest(key, known)}; {where_listed('--cfg hydra')}"
    choice = cfg.hydra.runtime.choices[f"hydra/{part}"]
    name = f"hydra/{part}={UNCHOSEN.get(choice, choice)}"
    every = options_in(cfg.hydra[part])
    takes = [k for k in every if "_target_" not in k and (name != "hydra/launcher=joblib" or k == "n_jobs")]
    if not takes:
        return f"{key} is no option; {name} takes none, and hydra/{part}=NAME chooses another"
    return f"{key} is no option{nearest(tail, takes, f'hydra.{part}.')}; {name} takes: {', '.join(takes)}"


def where_listed(flag: str = "--help") -> str:
    r"""Where all options are said."""
    return f"{program()} {flag} lists them"


def config_with(arguments: list[str], places: list[str], group: str) -> DictConfig | None:
    r"""The config with the choices among the arguments, else with those of one group; None if neither fits.

    Hydra's own part is included. Of several choices, as for a sweep, the first is taken.
    """
    chosen = {match[1]: match[2].split(",")[0] for a in arguments if (match := CHOICE.fullmatch(a))}
    path = [f"hydra.searchpath={[*places]}"] * bool(places)
    running = GlobalHydra.instance().is_initialized()  # as within a sweep, or from Python
    begun = contextlib.nullcontext() if running else hydra.initialize_config_dir(str(CONFIGS), version_base="1.3")
    with begun:
        for some in (chosen, {k: v for k, v in chosen.items() if k == group}):
            with contextlib.suppress(HydraException, OmegaConfBaseException):
                lines = [f"{each}={name}" for each, name in some.items()]
                return hydra.compose("config", [*lines, *path], return_hydra_config=True)
    return None


def options_in(node: DictConfig, prefix: str = "") -> Iterator[str]:
    r"""Every option of a config, with dots; not what another one refers to."""
    for key in map(str, node):
        yield f"{prefix}{key}"
        elsewhere = OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key)
        if not elsewhere and OmegaConf.is_dict(node[key]):
            yield from options_in(node[key], f"{prefix}{key}.")


def choices_of(group: str, places: list[str]) -> list[str]:
    r"""What there is in a group of configs, the user's own included."""
    folders = [CONFIGS, *(Path(place.removeprefix("file://")) for place in places)]
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})
