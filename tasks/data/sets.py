r"""The data sets of images, each a function of where its files lie, of the split and of the binarisation."""

import torch
from torch import Tensor

from hardmax.checks import at_least, one_of

from ..digits import digits
from .files import OMNIGLOT_TEST, load
from .images import BINARISATIONS, Images

SEEN = 10_000  # training images that stand in for validation images, where none are kept apart


def images_only(data: Images | None) -> Images:
    r"""The data of a task about images: embedded ones if None; TypeError for anything else."""
    data = embedded_digits() if data is None else data
    if not isinstance(data, Images):
        raise TypeError(f"data must be images, got {type(data).__name__}")
    return data


def embedded_digits(binarisation: str = "dynamic") -> Images:
    r"""The digits that come with scikit-learn: see :func:`hardmax.tasks.digits.digits`."""
    return Images(**digits(), binarisation=binarisation, labels=lambda: digits(labels=True), shape=(8, 8, 1))


def like_mnist(name: str, folder: str | None, valid: int, binarisation: str) -> Images:
    r"""MNIST, or a data set of its format and sizes; what is for validation, :func:`apart` says."""
    refuse_early(valid, binarisation)

    def grey(split: str) -> Tensor:
        return torch.tensor(load(f"{name}/{split}-images", folder)).flatten(1).float().div_(255)

    def labels() -> dict[str, Tensor]:
        train, test = (torch.tensor(load(f"{name}/{s}-labels", folder)).long() for s in ("train", "t10k"))
        training, kept = apart(train, valid)
        return {"train": training, "valid": kept, "test": test}

    return Images(*apart(grey("train"), valid), grey("t10k"), binarisation, labels)


def mnist(folder: str | None = None, valid: int = 5_000, binarisation: str = "dynamic") -> Images:
    r"""Handwritten digits of 28 by 28 pixels: 60,000 for training and validation, 10,000 for the test.

    References:
        | Gradient-based learning applied to document recognition (LeCun et al., 1998)
        | https://doi.org/10.1109/5.726791
    """
    return like_mnist("mnist", folder, valid, binarisation)


def fashion_mnist(folder: str | None = None, valid: int = 5_000, binarisation: str = "dynamic") -> Images:
    r"""Pieces of clothing, in the format and numbers of MNIST.

    References:
        | Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms (Xiao et al., 2017)
        | https://arxiv.org/abs/1708.07747
    """
    return like_mnist("fashion_mnist", folder, valid, binarisation)


def binarized_mnist(folder: str | None = None) -> Images:
    r"""MNIST as it was binarised once and for all, 50,000 / 10,000 / 10,000, without labels.

    References:
        | The Neural Autoregressive Distribution Estimator (Larochelle and Murray, 2011)
        | https://proceedings.mlr.press/v15/larochelle11a.html
    """
    splits = ("train", "valid", "test")
    train, valid, test = (torch.tensor(load(f"binarized_mnist/{s}", folder)).float() for s in splits)
    return Images(train, valid, test, "none")


def omniglot(folder: str | None = None, valid: int = 1_345, binarisation: str = "dynamic") -> Images:
    r"""Handwritten characters of 28 by 28 pixels: 24,345 for training and validation, 8,070 for the test.

    Training images lie in the order of their characters, so those for validation are chosen by a fixed permutation.

    References:
        | Human-level concept learning through probabilistic program induction (Lake et al., 2015)
        | https://doi.org/10.1126/science.aab3050
        | Importance Weighted Autoencoders (Burda et al., 2016), whose images and split these are
        | https://arxiv.org/abs/1509.00519
    """
    refuse_early(valid, binarisation)
    images = torch.tensor(load("omniglot", folder)).flatten(1)
    train, test = images.split([len(images) - OMNIGLOT_TEST, OMNIGLOT_TEST])
    train = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(0))]
    return Images(*apart(train, valid), test, binarisation)


def refuse_early(valid: int, binarisation: str) -> None:
    r"""Refuses what is wrong whatever the data, before anything is downloaded."""
    at_least(0, valid=valid)
    one_of(BINARISATIONS, binarisation=binarisation)


def apart(train: Tensor, valid: int) -> tuple[Tensor, Tensor]:
    r"""What is for training, and the first ``valid`` for validation; with 0, the first of those trained on as well.

    Raises:
        ValueError: If nothing is left to train on.
    """
    if valid >= len(train):
        raise ValueError(f"valid must be below the {len(train)} training images, got {valid}")
    return train[valid:], train[: valid or SEEN]
