"""Every estimator on a problem of one's own: figures that are known by enumeration, and what is recommended."""

import contextlib
import math
import time

import pandas as pd
import pytest
import torch

import hardmax
from hardmax.estimators import Estimator, Exact, LocalExpectation, Reinforce
from hardmax.estimators.base import graft
from hardmax.gradients import candidates
from hardmax.gradients.candidates import exported_estimators, settings_worth_trying
from hardmax.gradients.enumeration import ContinuousNoise, all_outcomes

ERRORS = 5  # standard errors that a figure may be off


class Clock:
    """A clock that evaluations of an objective move, so that the numbers of draws are the same everywhere."""

    def __init__(self):
        self.seconds = 0.0

    def moved_by(self, objective, each):
        """The objective, a row of which takes so many seconds."""

        def slow(z):
            self.seconds += each * len(z)
            return objective(z)

        return slow


@contextlib.contextmanager
def started():
    """A clock in the place of the machine's; what estimators learn, they learn in a few steps."""
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "perf_counter", lambda: clock.seconds)
        patch.setattr(candidates, "LEARNING_STEPS", 5)
        yield clock


@pytest.fixture
def clock():
    with started() as clock:
        yield clock


@pytest.fixture
def compare(clock):
    """Compares in the time of so many rows, 20,000 unless it is said."""

    def compare(logits, objective, rows=20_000, **arguments):
        return hardmax.compare(logits, clock.moved_by(objective, 1 / rows), 1.0, **arguments)

    return compare


@pytest.fixture
def few(monkeypatch):
    """As if the library had no more estimators than these."""
    some = [Reinforce, LocalExpectation, hardmax.ReinMax, hardmax.Rebar, hardmax.NVIL, hardmax.CARMS, Exact]
    monkeypatch.setattr("hardmax.gradients.comparison.exported_estimators", lambda: some)


def small_problem(K=2, C=3):
    g = torch.Generator().manual_seed(4)
    logits = 0.7 * torch.randn(1, K, C, generator=g, dtype=torch.float64)
    a, b = (torch.randn(K, C, generator=g, dtype=torch.float64) for _ in range(2))

    def objective(z):
        return (z * a).sum((-2, -1)).tanh() + (z * b).sum((-2, -1)).square() + 1

    return logits, objective


def gradients(estimator, logits, objective, draws):
    """Gradients ``[draws, coordinates]``."""
    leaf = logits.expand(draws, *logits.shape).clone().requires_grad_()
    return torch.autograd.grad(estimator(leaf, objective).sum(), leaf)[0].flatten(1)


def as_made(label):
    made_of, setting = settings_worth_trying(exported_estimators())[label]
    return made_of(**setting).eval()


def test_bias_variance_and_squared_error_are_those_of_enumeration(compare):
    logits, objective = small_problem()
    found = compare(logits, objective, rows=20_000)
    assert found.truth == "the exact gradient"
    truth = gradients(Exact(), logits, objective, 1)[0]
    checked = set()
    for row in found.table:
        estimator = as_made(row.estimator)
        if estimator.learns:
            continue  # elsewhere than it was measured
        try:
            weight, (g,) = all_outcomes(lambda n, e=estimator: [gradients(e, logits, objective, n)], 1)
        except ContinuousNoise:
            continue
        mean = weight @ g
        bias2 = float((mean - truth).square().sum()) / len(logits)
        variance = float(weight @ (g - mean).square().sum(1)) / len(logits)
        for value, error, exact in (
            (row.bias2, row.bias2_error, bias2),
            (row.variance, row.variance_error, variance),
            (row.mse, row.mse_error, bias2 + variance),
        ):
            assert abs(value - exact) <= ERRORS * error + 1e-12, row.estimator
        assert row.true_norm == pytest.approx(math.sqrt(float(truth.square().sum()) / len(logits)))
        assert row.mse_per_evaluation == row.mse * row.evaluations
        assert row.mse_per_second == row.mse * row.seconds
        checked.add(type(estimator))
    assert len(checked) >= 12
    assert {e for e in map(as_made, (r.estimator for r in found.table)) if e.target == "bound"} == set()
    assert "VIMCO(samples=4)" in found.left_out


class FalselyUnbiased(Reinforce):
    """Half of the gradient."""

    def estimate(self, logits, objective, context):
        cost = super().estimate(logits, objective, context)
        return cost.detach() + 0.5 * (cost - cost.detach())


def additive(K=14):
    """Too many configurations to enumerate, and yet a known gradient; without a derivative."""
    g = torch.Generator().manual_seed(5)
    logits, weight = torch.randn(3, K, 2, generator=g), torch.randn(K, 2, generator=g)

    def objective(z):
        return (torch.nn.functional.one_hot(z.argmax(-1), 2) * weight).sum((-2, -1)) + 3.0

    p = logits.softmax(-1)
    return logits, objective, p * (weight - (p * weight).sum(-1, keepdim=True))


class Marks(LocalExpectation):
    """Local expectation and a noise that is known: of standard deviation ``noise`` in every coordinate."""

    worth_trying = ({"noise": 0.1}, {"noise": 0.2})

    def __init__(self, noise):
        super().__init__()
        self.noise = noise

    def estimate(self, logits, objective, context):
        cost = super().estimate(logits, objective, context)
        return graft(cost, logits, self.noise * torch.randn_like(logits))


@pytest.fixture(scope="module")
def black_box():
    """A comparison on the additive problem, and the true gradient."""
    logits, objective, truth = additive()
    with started() as clock:
        return hardmax.compare(logits, clock.moved_by(objective, 1 / 50_000), 1.0, own=[FalselyUnbiased, Marks]), truth


def test_a_reference_stands_for_what_cannot_be_enumerated(black_box):
    found, truth = black_box
    assert " draws of " in found.truth
    norm2 = float(truth.square().sum((-2, -1)).mean())
    rows = {row.estimator: row for row in found.table}
    for row in rows.values():
        if not row.unbiased:
            continue
        bias2 = norm2 / 4 if row.estimator == "FalselyUnbiased()" else 0.0
        assert abs(row.bias2 - bias2) <= ERRORS * row.bias2_error, row.estimator
    assert rows["FalselyUnbiased()"].bias2_taken[0] > 0.2 * norm2, "what a class says is not believed"


def test_without_a_derivative_nothing_that_takes_one_is_compared(black_box):
    found, _ = black_box
    labels = {row.estimator for row in found.table}
    for one in exported_estimators():
        own = set(settings_worth_trying([one]))
        if one.differentiates_objective:
            assert not own & labels
            assert all("derivative" in found.left_out[label] for label in own)
    assert labels & set(settings_worth_trying([Reinforce]))
    assert "which this objective does not have" in found.advice


def test_what_has_no_noise_and_no_bias_is_recommended(black_box):
    """Of an additive cost local expectation knows all, while Exact is too expensive."""
    found, _ = black_box
    assert found.advice.startswith("Take LocalExpectation(): ")
    assert found.table[0].estimator == "LocalExpectation()"
    assert found.left_out["Exact()"] == "it takes more than most_evaluations=256 evaluations a draw"


class Twin(LocalExpectation):
    """The same under another name."""


def test_what_cannot_be_told_apart_is_named(compare, few):
    logits, objective, _ = additive()
    found = compare(logits, objective, rows=5_000, own=[Twin])
    first, second = (row.estimator for row in found.table[:2])
    assert {first, second} == {"LocalExpectation()", "Twin()"}
    assert f"it cannot be told apart from {second}" in found.advice


def test_a_later_comparison_says_what_has_moved(compare, few):
    logits, objective, _ = additive()
    first = compare(logits, objective, rows=5_000, most_evaluations=4)
    assert "LocalExpectation()" in first.left_out
    later = compare(logits, objective, rows=5_000, earlier=first)
    assert later.advice.endswith(f"; before, {first.table[0].estimator} led.")
    assert later.titles()[-1] == "place before"
    places = [line[-1] for line in later.lines()]
    assert places[0] == "", "it was not there"
    assert sorted(map(int, filter(None, places))) == list(range(1, len(first.table) + 1))
    again = compare(logits, objective, rows=5_000, earlier=later)
    assert again.advice.endswith("; so it did before.")


def test_known_noise_is_measured(black_box):
    found, truth = black_box
    rows = {row.estimator: row for row in found.table}
    for noise in (0.1, 0.2):
        row = rows[f"Marks(noise={noise})"]
        assert abs(row.variance - truth[0].numel() * noise**2) <= ERRORS * row.variance_error
        assert row.evaluations == truth[0].numel() // 2 + 1


def test_a_table_in_pandas_in_text_and_in_a_notebook(black_box):
    found, _ = black_box
    table = pd.DataFrame(found.table)
    assert list(table.estimator) == [row.estimator for row in found.table]
    assert {"bias2", "variance", "mse", "mse_per_evaluation", "mse_per_second", "bias2_error"} <= set(table.columns)
    text, page = repr(found), found._repr_html_()
    assert text.startswith(found.advice)
    assert "Left out: " in text
    assert page.count("<tr>") == 1 + len(found.table)
    assert "baseline=&#x27;leave_one_out&#x27;" in page


@pytest.mark.parametrize(("seconds", "each"), [(1.0, 1e-4), (2.0, 1e-4), (1.0, 1e-2)])
def test_it_takes_the_seconds_that_it_was_given(clock, few, seconds, each):
    """Ten draws of what takes most evaluations are made whole once they are begun. Not all can be tried at the last."""
    logits, objective, _ = additive()
    found = hardmax.compare(logits, clock.moved_by(objective, each), seconds, most_evaluations=16)
    assert 0.5 * seconds < clock.seconds < seconds + 2 * 10 * 16 * each
    assert ("no time was left for it" in found.left_out.values()) == (each == 1e-2)


def test_nothing_of_the_user_s_is_touched(compare, few):
    torch.manual_seed(1)
    logits = torch.randn(2, 3, 3, requires_grad=True)
    decoder = torch.nn.Linear(9, 1)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with torch.no_grad():
        compare(logits, lambda z: decoder(z.flatten(-2)).squeeze(-1).square(), rows=2_000)
    assert torch.equal(torch.rand(3), expected)
    assert logits.grad is None
    assert all(p.grad is None and p.requires_grad for p in decoder.parameters())


def test_the_objective_sees_one_leading_dimension(compare, few):
    shapes = set()
    logits, objective = small_problem()

    def seen(z):
        shapes.add(z.shape[1:])
        return objective(z)

    compare(logits, seen, rows=2_000)
    assert shapes == {logits.shape}


def undefined(z):
    return z.sum((-2, -1)) * torch.nan


def infinite_where_rare(z):
    return z[..., 0, 1] - (1 - z[..., 0, 0]).log()


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"logits": [1.0]}, TypeError, "logits must be a tensor [*batch, K, C], got list"),
        ({"logits": torch.zeros(3)}, ValueError, "logits must be [*batch, K, C], all at least 1, got [3]"),
        ({"logits": torch.full((2, 2), torch.nan)}, ValueError, "logits must be numbers or minus infinity, with"),
        ({"logits": torch.tensor([[0.0, 1.0], [-torch.inf] * 2])}, ValueError, "logits must be numbers or minus"),
        ({"objective": undefined}, ValueError, "objective must give finite costs: 8 of 8 costs of draws are not, the"),
        ({"logits": torch.tensor([[-15.0, 0.0, 0.0]]), "objective": infinite_where_rare}, ValueError,
         "objective must give finite costs: the exact gradient is not finite"),
        ({"objective": 3}, TypeError, "objective must be a function of z, [S, *batch, K, C] -> [S, *batch], got 3"),
        ({"objective": lambda z: z.sum(-1)}, ValueError, "objective returned shape [1, 1, 2]"),
        ({"seconds": 0}, ValueError, "seconds must be a number above 0, got 0"),
        ({"averaged": "many"}, TypeError, "averaged must be a number above 0, got 'many'"),
        ({"most_evaluations": 0}, ValueError, "most_evaluations must be an integer of at least 1, got 0"),
        ({"own": Reinforce}, TypeError, "own must be a list of subclasses of Estimator, got <class"),
        ({"own": [Reinforce()]}, TypeError, "own must be a list of subclasses of Estimator, got Reinforce("),
        ({"own": [Estimator]}, TypeError, "own must be a list of subclasses of Estimator, got <class"),
        ({"context": torch.zeros(3, 1)}, ValueError, "context must be None or a tensor [*batch, D] with batch [1]"),
        ({"log_q": 1}, TypeError, "log_q must be one of True, False, got 1"),
        ({"earlier": "x"}, TypeError, "earlier must be what hardmax.compare returned before, got 'x'"),
        ({"seed": -1}, ValueError, "seed must be an integer of at least 0, got -1"),
    ],
)  # fmt: skip
def test_what_is_not_accepted_is_named(arguments, error, text):
    logits, objective = small_problem()
    with pytest.raises(error) as raised:
        hardmax.compare(**({"logits": logits, "objective": objective} | arguments))
    assert str(raised.value).startswith(text)


def test_an_error_of_the_objective_comes_out():
    def one_draw_only(z):
        if len(z) > 1:
            raise RuntimeError("boom")
        return z[..., 0].sum(-1)

    with pytest.raises(RuntimeError, match="boom"):
        hardmax.compare(torch.zeros(1, 2, 3), one_draw_only)


def test_a_constant_cost_has_a_gradient_of_0(clock):
    """And not one of rounding, which nothing is to be weighed by."""
    found = hardmax.compare(torch.randn(2, 2, 3), clock.moved_by(lambda z: 0 * z.sum((-2, -1)) + 3, 1e-3), seconds=20)
    assert {c.true_norm for c in found.table} == {0.0}
    assert "the true gradient is 0, but for rounding" in found.advice
    assert found.table[0].mse < 1e-12, "as there are some whose every draw is 0"


def test_in_inference_mode_as_out_of_it():
    logits, objective = small_problem()
    with torch.inference_mode():
        found = hardmax.compare(logits + 0, objective, seconds=3)
    assert found.truth == "the exact gradient"


def test_an_objective_that_closes_over_the_logits_is_refused():
    logits = torch.zeros(2, 2, requires_grad=True)
    with pytest.raises(ValueError, match="objective closes over the logits"):
        hardmax.compare(logits, lambda z: (z * logits).sum((-2, -1)))


def test_too_short_a_time_is_refused(clock):
    logits, objective = small_problem()
    with pytest.raises(ValueError, match=r"nothing can be measured in seconds=1: no time was left for it"):
        hardmax.compare(logits, clock.moved_by(objective, 100.0), seconds=1)


def test_systems_that_take_too_long_are_left_out_before_they_are_tried(clock):
    """Of 16 x 4,000 categories: one draw would take a minute, whatever is said of seconds."""
    weight = torch.arange(4000.0)
    found = hardmax.compare(torch.zeros(16, 1, 4000), clock.moved_by(lambda z: (z @ weight).sum(-1), 0.1), seconds=20)
    assert found.left_out["MVE(tau=1.0)"].startswith("it solves a C x C system for every variable")


def test_what_misses_rare_costs_is_left_out_and_not_called_biased(clock):
    """Of a cost of 1,000 that one draw in 40,000 has: most of the gradient is in draws that were not made."""
    logits = torch.zeros(1, 4, 6)
    logits[..., 5] = math.log(5 * 0.005 / 0.995)

    def objective(z):
        drawn = z.argmax(-1)
        return 1000.0 * (drawn[..., :2] == 5).all(-1).to(z) + 0.02 * (drawn[..., 2] == 0).to(z)

    found = hardmax.compare(logits, clock.moved_by(objective, 1e-3), seconds=60)
    missed = {label for label, why in found.left_out.items() if why.endswith("they missed rare costs")}
    assert {"Reinforce(samples=4, baseline='leave_one_out')", "CARMS(samples=2)"} <= missed
    for c in found.table:
        assert not c.unbiased or c.bias2 <= 5 * c.bias2_error, c.estimator
    assert "no gradient at all has 1" in found.advice
