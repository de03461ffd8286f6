r"""Gradients through categorical choices: estimators, tasks, and what is measured of them."""

from hardmax.paths import HOME

__version__ = "0.2.0"
__path__ = list(dict.fromkeys([*__path__, str(HOME)]))  # in a checkout the rooms lie beside this folder

from hardmax.estimators import *  # noqa: F403
