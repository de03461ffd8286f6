r"""Prints a Markdown table of every estimator under ``configs/estimator``, or rewrites it in the file given.

In a file the table stands between two comments, ``<!-- estimators -->`` and ``<!-- end of estimators -->``.
"""

import inspect
import re
import sys
from itertools import groupby
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import OmegaConf

from hardmax import markdown
from hardmax.paths import CONFIGS

from . import Estimator

FOLDER = CONFIGS / "estimator"
COLUMNS = (
    "`estimator=`",
    "also known as",
    "paper",
    "value estimates",
    "unbiased",
    "differentiates the objective",
    "evaluations",
    "learns",
)
BETWEEN = re.compile(r"(?<=<!-- estimators -->\n).*?(?=<!-- end of estimators -->)", re.DOTALL)


def estimators_table() -> str:
    r"""A row for each YAML: unbiased ones first, then those that need only values of the objective, then by year."""
    rows = sorted(estimator_row(path.stem, instantiate(OmegaConf.load(path))) for path in FOLDER.glob("*.yaml"))
    return markdown.table(COLUMNS, [cells for _, cells in rows])


def estimator_row(name: str, estimator: Estimator) -> tuple[tuple, list[str]]:
    r"""What to sort by, and the cells."""
    unbiased, differentiates = estimator.unbiased, estimator.differentiates_objective
    paper, year = first_reference(estimator)
    cells = [f"`{name}`", other_names(estimator), paper, estimator.target, yes(unbiased), yes(differentiates)]
    cells += [typeset(estimator.evaluations), type(estimator).learns]
    return (not unbiased, differentiates, year, type(estimator).__module__, name), cells


def other_names(estimator: Estimator) -> str:
    r"""The class's other names, those of the same settings together with these."""
    groups = groupby(estimator.other_names().items(), lambda item: item[1])
    told = [(", ".join(name for name, _ in group), " ".join(settings)) for settings, group in groups]
    return ", ".join(f"{names} (`{settings}`)" if settings else names for names, settings in told)


def first_reference(estimator: Estimator) -> tuple[str, str]:
    r"""Authors and year of the first of the class's references, as a link, and the year; both empty without one."""
    entry = re.search(r"References:\s+\|([^|]*)\|\s*(https?://\S+)", inspect.getdoc(estimator) or "")
    source = entry and re.search(r"\(([^()]+), (\d{4})\)", " ".join(entry[1].split()))
    return (f"[{source[1]} {source[2]}]({entry[2]})", source[2]) if entry and source else ("", "")


def typeset(expression: str) -> str:
    r"""A Python expression of K, C and S as one writes it: ``C * (C - 1) // 2 + 1`` is C(C-1)/2 + 1."""
    for python, written in ((" ** ", "^"), (" // ", "/"), (" / ", "/"), (" * (", "("), (" * ", "·")):
        expression = expression.replace(python, written)
    return re.sub(r" ([+-]) (?=[^(]*\))", r"\1", expression)


def yes(answer: bool) -> str:
    return "yes" if answer else "no"


def rewritten(text: str) -> str:
    r"""The text with the table anew; ValueError unless it has the two comments once."""
    text, places = BETWEEN.subn(lambda _: f"\n{estimators_table()}\n", text)
    if places != 1:
        raise ValueError(f"the comments around the table must be there once, found {places}")
    return text


if __name__ == "__main__":
    if sys.argv[1:]:
        file = Path(sys.argv[1])
        file.write_text(rewritten(file.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(estimators_table(), end="")
