"""Tests in a process of their own: PyTorch takes up another device before its first backward pass, and for good."""

import sys
from pathlib import Path

import pytest

from helpers.commands import ROOT
from helpers.processes import finish_forked

PYTEST = Path(sys.executable).with_name("pytest")


@pytest.mark.parametrize(
    ("tests", "marked"),
    [
        ("harness/absent_device.py", "not long"),
        ("estimators/small_gpus.py", "not long"),
        pytest.param("harness/absent_device.py", "long", marks=pytest.mark.long),
        pytest.param("estimators/small_gpus.py", "long", marks=pytest.mark.long),
    ],
)
def test_on_a_device_that_is_not_there(tests, marked):
    arguments = ["-m", marked, "-p", "no:cacheprovider", "-p", "no:xdist", f"tests/{tests}"]
    code, out, err = finish_forked(*arguments, where=ROOT, script=PYTEST, timeout=1200)
    assert code == 0, out[-5000:] + err[-1000:]
    assert " failed" not in out
