import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hardmax.checks import all_at_least, at_least

from .base import Figure, Problem, Task
from .data import Images, images_only
from .vae import perceptron


class Routing(Task):
    r"""Classifies images by a mixture of experts, of which a router sends each image to one.

    The choice of the expert is one categorical variable, whose cost is the cross-entropy of the class in nats under
    that expert; relaxations mix the experts' logits. Nothing but the choice's own cost keeps the load balanced.

    Figures on held-out images: ``cost``, the expected cross-entropy under the router's probabilities, exact;
    ``accuracy`` of the most probable expert; ``balance``, the entropy of how often each expert is the most probable,
    over its maximum: 1 if all are used alike, 0 if one does everything.

    References:
        | Adaptive Mixtures of Local Experts (Jacobs et al., 1991)
        | https://doi.org/10.1162/neco.1991.3.1.79
        | Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer (Shazeer et al., 2017)
        | https://arxiv.org/abs/1701.06538

    Arguments:
        experts: Number C of experts.
        router_widths: Of the router's hidden layers; none makes it linear.
        expert_widths: Of each expert's hidden layers; none makes it linear.
        data: Images with labels; None for the embedded digits.
    """

    figures = {
        "cost": Figure("expected cross-entropy", "nats", "lower"),
        "accuracy": Figure("accuracy", "share right", "higher"),
        "balance": Figure("balance of the experts", "share of the highest entropy"),
        "loss": Figure("loss", "nats"),
    }

    train_classes: Tensor
    valid_classes: Tensor
    test_classes: Tensor

    def __init__(
        self,
        experts: int = 8,
        router_widths: Sequence[int] = (32,),
        expert_widths: Sequence[int] = (),
        data: Images | None = None,
    ):
        super().__init__()
        all_at_least(1, router_widths=router_widths), all_at_least(1, expert_widths=expert_widths)
        self.data = images_only(data)
        labels = self.data.classes()
        for split, classes in labels.items():
            self.register_buffer(f"{split}_classes", classes, persistent=False)
        known = int(max(classes.max() for classes in labels.values())) + 1
        self.examples, pixels = self.data.train_images.shape
        self.router = perceptron([pixels, *router_widths, at_least(1, experts=experts)])
        self.experts = nn.ModuleList(perceptron([pixels, *expert_widths, known]) for _ in range(experts))

    def batch(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self.data.batch(index, generator), self.train_classes[index]

    def measurement_batch(self, size: int) -> tuple[Tensor, Tensor]:
        return self.data.held_out("valid")[:size], self.valid_classes[:size]

    def problem(self, batch: tuple[Tensor, Tensor]) -> Problem:
        x, classes = batch
        opinions = self.opinions(x)

        def objective(z: Tensor) -> Tensor:
            return nats((z @ opinions).squeeze(-2), classes)

        return Problem(self.router(x).unsqueeze(-2), objective, context=x)

    def opinions(self, x: Tensor) -> Tensor:
        r"""Logits of the classes ``[N, experts, classes]`` that each expert gives images ``[N, D]``."""
        return torch.stack([expert(x) for expert in self.experts], -2)

    def encoder_parameters(self) -> list[nn.Parameter]:
        return list(self.router.parameters())

    @torch.no_grad()
    def evaluate(self, split: str) -> dict[str, float]:
        x, classes = self.data.held_out(split), self.get_buffer(f"{split}_classes")
        logits, opinions = self.router(x), self.opinions(x)
        costs = nats(opinions.transpose(0, 1), classes).T  # [N, experts]
        chosen = logits.argmax(-1)
        answers = opinions[torch.arange(len(x), device=x.device), chosen].argmax(-1)
        load = chosen.bincount(minlength=len(self.experts)) / len(x)
        entropy = -torch.special.xlogy(load, load).sum()
        return {
            "cost": float((logits.softmax(-1) * costs).sum(-1).mean()),
            "accuracy": float((answers == classes).float().mean()),
            "balance": abs(float(entropy)) / math.log(len(self.experts)) if len(self.experts) > 1 else 1.0,
        }


def nats(logits: Tensor, classes: Tensor) -> Tensor:
    r"""Cross-entropy in nats ``[..., N]`` of classes ``[N]`` under logits ``[..., N, classes]``."""
    found = cross_entropy(logits.flatten(0, -2), classes.expand(logits.shape[:-1]).flatten(), reduction="none")
    return found.view(logits.shape[:-1])
