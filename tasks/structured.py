import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hardmax.checks import all_at_least, at_least
from hardmax.estimators import sampling

from .base import Figure, Problem, Task
from .convolutions import features_of, is_convolutional, to_features, to_pixels
from .data import Images, images_only
from .dvae import bernoulli_nats, grid
from .vae import draws_of, perceptron


class Structured(Task):
    r"""Predicts the lower half of a binary image from its upper half through layers of categorical variables.

    The objective is -log p(lower half | z) in nats, z being drawn layer by layer from the upper half; each layer
    after the first has an estimator of its own. Of an odd number of rows the lower half has one more; one row is cut
    in its middle. Figures, with discrete draws, in nats per image: ``cost``, the mean
    of the objective, and ``nll``, the negative logarithm of the mean likelihood over ``bound_samples`` draws, which
    is at least the negative log-likelihood in expectation, and falls towards it with the number of draws.

    References:
        | Techniques for Learning Binary Stochastic Feedforward Neural Networks (Raiko et al., 2015)
        | https://arxiv.org/abs/1406.2989
        | Categorical Reparameterization with Gumbel-Softmax (Jang et al., 2017), Section 4.1 and Table 1
        | https://arxiv.org/abs/1611.01144

    Arguments:
        variables, categories: Numbers K and C of a layer; 200 and 2, or 20 and 10, in the paper's table.
        layers: Number of stochastic layers.
        widths: Of the hidden layers between a stochastic layer and the next; none makes it linear.
        activation: Of the hidden layers: see :func:`hardmax.tasks.vae.perceptron`.
        bound_samples: Draws per image of the figures on held-out images; 1000 in the paper.
        data: The images; None for the embedded digits.
        initial_weights: Of the networks: see :func:`hardmax.tasks.vae.perceptron`.
        test_samples: Draws per image of the figures on the test split; None: ``bound_samples``.
        network: ``perceptron``, or ``convolutional``: two convolutions before the first layer and two transposed ones
            at the end, which halve and double height and width.
    """

    figures = {
        "nll": Figure("negative log-likelihood", "nats", "lower"),
        "cost": Figure("expected cost", "nats", "lower"),
        "loss": Figure("loss", "nats"),
    }

    upper_pixels: int

    def __init__(
        self,
        variables: int = 20,
        categories: int = 10,
        layers: int = 2,
        widths: Sequence[int] = (),
        activation: str | float = "relu",
        bound_samples: int = 1000,
        data: Images | None = None,
        initial_weights: str = "fan_in",
        test_samples: int | None = None,
        network: str = "perceptron",
    ):
        super().__init__()
        all_at_least(1, widths=widths)
        self.data = images_only(data)
        self.K, self.C = at_least(1, variables=variables), at_least(1, categories=categories)
        self.nested = at_least(1, layers=layers) - 1
        self.draws = draws_of(bound_samples, test_samples)
        self.examples, pixels = self.data.train_images.shape
        height, width, channels = self.data.shape
        self.upper_pixels = height // 2 * width * channels if height > 1 else pixels // 2
        size = self.K * self.C
        made = lambda *widths: perceptron(widths, activation, initial_weights)
        if not is_convolutional(network):
            inputs = [self.upper_pixels, *[size] * self.nested]
            self.networks = nn.ModuleList(made(n, *widths, size) for n in inputs)
            self.decoder = made(size, *widths, pixels - self.upper_pixels)
            return
        if height < 2:
            raise ValueError(f"network=convolutional needs images of at least 2 rows, got {height}")
        upper, lower = (height // 2, width, channels), (height - height // 2, width, channels)
        first = made(features_of(upper), *widths, size)
        first = nn.Sequential(to_features(upper, activation, initial_weights), first)
        self.networks = nn.ModuleList([first, *(made(size, *widths, size) for _ in range(self.nested))])
        last = to_pixels(lower, activation, initial_weights)
        self.decoder = nn.Sequential(made(size, *widths, features_of(lower)), last)

    def batch(self, index: Tensor, generator: torch.Generator) -> Tensor:
        return self.data.batch(index, generator)

    def measurement_batch(self, size: int) -> Tensor:
        return self.data.held_out("valid")[:size]

    def problem(self, batch: Tensor) -> Problem:
        upper, lower = batch.tensor_split([self.upper_pixels], -1)
        return Problem(self.logits(upper, 0), lambda z: self.cost(z, lower, 0), context=upper)

    def logits(self, below: Tensor, layer: int) -> Tensor:
        r"""Logits ``[..., K, C]`` of a layer, given what lies below it ``[..., D]``."""
        return self.networks[layer](below).unflatten(-1, (self.K, self.C))

    def cost(self, z: Tensor, lower: Tensor, layer: int) -> Tensor:
        r"""-log p(lower half | z) ``[...]`` in nats for z ``[..., K, C]`` of a layer, those above being drawn."""
        flat = z.flatten(-2)
        if layer == self.nested:
            return bernoulli_nats(self.decoder(flat), lower)
        logits = self.logits(flat, layer + 1)
        return self.inner[layer](logits, lambda higher: self.cost(higher, lower, layer + 1), flat.detach())

    def predicted(self, upper: Tensor) -> Tensor:
        r"""Logits of the lower half's pixels ``[N, D]`` at a draw of all layers."""
        for layer in range(len(self.networks)):
            upper = sampling.draw(self.logits(upper, layer), 1)[0].flatten(-2)
        return self.decoder(upper)

    def encoder_parameters(self) -> list[nn.Parameter]:
        return list(self.networks[0].parameters())

    @torch.no_grad()
    def evaluate(self, split: str) -> dict[str, float]:
        upper, lower = self.data.held_out(split).tensor_split([self.upper_pixels], -1)
        nats = torch.stack([bernoulli_nats(self.predicted(upper), lower) for _ in range(self.draws[split])])
        nll = math.log(len(nats)) - (-nats).logsumexp(0)
        return {"nll": float(nll.mean()), "cost": float(nats.mean())}

    @torch.no_grad()
    def show(self) -> dict[str, list[dict[str, str]] | Tensor]:
        x = self.data.held_out("test")[:50]
        upper = x[:, : self.upper_pixels]
        completed = torch.cat([upper, self.predicted(upper).sigmoid()], -1)
        return {"completions": grid(torch.stack([x, completed]), self.data.shape)}
