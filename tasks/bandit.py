from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hardmax.checks import all_at_least, at_least, positive

from .base import Figure, Problem, Task
from .vae import perceptron


class Bandit(Task):
    r"""A contextual bandit: a policy chooses one of C arms by the context, and pays what that arm costs there.

    Contexts x of D numbers and the arms' places a_c are drawn from a normal distribution, the same every time for a
    seed. An arm costs ``|x - a_c|^2 / (2 D)``, so the best one is the nearest. The cost of every arm is known: expected
    cost, optimum and gradient are exact. A cost is linear in z, so relaxations mix the costs of arms, and what is exact
    for linear costs is exact here.

    Figures on held-out contexts: ``gap``, the expected cost above the optimum; ``cost``, the expected cost under the
    policy; ``optimum``, the mean cost of the best arm; ``best``, the probability of the best arm.

    References:
        | A Contextual-Bandit Approach to Personalized News Article Recommendation (Li et al., 2010)
        | https://arxiv.org/abs/1003.0146

    Arguments:
        arms: Number C of arms.
        features: Number D of numbers of a context.
        widths: Of the policy's hidden layers, with ReLU; none makes it linear.
        contexts: Number of training contexts; there are as many to validate and to test.
        seed: Of contexts and arms.
        spread: Standard deviation of the arms' places, above 0; that of the contexts is 1.
    """

    figures = {
        "gap": Figure("expected cost above the optimum", better="lower"),
        "cost": Figure("expected cost", better="lower"),
        "best": Figure("probability of the best arm", better="higher"),
        "optimum": Figure("mean cost of the best arm"),
    }

    places: Tensor
    contexts: Tensor

    def __init__(
        self,
        arms: int = 10,
        features: int = 8,
        widths: Sequence[int] = (32,),
        contexts: int = 1000,
        seed: int = 0,
        spread: float = 1.0,
    ):
        super().__init__()
        C, D = at_least(1, arms=arms), at_least(1, features=features)
        self.examples = at_least(1, contexts=contexts)
        self.policy = perceptron([D, *all_at_least(1, widths=widths), C])
        generator = torch.Generator().manual_seed(at_least(0, seed=seed))
        places = positive(spread=spread) * torch.randn(C, D, generator=generator)
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("contexts", torch.randn(3, contexts, D, generator=generator), persistent=False)

    def batch(self, index: Tensor, generator: torch.Generator) -> Tensor:
        return self.contexts[0, index]

    def measurement_batch(self, size: int) -> Tensor:
        return self.held_out("valid")[:size]

    def held_out(self, split: str) -> Tensor:
        r"""Contexts ``[N, D]`` of the ``valid`` or ``test`` split."""
        return self.contexts[("train", "valid", "test").index(split)]

    def costs(self, x: Tensor) -> Tensor:
        r"""Of all arms ``[N, C]`` in contexts ``[N, D]``."""
        return (x.unsqueeze(-2) - self.places).square().mean(-1) / 2

    def problem(self, batch: Tensor) -> Problem:
        costs = self.costs(batch)
        return Problem(self.policy(batch).unsqueeze(-2), lambda z: (z.squeeze(-2) * costs).sum(-1), context=batch)

    def encoder_parameters(self) -> list[nn.Parameter]:
        return list(self.policy.parameters())

    @torch.no_grad()
    def evaluate(self, split: str) -> dict[str, float]:
        x = self.held_out(split)
        p, costs = self.policy(x).softmax(-1), self.costs(x)
        lowest, best = costs.min(-1)
        cost, optimum = float((p * costs).sum(-1).mean()), float(lowest.mean())
        found = {"gap": cost - optimum, "cost": cost, "optimum": optimum}
        return found | {"best": float(p.gather(-1, best.unsqueeze(-1)).mean())}
