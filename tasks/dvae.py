from collections.abc import Sequence

from torch.nn.functional import binary_cross_entropy_with_logits

from tasks.data import Images, embedded_digits
from tasks.vae import CategoricalVAE


class DiscreteVAE(CategoricalVAE):
    r"""Categorical autoencoder of binary images: see :class:`CategoricalVAE` for the figures and most arguments.

    How images become binary is up to the data: see :class:`tasks.data.Images`. Figures are in nats per image.

    Arguments:
        variables, categories: Numbers K and C of latent variables and of categories.
        encoder_widths, decoder_widths: Widths of the hidden layers.
        kl: ``analytic`` or ``sampled``.
        bound_samples: Draws per image of the figures on held-out images.
        data: The images; None for the embedded digits.
    """

    def __init__(
        self,
        variables: int = 20,
        categories: int = 10,
        encoder_widths: Sequence[int] = (200,),
        decoder_widths: Sequence[int] = (200,),
        kl: str = "analytic",
        bound_samples: int = 100,
        data: Images | None = None,
    ):
        data = images_only(data)
        self.examples, pixels = data.train_images.shape
        super().__init__(pixels, pixels, variables, categories, encoder_widths, decoder_widths, kl, bound_samples)
        self.data = data

    def batch(self, index, generator):
        return self.data.batch(index, generator)

    def held_out(self, split):
        return self.data.held_out(split)

    def features(self, x):
        return x

    def reconstruction(self, z, x):
        pixels = self.decoder(z.flatten(-2))
        return binary_cross_entropy_with_logits(pixels, x.expand_as(pixels), reduction="none").sum(-1)


def images_only(data: Images | None) -> Images:
    r"""The data of a task about images: embedded ones if None; TypeError for anything else."""
    data = embedded_digits() if data is None else data
    if not isinstance(data, Images):
        raise TypeError(f"data must be images, got {type(data).__name__}")
    return data
