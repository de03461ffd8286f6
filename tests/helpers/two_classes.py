"""Binary images small enough that every configuration of a network on them can be gone through."""

import torch

from hardmax.tasks.data import Images


def of_two_classes():
    """Images of 6 random pixels: the class says whether the first two differ."""
    random = torch.Generator().manual_seed(0)
    images = {split: torch.randint(2, (40, 6), generator=random).float() for split in ("train", "valid", "test")}
    labels = {split: (x[:, 0] != x[:, 1]).long() for split, x in images.items()}
    return Images(**images, binarisation="none", labels=lambda: labels)
