"""Schedules in a number of steps: where they are at the start, in the middle and at the end, and after resuming."""

import math

import pytest

from hardmax.estimators import MVE, GumbelRao, GumbelSoftmax, SlopeAnnealed, StraightThroughGumbelSoftmax

OVER = 40
SHARES = {0.0: (0.0, 0.0), 0.25: (0.25, (1 - math.sqrt(0.5)) / 2), 0.5: (0.5, 0.5), 1.0: (1.0, 1.0)}  # linear, cosine
# What is scheduled, where it starts and ends, and how it is read.
SCHEDULED = {
    "gumbel_softmax": (lambda **o: GumbelSoftmax(2.0, floor=0.5, every=1, **o), 2.0, 0.5, lambda e: e.temperature()),
    "st_gumbel_softmax": (
        lambda **o: StraightThroughGumbelSoftmax(2.0, floor=0.5, every=1, **o),
        2.0,
        0.5,
        lambda e: e.temperature(),
    ),
    "gumbel_rao": (lambda **o: GumbelRao(3, 2.0, floor=0.5, every=1, **o), 2.0, 0.5, lambda e: e.temperature()),
    "slope_annealed": (lambda **o: SlopeAnnealed(1.5, rate=0.0, ceiling=6.0, **o), 1.5, 6.0, lambda e: e.slope()),
    "mve": (lambda **o: MVE(0.1, ceiling=1e3, every=1, **o), 0.1, 1e3, lambda e: e.tau_now()),
}


def after(estimator, steps):
    for _ in range(steps):
        estimator.advance()
    return estimator


def at(start, end, share, annealing):
    if annealing == "exponential":
        return start ** (1 - share) * end**share
    along = SHARES[share][annealing == "cosine"]
    return (1 - along) * start + along * end


@pytest.mark.parametrize("annealing", ["linear", "cosine", "exponential"])
@pytest.mark.parametrize("name", SCHEDULED)
def test_values_at_the_start_in_the_middle_and_at_the_end(name, annealing):
    make, start, end, value = SCHEDULED[name]
    for share in SHARES:
        estimator = after(make(annealing=annealing, over=OVER), int(share * OVER))
        assert float(value(estimator)) == pytest.approx(at(start, end, share, annealing), rel=1e-12)
    assert float(value(after(estimator, 3 * OVER))) == pytest.approx(end, rel=1e-12), "it stays at the end"


@pytest.mark.parametrize("annealing", ["linear", "cosine", "exponential"])
@pytest.mark.parametrize("name", SCHEDULED)
def test_a_schedule_goes_on_where_it_was(name, annealing):
    make, _, _, value = SCHEDULED[name]
    estimator, again = after(make(annealing=annealing, over=OVER), 13), make(annealing=annealing, over=OVER)
    again.load_state_dict(estimator.state_dict())
    assert float(value(again)) == float(value(estimator))
    assert float(value(after(again, 7))) == float(value(after(estimator, 7))) != float(value(make()))


@pytest.mark.parametrize(
    "make", [lambda **o: GumbelSoftmax(floor=0.5, **o), lambda **o: MVE(ceiling=0.5, tau=0.25, **o)]
)
def test_by_the_rate_updates_come_every_so_many_steps(make):
    seen = values_of(make(rate=0.06, every=4), 14)
    assert seen[0] == seen[3] != seen[4] == seen[7] != seen[8] == seen[11] != seen[12] == 0.5


@pytest.mark.parametrize(
    "make", [lambda **o: GumbelSoftmax(floor=0.5, **o), lambda **o: MVE(ceiling=0.5, tau=0.25, **o)]
)
def test_over_a_number_of_steps_every_step_moves(make):
    """However few, beside the default of ``every``."""
    seen = values_of(make(annealing="linear", over=10), 14)
    assert len(set(seen)) == 11
    assert seen[9] != seen[10] == seen[13] == 0.5


def values_of(estimator, steps):
    value = (lambda: float(estimator.temperature())) if hasattr(estimator, "temperature") else estimator.tau_now
    seen = []
    for _ in range(steps):
        seen.append(float(value()))
        estimator.advance()
    return seen


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: GumbelSoftmax(annealing="cosine"),
            "over must be the number of steps from start to end with annealing=cosine",
        ),
        (
            lambda: SlopeAnnealed(annealing="exponential"),
            "over must be the number of steps from start to end with annealing=exponential",
        ),
        (lambda: SlopeAnnealed(over=10), "rate must be 0 with over=10, got 0.0001"),
        (lambda: GumbelRao(rate=0.1, over=10), "rate must be 0 with over=10, got 0.1"),
        (lambda: MVE(over=0), "over must be an integer of at least 1"),
        (lambda: MVE(tau=0, over=10), "tau must be a number above 0"),
        (lambda: MVE(tau=0, rate=0.1), "tau must be a number above 0"),
        (lambda: MVE(tau=2.0, ceiling=1.0, over=10), "ceiling must be at least tau 2.0"),
        (lambda: GumbelSoftmax(floor=2.0, over=10), "floor must be at most the initial temperature"),
        (lambda: GumbelSoftmax(learned=True, over=10), "over must be None when learned is true, got 10"),
        (lambda: GumbelSoftmax(annealing="stepwise", over=10), "annealing must be one of exponential, linear, cosine"),
    ],
)
def test_contradictions_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_from_no_tau_in_a_straight_line():
    assert float(after(MVE(0, ceiling=8.0, every=1, annealing="linear", over=4), 1).tau_now()) == 2.0
