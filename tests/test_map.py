"""The map of the project: rooms import downwards only and in no circle, and no file grows beyond one job."""

import ast
from graphlib import TopologicalSorter

from helpers.commands import ROOT

LAYERS = ("hardmax", "estimators", "tasks", "gradients", "certification", "harness", "reporting")  # from below
TOP = {
    "report",
    "measure",
    "certify",
    "commands",
    "notebook",
    "__main__",
}  # of the folder hardmax: what drives the rooms
LONGEST = 350


def modules():
    """Every module by its name, with the file."""
    for room in LAYERS:
        for path in sorted((ROOT / room).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts if room == "hardmax" else ("hardmax", *parts))
            yield name.removesuffix(".__init__"), path


MODULES = dict(modules())


def imports(name, path):
    """Names of the project's modules that a module imports, wherever in it that stands."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(path.read_text())
    tree.body = [n for n in tree.body if not (isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*up, *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner in MODULES else base


GRAPH = {name: {m for m in imports(name, path) if m in MODULES} - {name} for name, path in MODULES.items()}


def layer(name):
    """How high a module lies."""
    room, _, _ = name.removeprefix("hardmax.").partition(".")
    if room in LAYERS:
        return LAYERS.index(room)
    return len(LAYERS) if room in TOP else 0


def test_no_room_imports_from_one_above():
    upwards = [f"{a} -> {b}" for a, found in GRAPH.items() for b in found if layer(b) > layer(a) and a != "hardmax"]
    assert not upwards


def test_there_is_no_circle():
    graph = {a: found - {"hardmax"} for a, found in GRAPH.items() if a != "hardmax"}
    assert list(TopologicalSorter(graph).static_order())


def test_imports_are_relative_within_a_room_and_absolute_between_rooms():
    wrong = []
    for name, path in MODULES.items():
        room = name.split(".")[1] if name.count(".") else ""
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and not node.level and room in LAYERS:
                wrong += [f"{name}: from {node.module}"] * (node.module or "").startswith(f"hardmax.{room}")
    assert not wrong


def test_no_file_is_long():
    long = {name: n for name, path in MODULES.items() if (n := len(path.read_text().splitlines())) > LONGEST}
    assert not long


def definitions(path):
    """Names that a module defines for others: classes, functions and constants."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            yield from (n.id for n in ast.walk(target) if isinstance(n, ast.Name)) if target is not None else ()


def test_no_public_name_has_two_meanings():
    places = {}
    for name, path in MODULES.items():
        for defined in set(definitions(path)):
            places.setdefault(defined, []).append(name)
    twice = {name: found for name, found in places.items() if len(found) > 1 and not name.startswith("_")}
    del twice["main"]  # of a program
    assert not twice
