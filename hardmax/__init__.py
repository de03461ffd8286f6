r"""Gradients through categorical choices: estimators, tasks, and what is measured of them."""

import gc
import importlib
from collections.abc import Callable

from hardmax.paths import HOME

__version__ = "0.2.0"
__path__ = list(dict.fromkeys([*__path__, str(HOME)]))  # in a checkout the rooms lie beside this folder

_collecting = gc.isenabled()
try:
    gc.disable()  # for a tenth of the time: importing PyTorch makes many objects, and drops next to none
    from hardmax.estimators import *  # noqa: F403
    from hardmax.estimators import __all__ as _estimators
    from hardmax.gradients.comparison import compare
finally:
    if _collecting:
        gc.enable()

OF_THE_HARNESS = ("compose", "rows", "run", "runs")  # which need what the extra of that name installs
__all__ = [*_estimators, "compare", *OF_THE_HARNESS]


def __getattr__(name: str) -> Callable:
    if name not in OF_THE_HARNESS:
        raise AttributeError(f"module 'hardmax' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module("hardmax.notebook"), name)
    except ModuleNotFoundError as error:
        raise ImportError(f"hardmax.{name} needs {error.name}: pip install 'hardmax[harness]'") from error
