r"""What ``run.py`` drives: options, training loop, gradient statistics and tracking."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path


def make_home() -> None:
    r"""Gives a process without a home folder, as of a container's user without a name, one for as long as it runs.

    Libraries that draw and that keep caches take one for granted.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = home = tempfile.mkdtemp(prefix="hardmax-")
        atexit.register(shutil.rmtree, home, ignore_errors=True)
        print("no home folder is known: HOME is a temporary one, gone when this ends", file=sys.stderr)


make_home()
