"""Estimators and samplers that are wrong on purpose fail, each with a message that names what is wrong."""

import re

import pytest
import torch

from hardmax import certification as c
from hardmax.estimators import GumbelSoftmax, Reinforce
from helpers import wrong

NONE = {"baseline": "none"}
WRONG = {
    "flipped sign": (lambda: wrong.FlippedSign(**NONE), "logits' gradient is off .* its sign is flipped"),
    "own cost in the baseline": (
        lambda: wrong.OwnCostInBaseline(samples=2, **NONE),
        "logits' gradient is off .* it is 0.5 times",
    ),
    "running mean that moves first": (
        lambda: wrong.MeanThatMovesFirst(1, decay=0.9),
        "logits' gradient is off .* it is 0.9.* times",
    ),
    "missing probabilities": (wrong.MissingProbabilities, "logits' gradient is off"),
    "gradient through the baseline": (wrong.GradientThroughBaseline, "parameters' gradient is off"),
    "baseline over everything": (lambda: wrong.BaselineOverEverything(**NONE), "depend on each other's costs"),
    "state moves in a call": (wrong.StateInACall, "a call moved the state running"),
    "two evaluations without gradients": (wrong.TwoEvaluations, "2 evaluations with gradients disabled"),
    "log q left out": (wrong.NoLogQ, "log q in the objective: .*, log_q: value is off"),
    "log q detached in a relaxation": (
        lambda: wrong.HalfOfLogQ(temperature=0.5),
        "log q in the objective: .*, log_q: logits' gradient is off",
    ),
    "one leading dimension": (wrong.OneLeadingDimension, "one cost for each example: RuntimeError"),
    "soft value": (wrong.SoftValue, "target is the mode, but z is not one-hot"),
    "sign of the Jacobian": (wrong.UphillJacobian, "the cost is linear: .* uphill: .* it is -1 times"),
    "sign of the noise's Jacobian": (wrong.UphillNoise, r"the cost is linear: .* uphill: .* it is -0\.[789]"),
    "mean over references": (wrong.MeanOverReferences, "logits' gradient is off .* it is 0.2.* times"),
    "swaps with gradients": (wrong.SwapsWithGradients, "parameters' gradient is off"),
    "noise not centred": (wrong.UncenteredNoise, "logits' gradient is off"),
    "another reference": (wrong.NextReference, "logits' gradient is off"),
    "no 1 / temperature": (
        lambda: wrong.NoReciprocalTemperature(temperature=0.5),
        "logits' gradient is off .* it is 0.[45].* times",
    ),
    "half the noise": (wrong.TemperatureFromNoise, "logits' gradient is off"),
    "probabilities half detached": (wrong.ProbabilitiesDetached, "logits' gradient is off .* it is 0.5 times"),
    "auxiliary loss reaches the model": (
        wrong.AuxiliaryLossReachesModel,
        "training and evaluation mode, or two calls, have different gradients",
    ),
    "no gradient to the parameters": (
        lambda: wrong.MissingDecoderGradient(**NONE),
        "parameters' gradient .* it is 0 times",
    ),
    "draws shared": (lambda: wrong.SharedDraw(**NONE), "draws are shared along a leading dimension"),
    "noise shared": (wrong.SharedNoise, "draws are shared along a leading dimension"),
    "more evaluations than claimed": (lambda: wrong.MoreEvaluations(**NONE), "2 evaluations, 1 are claimed"),
    "NaN at minus infinity": (lambda: wrong.OwnLogits(**NONE), r"logits \[0.0, 0.0, -inf\] .* is \[.*nan"),
    "one cost for the batch": (lambda: wrong.MeanCost(**NONE), r"one cost per example, got shape \[\]"),
    "wrong value": (lambda: wrong.WrongValue(**NONE), r"value is off by .*\[2.44\], not \[1.22\]"),
    "nothing left out": (
        lambda: wrong.NothingLeftOut(2, "leave_one_out"),
        "logits' gradient is off .* it is 0.5 times",
    ),
    "divided by the deviation of the others": (
        lambda: wrong.DividedByTheOthers(3, "leave_one_out"),
        "logits' gradient is off",
    ),
    "REBAR without REBAR": (lambda: wrong.RelaxedRebar(temperature=0.5), "parameters' gradient is off"),
    "an unbiased relaxation": (wrong.UnbiasedRelaxation, "unbiased is claimed with target=relaxed"),
    "without super().__init__()": (wrong.WithoutInit, r"WithoutInit.__init__ must begin with super\(\).__init__\(\)"),
    "a bound of no draws": (wrong.BoundOfNoDraws, "is that of self.samples draws, which is not set: set it in BoundOf"),
    "another rsample": (wrong.AnotherSample, "rsample has another value or gradient"),
}
SAMPLERS = {
    "uniform draws": (wrong.uniform_draws, "the law of z is not the softmax"),
    "noise shared": (wrong.shared_noise, "draws are shared along a leading dimension"),
    "no gradient": (wrong.hard_without_gradient, "no gradient of the cost reaches the logits"),
    "uphill": (wrong.uphill, "the cost is linear: .* uphill: along the exact one, it is -1"),
    "sigmoids": (wrong.sigmoids, "z is neither one-hot nor on the simplex"),
    "log of softmax": (wrong.log_of_softmax, "the logits' gradient is .*nan"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_estimators_fail_and_the_message_names_what_is_wrong(name):
    make, message = WRONG[name]
    (found,) = c.failures(make(), first=True)
    assert re.search(message, found), found


@pytest.mark.parametrize("name", SAMPLERS)
def test_wrong_samplers_fail_and_the_message_names_what_is_wrong(name):
    function, message = SAMPLERS[name]
    (found,) = c.failures(c.Sampler(function), first=True)
    assert re.search(message, found), found


@pytest.mark.parametrize(
    ("estimator", "right"), [(wrong.AddedCosts(), False), (wrong.BinaryRebar(1), False), (wrong.BinaryRebar(-1), True)]
)
def test_mistakes_that_need_two_categories_show_in_the_mean(estimator, right):
    """Of 20,000 draws, in standard errors of the coordinate that is farthest off."""
    problem, moments = c.SmallProblem(2, 2), c.MeanOfDraws()
    torch.manual_seed(0)
    moments.add(c.runner(estimator, problem)(20_000)[1])
    off = ((moments.mean - problem.truth()[1]) / moments.error()).abs().max()
    assert off < 5 if right else off > 10


def test_samples_that_are_not_set_are_said_to_be():
    with pytest.raises(c.Failed, match=r"1 are claimed \(S\): S is self.samples, which SamplesUnset does not set, and"):
        c.check_evaluations(wrong.SamplesUnset(), c.SMALL)


@pytest.mark.parametrize("make", [wrong.DrawsInFloat32, lambda: c.Sampler(lambda logits: logits.float().softmax(-1))])
@pytest.mark.parametrize("check", [c.check_extreme_logits, c.check_precision])
def test_draws_in_another_precision_are_said_to_be(make, check):
    line = r"z has precision torch.float32 for logits of torch.bfloat16: draws are .to\(logits.dtype\)"
    with pytest.raises(c.Failed, match=line):
        check(make(), (1.0, 2.0, 3.0) if check is c.check_extreme_logits else c.SMALL, "bfloat16")


def test_where_every_call_raises_nothing_else_is_checked():
    said = []
    found = c.certify(wrong.NumberInWords(), say=said.append)
    (outcome,) = found.outcomes
    assert not found.holds
    assert (outcome.claim, found.measurements) == ("a call of the plainest kind", [])
    assert outcome.message.startswith("TypeError: ")
    assert outcome.remark == "no other check was made, as all of them begin with it"
    assert max(map(len, said)) < 120
    assert said[-1].startswith("NOT certified: 1 of 1 fail")
    (sampler,) = c.failures(c.Sampler(lambda logits: logits.nowhere()))
    assert sampler.startswith("a call of the plainest kind: AttributeError: ")


def test_what_could_be_claimed_is_said(monkeypatch):
    monkeypatch.setattr(c.certificate, "calls", lambda estimator: {})
    assert [c.certify(honest).remarks for honest in (Reinforce(**NONE), GumbelSoftmax())] == [[], []]
    said = []
    found = c.certify(wrong.Modest(), say=said.append)
    assert found.holds
    assert found.remarks == said[-3:-1]
    assert all("claims less than holds on these problems" in remark for remark in found.remarks)
    assert said[-4] == "gradient: no bias can be told on these problems (0), and not claimed to be unbiased"


def test_what_cannot_be_traced_does_not_compile():
    with pytest.raises(c.Failed, match=r"torch\.compile: "):
        c.check_compiles(wrong.NotCompiled(**NONE), c.SMALL)


def test_probabilities_rounded_before_the_draw_show_in_bfloat16():
    c.check_precision(wrong.RoundedDraws(**NONE), c.SMALL, "float32")
    with pytest.raises(c.Failed, match="bfloat16: a mean over"):
        c.check_precision(wrong.RoundedDraws(**NONE), c.SMALL, "bfloat16")


def test_a_clamped_logarithm_shows_where_a_category_is_rare():
    problem = c.SmallProblem(1, 3)
    c.check_expectation(wrong.ClampedLog(**NONE), problem)
    problem.logits[0, 0] = -25.0
    c.check_expectation(Reinforce(**NONE), problem)
    problem.parameters[0][0, 0] = 50.0  # dear as well, so that it matters
    c.check_expectation(Reinforce(**NONE), problem)
    with pytest.raises(c.Failed, match="logits' gradient is off"):
        c.check_expectation(wrong.ClampedLog(**NONE), problem)


@pytest.mark.parametrize("make", [lambda: Reinforce(**NONE), GumbelSoftmax], ids=["enumerated", "drawn"])
def test_right_estimators_do_not_fail(make):
    assert c.failures(make()) == []
