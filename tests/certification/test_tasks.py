"""Every task keeps the contract."""

import pytest

from benchmarks import matrix
from hardmax import certification as c
from hardmax.tasks.polynomial import Polynomial
from hardmax.tasks.quadratic_form import QuadraticForm


@pytest.mark.parametrize("task", matrix.TASKS)
def test_every_task_keeps_the_contract(task):
    assert c.task_failures(matrix.task_of(task, *matrix.small(task))) == []


def test_what_cannot_be_enumerated_is_said_not_to_be_checked():
    (found,) = (o for o in c.certify_task(Polynomial()).outcomes if o.remark)
    assert found.remark == "not checked, as 128 variables of 2 categories have too many outcomes: take fewer"


def test_a_task_declares_the_figures_that_its_options_leave():
    assert c.task_failures(QuadraticForm(variables=13, categories=2)) == []
