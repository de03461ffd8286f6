"""A certificate in words: what is told of the words alone."""

import pytest

from hardmax.certification import Outcome, text
from hardmax.certification.certificate import calls
from hardmax.certification.task_certificate import CHECKS_OF_TASKS
from hardmax.estimators import Reinforce


@pytest.mark.parametrize("holds", [True, False])
@pytest.mark.parametrize("length", [1, text.LABEL_WIDTH - 1, text.LABEL_WIDTH, 2 * text.LABEL_WIDTH])
def test_no_label_runs_into_its_verdict(length, holds):
    line, *_ = text.verdict(Outcome("x" * length, holds))
    assert line.split() == ["x" * length, "holds" if holds else "FAILS"]


def test_verdicts_stand_below_each_other():
    assert max(map(len, [*calls(Reinforce()), *CHECKS_OF_TASKS])) < text.LABEL_WIDTH
