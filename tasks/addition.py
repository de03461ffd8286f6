from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hardmax.checks import all_at_least, at_least

from .base import Figure, Problem, Task
from .data import Images, images_only
from .vae import perceptron


class Addition(Task):
    r"""Learns to read digits of which nothing but the sum of N is known.

    A classifier sees each of N images by itself and gives the logits of its class, one variable of C classes each; the
    cost is 0 where the classes drawn add up to the right sum, and 1 where they do not. Every image of a split is in one
    group of N, with its neighbours in the order of the data; those left over are in none.

    The expected cost and its gradient are exact for any N, where enumeration would take C^N sums: the distribution of
    the sum is the convolution of the classes' distributions (:func:`distribution_of_sum`).

    The cost is one of draws, without a derivative, and estimators that need one are refused. The probability of a
    wrong sum, with relaxed z for the classes' distributions, would extend it to the simplex, but whoever computes that
    has the exact gradient at the same price, and ``softmax`` would be exact.

    Figures on held-out images: ``cost``, the expected cost, which is the probability of a wrong sum, exact;
    ``accuracy``, how many sums of the most probable classes are right; ``digit_accuracy``, how many of these are.

    References:
        | DeepProbLog: Neural Probabilistic Logic Programming (Manhaeve et al., 2018), which adds digits of MNIST and
          raises the logarithm of the probability of the right sum
        | https://arxiv.org/abs/1805.10872
        | Differentiable Sampling of Categorical Distributions Using the CatLog-Derivative Trick (De Smet et al., 2023),
          which estimates the gradient for long sums
        | https://arxiv.org/abs/2311.12569

    Arguments:
        digits: Number N of images in a sum, from 1 to the number of images in the smallest split.
        widths: Of the classifier's hidden layers; none makes it linear.
        data: Images with labels; None for the embedded digits.
    """

    figures = {
        "cost": Figure("probability of a wrong sum", better="lower"),
        "accuracy": Figure("accuracy of the sum", "share right", "higher"),
        "digit_accuracy": Figure("accuracy of a digit", "share right", "higher"),
        "loss": Figure("loss"),
    }

    train_classes: Tensor
    valid_classes: Tensor
    test_classes: Tensor

    def __init__(self, digits: int = 2, widths: Sequence[int] = (64,), data: Images | None = None):
        super().__init__()
        self.N = at_least(1, digits=digits)
        all_at_least(1, widths=widths)
        self.data = images_only(data)
        labels = self.data.classes()
        if (fewest := min(len(classes) for classes in labels.values())) < self.N:
            raise ValueError(f"digits must be at most the {fewest} images of the smallest split, got {digits}")
        for split, classes in labels.items():
            self.register_buffer(f"{split}_classes", self.in_groups(classes), persistent=False)
        known = int(max(classes.max() for classes in labels.values())) + 1
        self.examples = len(self.train_classes)
        self.classifier = perceptron([self.data.train_images.shape[1], *widths, known])

    def in_groups(self, each: Tensor) -> Tensor:
        r"""What there is of each image ``[I, ...]``, by group ``[I // N, N, ...]``."""
        return each[: len(each) // self.N * self.N].unflatten(0, (-1, self.N))

    def batch(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        members = index.unsqueeze(-1) * self.N + torch.arange(self.N, device=index.device)
        x = self.data.batch(members.flatten(), generator).unflatten(0, (-1, self.N))
        return x, self.train_classes[index].sum(-1)

    def held_out(self, split: str) -> tuple[Tensor, Tensor]:
        r"""Images ``[B, N, D]`` and classes ``[B, N]`` of all groups of the ``valid`` or ``test`` split."""
        return self.in_groups(self.data.held_out(split)), self.get_buffer(f"{split}_classes")

    def measurement_batch(self, size: int) -> tuple[Tensor, Tensor]:
        x, classes = self.held_out("valid")
        return x[:size], classes[:size].sum(-1)

    def problem(self, batch: tuple[Tensor, Tensor]) -> Problem:
        x, sums = batch
        return Problem(
            self.classifier(x),
            lambda z: (z.argmax(-1).sum(-1) != sums).to(z.dtype),
            context=x.flatten(-2),
            expected_cost=lambda logits: probability_of_another_sum(logits.softmax(-1), sums),
        )

    def encoder_parameters(self) -> list[nn.Parameter]:
        return list(self.classifier.parameters())

    @torch.no_grad()
    def evaluate(self, split: str) -> dict[str, float]:
        x, classes = self.held_out(split)
        logits = self.classifier(x)
        read, sums = logits.argmax(-1), classes.sum(-1)
        return {
            "cost": float(probability_of_another_sum(logits.softmax(-1), sums).mean()),
            "accuracy": float((read.sum(-1) == sums).float().mean()),
            "digit_accuracy": float((read == classes).float().mean()),
        }


def distribution_of_sum(p: Tensor) -> Tensor:
    r"""Probabilities ``[*batch, N(C - 1) + 1]`` of the sum of N independent classes from 0 to C - 1.

    Arguments:
        p: Probabilities of the classes, ``[*batch, N, C]``.
    """
    C, (first, *others) = p.shape[-1], p.unbind(-2)
    for each in others:
        windows = nn.functional.pad(first, (C - 1, C - 1)).unfold(-1, C, 1)  # [*batch, sums, C], the last first
        first = (windows @ each.flip(-1).unsqueeze(-1)).squeeze(-1)
    return first


def probability_of_another_sum(p: Tensor, sums: Tensor) -> Tensor:
    r"""Probability ``[*batch]`` that independent classes do not add up to ``sums``.

    Arguments:
        p: Probabilities of the classes, ``[*batch, N, C]``.
        sums: ``[*batch]``, or of its last dimensions.
    """
    distribution = distribution_of_sum(p)
    at = sums.expand(distribution.shape[:-1]).unsqueeze(-1)
    return 1 - distribution.gather(-1, at).squeeze(-1)
