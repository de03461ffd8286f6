"""What users copy: scripts in examples, Python and commands in pages, and examples in docstrings."""

import doctest
import importlib
import pkgutil
import re
import shlex

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob

import hardmax
from hardmax.harness import options
from hardmax.paths import CONFIGS
from helpers.cases import in_part
from helpers.commands import ROOT
from helpers.processes import finish_forked

SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
ROOMS = ("hardmax", "estimators", "gradients", "tasks", "certification")


@pytest.mark.parametrize("script", in_part(SCRIPTS, 3), ids=lambda path: path.stem)
def test_a_script_runs(script, tmp_path):
    code, out, err = finish_forked(where=tmp_path, script=script)
    assert code == 0, err
    assert out


def blocks(page, *languages):
    """What a page shows in these languages, apart from files that it shows whole and that a test of their own runs."""
    found = re.findall(rf"```(?:{'|'.join(languages)})\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return [block for block in found if "8<--" not in block]


def with_python(page):
    runs_when_built = page.read_text(encoding="utf-8").startswith("---\nrun: true")
    return not runs_when_built and blocks(page, "python")


@pytest.mark.parametrize("page", [*filter(with_python, PAGES)], ids=lambda page: page.stem)
def test_python_in_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page.stem}
    for code in blocks(page, "python"):
        exec(compile(code, str(page), "exec"), names)


def commands():
    """Every command line of the pages, with the page."""
    for page in PAGES:
        for block in blocks(page, "sh", "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    yield page.stem, words


def first_value(override):
    """An override with the first of the values that it sweeps over."""
    parsed = OverridesParser.create().parse_override(override)
    if not parsed.is_sweep_override():
        return override
    if parsed.is_interval_sweep():
        return f"{parsed.key_or_group}={parsed.value().start}"
    if isinstance(parsed.value(), Glob):
        return None
    return f"{parsed.key_or_group}={next(parsed.sweep_string_iterator())}"


def check_overrides(words):
    """The config has these options."""
    if "--config-dir" in words:  # of a class of one's own
        return
    options.register()
    GlobalHydra.instance().clear()
    overrides = [first_value(word) for word in words if "=" in word and not word.startswith("-")]
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        hydra.compose("config", [*filter(None, overrides)], return_hydra_config=True)


@pytest.mark.parametrize(("page", "words"), [*commands()], ids=lambda value: value if isinstance(value, str) else None)
def test_a_command_in_a_page_has_its_options(page, words):
    match words:
        case ["python", "run.py" | "measure.py", *rest]:
            check_overrides(rest)
        case ["python", "report.py", *rest]:
            text = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "reporting").glob("*.py"))
            text += (ROOT / "hardmax/report.py").read_text(encoding="utf-8")
            assert all(f'"{word}"' in text for word in rest if word.startswith("--"))
        case ["make", *targets]:
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
        case ["python", "-m", "hardmax", "run", *rest] | ["hardmax", "run", *rest]:
            check_overrides(rest)
        case ["python", "-m", "hardmax", "report", *rest] | ["hardmax", "report", *rest]:
            assert not [word for word in rest if word.startswith("-")]
        case ["python", "-m", "hardmax", "certify", *rest] | ["hardmax", "certify", *rest]:
            text = (ROOT / "hardmax/certify.py").read_text(encoding="utf-8")
            assert all(f'"{word}"' in text for word in rest if word.startswith("--"))
        case ["wandb", "sweep", *_, file]:
            assert (ROOT / file).is_file() or file == "sweep.yaml"  # which the command before it writes
        case ["pytest", file, *_]:
            assert (ROOT / file).is_file()
        case _:
            assert words[0] in (".", "pip"), "no command of the project"


def test_the_readme_is_short_and_begins_with_the_answer():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 130
    assert max(map(len, lines)) <= 100
    assert lines.index("<!-- end of answer -->") < 25


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
