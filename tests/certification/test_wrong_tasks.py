"""Tasks that are wrong on purpose fail, each in the check meant for it, with a message that names what is wrong."""

import re

import pytest
import torch

from hardmax import certification as c
from hardmax.tasks.toy import Toy
from helpers import wrong_tasks as wrong

COSTS, APART = "one cost for each draw and example", "examples do not depend on each other"
EXPECTED, PENALTY = "the expected cost is the sum over all outcomes", "the penalty is one for each example"
ENCODER, EVALUATED = "encoder_parameters make the logits", "evaluate gives the declared figures, the same again"
BATCHES, MEASURED = "training batches depend on their generator alone", "the measurement batch is fixed and held out"
DECLARED, PINNED, CONTEXT = "what the class declares", "pinned logits are constant", "the context is of each example"
WRONG = {
    wrong.CostOfTheBatch: (COSTS, r"returns shape \[3\] for z \[3, 3, 2, 3\]: one cost for each .* over the batch"),
    wrong.LogitsWithoutVariables: (
        COSTS,
        r"the logits of 3 examples from batch have shape \[3, 6\], where .* unsqueeze",
    ),
    wrong.CostOfEachVariable: (COSTS, r"returns shape \[3, 3, 2\] for z \[3, 3, 2, 3\]: one cost for each"),
    wrong.OneLeadingDimension: (COSTS, "other costs of the same draws with another leading dimension"),
    wrong.ChangesZ: (COSTS, "objective changes the z it is given"),
    wrong.LosesOneExample: (COSTS, r"the logits of 1 example from batch have shape \[2, 3\]"),
    wrong.LogarithmOfZero: (COSTS, "a cost that is not finite, of a one-hot z"),
    wrong.StandardisedOverTheBatch: (
        APART,
        "the other examples of a batch change the logits and penalty of an example",
    ),
    wrong.CostAgainstTheMean: (APART, "the other examples of a batch change the cost of an example"),
    wrong.Closing: ("the objective does not close over the logits", "closes over the logits: .* Take log_q=True"),
    wrong.LogitsWithoutGradient: ("the objective does not close over the logits", "the logits have no gradient"),
    wrong.Noisy: ("the same z costs the same", "draw what is random in it in `problem`"),
    wrong.WrongExpectation: (EXPECTED, "expected_cost is .* where the sum over all outcomes is"),
    wrong.ExpectationWithoutGradient: (EXPECTED, r"the gradient of expected_cost is \[0, 0, .* without detach"),
    wrong.ScalarExpectation: (EXPECTED, r"expected_cost returns shape \[\] for logits \[3, 1, 4\]"),
    wrong.PenaltyOfEachVariable: (PENALTY, r"penalty has shape \[3, 2\], where one for each example, \[3\]"),
    wrong.EntropyTwice: (PENALTY, "log_q=True .* whose expectation penalty has in it already"),
    wrong.ContextAsItIs: (CONTEXT, r"context is torch.float32 \[3, 5, 1\], where floats \[3, 'D'\] are expected"),
    wrong.PinnedThatMoves: (PINNED, "pinned=1, but the logits of category 0 are not constant"),
    wrong.PinnedUnsaid: (PINNED, "the logits of the first 1 categories are constant: say pinned=1"),
    wrong.DecoderAsEncoder: (ENCODER, "has decoder.weight, which the logits do not depend on"),
    wrong.EncoderWithoutBias: (ENCODER, "the logits depend on encoder.bias, which encoder_parameters leaves out"),
    wrong.FromTheGlobalStream: (BATCHES, "batch draws from PyTorch's global random numbers"),
    wrong.GeneratorOfItsOwn: (BATCHES, "another batch for the same examples and generator: .* none of your own"),
    wrong.OneExampleMore: (BATCHES, "examples is 41, but batch has no example 40"),
    wrong.MeasuredOnTraining: (MEASURED, "measurement_batch has training examples"),
    wrong.MeasuredOnTheLastOfTraining: (MEASURED, "measurement_batch has training examples, 90% of it"),
    wrong.InTheOrderOfTheSet: (BATCHES, "other examples, or their parts in another order, for the same numbers"),
    wrong.SummedPenalty: (PENALTY, "one that has each example twice: a scalar must be a mean over the examples"),
    wrong.DropsInEvaluation: (EVALUATED, r"evaluate leaves dropout in training mode: eval\(\) before it"),
    wrong.MeasurementDrawn: (MEASURED, "measurement_batch draws from PyTorch's global random numbers"),
    wrong.MeasuresMore: (MEASURED, r"measurement_batch\(1\) has 10 examples: at most 1 are asked for"),
    wrong.CountsProblems: ("problems and costs change nothing", "problem, or its objective, changes seen"),
    wrong.FigureUndeclared: (EVALUATED, r"evaluate\('valid'\) gives elbo, which is not in figures"),
    wrong.FigureMissing: (EVALUATED, r"figures declares accuracy, which evaluate\('valid'\) does not give"),
    wrong.FigureThatIsATensor: (EVALUATED, r"gives cost as Tensor: float\(...\) makes a number of it"),
    wrong.FigureNotFinite: (EVALUATED, "gives cost=nan, which stops a run"),
    wrong.EvaluatesByPython: (EVALUATED, "evaluate uses Python's global random numbers"),
    wrong.EvaluatesOtherwiseEachTime: (EVALUATED, "gives other figures from the same random numbers"),
    wrong.StaysInEvaluation: (EVALUATED, "evaluate leaves the task in evaluation mode"),
    wrong.TrainsInEvaluation: (EVALUATED, "evaluate changes decoder.bias"),
    wrong.FiguresWithoutDirection: (DECLARED, "none of the figures cost says better='higher' or 'lower'"),
    wrong.FigureWithASlash: (DECLARED, "figures has 'valid/cost': names must be of small letters"),
    wrong.PictureInPixels: ("what show gives can be shown", "show gives inputs with values from .* to .*: a picture's"),
}


def made(task):
    return task(categories=4, objective="quadratic") if issubclass(task, Toy) else task()


@pytest.mark.parametrize("task", WRONG, ids=lambda task: task.__name__)
def test_wrong_tasks_fail_in_the_check_meant_for_them_with_a_message_that_names_what_is_wrong(task):
    claim, message = WRONG[task]
    with pytest.raises(c.Failed) as failed:
        c.CHECKS_OF_TASKS[claim](made(task))
    assert re.search(message, str(failed.value))
    assert len(str(failed.value).splitlines()) == 1


def test_every_check_is_failed_by_some_task():
    assert {claim for claim, _ in WRONG.values()} == set(c.CHECKS_OF_TASKS)


def test_all_failures_are_found_a_line_each():
    found = c.task_failures(wrong.TrainsInEvaluationAndMeasuresMore())
    assert [line.partition(":")[0] for line in found] == [MEASURED, EVALUATED]
    assert c.task_failures(wrong.TrainsInEvaluationAndMeasuresMore(), first=True) == found[:1]


@pytest.mark.parametrize("task", [wrong.LogitsWithoutVariables, wrong.CostOfTheBatch])
def test_where_logits_or_costs_have_another_form_nothing_else_is_checked(task):
    *_, last = c.certify_task(task()).outcomes
    assert (last.claim, last.holds) == (COSTS, False)
    assert last.remark == "no check after it was made, as all need that form"


def test_a_right_task_fails_nothing_and_is_left_as_it_was():
    task = wrong.Right()
    torch.manual_seed(3)
    before, stream = c.task_problems.state_of(task), torch.get_rng_state()
    assert c.task_failures(task) == []
    assert not c.task_problems.changes(task, before)
    assert torch.equal(stream, torch.get_rng_state())
    assert task.training
    assert task.inner == ()


def test_batch_statistics_are_no_failure_and_are_said():
    found = {o.claim: o for o in c.certify_task(wrong.ByBatchStatistics()).outcomes}
    assert [o for o in found.values() if not o.holds] == []
    shared = "while training, the other examples change the logits and penalty of an example, through encoder.1"
    assert found[APART].remark == shared
    assert "measuring moves encoder.1.num_batches_tracked" in found["problems and costs change nothing"].remark


@pytest.mark.parametrize(
    ("task", "claim", "remark"),
    [
        (wrong.SharedCodes, ENCODER, "codes, of the objective and of the logits, is left out of what is measured"),
        (wrong.NoisyInTraining, "the same z costs the same", "in training, costs of the same z are random"),
        (wrong.WithoutAList, MEASURED, "whether it is trained on cannot be told, as examples is None"),
        (wrong.OneSetOnly, MEASURED, "it is of training examples, as the task has no others"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_unusual_and_allowed_is_said(task, claim, remark):
    found = {o.claim: o for o in c.certify_task(task()).outcomes}
    assert [o for o in found.values() if not o.holds] == []
    assert remark in found[claim].remark
