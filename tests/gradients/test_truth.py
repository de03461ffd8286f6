"""When a gradient is known exactly, and when it is not."""

import numpy as np
import pytest
import torch

from hardmax.estimators import Exact, Reinforce
from hardmax.gradients import WHERE, forked_random, measure, truth_of
from hardmax.gradients.truth import is_random
from hardmax.tasks.base import Problem, Task
from hardmax.tasks.structured import Structured


class Noisy(Task):
    """Costs with noise: drawn with the problem, or in every evaluation."""

    def __init__(self, once):
        super().__init__()
        self.logits, self.once = torch.nn.Parameter(torch.tensor([[0.3, -0.2, 0.1]])), once

    def problem(self, batch):
        noise = torch.randn(len(batch), 1, 3)

        def objective(z):
            return (z * (noise if self.once else torch.randn(len(batch), 1, 3))).sum((-2, -1))

        return Problem(self.logits.expand(len(batch), 1, 3), objective)

    def encoder_parameters(self):
        return [self.logits]


def test_an_objective_that_draws_has_no_exact_gradient():
    task = Noisy(once=False)
    assert truth_of(task, task.problem(torch.zeros(4))) is None


@pytest.mark.parametrize("torch_s", [True, False])
def test_noise_is_noticed_whose_it_is_and_when_it_comes(torch_s):
    """As of a game that draws with a generator of its own, and after some actions only."""
    own = np.random.default_rng(0)
    noise = lambda shape: torch.randn(shape) if torch_s else torch.as_tensor(own.normal(size=shape)).float()
    logits = torch.zeros(3, 1, 2)
    assert is_random(Problem(logits, lambda z: z[..., 0, 1] * noise(z.shape[:-2])))
    assert not is_random(Problem(logits, lambda z: z[..., 0, 1] * 2))


def test_noise_that_is_drawn_with_the_problem_is_part_of_the_truth():
    task = Noisy(once=True)
    problem = task.problem(torch.zeros(4))
    found = measure(task, Exact(), problem, 5, truth_of(task, problem))
    assert [found[f"{where}/bias2"] for where in WHERE] == pytest.approx([0, 0], abs=1e-12)


class Trunk(Task):
    """Logits and objective are of the same features, made once for both."""

    def __init__(self):
        super().__init__()
        self.trunk, self.head = torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)

    def problem(self, batch):
        features = self.trunk(batch).tanh()
        return Problem(self.head(features).unsqueeze(-2), lambda z: (z[..., 0, 0] * features.sum(-1)) ** 2)

    def encoder_parameters(self):
        return list(self.parameters())


def test_a_problem_serves_several_measurements():
    """Neither looking at what an objective depends on nor a measurement uses up the features behind it."""
    torch.manual_seed(0)
    task = Trunk()
    problem = task.problem(torch.randn(5, 3))
    assert truth_of(task, problem) is None, "the objective depends on the encoder"
    for estimator in (Reinforce(2, "leave_one_out"), Exact()):
        assert measure(task, estimator, problem, 10)["encoder/norm"] > 0


def two_layers(K, C):
    torch.manual_seed(0)
    return Structured(K, C, 2, bound_samples=1)


def test_configurations_of_all_layers_together_are_what_is_limited():
    for K, C, known in ((2, 8, True), (2, 9, False), (4, 3, False), (3, 4, True), (40, 40, False)):
        task = two_layers(K, C)
        assert (truth_of(task, task.problem(task.measurement_batch(2))) is not None) == known, f"{C}^{K * 2}"


def test_all_layers_are_enumerated():
    """The sum over both layers by hand."""
    task = two_layers(2, 3)
    upper, lower = (x := task.measurement_batch(4)).tensor_split([task.upper_pixels], -1)
    every = torch.cartesian_prod(*[torch.arange(3)] * 2)
    z = torch.nn.functional.one_hot(every, 3).float()  # [9, 2, 3]
    first = (task.logits(upper, 0).log_softmax(-1).unsqueeze(0) * z.unsqueeze(1)).sum((-2, -1))  # [9, 4]
    second = (task.logits(z.flatten(1), 1).log_softmax(-1).unsqueeze(1) * z).sum((-2, -1))  # [9, 9], given the first
    nats = torch.nn.functional.binary_cross_entropy_with_logits(
        task.decoder(z.flatten(1)).unsqueeze(1).expand(-1, 4, -1), lower.expand(9, -1, -1), reduction="none"
    ).sum(-1)  # [9, 4]
    cost = (first.exp() * (second.exp() @ nats)).sum()
    g = torch.autograd.grad(cost / 4, task.encoder_parameters())
    found = truth_of(task, task.problem(x))["encoder"].mean[0, 0]
    torch.testing.assert_close(found.float(), torch.cat([p.flatten() for p in g]), rtol=1e-3, atol=1e-6)


def test_an_exact_gradient_takes_no_random_numbers():
    task = two_layers(2, 3)
    task.nest(Reinforce())
    with forked_random(torch.device("cpu"), 1):
        before = torch.get_rng_state()
        truth_of(task, task.problem(task.measurement_batch(2)))
        assert torch.equal(before, torch.get_rng_state())
    assert not any(inner.running.pending for inner in task.inner)
