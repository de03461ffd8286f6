"""Every estimator trains every task, or is refused, as the page says: a hundred steps each."""

import pytest

from benchmarks import matrix
from hardmax.paths import ROOT

PAGE = matrix.read((ROOT / "docs" / "matrix.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("estimator", matrix.ESTIMATORS)
@pytest.mark.parametrize("task", matrix.TASKS)
def test_every_estimator_trains_every_task_or_is_refused(task, estimator):
    assert matrix.trained(estimator, task).general() == PAGE[estimator, task], "make matrix writes the page anew"
