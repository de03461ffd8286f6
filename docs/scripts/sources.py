"""The package laid out as it is installed, for the reader of docstrings, who looks for rooms within their package."""

import shutil
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = tempfile.TemporaryDirectory()  # is deleted when MkDocs ends


def laid_out():
    """A folder in which ``hardmax`` has all its rooms."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for package, folder in project["tool"]["setuptools"]["package-dir"].items():
        target = Path(FOLDER.name, *package.split("."))
        shutil.copytree(ROOT / folder, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    return FOLDER.name
