"""What is counted as evaluations of the objective, in training and in measuring."""

import pytest
import torch

from hardmax.estimators import Reinforce
from hardmax.gradients import Evaluations, measure
from hardmax.harness.train import train
from hardmax.tasks.base import Problem, Task
from helpers.cases import in_part
from helpers.commands import started

TASKS = {
    "toy": ["task.variables=2", "task.categories=5"],
    "structured": ["task.variables=2", "task.categories=5", "task.bound_samples=1"],
    "dvae": ["task.variables=2", "task.categories=5", "task.layers=2", "task.bound_samples=1"],
    "generation": ["task.length=4", "task.vocabulary=5", "task.width=4"],
}
# Rows of one layer; of two and three nested ones, where gradients are enabled only at the draw that gives the value.
ROWS = {
    "reinforce": (["estimator.samples=4", "estimator.baseline=leave_one_out"], [4, 16, 64]),
    "arsm": ([], [11, 21, 31]),
    "local_expectation": ([], [9, 17]),
    "gumbel_softmax": ([], [1, 1, 1]),
}
CASES = [("toy", 1), ("structured", 2), ("dvae", 2), ("generation", 3)]


@pytest.mark.parametrize(
    ("task", "layers", "estimator"),
    in_part([(*case, name) for case in CASES for name in ROWS if case[1] <= len(ROWS[name][1])], 4),
)
def test_rows_of_the_innermost_objective_are_counted(task, layers, estimator):
    options, expected = ROWS[estimator][0], ROWS[estimator][1][layers - 1]
    short = ["steps=3", "log_every=1", "batch_size=6", "measure.draws=5", "valid.every=0"]
    state, cfg = started(f"task={task}", *TASKS[task], f"estimator={estimator}", *options, *short)
    rows = []
    train(state, cfg, lambda step, row, _: rows.append(row))
    assert [row["cost/evaluations"] for row in rows if "cost/evaluations" in row] == [n * expected for n in (1, 2, 3)]
    assert [row["gradient/evaluations"] for row in rows if "gradient/evaluations" in row] == [expected] * 2
    assert state.evaluations == 3 * expected


class Chain(Task):
    """Two layers; the second estimator gets its objective by name."""

    nested = 1

    def __init__(self):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.zeros(1, 3))

    def problem(self, batch):
        def objective(z):
            return self.inner[0](logits=torch.zeros_like(z), objective=lambda y: (y[..., 0] * z[..., 0]).sum(-1))

        return Problem(self.logits.expand(len(batch), 1, 3), objective)

    def encoder_parameters(self):
        return [self.logits]


def test_an_objective_that_is_given_by_name_is_counted():
    task, estimator = Chain(), Reinforce(3, "leave_one_out")
    problem = task.problem(torch.zeros(4))
    assert measure(task, estimator, problem, 5)["evaluations"] == 9
    with task.using(estimator):
        evaluations = Evaluations(task)
        with evaluations.of_nested():
            estimator(problem.logits, evaluations(problem.objective, 4))
        assert evaluations.rows == 9
        estimator(problem.logits, problem.objective)
        assert evaluations.rows == 9, "nothing is counted afterwards"
