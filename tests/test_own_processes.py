"""Tests in a process of their own: PyTorch takes up another device before its first backward pass, and for good."""

import subprocess
import sys

import pytest

from helpers.commands import ROOT


@pytest.mark.parametrize("tests", ["harness/absent_device.py", "estimators/small_gpus.py"])
def test_on_a_device_that_is_not_there(tests):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"tests/{tests}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    assert " failed" not in done.stdout
