"""A task whose objective closes over its logits is refused before anything is trained."""

import pytest

from hardmax.estimators import Reinforce
from hardmax.harness.measuring import nest_and_try
from hardmax.harness.shared import Refused
from hardmax.tasks.base import Problem
from hardmax.tasks.toy import Toy


class Closing(Toy):
    def problem(self, batch):
        logits = self.logits.expand(len(batch), *self.logits.shape)
        log_p = logits.log_softmax(-1)
        return Problem(logits, lambda z: self.objective(z) + (z * log_p).sum((-2, -1)))


def test_an_objective_that_closes_over_the_logits_is_refused():
    task = Closing(categories=4)
    with pytest.raises(Refused, match=r"^Reinforce: objective closes over the logits: .* Take log_q=True"):
        nest_and_try(task, Reinforce(), task.measurement_batch(3))
    fine = Toy(categories=4)
    nest_and_try(fine, Reinforce(), fine.measurement_batch(3))
