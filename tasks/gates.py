import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from hardmax.checks import all_at_least, positive

from .base import Figure, Problem, Task
from .data import Images, images_only
from .routing import nats


class Gates(Task):
    r"""Classifies binary images by a network of logic gates, each of which is one of the 16 that two inputs have.

    Each neuron of a layer reads two outputs of the layer below, wired at random and for good; the first layer reads
    pixels. The choices of gates are K variables of 16 categories, of all layers together, and their logits are
    parameters. The last layer's neurons are divided among the classes; a class's logit is the sum of its neurons over
    ``temperature``, and the cost the cross-entropy in nats. For relaxed z a neuron gives the mean of the gates'
    real-valued forms, in which *and* is a product, at real-valued inputs.

    Each image of a batch has its own draw of all gates: examples are independent, as estimators have it, and the mean
    over a batch has less noise than if all shared one network. Enumeration is out of reach beyond 3 neurons; an
    estimator that evaluates at every category, such as ``local_expectation``, takes 15 K + 1 evaluations.

    Figures on held-out images: ``accuracy``, of the network of the most probable gates, which is what is used in the
    end; ``soft_accuracy``, of the relaxed network of all gates' probabilities; ``gap``, by how much the second is
    above the first, the discretisation gap; ``cost``, the cross-entropy of the first.

    References:
        | Deep Differentiable Logic Gate Networks (Petersen et al., 2022), which trains the relaxed network: ``softmax``
        | https://arxiv.org/abs/2210.08277
        | Mind the Gap: Removing the Discretization Gap in Differentiable Logic Gate Networks (Yousefi et al., 2025),
          which narrows the gap by straight-through Gumbel-softmax: ``st_gumbel_softmax``
        | https://arxiv.org/abs/2506.07500

    Arguments:
        widths: Numbers of neurons in the layers, which add up to K; the last is a multiple of the number of classes.
        temperature: What sums of neurons are divided by, above 0.
        data: Binary images with labels; None for the embedded digits.
    """

    figures = {
        "accuracy": Figure("accuracy of the likeliest gates", "share right", "higher"),
        "soft_accuracy": Figure("accuracy of the relaxed network", "share right", "higher"),
        "gap": Figure("discretisation gap", "share right", "lower"),
        "cost": Figure("cross-entropy of the likeliest gates", "nats", "lower"),
        "loss": Figure("loss", "nats"),
    }

    terms: Tensor
    train_classes: Tensor
    valid_classes: Tensor
    test_classes: Tensor

    def __init__(self, widths: Sequence[int] = (200, 200), temperature: float = 2.0, data: Images | None = None):
        super().__init__()
        self.widths, self.temperature = all_at_least(1, widths=widths), positive(temperature=temperature)
        self.data = images_only(data)
        held_out = self.data.held_out("valid")
        if not ((held_out == 0) | (held_out == 1)).all():
            raise ValueError("data must be binary images, these have grey levels: data.binarisation=threshold, say")
        labels = self.data.classes()
        for split, classes in labels.items():
            self.register_buffer(f"{split}_classes", classes, persistent=False)
        self.classes = int(max(classes.max() for classes in labels.values())) + 1
        if not self.widths or self.widths[-1] % self.classes:
            raise ValueError(f"widths must end with a multiple of the {self.classes} classes, got {list(widths)}")
        self.examples, pixels = self.data.train_images.shape
        for layer, (inputs, neurons) in enumerate(pairwise([pixels, *self.widths])):
            self.register_buffer(f"wires_{layer}", wires(inputs, neurons))
        self.register_buffer("terms", gates_as_sums(), persistent=False)
        self.logits = nn.Parameter(torch.randn(sum(self.widths), 16))

    def batch(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self.data.batch(index, generator), self.train_classes[index]

    def measurement_batch(self, size: int) -> tuple[Tensor, Tensor]:
        return self.data.held_out("valid")[:size], self.valid_classes[:size]

    def problem(self, batch: tuple[Tensor, Tensor]) -> Problem:
        x, classes = batch
        logits = self.logits.expand(len(x), *self.logits.shape)
        return Problem(logits, lambda z: nats(self.scores(z, x), classes), context=x)

    def scores(self, z: Tensor, x: Tensor) -> Tensor:
        r"""Logits of the classes ``[..., B, classes]`` of images ``[B, D]`` under gates z ``[..., B or 1, K, 16]``."""
        each = (z @ self.terms).split(self.widths, -2)
        for layer, of_layer in enumerate(each):
            first, second = self.get_buffer(f"wires_{layer}")
            one, a, b, both = of_layer.unbind(-1)
            left, right = x[..., first], x[..., second]
            x = one + a * left + b * right + both * left * right
        return x.unflatten(-1, (self.classes, -1)).sum(-1) / self.temperature

    def encoder_parameters(self) -> list[nn.Parameter]:
        return [self.logits]

    @torch.no_grad()
    def evaluate(self, split: str) -> dict[str, float]:
        x, classes = self.data.held_out(split), self.get_buffer(f"{split}_classes")
        likeliest = nn.functional.one_hot(self.logits.argmax(-1), 16).to(self.logits.dtype)
        hard, soft = (self.scores(z.unsqueeze(0), x) for z in (likeliest, self.logits.softmax(-1)))
        accuracy, of_soft = (float((scores.argmax(-1) == classes).float().mean()) for scores in (hard, soft))
        cost = float(nats(hard, classes).mean())
        return {"accuracy": accuracy, "soft_accuracy": of_soft, "gap": of_soft - accuracy, "cost": cost}


def gates_as_sums() -> Tensor:
    r"""The 16 gates of inputs a and b as weights of 1, a, b and ab, ``[16, 4]``.

    Binary digits of a gate's number are its outputs for (a, b) = (0, 0), (0, 1), (1, 0) and (1, 1): 1 is *and*,
    6 is *exclusive or*, 7 is *or*.
    """
    of_00, of_01, of_10, of_11 = ((torch.arange(16) >> torch.arange(3, -1, -1).unsqueeze(-1)) & 1).float()
    return torch.stack([of_00, of_10 - of_00, of_01 - of_00, of_11 - of_10 - of_01 + of_00], -1)


def wires(inputs: int, neurons: int) -> Tensor:
    r"""Which two of the inputs each neuron reads, ``[2, neurons]``: two different ones, the first used in turn."""
    turns = torch.cat([torch.randperm(inputs) for _ in range(math.ceil(neurons / inputs))])[:neurons]
    return torch.stack([turns, (turns + 1 + torch.randint(max(inputs - 1, 1), (neurons,))) % inputs])
