r"""Real data sets in their standard file formats, and the images that tasks are given."""

from .images import Images
from .own import own_images
from .sets import binarized_mnist, embedded_digits, fashion_mnist, images_only, mnist, omniglot

__all__ = [
    "Images",
    "binarized_mnist",
    "embedded_digits",
    "fashion_mnist",
    "images_only",
    "mnist",
    "omniglot",
    "own_images",
]
