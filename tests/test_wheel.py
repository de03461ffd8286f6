"""The wheel, installed: with torch and numpy alone it is a library, with the extra a set of commands in any folder."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.commands import ROOT

SITE = Path(importlib.metadata.distribution("torch").locate_file(""))
KEPT_OUT = shutil.ignore_patterns(".*", "output", "build", "*.egg-info", "__pycache__", "wandb", "docs")
SHORT = ["task=toy", "steps=20", "log_every=10", "measure.draws=4", "valid.every=0", "measure.every=0", "batch_size=4"]


def needed_by(*packages):
    """Names of the distributions that some need, without extras."""
    found, left = set(), list(packages)
    while left:
        name = left.pop()
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        if name not in found:
            found.add(name)
            left += [re.match(r"[\w.-]+", r)[0] for r in requirements if "extra ==" not in r]
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A folder with the installed package, and nothing else."""
    place = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, place / "source", ignore=KEPT_OUT)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", place, place / "source"]
    subprocess.run([*pip, *build], check=True)
    (file,) = place.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", place / "installed", file], check=True)
    return place / "installed"


@pytest.fixture(scope="module")
def torch_alone(tmp_path_factory):
    """A folder of packages in which there is torch, numpy and what these need."""
    place = tmp_path_factory.mktemp("torch_alone")
    for name in needed_by("torch", "numpy"):
        for file in importlib.metadata.files(name):
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (place / top).exists():
                (place / top).symlink_to(SITE / top)
    return place


def python(code, *folders, where):
    """Runs code, or a module, where nothing but the standard library and the folders can be imported."""
    start = f"import sys; sys.path[:0] = {['', *map(str, folders)]}; {code}"
    command = [sys.executable, "-I", "-S", "-c", start]
    return subprocess.run(command, cwd=where, capture_output=True, text=True)


def test_it_takes_two_names(wheel):
    assert {p.name for p in wheel.iterdir() if p.suffix != ".dist-info"} == {"hardmax", "hydra_plugins", "bin"}
    assert (wheel / "hardmax/py.typed").is_file()
    assert (wheel / "hardmax/configs/estimator/released/relax_as_released.yaml").is_file()


LIBRARY = """
import torch, hardmax
assert 'site-packages' not in hardmax.__file__
logits = torch.zeros(2, 3, 4, requires_grad=True)
for name in hardmax.estimators.__all__:
    assert getattr(hardmax, name) is not None
hardmax.ARSM()(logits, lambda z: z[..., 0].sum(-1) ** 2).sum().backward()
assert hardmax.ReinMax().rsample(logits).shape == (2, 3, 4)
hardmax.OneHotCategorical(logits=logits, estimator=hardmax.ReinMax()).rsample()
found = hardmax.compare(logits.detach(), lambda z: z[..., 0].sum(-1) ** 2, seconds=3)
assert len(found.table) > 1  # in three seconds, what PyTorch loads before not counted
assert found.advice in repr(found) and found.advice in found._repr_html_().replace('&#x27;', "'")
import hardmax.gradients
others = {'hydra', 'omegaconf', 'scipy', 'pandas', 'wandb', 'matplotlib'} & set(sys.modules)
assert not others, others
import gc
assert gc.isenabled()
try:
    hardmax.run
except ImportError as error:
    print(error, hardmax.__version__)
"""


def test_with_torch_alone_it_is_a_library(wheel, torch_alone, tmp_path):
    done = python(f"exec({LIBRARY!r})", wheel, torch_alone, where=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("hardmax.run needs hydra: pip install 'hardmax[harness]'")
    command = "sys.argv = ['hardmax', 'run']; from hardmax.commands import main; main()"
    done = python(command, wheel, torch_alone, where=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: hardmax run needs hydra: pip install 'hardmax[harness]'\n"


@pytest.mark.long
def test_with_torch_alone_it_certifies_an_estimator_of_ones_own(wheel, torch_alone, tmp_path):
    (tmp_path / "mine.py").write_text("from hardmax import Reinforce\n\n\nclass Mine(Reinforce):\n    pass\n")
    command = "sys.argv = ['hardmax', 'certify', 'mine.Mine', 'samples=2']; from hardmax.commands import main; main()"
    done = python(command, wheel, torch_alone, where=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "certified: all that is claimed holds" in done.stdout


@pytest.fixture(scope="module")
def hardmax(wheel, tmp_path_factory):
    """The command as installed, in a folder with files of the user's own that have the names of the project's."""
    where = tmp_path_factory.mktemp("project")
    for name in ("tasks", "harness", "configs"):
        (where / name).mkdir()
        (where / name / "__init__.py").write_text("raise SystemExit('the wrong one')\n")
    for name in ("estimators.py", "run.py", "report.py"):
        (where / name).write_text("raise SystemExit('the wrong one')\n")
    (where / "mine.py").write_text("from hardmax import Reinforce\n\n\nclass Mine(Reinforce):\n    pass\n")
    (where / "conf/estimator").mkdir(parents=True)
    (where / "conf/estimator/mine.yaml").write_text("_target_: mine.Mine\n")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"WANDB_MODE": "disabled"}

    def run(*arguments, code=0):
        start = [sys.executable, "-P", wheel / "bin/hardmax", *map(str, arguments)]
        done = subprocess.run(
            start, cwd=where, env=environment | {"PYTHONPATH": str(wheel)}, capture_output=True, text=True
        )
        assert done.returncode == code, done.stderr
        return done

    run.where = where
    return run


@pytest.mark.long
def test_sweep_report_and_measurement_in_a_folder_of_ones_own(hardmax):
    done = hardmax("run", "-m", "--config-dir", "conf", "estimator=mine,arsm", *SHORT)
    assert "2 of 2 jobs ended (2 done)" in done.stdout
    environments = [p.read_text() for p in hardmax.where.rglob("environment.json")]
    assert len(environments) == 2
    assert all('"commit": null' in text for text in environments)
    hardmax("report", "output")
    assert (hardmax.where / "output/report/report.html").is_file()
    rival = ["measure.rivals=[mine]", "measure.draws=10", "measure.reference_draws=0"]
    done = hardmax("measure", "--config-dir", "conf", "task=toy", "task.categories=5", "estimator=arsm", *rival)
    assert "mine" in done.stdout


def test_the_command_says_what_there_is(hardmax):
    assert "certify" in hardmax().stdout
    assert hardmax("--version").stdout.startswith("hardmax 0.")
    assert "there are: run, report, measure, certify" in hardmax("rum", code=2).stderr
    assert hardmax("run", "stepz=3", code=2).stderr.startswith("error: stepz is no option (did you mean steps?)")
