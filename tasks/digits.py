r"""Handwritten digits that come with scikit-learn: no download."""

import importlib.metadata

import numpy as np
import torch
from torch import Tensor

DIGITS_SPLITS = {"train": 1297, "valid": 250, "test": 250}


def digits(labels: bool = False) -> dict[str, Tensor]:
    r"""1,797 images of 8 by 8 pixels with 17 grey levels, split 1,297 / 250 / 250, the same for every run.

    Returns:
        Grey levels in [0, 1] by split, ``[N, 64]``; with ``labels`` the classes instead, ``[N]``.
    """
    file = importlib.metadata.distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    found = torch.tensor(np.loadtxt(str(file), np.int64, delimiter=","))  # importing scikit-learn takes seconds
    wanted = found[:, 64] if labels else found[:, :64].float() / 16
    order = torch.randperm(len(wanted), generator=torch.Generator().manual_seed(0))
    return dict(zip(DIGITS_SPLITS, wanted[order].split(list(DIGITS_SPLITS.values())), strict=True))
