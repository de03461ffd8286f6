r"""Images by split, and how grey levels become binary pixels."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hardmax.checks import one_of

BINARISATIONS = ("dynamic", "static", "threshold", "none")


class Images(nn.Module):
    r"""Images by split, as grey levels in [0, 1], and how they become binary.

    Arguments:
        train, valid, test: Grey levels, ``[N, D]``, of any precision; kept as float32.
        binarisation: ``dynamic``: a pixel is 1 with its grey level as probability, drawn anew each time a training
            image is seen, and once and for all for held-out images; ``static``: drawn once and for all;
            ``threshold``: 1 from a grey level of one half on; ``none``: grey levels as they are, whose
            cross-entropy is no likelihood, so that such figures compare with no others.
        labels: Reads the classes ``[N]`` by split; None if there are none.
        shape: Height, width and channels (1: grey, 3: red, green and blue) of an image, whose D values lie row by row,
            the channels of a pixel beside each other; None: a grey square if D is a square number, else one grey row.

    Attributes:
        shape: Height, width and channels.

    Raises:
        ValueError: If images or labels are of another shape, or have other values.
    """

    train_images: Tensor
    valid_images: Tensor
    test_images: Tensor

    def __init__(
        self,
        train: Tensor,
        valid: Tensor,
        test: Tensor,
        binarisation: str = "dynamic",
        labels: Callable[[], dict[str, Tensor]] | None = None,
        shape: Sequence[int] | None = None,
    ):
        super().__init__()
        self.binarisation = one_of(BINARISATIONS, binarisation=binarisation)
        self.dynamic = binarisation == "dynamic"
        images = {"train": train, "valid": valid, "test": test}
        check_grey(images)
        self.shape = shape_of(train.shape[1], shape)
        sizes = {split: len(grey) for split, grey in images.items()}
        self.labels = labels and (lambda: checked_labels(labels(), sizes))
        for split, grey in images.items():
            grey = grey.float()
            kept = grey if self.dynamic and split == "train" else self.fixed(grey)
            self.register_buffer(f"{split}_images", kept, persistent=False)

    def fixed(self, grey: Tensor) -> Tensor:
        r"""Grey levels ``[N, D]`` as pixels that stay the same."""
        match self.binarisation:
            case "none":
                return grey
            case "threshold":
                return (grey >= 0.5).to(grey.dtype)
        return grey.bernoulli(generator=torch.Generator().manual_seed(1))

    def classes(self) -> dict[str, Tensor]:
        r"""Classes ``[N]`` by split; ValueError if there are none."""
        if self.labels is None:
            raise ValueError(
                "data must have labels, these images have none: a function gives them as Images(..., labels=), an .npz "
                "file as train_labels and so on"
            )
        return self.labels()

    def batch(self, index: Tensor, generator: torch.Generator) -> Tensor:
        r"""Training images of the indices ``[B]``: ``[B, D]``."""
        images = self.train_images.index_select(0, index)
        if not self.dynamic:
            return images
        noise = torch.rand(images.shape, dtype=images.dtype, device=images.device, generator=generator)
        return (noise < images).to(images.dtype)  # twice as fast as bernoulli

    def held_out(self, split: str) -> Tensor:
        r"""Images of the ``valid`` or ``test`` split, ``[N, D]``."""
        return self.get_buffer(f"{split}_images")


def check_grey(images: dict[str, Tensor]) -> None:
    r"""Refuses what are no grey levels in [0, 1], ``[N, D]`` with the same D in every split."""
    for split, grey in images.items():
        if grey.ndim != 2 or not grey.numel():
            more = ": flatten(1) makes them so" * (grey.ndim > 2)
            raise ValueError(f"{split} images must be [N, D] with at least one pixel, got {list(grey.shape)}{more}")
        if grey.shape[1] != images["train"].shape[1]:
            raise ValueError(f"{split} images have {grey.shape[1]} pixels, training images {images['train'].shape[1]}")
        low, high = grey.min().item(), grey.max().item()
        if not grey.is_floating_point() or not (low >= 0 and high <= 1):
            kind = str(grey.dtype).removeprefix("torch.")
            more = ": divide them by 255" * (1 < high <= 255)
            raise ValueError(f"{split} images must be floats from 0 to 1, got {kind} from {low:g} to {high:g}{more}")


def shape_of(pixels: int, shape: Sequence[int] | None) -> tuple[int, int, int]:
    r"""Height, width and channels of images of so many values; ValueError if ``shape`` is not of these."""
    if shape is None:
        side = math.isqrt(pixels)
        return (side, side, 1) if side**2 == pixels else (1, pixels, 1)
    match tuple(shape):
        case (int(height), int(width), 1 | 3 as channels) if height * width * channels == pixels and height > 0:
            return height, width, channels
    raise ValueError(f"shape must be height, width and 1 or 3 channels of {pixels} values, got {list(shape)}")


def checked_labels(labels: dict[str, Tensor], images_of: dict[str, int]) -> dict[str, Tensor]:
    r"""The labels, if there is a class for every image of each split; else ValueError."""
    for split, images in images_of.items():
        if split not in labels:
            raise ValueError(f"labels must be by split, {', '.join(images_of)}, got those of {', '.join(labels)} alone")
        found = labels[split]
        if found.shape != (images,) or found.is_floating_point() or found.min() < 0:
            kind = f"{str(found.dtype).removeprefix('torch.')} {list(found.shape)}"
            raise ValueError(f"{split} labels must be {images} classes, counted from 0, got {kind}")
    return {split: found.long() for split, found in labels.items()}
