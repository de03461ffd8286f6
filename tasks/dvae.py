from collections.abc import Sequence

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from tasks.digits import digits
from tasks.vae import CategoricalVAE


class DiscreteVAE(CategoricalVAE):
    r"""Categorical autoencoder of binary images: see :class:`CategoricalVAE` for the figures and most arguments.

    Training images are binarised anew each time they are seen (a pixel is 1 with its grey level as probability),
    held-out images once and for all. Figures are in nats per image.

    Arguments:
        variables, categories: Numbers K and C of latent variables and of categories.
        encoder_widths, decoder_widths: Widths of the hidden layers.
        kl: ``analytic`` or ``sampled``.
        bound_samples: Draws per image of the figures on held-out images.
    """

    def __init__(
        self,
        variables: int = 20,
        categories: int = 10,
        encoder_widths: Sequence[int] = (200,),
        decoder_widths: Sequence[int] = (200,),
        kl: str = "analytic",
        bound_samples: int = 100,
    ):
        images = self.images()
        pixels = images["train"].shape[1]
        super().__init__(pixels, pixels, variables, categories, encoder_widths, decoder_widths, kl, bound_samples)
        self.examples = len(images["train"])
        for split, grey in images.items():
            fixed = grey if split == "train" else grey.bernoulli(generator=torch.Generator().manual_seed(1))
            self.register_buffer(f"{split}_images", fixed, persistent=False)

    def images(self):
        r"""Grey levels in [0, 1] by split, ``[N, D]``."""
        return digits()

    def batch(self, index, generator):
        return self.train_images[index].bernoulli(generator=generator)

    def held_out(self, split):
        return getattr(self, f"{split}_images")

    def features(self, x):
        return x

    def reconstruction(self, z, x):
        pixels = self.decoder(z.flatten(-2))
        return binary_cross_entropy_with_logits(pixels, x.expand_as(pixels), reduction="none").sum(-1)
