"""Which estimator is recommended, on figures made by hand."""

import pytest

from hardmax.gradients import candidate_of, recommend
from hardmax.gradients.advice import by_evaluations, by_seconds


def candidate(
    name, variance, bias2=0.0, evaluations=1, seconds=1e-3, unbiased=True, error=0.01, norm=1.0, rms_norm=1.0
):
    """Figures whose standard errors are a share of them; that of ``bias2`` is of itself, or of a hundredth."""
    found = {"true_norm": norm, "bias2": bias2, "bias2_error": error * max(bias2, 0.01), "variance": variance}
    found |= {"variance_error": error * variance, "mse": bias2 + variance, "mse_error": error * (bias2 + variance)}
    found |= {"evaluations": evaluations, "objective_gradients": 0, "draws": 100, "rms_norm": rms_norm}
    return candidate_of(name, unbiased, found, seconds)


def order(ranking):
    return [c.estimator for c in ranking.order]


def test_noise_is_averaged_and_bias_is_not():
    noisy, biased = candidate("noisy", 50.0), candidate("biased", 0.1, bias2=0.2, unbiased=False)
    assert order(by_evaluations([noisy, biased], averaged=100)) == ["biased", "noisy"]
    assert order(by_evaluations([noisy, biased], averaged=1000)) == ["noisy", "biased"]
    assert by_evaluations([noisy, biased], 1000).errors["noisy"] == pytest.approx((0.05, 0.0005))
    assert by_evaluations([noisy, biased], 1000).errors["biased"] == pytest.approx((0.2001, 0.002), rel=1e-3)
    assert recommend([biased, noisy]) == (
        "Take noisy: its gradient, averaged over 1,000 evaluations of the objective, has the least squared error with "
        "2 standard errors added (0.05000 ± 0.00050 of the true gradient's square, without bias); "
        "next comes biased, with 4 times as much; "
        "it also leads at equal time on this machine."
    )


def test_a_batch_s_mean_takes_the_evaluations_of_all_its_examples():
    noisy, biased = candidate("noisy", 50.0), candidate("biased", 0.1, bias2=0.2, unbiased=False)
    assert order(by_evaluations([noisy, biased], 1000, examples=10)) == ["biased", "noisy"]
    assert by_evaluations([noisy], 1000, examples=10).errors == by_evaluations([noisy], 100).errors


def test_evaluations_and_seconds_count():
    cheap, dear = candidate("cheap", 10.0, seconds=4e-3), candidate("dear", 4.0, evaluations=4, seconds=1e-3)
    assert order(by_evaluations([cheap, dear])) == ["cheap", "dear"]
    assert order(by_seconds([cheap, dear])) == ["dear", "cheap"]
    assert by_seconds([cheap, dear]).errors["dear"][0] == pytest.approx(4 / 1000), "a thousand draws of the fastest"
    assert by_seconds([cheap, dear]).errors["cheap"][0] == pytest.approx(10 / 250)
    assert recommend([dear, cheap]).endswith("; at equal time on this machine dear comes first.")


def test_what_two_standard_errors_do_not_tell_apart_is_named():
    names = [candidate(name, variance) for name, variance in (("a", 10.0), ("b", 10.2), ("c", 10.28), ("d", 10.4))]
    found = by_evaluations(names)
    assert [c.estimator for c in found.tied] == ["b", "c"]
    assert "; it cannot be told apart from b and c; " in recommend(names)
    many = [candidate(f"e{n}", 10.0) for n in range(9)]
    assert "; it cannot be told apart from e1, e2, e3 and 5 more; " in recommend(many)
    assert "; nothing else could be compared; " in recommend(names[:1])


def test_no_gradient_is_never_recommended():
    """Of a cost that is flat between its jumps: its error is that of a gradient of 0, and lower than that of noise."""
    none, noisy = candidate("none", 0.0, bias2=1.0, unbiased=False, rms_norm=0.0), candidate("noisy", 6800.0)
    assert order(by_evaluations([none, noisy])) == ["noisy", "none"]
    assert not by_evaluations([none, noisy]).tied
    assert "; no gradient at all has 1: average over more; " in recommend([none, noisy])
    assert "no gradient" not in recommend([none, candidate("quiet", 400.0)])


def test_a_bias_of_what_is_proven_to_have_none_is_more_than_rounding():
    assert candidate("missed", 1.0, bias2=1.0, error=0.1).disproved
    assert not candidate("doubtful", 1.0, bias2=1.0, error=0.3).disproved
    assert not candidate("rounded", 0.0, bias2=1e-7, error=0.0).disproved
    assert not candidate("admitted", 1.0, bias2=1.0, error=0.1, unbiased=False).disproved


def test_of_equal_errors_the_unbiased_leads():
    """A relaxation may be right at one point, and at that point alone."""
    by_luck, always = candidate("by luck", 0.0, unbiased=False), candidate("always", 0.0, evaluations=2)
    assert order(by_evaluations([by_luck, always])) == ["always", "by luck"]


def test_a_small_error_that_is_a_guess_does_not_lead():
    guess, known = candidate("guess", 9.0, error=0.4), candidate("known", 10.0)
    found = by_evaluations([guess, known])
    assert order(found) == ["known", "guess"]
    assert "it cannot be told apart from guess" in recommend([guess, known])


def test_a_standard_error_that_is_not_known_tells_nothing_apart():
    found = {"true_norm": 1.0, "bias2": 0.0, "variance": 500.0, "mse": 500.0}
    found |= {"evaluations": 1, "objective_gradients": 0, "draws": 2}
    unknown = candidate_of("unknown", True, found, 1e-3)
    assert [c.estimator for c in by_evaluations([candidate("a", 1.0), unknown]).tied] == ["unknown"]


def test_what_a_class_claims_holds_until_it_is_disproved():
    assert candidate("x", 1.0, bias2=0.0004).bias2_taken == (0.0, 0.0), "four standard errors"
    assert candidate("x", 1.0, bias2=0.1).bias2_taken == (0.1, pytest.approx(0.001))
    assert candidate("x", 1.0, bias2=-0.1, unbiased=False).bias2_taken == (0.0, pytest.approx(0.0001))


def test_bias_is_in_the_reason():
    biased = candidate("biased", 1.0, bias2=0.003, unbiased=False)
    assert "(0.00400 ± 0.00010 of the true gradient's square, 75% of it bias)" in recommend([biased])
    hidden = candidate("hidden", 1.0, bias2=0.0001, unbiased=False)
    assert "its bias within the error of 0)" in recommend([hidden])
    assert "(0.001000 ± 0.000010, without bias)" in recommend([candidate("x", 1.0, norm=None)])


def test_rounding_decides_nothing():
    exact, rounded = candidate("exact", 0.0, evaluations=30), candidate("rounded", 1e-12)
    assert order(by_evaluations([exact, rounded])) == ["rounded", "exact"], "it takes fewer evaluations"
    assert "it cannot be told apart from exact" in recommend([exact, rounded])


def test_without_a_truth_there_is_no_candidate():
    found = {"variance": 1.0, "evaluations": 1, "draws": 3, "mse": None, "bias2": None}
    assert candidate_of("x", True, found, 1.0) is None
