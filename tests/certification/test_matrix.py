"""The page of every estimator on every task is complete, and what it calls refused is refused for that reason."""

import pytest

from benchmarks import matrix
from hardmax.paths import ROOT
from helpers.cases import in_part

PAGE = matrix.read((ROOT / "docs" / "matrix.md").read_text(encoding="utf-8"))
REFUSED = [names for names, pair in PAGE.items() if pair != matrix.Pair() and names[1] in matrix.TASKS]
IN_TURN = [(e, matrix.TASKS[n % len(matrix.TASKS)]) for n, e in enumerate(matrix.ESTIMATORS)]


def test_the_page_has_every_estimator_and_task():
    due = {(e, t) for e in matrix.ESTIMATORS for t in matrix.TASKS}
    assert set(PAGE) == due, "make matrix writes the page anew"


@pytest.mark.parametrize(("estimator", "task"), in_part(sorted({*REFUSED, *IN_TURN}), 8), ids=str)
def test_what_is_refused_is_what_the_page_says(estimator, task):
    """A fifth of what the page calls refused, and of one task more for each estimator; all the rest where long."""
    assert matrix.refusals(estimator, task).general() == PAGE[estimator, task], "make matrix writes the page anew"
