r"""What is behind a run's results beside its config: code, data files and versions, and whether they have changed."""

import ast
import contextlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import platform
import sys
import sysconfig
import threading
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import _locate
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from hardmax import __version__
from hardmax.paths import HOME

from .hashes import hash_of_code, hash_of_file, hash_of_typed, hashed, names_in
from .options import EVERY_RIVAL
from .shared import Refused, innermost, nearest, one_line

ROOMS = ("estimators", "tasks", "gradients", "harness")  # of the code that makes results
PACKAGES = ("torch", "numpy", "hydra-core", "omegaconf", "wandb")
CODE_GROUPS = ("estimator", "task", "data", "optimizer", "schedule")
INSTALLED = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")}
SYSTEM = tuple(map(Path, ("/proc", "/sys", "/dev", "/etc")))


def code_of(cfg: DictConfig) -> dict[str, str]:
    r"""Hashes of the code that makes results, by the file's name as a module's.

    It is that of the project's rooms, of the classes and functions that the config names (``_target_``, at any depth),
    and of every module of the user's own that they import; and the options of the estimators that are measured beside
    the trained one, which the config has by name only.
    """
    files = {f"hardmax/{p.relative_to(HOME).as_posix()}": p for room in ROOMS for p in (HOME / room).rglob("*.py")}
    ours = {path.resolve() for path in files.values()}
    beside = configs_beside(cfg)
    nodes = [OmegaConf.to_container(cfg[group], resolve=True) for group in CODE_GROUPS if cfg.get(group) is not None]
    targets = [str(target) for node in (*nodes, *beside.values()) for _, target in targets_in(node)]
    files |= {name: path for name, path in modules_behind(targets).items() if path.resolve() not in ours}
    typed = {target: hash_of_typed(located(target)) for target in targets if top(target) == "__main__"}
    options = {f"estimator/{name}.yaml": hashed(json.dumps(node, sort_keys=True)) for name, node in beside.items()}
    return {name: hash_of_code(name, path) for name, path in sorted(files.items())} | typed | options


def configs_beside(cfg: DictConfig) -> dict[str, dict]:
    r"""The configs of the reference and the rivals by name, as far as there are such and anything is measured."""
    if not cfg.measure.every:
        return {}
    loader, rivals = GlobalHydra.instance().config_loader(), cfg.measure.rivals
    rivals = loader.get_group_options("estimator") if rivals in EVERY_RIVAL else rivals
    names = [next(iter(entry)) if OmegaConf.is_dict(entry) else entry for entry in rivals]
    names += [cfg.measure.reference] * bool(cfg.measure.reference_draws)
    found = {}
    for name in dict.fromkeys(names):
        with contextlib.suppress(Exception):  # what cannot be composed is refused when it is built
            found[name] = config_of(loader, "estimator", name)
    return found


@cache
def config_of(loader: ConfigLoader, group: str, choice: str) -> dict:
    r"""The plain config of an estimator, or of another group's choice."""
    found = OmegaConf.to_container(with_choice(loader, group, choice)[group], resolve=True)
    assert isinstance(found, dict)
    return found


@lru_cache(maxsize=200)
def with_choice(loader: ConfigLoader, group: str, choice: str) -> DictConfig:
    r"""A config with the choice: of a file that refers to no other, its group alone; else, which takes long, the whole.

    Raises:
        HydraException: If there is no such file, or it cannot be composed.
    """
    assert isinstance(loader, ConfigLoaderImpl)
    own = None
    with contextlib.suppress(Exception):  # which composing all says better
        own = loader.repository.load_config(f"{group}/{choice}")
    if own and not own.defaults_list and own.header["package"] is None and "${" not in OmegaConf.to_yaml(own.config):
        return OmegaConf.create({group: own.config})
    return loader.load_configuration("config", [f"{group}={choice}"], RunMode.RUN, from_shell=False)


def targets_in(node: object, key: str = "") -> Iterator[tuple[str, object]]:
    r"""What a plain config names as ``_target_``, at any depth, after its key with dots."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield f"{key}._target_", node["_target_"]
        for name, part in node.items():
            yield from targets_in(part, f"{key}.{name}")
    if isinstance(node, list):
        for n, part in enumerate(node):
            yield from targets_in(part, f"{key}[{n}]")


def located(target: str) -> Any:
    r"""The class or function of that name; ImportError if there is none. Hydra's own would also log what is raised."""
    return _locate(target)


def why_not_located(target: str, error: Exception) -> str:
    r"""Why there is no class or function of that name, for which ``error`` was raised, in one line."""
    module, _, name = target.rpartition(".")
    cause = innermost(error)
    if isinstance(cause, AttributeError) or (isinstance(cause, ModuleNotFoundError) and cause.name == target):
        with contextlib.suppress(Exception):
            if not hasattr(found := located(module), name):
                return f"{module} has no {name}{nearest(name, dir(found))}"
    return one_line(cause)


def parameters_of(target: object) -> list[str]:
    r"""The arguments that a class or function takes, by its name; none if there is no telling."""
    with contextlib.suppress(Exception):
        return list(inspect.signature(located(str(target))).parameters)
    return []


def modules_behind(targets: list[str]) -> dict[str, Path]:
    r"""Files of the modules that targets are of, and of all that these import, by name as ``package/module.py``.

    Installed packages are left out, unless a target is of one (of torch, its version is kept).
    """
    waiting, found = [], {}
    for target in targets:
        waiting += parents(target)
        with contextlib.suppress(Exception):  # an unknown target is refused when it is built
            waiting.append(located(target).__module__)
    wanted = {top(target) for target in targets} - {"torch"}
    while waiting:
        name = waiting.pop()
        if name in found or top(name) == "hardmax":
            continue
        found[name] = path = source_of(name) if top(name) in wanted or not installed(top(name)) else None
        if path is not None:
            waiting += imports_of(name, path)
    return {f"{name.replace('.', '/')}{'/__init__' * is_package(p)}{p.suffix}": p for name, p in found.items() if p}


def source_of(name: str) -> Path | None:
    r"""The file of a module; None for one without, and for what is no module."""
    try:
        spec = importlib.util.find_spec(name)
    except Exception:  # whatever the import of a package around it leads to
        return None
    path = Path(spec.origin) if spec and spec.origin else None
    return path if path and path.is_file() else None


@cache
def installed(package: str) -> bool:
    r"""Whether a package or module at the top level comes with Python, or was installed; or is not there."""
    try:
        spec = importlib.util.find_spec(package)
        if spec is None:
            return True
        places = [spec.origin] if spec.origin else spec.submodule_search_locations  # a folder without a file of its own
        found = [Path(place).resolve() for place in places or ()]
        return places is None or any(path.is_relative_to(where) for path in found for where in INSTALLED)
    except Exception:
        return True


def imports_of(name: str, path: Path) -> Iterator[str]:
    r"""Names of what a module imports, anywhere in it, and of the packages around: modules, and what is in them."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    package = name if is_package(path) else name.rpartition(".")[0]
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            with contextlib.suppress(ImportError):  # of a package that it is not in
                base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                names = [f"{base}.{alias.name}" for alias in node.names]
        for each in names:
            yield from (each, *parents(each))


def parents(name: str) -> list[str]:
    r"""``a.b`` and ``a`` of the name ``a.b.c``."""
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)]


def top(name: str) -> str:
    return name.partition(".")[0]


def is_package(path: Path) -> bool:
    return path.stem == "__init__"


class Opened:
    r"""Notes which files are read, and not written, while it is entered, with the interpreter's own hook for that.

    The hook cannot be taken out again, so there is one for all, which does nothing while nothing is noted.

    Attributes:
        apart: Threads that read nothing for a run, by their numbers.
    """

    apart: set[int] = set()
    read: set[str] = set()
    written: set[str] = set()
    noting = hooked = False

    def __enter__(self) -> set[str]:
        if not Opened.hooked:
            sys.addaudithook(Opened.note)
            Opened.hooked = True
        Opened.read, Opened.written, Opened.noting = set(), set(), True
        return Opened.read

    def __exit__(self, *_: object) -> None:
        Opened.noting = False
        Opened.read -= Opened.written

    @staticmethod
    def note(event: str, arguments: tuple) -> None:
        if not Opened.noting or event != "open" or threading.get_ident() in Opened.apart:
            return
        if isinstance(arguments[0], str | bytes):
            writes = arguments[2] & (os.O_WRONLY | os.O_RDWR)
            (Opened.written if writes else Opened.read).add(os.fsdecode(arguments[0]))


def hash_data(opened: set[str], cfg: DictConfig) -> dict[str, str]:
    r"""Hashes of the data files behind a run, by path: of those that options name and of those that were ``opened``.

    Files of the system, of installed packages and of the project, and hidden ones (credentials, say), are left out. A
    folder that options name is data if all its files were read, as one more would have been.
    """
    nodes = [OmegaConf.to_container(cfg[group], resolve=True) for group in CODE_GROUPS if cfg.get(group) is not None]
    found = {}
    for name in sorted({*opened, *texts_in(nodes)}):
        with contextlib.suppress(OSError, ValueError):
            path = Path(name).resolve()
            left_out = (*INSTALLED, *SYSTEM, *(HOME / room for room in ROOMS))
            hidden = path.name.startswith(".") or path.parent.name == "__pycache__"
            inside = [str(Path(name, one)) for one in names_in(path)] if path.is_dir() else []
            is_data = path.is_file() or (inside and opened.issuperset(inside))
            if is_data and not hidden and not any(path.is_relative_to(place) for place in left_out):
                found[name] = hash_of_file(path)
    return found


def texts_in(node: object) -> Iterator[str]:
    r"""The texts in a plain config, at any depth, but for keys and targets."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list):
        for part in node.values() if isinstance(node, dict) else node:
            yield from texts_in(part)


def versions() -> dict:
    r"""Versions of Python and of the packages that figures depend on, as far as they are there."""
    found = {"hardmax": __version__}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return {"python": platform.python_version(), "versions": found}


def changed_since(folder: Path, code: dict[str, str]) -> str:
    r"""Files of code and data that are not what they were when the run of ``folder`` began, in words.

    Empty if there are none. A data file that is no longer there has not changed.

    Raises:
        Refused: If it cannot be told.
    """
    path = folder / "environment.json"
    try:
        kept = json.loads(path.read_text("utf-8"))
        before, data = dict(kept["code"]), dict(kept.get("data", {}))
        other = [name for name, hash in data.items() if os.path.exists(name) and hash_of_file(name) != hash]
    except (OSError, ValueError, KeyError, TypeError):
        raise Refused(f"{path} cannot be read, so the code of the run is unknown: fresh=true begins anew") from None
    changed = sorted(name for name in before.keys() | code.keys() if before.get(name) != code.get(name))
    changed = sorted(other) + changed
    return ", ".join(changed[:3]) + f" and {len(changed) - 3} more" * (len(changed) > 3)


def versions_since(folder: Path) -> str:
    r"""Versions that are not what they were when the run of ``folder`` began, in words; empty if there are none."""

    def flat(found: dict) -> dict:
        return {"Python": found["python"], **found["versions"]}

    now = flat(versions())
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        before = flat(json.loads((folder / "environment.json").read_text("utf-8")))
        changed = [name for name in now if before.get(name, now[name]) != now[name]]
        return ", ".join(f"{name} was {before[name]} and is {now[name]}" for name in changed)
    return ""
