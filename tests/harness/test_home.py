"""A container's user, who has neither a home folder nor an entry in the table of users."""

import subprocess
import sys

import pytest

from helpers.commands import ROOT
from helpers.made_up import run

NOBODY = """
import os, pwd, runpy, sys

def nobody(number):
    raise KeyError(number)

os.environ.pop("HOME", None)
pwd.getpwuid = nobody
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.long
def test_a_report_needs_no_home_folder(tmp_path):
    run(tmp_path, "arsm")
    run(tmp_path, "nvil")
    program = tmp_path / "nobody.py"
    program.write_text(NOBODY)
    command = [sys.executable, program, ROOT / "report.py", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("no home folder is known: HOME is a temporary one")
    assert (tmp_path / "report/report.html").is_file()
