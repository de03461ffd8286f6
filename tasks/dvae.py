from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from hardmax.estimators import sampling

from .data import Images, images_only
from .vae import CategoricalVAE

GRID = 50  # images in a picture


class DiscreteVAE(CategoricalVAE):
    r"""Categorical autoencoder of binary images: see :class:`CategoricalVAE` for the figures and most arguments.

    How images become binary is up to the data: see :class:`hardmax.tasks.data.Images`. Figures are in nats per image.

    Arguments:
        variables, categories: Numbers K and C of latent variables and of categories.
        encoder_widths, decoder_widths: Widths of the hidden layers.
        kl: ``analytic`` or ``sampled``.
        bound_samples: Draws per image of the figures on held-out images.
        layers, activation, prior, pinned: See :class:`CategoricalVAE`.
        data: The images; None for the embedded digits.
        initial_weights, test_samples: See :class:`CategoricalVAE`.
    """

    def __init__(
        self,
        variables: int = 20,
        categories: int = 10,
        encoder_widths: Sequence[int] = (200,),
        decoder_widths: Sequence[int] = (200,),
        kl: str = "analytic",
        bound_samples: int = 100,
        layers: int = 1,
        activation: str | float = "relu",
        prior: str = "uniform",
        pinned: bool = False,
        data: Images | None = None,
        initial_weights: str = "fan_in",
        test_samples: int | None = None,
    ):
        data = images_only(data)
        self.examples, pixels = data.train_images.shape
        model = layers, activation, prior, pinned, initial_weights, test_samples
        super().__init__(
            pixels, pixels, variables, categories, encoder_widths, decoder_widths, kl, bound_samples, *model
        )
        self.data = data

    def batch(self, index: Tensor, generator: torch.Generator) -> Tensor:
        return self.data.batch(index, generator)

    def held_out(self, split: str) -> Tensor:
        return self.data.held_out(split)

    def features(self, x: Tensor) -> Tensor:
        return x

    def reconstruction(self, z: Tensor, x: Tensor) -> Tensor:
        return bernoulli_nats(self.decoder(z.flatten(-2)), x)

    @torch.no_grad()
    def show(self) -> dict[str, list[dict[str, str]] | Tensor]:
        x = self.held_out("test")[:GRID]
        z = sampling.draw(self.logits(self.features(x)), 1)[0]
        found = {"reconstructions": torch.stack([x, self.decoder(z.flatten(-2)).sigmoid()])}
        found["prior_samples"] = self.decoder(self.generated(GRID).flatten(-2)).sigmoid().unsqueeze(0)
        return {name: grid(images, self.data.shape) for name, images in found.items()}


def bernoulli_nats(logits: Tensor, x: Tensor) -> Tensor:
    r"""-log p(x) in nats ``[...]`` of binary pixels x ``[*batch, D]`` under logits ``[..., *batch, D]``."""
    return binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)


def grid(images: Tensor, shape: tuple[int, int, int]) -> Tensor:
    r"""One picture of images ``[P, N, D]``, in which each example's P images lie below each other.

    Arguments:
        images: In [0, 1].
        shape: Height, width and channels of an image.

    Returns:
        Grey levels ``[height, width]``, or of three channels ``[height, width, 3]``.
    """
    columns = 10
    lines = images.unflatten(-1, shape).split(columns, 1)  # each [P, 10, height, width, channels]
    full = [nn.functional.pad(line, (0, 0, 1, 1, 1, 1, 0, columns - line.shape[1]), value=0.5) for line in lines]
    return torch.cat([line.transpose(1, 2).flatten(0, 1).flatten(1, 2) for line in full]).squeeze(-1)
