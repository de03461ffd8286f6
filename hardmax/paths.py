r"""Where the project's own files lie, in a checkout as in an installed package."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # of a checkout; where packages are installed, otherwise
PACKAGE = Path(__file__).resolve().parent
CHECKOUT = (ROOT / "run.py").is_file() and (ROOT / "configs" / "config.yaml").is_file()
HOME = ROOT if CHECKOUT else PACKAGE  # the folder in which the rooms and the configs lie
CONFIGS = HOME / "configs"
