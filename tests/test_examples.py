"""What users copy: scripts in examples, Python in the README, and examples in docstrings."""

import doctest
import importlib
import pkgutil
import re

import pytest

import hardmax
from helpers.commands import ROOT
from helpers.processes import finish_forked

SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
ROOMS = ("hardmax", "estimators", "gradients", "tasks", "certification")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_runs(script, tmp_path):
    code, out, err = finish_forked(where=tmp_path, script=script)
    assert code == 0, err
    assert out


@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.strip().splitlines()[-1][:40])
def test_python_in_the_readme_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


def modules():
    for room in ROOMS:
        for module in pkgutil.iter_modules([str(ROOT / room)]):
            if module.name != "__main__":
                yield f"hardmax.{module.name}" if room == "hardmax" else f"hardmax.{room}.{module.name}"


@pytest.mark.parametrize("name", [name for name in modules() if "__main__" not in name])
def test_examples_in_docstrings(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_every_name_is_there():
    for name in hardmax.__all__:
        assert getattr(hardmax, name) is not None
