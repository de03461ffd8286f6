r"""Optimisers of released code that PyTorch does not have."""

import torch


class AdamWTwice(torch.optim.AdamW):
    r"""AdamW that makes two steps with each gradient.

    The released loop of a grid of 50 epochs calls the optimiser's step once inside the model and once more after it,
    before the gradient is computed anew: a run is then trained for nearly twice its steps. It is here to compare with
    those figures alone.

    Paper: Hooper and Shekhovtsov (2026), "Generalized and Optimal Straight-Through Estimators", VAE/Reinmax in
    https://github.com/James-Hooper123/Generalized-and-Optimal-Straight-Through-Estimators.
    """

    def step(self, closure=None):
        super().step(closure)
        return super().step()
