"""The z-tests of the conformance suite under two hundred seeds: they ask for more draws as often as they say."""

import copy

import pytest
from scipy.stats import binom

from hardmax import certification as c
from hardmax.certification import expectations
from helpers.cases import CASES, build

SEEDS = 200
RARE = 1e-4  # probability that the number of alarms of right tests is found too high
COUNTS = []


@pytest.mark.parametrize("case", CASES)
def test_one_estimator(case, monkeypatch, capsys, request):
    """Its values and gradients on every problem; where they are enumerated there is nothing to repeat."""
    test, tried, alarms, estimator = c.assert_mean, 0, 0, build(case)

    def repeated(run, truths, what, against=None):
        nonlocal tried, alarms
        for seed in range(SEEDS):
            tried += 1
            try:
                test(run, truths, what, against, seed, rounds=(c.DRAWS,))
            except AssertionError:
                alarms += 1
                test(run, truths, what, against, seed)  # with more draws it passes

    monkeypatch.setattr(expectations, "assert_mean", repeated)
    for problem in c.PROBLEMS:
        c.check_expectation(copy.deepcopy(estimator), c.fitting(estimator, problem))
    c.check_expectation(copy.deepcopy(estimator), c.fitting(estimator, c.SMALL), log_q=True)
    if not tried:
        pytest.skip("enumerated")
    COUNTS.append((tried, alarms))
    with capsys.disabled():
        print(
            f"\n{request.node.callspec.id}: {alarms} of {tried} z-tests asked for more draws, none failed", flush=True
        )
    assert alarms <= binom.isf(RARE, tried, c.FALSE_ALARM)


def test_all_together(capsys):
    tried, alarms = map(sum, zip((0, 0), *COUNTS, strict=True))
    with capsys.disabled():
        print(f"\nall: {alarms} of {tried}")
    assert alarms <= binom.isf(RARE, max(tried, 1), c.FALSE_ALARM)
