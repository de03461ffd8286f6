"""Tasks that are wrong on purpose, each in one way, and the right one that they are made from."""

import random

import torch
from torch import nn

from hardmax.estimators.base import log_prob
from hardmax.tasks.base import Figure, Problem, Task
from hardmax.tasks.toy import Toy


class Right(Task):
    """Two variables of three categories, coded from 5 features, which a linear decoder is to give back."""

    examples = 40
    figures = {"cost": Figure("expected cost", "nats", "lower"), "loss": Figure("loss", "nats")}
    K, C = 2, 3

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("train_x", torch.randn(self.examples or 40, 5, generator=generator))
        self.register_buffer("valid_x", torch.randn(10, 5, generator=generator))
        self.register_buffer("test_x", torch.randn(10, 5, generator=generator))
        self.encoder, self.decoder = nn.Linear(5, self.K * self.C), nn.Linear(self.K * self.C, 5)

    def batch(self, index, generator):
        return self.train_x[index]

    def measurement_batch(self, size):
        return self.valid_x[:size]

    def logits(self, x):
        return self.encoder(x).unflatten(-1, (self.K, self.C))

    def cost(self, z, x):
        return (self.decoder(z.flatten(-2)) - x).square().sum(-1)

    def penalty(self, logits):
        return (logits.softmax(-1) * logits.log_softmax(-1)).sum((-2, -1))

    def problem(self, x):
        logits = self.logits(x)
        return Problem(logits, lambda z: self.cost(z, x), self.penalty(logits), x)

    def encoder_parameters(self):
        return list(self.encoder.parameters())

    @torch.no_grad()
    def evaluate(self, split):
        problem = self.problem(self.get_buffer(f"{split}_x"))
        z = torch.distributions.OneHotCategorical(logits=problem.logits).sample((10,))
        return {"cost": float(problem.objective(z).mean())}


class With(Right):
    """The right task with a problem that is another one."""

    def changed(self, problem, x):
        raise NotImplementedError

    def problem(self, x):
        problem = super().problem(x)
        return self.changed(problem, x) or problem


class CostOfTheBatch(With):
    def changed(self, problem, x):
        objective = problem.objective
        problem.objective = lambda z: objective(z).mean(-1)


class CostOfEachVariable(With):
    def changed(self, problem, x):
        problem.objective = lambda z: (self.decoder(z.flatten(-2)) - x).square()[..., :2]


class OneLeadingDimension(With):
    def changed(self, problem, x):
        objective = problem.objective
        problem.objective = lambda z: objective(z) if z.ndim == 4 else objective(z) * len(z)


class ChangesZ(With):
    def changed(self, problem, x):
        objective = problem.objective
        problem.objective = lambda z: objective(z.sub_(0.1) if not z.requires_grad else z)


class LosesOneExample(Right):
    """Drops the batch dimension when there is one example."""

    def logits(self, x):
        return super().logits(x).squeeze(0)


class LogitsWithoutVariables(Right):
    def logits(self, x):
        return super().logits(x).flatten(-2)


class LogarithmOfZero(With):
    def changed(self, problem, x):
        objective = problem.objective
        problem.objective = lambda z: objective(z) - 0.001 * z.log().sum((-2, -1))


class StandardisedOverTheBatch(Right):
    def logits(self, x):
        return super().logits((x - x.mean(0)) / (x.std(0, correction=0) + 1))


class CostAgainstTheMean(With):
    def changed(self, problem, x):
        objective = problem.objective
        problem.objective = lambda z: objective(z) - objective(z).mean(-1, keepdim=True)


class Closing(With):
    def changed(self, problem, x):
        objective, logits = problem.objective, problem.logits
        problem.objective = lambda z: objective(z) + log_prob(logits, z)


class Noisy(With):
    def changed(self, problem, x):
        objective = problem.objective
        problem.objective = lambda z: objective(z) + torch.rand(z.shape[:-2])


class WrongExpectation(Toy):
    """Of the quadratic, the cost of the mean."""

    def expected_cost(self, logits):
        return self.objective(logits.softmax(-1))


class ExpectationWithoutGradient(Toy):
    def expected_cost(self, logits):
        return super().expected_cost(logits.detach()) + 0 * logits.sum((-2, -1))


class ScalarExpectation(Toy):
    def expected_cost(self, logits):
        return super().expected_cost(logits).mean()


class PenaltyOfEachVariable(Right):
    def penalty(self, logits):
        return (logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)


class EntropyTwice(With):
    def changed(self, problem, x):
        problem.log_q = True


class ContextAsItIs(With):
    def changed(self, problem, x):
        problem.context = x.unsqueeze(-1)


class PinnedThatMoves(With):
    def changed(self, problem, x):
        problem.pinned = 1


class PinnedUnsaid(Right):
    def logits(self, x):
        return super().logits(x) * torch.tensor([0.0, 1.0, 1.0])


class DecoderAsEncoder(Right):
    def encoder_parameters(self):
        return [*self.encoder.parameters(), *self.decoder.parameters()]


class EncoderWithoutBias(Right):
    def encoder_parameters(self):
        return [self.encoder.weight]


class FromTheGlobalStream(Right):
    def batch(self, index, generator):
        return self.train_x[index] + torch.randn(len(index), 5)


class GeneratorOfItsOwn(Right):
    own = torch.Generator()

    def batch(self, index, generator):
        return self.train_x[index] + torch.randn(len(index), 5, generator=self.own)


class OneExampleMore(Right):
    def __init__(self):
        super().__init__()
        self.examples = len(self.train_x) + 1


class MeasuredOnTraining(Right):
    def measurement_batch(self, size):
        return self.train_x[:size]


class MeasuredOnTheLastOfTraining(Right):
    """Nine in ten of a training set that is larger than what is looked at."""

    examples = 3000

    def measurement_batch(self, size):
        return (
            torch.cat([self.train_x[-9 * size // 10 :], self.valid_x[: size // 10]])
            if size > 9
            else self.valid_x[:size]
        )


class InTheOrderOfTheSet(Right):
    def batch(self, index, generator):
        return self.train_x[index.sort().values]


class SummedPenalty(Right):
    def penalty(self, logits):
        return super().penalty(logits).sum()


class DropsInEvaluation(Right):
    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def logits(self, x):
        return super().logits(self.dropout(x))


class OneSetOnly(MeasuredOnTraining):
    """Right, but that there is nothing but what it is trained on."""

    def __init__(self):
        super().__init__()
        self.valid_x = self.test_x = self.train_x


class WithoutAList(Right):
    """Right, but that its training examples are drawn, so that there is no list of them."""

    examples = None

    def batch(self, index, generator):
        return torch.randn(len(index), 5, generator=generator)


class MeasurementDrawn(Right):
    def measurement_batch(self, size):
        return self.valid_x[torch.randperm(10)[:size]]


class MeasuresMore(Right):
    def measurement_batch(self, size):
        return self.valid_x


class CountsProblems(Right):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def problem(self, x):
        self.seen += len(x)
        return super().problem(x)


class FigureUndeclared(Right):
    def evaluate(self, split):
        return super().evaluate(split) | {"elbo": -1.0}


class FigureMissing(Right):
    figures = Right.figures | {"accuracy": Figure("accuracy", "share right", "higher")}


class FiguresWithoutDirection(Right):
    figures = {"cost": Figure("expected cost", "nats")}


class FigureWithASlash(Right):
    figures = Right.figures | {"valid/cost": Figure("cost", "nats", "lower")}


class FigureThatIsATensor(Right):
    def evaluate(self, split):
        return {"cost": torch.tensor(super().evaluate(split)["cost"])}


class FigureNotFinite(Right):
    def evaluate(self, split):
        return {"cost": float("nan")}


class EvaluatesByPython(Right):
    def evaluate(self, split):
        return {"cost": random.random()}


class EvaluatesOtherwiseEachTime(Right):
    times = 0

    def evaluate(self, split):
        self.times += 1
        return {"cost": float(self.times)}


class StaysInEvaluation(Right):
    def evaluate(self, split):
        self.eval()
        return super().evaluate(split)


class TrainsInEvaluation(Right):
    def evaluate(self, split):
        with torch.no_grad():
            self.decoder.bias += 1e-3
        return super().evaluate(split)


class TrainsInEvaluationAndMeasuresMore(TrainsInEvaluation, MeasuresMore):
    pass


class LogitsWithoutGradient(Right):
    def logits(self, x):
        return super().logits(x).detach()


class PictureInPixels(Right):
    def show(self):
        return {"inputs": 255 * torch.rand(4, 4)}


class SharedCodes(Right):
    """Right, but that the objective and the logits have parameters in common, as those of codes."""

    def __init__(self):
        super().__init__()
        self.codes = nn.Parameter(torch.randn(self.C))

    def logits(self, x):
        return super().logits(x) * self.codes

    def cost(self, z, x):
        return super().cost(z * self.codes, x)


class NoisyInTraining(Right):
    def batch(self, index, generator):
        return super().batch(index, generator), True

    def measurement_batch(self, size):
        return super().measurement_batch(size), False

    def problem(self, batch):
        x, noisy = batch if isinstance(batch, tuple) else (batch, False)
        problem = super().problem(x)
        objective = problem.objective
        problem.objective = lambda z: objective(z) + noisy * torch.rand(z.shape[:-2])
        return problem


class ByBatchStatistics(Right):
    """Right, but that examples share statistics while training."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, self.K * self.C))

    @torch.no_grad()
    def evaluate(self, split):
        self.eval()
        try:
            return super().evaluate(split)
        finally:
            self.train()
