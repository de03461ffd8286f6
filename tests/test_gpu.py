"""The command that measures a GPU, on a processor."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from benchmarks.gpu import models, page, parts
from benchmarks.gpu.right import chi_square
from hardmax.paths import ROOT

ALLOWED = {  # what a machine with PyTorch has
    *("torch", "torchgen", "functorch", "sympy", "mpmath", "networkx", "filelock", "fsspec", "jinja2", "markupsafe"),
    *("typing_extensions", "setuptools", "pkg_resources", "triton", "nvidia", "isympy", "numpy", "yaml", "tqdm"),
    *("hardmax", "benchmarks"),
}
BLOCKING = """
import runpy, sys
from importlib.machinery import ModuleSpec
from importlib.metadata import packages_distributions

class Blocked:
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name.partition(".")[0] in blocked else None

    def create_module(self, spec):
        raise ModuleNotFoundError(f"{spec.name} is not to be imported")

    def exec_module(self, module):
        pass

blocked = set(packages_distributions()) - ALLOWED | {"hydra", "omegaconf", "wandb", "altair"}
blocked = {name for name in blocked if not name.startswith("_")}
sys.meta_path.insert(0, Blocked())
runpy.run_module("benchmarks.gpu", run_name="__main__", alter_sys=True)
"""


@pytest.mark.long
def test_it_runs_to_its_end_with_little_more_than_torch(tmp_path):
    command = [sys.executable, "-c", BLOCKING.replace("ALLOWED", repr(ALLOWED)), "--device", "cpu", "--small"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [*command, "--to", str(tmp_path), "--seconds", "200"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    wrong = {
        (name, line): figures["error"]
        for name, part in found["parts"].items()
        for line, figures in part["lines"].items()
        if "error" in figures
    }
    assert not wrong
    assert all(part["lines"] and not part["left_out"] for part in found["parts"].values())
    assert not [part["error"] for part in found["parts"].values() if "error" in part]
    assert set(found["parts"]) - {"machine"} == set(page.SECTIONS)
    text = (tmp_path / "gpu.md").read_text()
    assert "No GPU has been used yet" in text
    assert {p.name for p in tmp_path.iterdir()} == {"gpu.json", "gpu.md"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cuda", "--to", str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 1
    assert "cuda:0 cannot be used: " in ran.stderr.splitlines()[-1]


def part(tmp_path, seconds):
    return parts.Part("cpu", True, time.monotonic() + seconds, tmp_path / "part.json")


def test_a_line_that_fails_takes_nothing_with_it(tmp_path):
    def work(part):
        part.each(lambda name: {"one": 1 / int(name)}, ["1", "0", "2"])

    found = parts.run_part(work, part(tmp_path, 60))
    assert found["lines"] == {
        "1": {"one": 1.0},
        "0": {"error": "ZeroDivisionError: division by zero"},
        "2": {"one": 0.5},
    }
    assert "error" not in found


def test_a_line_that_takes_too_long_is_stopped_and_the_next_goes_on(tmp_path):
    def work(part):
        part.each(lambda name: time.sleep(float(name)) or {}, ["60", "0"], most=0.2)

    found = parts.run_part(work, part(tmp_path, 60))
    assert found["lines"] == {"60": {"error": "OutOfTime: stopped after 0 s"}, "0": {}}


def test_what_there_is_no_time_for_is_left_out(tmp_path):
    def work(part):
        part.each(lambda name: time.sleep(float(name)) or {}, ["0", "60", "1"])

    found = parts.run_part(work, part(tmp_path, 1))
    assert list(found["lines"]) == ["0", "60"]
    assert found["left_out"] == ["1"]


def is_running(pid):
    """Whether there is such a process that is not merely waiting to be taken note of."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_part_that_does_not_end_is_ended_with_what_it_started_and_its_lines_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "GRACE", 0.1)

    def work(part):
        process = parts.FORK.Process(target=time.sleep, args=(60,))
        process.start()
        part.note("started", {"pid": process.pid})
        process.join()

    found = parts.run_part(work, part(tmp_path, 1))
    assert found["error"] == "ended, as its time was up"
    deadline = time.monotonic() + 10
    while is_running(found["lines"]["started"]["pid"]):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_part_that_dies_keeps_its_lines(tmp_path):
    def work(part):
        part.note("before", {"one": 1})
        os._exit(7)

    found = parts.run_part(work, part(tmp_path, 60))
    assert found["lines"] == {"before": {"one": 1}}
    assert found["error"] == "ended with exit code 7"


@pytest.mark.parametrize("name", models.NAMES)
def test_an_estimator_read_without_hydra_is_the_one_read_with_it(name):
    ours, theirs = models.make(name), instantiate(OmegaConf.load(models.FOLDER / f"{name}.yaml"))
    options = lambda e: {k: v for k, v in vars(e).items() if isinstance(v, bool | int | float | str)}
    assert type(ours) is type(theirs)
    assert options(ours) == options(theirs)
    assert str(ours) == str(theirs)


def test_the_page_is_that_of_its_figures():
    docs = ROOT / "docs"
    assert (docs / "gpu.md").read_text() == page.written(json.loads((docs / "gpu.json").read_text()))


def test_chi_square_is_that_of_scipy():
    from scipy.stats import chisquare

    counts, expected = torch.tensor([10.0, 20.0, 31.0]), torch.tensor([15.0, 20.0, 26.0])
    found, theirs = chi_square(counts.double(), expected.double()), chisquare(counts, expected)
    assert found["chi_square"] == pytest.approx(theirs.statistic)
    assert found["p_value"] == pytest.approx(theirs.pvalue)
    rare = chi_square(torch.tensor([50.0, 48.0, 1.0, 1.0]), torch.tensor([49.0, 49.0, 1.0, 1.0]))
    assert rare["freedom"] == 2
