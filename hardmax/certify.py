r"""``hardmax certify``: prints the certificate of an estimator, a sampler or a task, anybody's."""

import argparse
import ast
import importlib
import json
import os
import sys
from inspect import signature
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch

from hardmax.certification.certificate import Certificate, certify, first_line
from hardmax.certification.samplers import Sampler
from hardmax.certification.task_certificate import TaskCertificate, certify_task
from hardmax.estimators import Estimator
from hardmax.tasks.base import Task

USAGE = """\
  hardmax certify estimator=arsm estimator.limit=64          of the configs; --config-dir conf adds one's own
  hardmax certify mine.Mine samples=4                        a class that can be imported, also from this folder
  hardmax certify --sampler torch.nn.functional:gumbel_softmax tau=0.5 hard=true      any z = f(logits)
  hardmax certify --task mine.Task width=8                   a task's class, or its config's name, as in --task dvae
"""
SUBJECTS: dict[str, type] = {"estimator": Estimator, "task": Task}  # what is certified, by the group of its configs
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
    parser = Parser("hardmax certify", description="Certifies a gradient estimator, a sampler or a task.", epilog=USAGE)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", nargs="*", help="estimator=NAME or a class, and its options as key=value")
    parser.add_argument("--sampler", metavar="MODULE:FUNCTION", help="a function from logits [..., C] to z [..., C]")
    parser.add_argument("--task", metavar="NAME", help="a task: module.Class, or the name of its config")
    parser.add_argument("--config-dir", metavar="FOLDER", help="a folder with estimator/NAME.yaml or task/NAME.yaml")
    parser.add_argument("--json", metavar="FILE", help="where to write the certificate as JSON")
    try:
        given = parser.parse_intermixed_args(arguments)
        subject: Estimator | Task
        if given.task is not None and given.sampler is not None:
            raise WrongRequest("--task and --sampler: one of them at a time")
        if given.task is not None:
            subject, name, code = find_task(given.task, given.what, given.config_dir)
        else:
            subject, name, code = find_subject(given.what, given.sampler, given.config_dir)
        if given.json is not None:
            check_json(given.json)
    except WrongRequest as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG
    say = lambda line: print(line, flush=True)
    certificate: Certificate | TaskCertificate
    try:
        if isinstance(subject, Task):
            certificate = certify_task(subject, name, code, say)
        else:
            certificate = certify(subject, name, code, say)
    except SystemExit as error:
        print(f"error: {name} ended the program ({first_line(error)})", file=sys.stderr)
        return FAILS
    try:
        if given.json is not None:
            Path(given.json).write_text(json.dumps(certificate.to_dict(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        print(f"error: --json {given.json}: {error.strerror}", file=sys.stderr)
        return WRONG
    return HOLDS if certificate.holds else FAILS


def check_json(name: str) -> None:
    r"""Raises WrongRequest if no certificate can be written to a file of that name."""
    path = Path(name).resolve()
    if not name or path.is_dir():
        raise WrongRequest(f"--json {name}: a file is needed")
    if not path.parent.is_dir():
        raise WrongRequest(f"--json {name}: there is no such folder")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise WrongRequest(f"--json {name}: cannot be written to")


def find_subject(what: list[str], sampler: str | None, config_dir: str | None) -> tuple[Estimator, str, str]:
    r"""The estimator that is to be certified, its name, and Python that makes it; raises WrongRequest."""
    look_in_this_folder()
    if sampler:
        return of_sampler(sampler, options(what), config_dir)
    if not what:
        raise WrongRequest("nothing to certify: name estimator=NAME, a class such as mine.Mine, or --sampler")
    if "=" not in what[0]:
        if config_dir is None:
            return of_class("estimator", what[0], options(what[1:]))
        name = config_of_class("estimator", what[0], config_dir)
        what = [f"estimator={name}", *(f"estimator.{pair}" for pair in what[1:])]
    return of_config("estimator", what, config_dir)


def find_task(name: str, pairs: list[str], config_dir: str | None) -> tuple[Task, str, str]:
    r"""The task that is to be certified, its name, and Python that makes it; raises WrongRequest."""
    look_in_this_folder()
    torch.manual_seed(0)
    if "." in name or ":" in name:
        if config_dir is None:
            return of_class("task", name, options(pairs))
        name = config_of_class("task", name, config_dir)
    own = ("data=", "data.", "task.")
    return of_config("task", [f"task={name}", *(p if p.startswith(own) else f"task.{p}" for p in pairs)], config_dir)


def look_in_this_folder() -> None:
    r"""Lets classes be found that lie in the folder from which the command is called, as ``python -m`` does."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


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
    except (Exception, SystemExit) as error:  # whatever the module does when it is imported
        raise WrongRequest(f"{path}: {type(error).__name__}: {first_line(error)}") from error


def call_of(made: Any, arguments: dict[str, Any]) -> tuple[str, str]:
    r"""An import line, and a call of a class or function with the arguments."""
    told = ", ".join(f"{k}={v!r}" for k, v in arguments.items())
    return f"from {made.__module__} import {made.__qualname__}", f"{made.__qualname__}({told})"


def of_class(group: str, path: str, arguments: dict[str, Any]) -> tuple[Any, str, str]:
    r"""An estimator or a task of a class by its name."""
    made, kind = imported(path), SUBJECTS[group]
    if not (isinstance(made, type) and issubclass(made, kind)):
        hint = of_another_kind(group, path, made)
        raise WrongRequest(f"{path} is no subclass of {kind.__module__.removesuffix('.base')}.{kind.__name__}{hint}")
    try:
        subject = made(**arguments)
    except Exception as error:
        takes = f"; it takes: {', '.join(signature(made).parameters) or 'no arguments'}"
        hint = takes if isinstance(error, TypeError) else ""
        raise WrongRequest(f"{path}: {type(error).__name__}: {first_line(error)}{hint}") from error
    importing, call = call_of(made, arguments)
    return subject, call, f"{importing}\n{group} = {call}"


def of_another_kind(group: str, path: str, made: object) -> str:
    r"""What to say instead of what is no estimator, or no task."""
    if group == "task":
        return ""
    flag = (
        "of a task use --task" if isinstance(made, type) and issubclass(made, Task) else "of a function use --sampler"
    )
    return f"; {flag} {path}"


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


def config_of_class(group: str, path: str, config_dir: str) -> str:
    r"""The name of the one config below the folder that is of a class."""
    try:
        import yaml
    except ImportError as error:
        raise WrongRequest(f"--config-dir needs hardmax[harness] ({error})") from error
    folder, targets = Path(config_dir) / group, {}
    for file in sorted(folder.glob("*.yaml")):
        try:
            targets[file.stem] = dict(yaml.safe_load(file.read_bytes()) or {}).get("_target_")
        except Exception as error:
            raise WrongRequest(f"{file} cannot be read: {first_line(error)}") from error
    found = [name for name, target in targets.items() if target == path.replace(":", ".")]
    if len(found) == 1:
        return found[0]
    files = ", ".join(f"{name}.yaml" + f" ({targets[name]})" * (not found) for name in found or targets)
    chosen = f"{'--task ' if group == 'task' else 'estimator='}NAME chooses one by its name"
    there = f"{': ' if found else '; there are: '}{files}; {chosen}" * bool(files)
    raise WrongRequest(f"{path}: {len(found)} files below {folder} have it as their _target_, one is expected{there}")


def of_config(
    group: Literal["estimator", "task"], overrides: list[str], config_dir: str | None
) -> tuple[Any, str, str]:
    r"""An estimator or a task of the configs, which need what the harness needs."""
    accepted = (f"{group}=", f"{group}.", *(("data=", "data.") if group == "task" else ()))
    for override in overrides:
        if not override.lstrip("+").startswith(accepted):
            raise WrongRequest(f"{override}: only {group}=NAME and {group}.option=value are accepted here")
    if not any(o.startswith(f"{group}=") for o in overrides):
        raise WrongRequest(f"{group}=NAME is missing")
    if config_dir is not None and not Path(config_dir).is_dir():
        raise WrongRequest(f"--config-dir {config_dir}: there is no such folder")
    try:
        import hydra
        from hydra.core.global_hydra import GlobalHydra
        from hydra.errors import MissingConfigException
        from hydra.utils import get_class
        from omegaconf import OmegaConf
    except ImportError as error:
        raise WrongRequest(f"{group}=NAME needs hardmax[harness]; without it, name a class ({error})") from error
    from hardmax.harness import options as harness_options
    from hardmax.harness.config import build
    from hardmax.harness.names import meant
    from hardmax.harness.refusals import user_error_line
    from hardmax.harness.shared import nearest, some_of
    from hardmax.paths import CONFIGS

    harness_options.register()
    GlobalHydra.instance().clear()
    if config_dir is not None:
        overrides = [*overrides, f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"]
    choice = next(o.partition("=")[2] for o in overrides if o.startswith(f"{group}="))
    try:
        with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
            cfg = hydra.compose("config", overrides)
        subject: object
        if group == "task":
            subject = build(cfg, "task", choice, overrides)
        else:
            subject = build(cfg, "estimator", choice, overrides)
        arguments = OmegaConf.to_container(cfg[group], resolve=True)
        assert isinstance(arguments, dict)
        importing, call = call_of(get_class(arguments.pop("_target_")), {str(k): v for k, v in arguments.items()})
    except MissingConfigException as error:
        known = list(error.options or [])
        hint = meant(choice, known) if group == "estimator" else nearest(choice, known)
        there = hint or f"; there are: {some_of(known)}"
        where = "; --config-dir FOLDER says where yours is" * (config_dir is None)
        raise WrongRequest(f"Could not find '{group}/{choice}'{there}{where}") from error
    except Exception as error:
        raise WrongRequest(user_error_line(error, overrides) or first_line(error)) from error
    return subject, f"{group}={choice}: {call}", f"{importing}\n{group} = {call}"
