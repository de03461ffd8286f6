r"""``hardmax certify``: prints the certificate of an estimator or a sampler, anybody's."""

import argparse
import ast
import importlib
import json
import sys
from pathlib import Path
from typing import Any, NoReturn

import torch

from hardmax.certification.certificate import certify, first_line
from hardmax.certification.samplers import Sampler
from hardmax.estimators import Estimator

USAGE = """\
  hardmax certify estimator=arsm estimator.limit=64          of the configs; --config-dir conf adds one's own
  hardmax certify mine.Mine samples=4                        a class that can be imported, also from this folder
  hardmax certify --sampler torch.nn.functional:gumbel_softmax tau=0.5 hard=true      any z = f(logits)
"""
HOLDS, FAILS, WRONG = 0, 1, 2  # exit codes


class WrongRequest(Exception):
    r"""The arguments are wrong; the message says which, and what is accepted."""


class Parser(argparse.ArgumentParser):
    r"""Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise WrongRequest(message)


def main(arguments: list[str] | None = None) -> int:
    r"""Runs the command.

    Returns:
        0 if everything that is claimed holds, 1 if not, 2 if the request is wrong, said in one line.
    """
    parser = Parser("hardmax certify", description="Certifies a gradient estimator or a sampler.", epilog=USAGE)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", nargs="*", help="estimator=NAME or a class, and its options as key=value")
    parser.add_argument("--sampler", metavar="MODULE:FUNCTION", help="a function from logits [..., C] to z [..., C]")
    parser.add_argument("--config-dir", metavar="FOLDER", help="a folder with estimator/NAME.yaml of one's own")
    parser.add_argument("--json", metavar="FILE", help="where to write the certificate as JSON")
    try:
        given = parser.parse_intermixed_args(arguments)
        estimator, name, code = find_subject(given.what, given.sampler, given.config_dir)
        if given.json and not Path(given.json).resolve().parent.is_dir():
            raise WrongRequest(f"--json {given.json}: there is no such folder")
    except WrongRequest as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG
    certificate = certify(estimator, name, code, say=lambda line: print(line, flush=True))
    if given.json:
        Path(given.json).write_text(json.dumps(certificate.to_dict(), indent=2) + "\n", encoding="utf-8")
    return HOLDS if certificate.holds else FAILS


def find_subject(what: list[str], sampler: str | None, config_dir: str | None) -> tuple[Estimator, str, str]:
    r"""What is to be certified, its name, and Python that makes it; raises WrongRequest."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    if sampler:
        return of_sampler(sampler, options(what), config_dir)
    if not what:
        raise WrongRequest("nothing to certify: name estimator=NAME, a class such as mine.Mine, or --sampler")
    if "=" not in what[0]:
        if config_dir is None:
            return of_class(what[0], options(what[1:]))
        what = [f"estimator={config_of_class(what[0], config_dir)}", *(f"estimator.{pair}" for pair in what[1:])]
    return of_config(what, config_dir)


def options(pairs: list[str]) -> dict[str, Any]:
    r"""The values of ``key=value``: numbers, lists, true, false, null, or text."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise WrongRequest(f"{pair!r} is no option: key=value is expected")
        found[key] = {"true": True, "false": False, "null": None}.get(value.lower(), value)
        if found[key] is value:
            try:
                found[key] = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                found[key] = value
    return found


def imported(path: str) -> Any:
    r"""What ``module:name`` or ``module.name`` says."""
    module, _, name = path.rpartition(":" if ":" in path else ".")
    if not module or not name:
        raise WrongRequest(f"{path} is no module:name")
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever the module does when it is imported
        raise WrongRequest(f"{path}: {type(error).__name__}: {first_line(error)}") from error


def call_of(made: Any, arguments: dict[str, Any]) -> tuple[str, str]:
    r"""An import line, and a call of a class or function with the arguments."""
    told = ", ".join(f"{k}={v!r}" for k, v in arguments.items())
    return f"from {made.__module__} import {made.__qualname__}", f"{made.__qualname__}({told})"


def of_class(path: str, arguments: dict[str, Any]) -> tuple[Estimator, str, str]:
    r"""An estimator of a class by its name."""
    made = imported(path)
    if not (isinstance(made, type) and issubclass(made, Estimator)):
        raise WrongRequest(f"{path} is no subclass of hardmax.estimators.Estimator; of a function use --sampler {path}")
    try:
        estimator = made(**arguments)
    except Exception as error:
        raise WrongRequest(f"{path}: {type(error).__name__}: {first_line(error)}") from error
    importing, call = call_of(made, arguments)
    return estimator, call, f"{importing}\nestimator = {call}"


def of_sampler(path: str, arguments: dict[str, Any], config_dir: str | None) -> tuple[Sampler, str, str]:
    r"""A function by its name, as an estimator."""
    if config_dir is not None:
        raise WrongRequest("--config-dir is for estimators, not for --sampler")
    function = imported(path)
    if not callable(function):
        raise WrongRequest(f"{path} is no function, but {type(function).__name__}")
    try:
        function(torch.zeros(2, 1, 3), **arguments)
    except TypeError as error:  # the arguments are not its own; all else is for the checks
        raise WrongRequest(f"{path}: {first_line(error)}") from error
    except Exception:
        pass
    module, _, name = path.rpartition(":" if ":" in path else ".")
    told = ", ".join([name, *(f"{k}={v!r}" for k, v in arguments.items())])
    code = f"from {module} import {name}\nfrom hardmax.certification import Sampler\nestimator = Sampler({told})"
    return Sampler(function, **arguments), f"{path}({', '.join(told.split(', ')[1:])})", code


def config_of_class(path: str, config_dir: str) -> str:
    r"""The name of the one config below the folder that is of a class."""
    target = path.replace(":", ".")
    folder = Path(config_dir) / "estimator"
    found = [p.stem for p in sorted(folder.glob("*.yaml")) if f"_target_: {target}" in p.read_text(encoding="utf-8")]
    if len(found) != 1:
        raise WrongRequest(f"{path}: {len(found)} files below {folder} have it as their _target_, one is expected")
    return found[0]


def of_config(overrides: list[str], config_dir: str | None) -> tuple[Estimator, str, str]:
    r"""An estimator of the configs, which need what the harness needs."""
    for override in overrides:
        if not override.lstrip("+").startswith(("estimator=", "estimator.")):
            raise WrongRequest(f"{override}: only estimator=NAME and estimator.option=value are accepted here")
    if not any(o.startswith("estimator=") for o in overrides):
        raise WrongRequest("estimator=NAME is missing")
    if config_dir is not None and not Path(config_dir).is_dir():
        raise WrongRequest(f"--config-dir {config_dir}: there is no such folder")
    try:
        import hydra
        from hydra.core.global_hydra import GlobalHydra
        from hydra.errors import MissingConfigException
        from hydra.utils import get_class
        from omegaconf import OmegaConf
    except ImportError as error:
        raise WrongRequest(f"estimator=NAME needs hardmax[harness]; without it, name a class ({error})") from error
    from hardmax.harness import options as harness_options
    from hardmax.harness.config import build
    from hardmax.harness.names import meant
    from hardmax.paths import CONFIGS

    harness_options.register()
    GlobalHydra.instance().clear()
    if config_dir is not None:
        overrides = [*overrides, f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"]
    choice = next(o.partition("=")[2] for o in overrides if o.startswith("estimator="))
    try:
        with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
            cfg = hydra.compose("config", overrides)
        estimator = build(cfg, "estimator", choice)
        arguments = OmegaConf.to_container(cfg.estimator, resolve=True)
        assert isinstance(arguments, dict)
        importing, call = call_of(get_class(arguments.pop("_target_")), {str(k): v for k, v in arguments.items()})
    except MissingConfigException as error:
        hint = meant(choice, list(error.options or []))
        raise WrongRequest(f"Could not find 'estimator/{choice}'{hint}") from error
    except Exception as error:
        raise WrongRequest(first_line(error)) from error
    return estimator, f"estimator={choice}: {call}", f"{importing}\nestimator = {call}"
