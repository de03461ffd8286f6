r"""Convolutional networks between the pixels of images of any size and features."""

from itertools import pairwise

from torch import Tensor, nn

from hardmax.checks import one_of

from .vae import activation_layer, initialised

Shape = tuple[int, int, int]
FILTERS = 16, 32  # after each convolution, which halves height and width


class OnImages(nn.Module):
    r"""Layers of images, applied to flat ones with any leading dimensions: ``[..., D] -> [..., D']``.

    Arguments:
        shape: Height, width and channels of what comes in, whose values lie as in :class:`hardmax.tasks.data.Images`.
        layers: ``[N, channels, height, width] -> [N, channels', height', width']``.
    """

    def __init__(self, shape: Shape, layers: nn.Sequential):
        super().__init__()
        self.shape, self.layers = shape, layers

    def forward(self, x: Tensor) -> Tensor:
        images = x.reshape(-1, *self.shape).movedim(-1, 1)
        return self.layers(images).movedim(1, -1).reshape(*x.shape[:-1], -1)


def shapes_of(shape: Shape) -> list[Shape]:
    r"""Height, width and channels of an image and after each convolution; an odd size is halved upwards."""
    found = [shape]
    for channels in FILTERS:
        height, width, _ = found[-1]
        found.append(((height + 1) // 2, (width + 1) // 2, channels))
    return found


def features_of(shape: Shape) -> int:
    r"""Number of features that :func:`to_features` gives for an image, and :func:`to_pixels` takes."""
    height, width, channels = shapes_of(shape)[-1]
    return height * width * channels


def to_features(shape: Shape, activation: str | float, initial_weights: str) -> OnImages:
    r"""Two convolutions of 3 by 3 pixels and stride 2, to 16 and 32 channels, each followed by an activation.

    Maps images ``[..., D]`` to features ``[..., F]``; height and width are halved twice, upwards where they are odd.

    Arguments:
        shape: Height, width and channels of an image, of D values.
        activation, initial_weights: See :func:`hardmax.tasks.vae.perceptron`.
    """
    layers: list[nn.Module] = []
    for (_, _, before), (_, _, after) in pairwise(shapes_of(shape)):
        convolution = nn.Conv2d(before, after, 3, stride=2, padding=1)
        layers += [initialised(convolution, initial_weights), activation_layer(activation)()]
    return OnImages(shape, nn.Sequential(*layers))


def to_pixels(shape: Shape, activation: str | float, initial_weights: str) -> OnImages:
    r"""The way back: transposed convolutions, each after an activation, from features ``[..., F]`` to ``[..., D]``.

    Arguments:
        shape: Height, width and channels of an image, of D values.
        activation, initial_weights: See :func:`hardmax.tasks.vae.perceptron`.
    """
    layers: list[nn.Module] = []
    shapes = shapes_of(shape)[::-1]
    for (_, _, before), (height, width, after) in pairwise(shapes):
        more = 1 - height % 2, 1 - width % 2  # an even size is that of 2n rather than of 2n - 1
        convolution = nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=more)
        layers += [activation_layer(activation)(), initialised(convolution, initial_weights)]
    return OnImages(shapes[0], nn.Sequential(*layers))


def is_convolutional(network: str) -> bool:
    r"""Whether ``network`` is ``convolutional``, and not ``perceptron``; ValueError for anything else."""
    return one_of(("perceptron", "convolutional"), network=network) == "convolutional"
