r"""Reinforcement learning: the actions of an episode are the choices, and returns are what they cost."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hardmax.checks import all_at_least, at_least, positive
from hardmax.estimators.base import Estimator

from .base import Figure, Problem, Task
from .environments import Environment
from .simulation import Simulation, Start
from .vae import perceptron

SUCCESSIVE = 100  # episodes over which the mean return is taken
WORD = 2**63 - 1  # seeds are below it


class Episode(Task):
    r"""A policy learns from episodes: each state that one of them visits has one categorical variable, the action.

    A step samples B episodes of at most L steps under the policy. The logits ``[L, B, 1, C]`` are those in the states
    that were visited; after the end of an episode they are constants. The cost of an action at step t is minus the
    discounted return from t on, of the episode itself if that action was taken, else of a *branch*: an episode that
    leaves the true one at t with that action and follows the policy from then on (a pseudo-trajectory in the paper on
    ARSM). It is simulated as soon as an estimator asks for it. An estimator that first evaluates one draw, as
    REINFORCE and ARSM do, thereby takes the actions of the true episode, so that REINFORCE is what it always was and
    simulates nothing else. For one that evaluates several draws at once the task draws the true actions itself.

    What is estimated is the usual policy gradient, ``E[sum over t of the sum over a of Q(s_t, a) d pi(a | s_t)]``, with
    the sign of a cost and divided by L as losses are means. Returns Q are discounted, steps t are not: with a discount
    of 1, but with no other, it is the gradient of the expected return. Costs of steps after an episode's end are
    the mean over its steps, which changes nothing but keeps means of costs, which baselines are, what they are.

    All that is random in an episode and its branches but the true actions is drawn once, with the problem: at each
    step the true episode and all branches choose by the same number (common random numbers). Of more than ``branches``
    branches that an evaluation asks for in an episode, so many are simulated, chosen at random. Their difference from
    the true return counts in proportion, and that of the others is 0, so the gradient has the same expectation. The
    authors of ARSM choose at random in the same way, but without the proportion, which makes gradients of long episodes
    smaller, and draw numbers anew for each branch unless told otherwise. When gradients are measured all branches are
    simulated.

    Black-box estimators of the expected cost can be trained. Those that differentiate the objective, and multi-sample
    bounds, are refused. So is, at one episode a step, REINFORCE with ``baseline=batch``, the mean of other episodes.

    Figures: ``return``, the mean over 100 fresh episodes, not discounted; ``solved``, 1 once 100 successive training
    episodes had the mean return at which the environment counts as solved, else 0; ``steps_to_solve``, the steps that
    were simulated in training until then, branches and the batch's other episodes included, and ``episodes_to_solve``:
    of a run that has not got there both are what it took so far, and so too low; ``steps``, ``episodes`` and
    ``branches`` that were simulated in training so far.

    References:
        | ARSM: Augment-REINFORCE-swap-merge estimator for gradient backpropagation through categorical variables (Yin,
          Yue and Zhou, 2019)
        | https://arxiv.org/abs/1905.01413
        | Policy Gradient Methods for Reinforcement Learning with Function Approximation (Sutton et al., 1999)
        | https://papers.nips.cc/paper/1713

    Arguments:
        environment: What the episodes take place in.
        widths: Of the policy's hidden layers, with ReLU; none makes it linear.
        discount: Of rewards, per step, above 0 and up to 1.
        branches: How many branches of an episode an evaluation simulates at most; None for all.
        scale: Standard deviation of the policy's first weights; its biases begin at 0.1.
    """

    figures = {
        "return": Figure("mean return", "reward per episode", "higher"),
        "solved": Figure("solved", "share of runs", "higher"),
        "steps_to_solve": Figure("simulated steps until solved, or so far", "steps", "lower"),
        "episodes_to_solve": Figure("training episodes until solved, or so far", "episodes", "lower"),
        "steps": Figure("simulated steps", "steps"),
        "episodes": Figure("training episodes", "episodes"),
        "branches": Figure("simulated branches", "branches"),
    }

    last: Tensor
    counts: Tensor
    solved_at: Tensor

    def __init__(
        self,
        environment: Environment,
        widths: Sequence[int] = (10, 10),
        discount: float = 0.99,
        branches: int | None = 16,
        scale: float = 0.3,
    ):
        super().__init__()
        self.environment = environment
        self.discount = positive(discount=discount)
        if discount > 1:
            raise ValueError(f"discount must be above 0 and at most 1, got {discount}")
        self.branches = branches if branches is None else at_least(1, branches=branches)
        sizes = [environment.features, *all_at_least(1, widths=widths), environment.actions]
        self.policy = perceptron(sizes)
        deviation = positive(scale=scale)
        for parameter in self.policy.parameters():
            nn.init.normal_(parameter, std=deviation) if parameter.ndim == 2 else nn.init.constant_(parameter, 0.1)
        self.asked: tuple[Estimator, ...] = ()  # the estimator that takes the true actions; no part of the task
        self.latest: Simulation | None = None
        self.history = ("last", "counts", "solved_at")
        self.register_buffer("last", torch.zeros(SUCCESSIVE, dtype=torch.float64))  # returns, the oldest first
        self.register_buffer("counts", torch.zeros(3, dtype=torch.long))  # of steps, episodes, branches
        self.register_buffer("solved_at", torch.full((2,), -1, dtype=torch.long))  # steps, episodes
        weight = next(self.policy.parameters())
        weight.register_post_accumulate_grad_hook(lambda _: self.count())  # once in a step of training

    def nest(self, estimator: Estimator) -> None:
        name = type(estimator).__name__
        if estimator.differentiates_objective:
            raise ValueError(f"{name} differentiates the cost, and the return of an episode has no derivative")
        if estimator.target != "expectation":
            raise ValueError(f"{name} does not estimate the expected cost, which the return of an episode needs")
        super().nest(estimator)
        self.asked = (estimator,)

    @contextmanager
    def using(self, estimator: Estimator) -> Iterator[None]:
        before = self.asked
        try:
            with super().using(estimator):
                self.asked = (estimator,)
                yield
        finally:
            self.asked = before

    def batch(self, index: Tensor, generator: torch.Generator) -> Start:
        seed = torch.randint(WORD, (), generator=generator, device=generator.device)
        return Start(int(seed), len(index), self.branches)

    def measurement_batch(self, size: int) -> Start:
        return Start(0, size, None)

    def encoder_parameters(self) -> list[nn.Parameter]:
        return list(self.policy.parameters())

    @torch.compiler.disable
    def problem(self, batch: Start) -> Problem:
        self.latest = self.simulation(batch, self.asked)
        return self.latest.problem()

    def simulation(self, start: Start, asked: Sequence[Estimator] = ()) -> Simulation:
        r"""Episodes under the policy, whose actions the one estimator takes, where one is given."""
        return Simulation(self.environment, self.policy, self.discount, start, next(iter(asked), None))

    def count(self) -> None:
        r"""Takes in the latest episodes, those of a training step."""
        done = self.latest
        assert done is not None
        before = int(self.counts[1])
        self.counts += self.counts.new_tensor([done.steps, done.start.episodes, done.branches])
        for n, value in enumerate(done.returns(), before + 1):
            self.last.copy_(torch.cat([self.last[1:], self.last.new_tensor([value])]))
            enough = n >= SUCCESSIVE and float(self.last.mean()) >= self.environment.solved
            if enough and int(self.solved_at[0]) < 0:
                self.solved_at.copy_(self.counts.new_tensor([int(self.counts[0]), n]))

    @torch.no_grad()
    def evaluate(self, split: str) -> dict[str, float]:
        fresh = self.simulation(Start(int(torch.randint(WORD, ())), SUCCESSIVE, None))
        steps, episodes, branches = map(float, self.counts)
        solved = int(self.solved_at[0]) >= 0
        to_solve = map(float, self.solved_at) if solved else (steps, episodes)
        found = {"return": float(fresh.returns().mean()), "solved": float(solved)}
        found |= dict(zip(("steps_to_solve", "episodes_to_solve"), to_solve, strict=True))
        return found | {"steps": steps, "episodes": episodes, "branches": branches}
