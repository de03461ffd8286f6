"""Bias and standard deviation of the biased estimators against temperature: ``docs/bias_variance.png``.

The problem: three variables of four categories, and the squared error of a fixed small tanh network of z. All 64
joint draws are enumerated where they are an estimator's only randomness, as is the true gradient; the rest is 400,000
seeded draws for each point. ``slope_annealed`` is ``stochastic_straight_through`` at temperature 1 / slope, and is
left out. Run it as ``python -m benchmarks.bias_variance``: one to two minutes, and it prints the figures as it goes.
"""

from collections.abc import Callable
from unittest.mock import patch

import matplotlib
import numpy as np
import torch

from hardmax.estimators import StochasticStraightThrough

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from hardmax.estimators import (
    DARN,
    IMLE,
    MVE,
    ZGR,
    DecoupledSTGumbel,
    Estimator,
    Exact,
    GappedStraightThrough,
    GumbelRao,
    GumbelSoftmax,
    ReinMax,
    ReinMaxCV,
    ReinMaxRao,
    StraightThroughGumbelSoftmax,
    sampling,
)
from hardmax.estimators.exact import configurations, log_probabilities
from hardmax.paths import ROOT

K, C = 3, 4
DRAWS, AT_ONCE = 400_000, 50_000
TEMPERATURES = np.geomspace(0.1, 10, 13)
PICTURE = ROOT / "docs" / "bias_variance.png"

# Name: (estimator at a temperature, whether all its randomness is enumerated, colour, line, marker).
BLUE, SKY, GREEN, ORANGE, RED, PINK, BLACK, GREY = (
    "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#000000", "#777777",
)  # fmt: skip
CURVES: dict[str, tuple[Callable[[float], Estimator], bool, str, str, str]] = {
    "straight_through": (lambda t: StochasticStraightThrough(t), True, BLUE, "-", "o"),
    "gapped_straight_through": (GappedStraightThrough, True, BLUE, "--", "v"),
    "mve (tau)": (MVE, True, BLUE, ":", "s"),
    "gumbel_softmax": (GumbelSoftmax, False, GREEN, ":", "^"),
    "st_gumbel_softmax": (StraightThroughGumbelSoftmax, False, GREEN, "-", "o"),
    "decoupled_st_gumbel": (lambda t: DecoupledSTGumbel(1.0, t), False, GREEN, "--", "v"),
    "gumbel_rao (10)": (lambda t: GumbelRao(10, t), False, ORANGE, "-", "D"),
    "reinmax": (ReinMax, True, RED, "-", "o"),
    "reinmax_rao (10)": (lambda t: ReinMaxRao(10, t), False, RED, "--", "v"),
    "reinmax_cv (10)": (lambda t: ReinMaxCV(1.0, 0.5, 10, t), False, RED, ":", "s"),
    "zgr": (lambda t: ZGR(), True, BLACK, "--", ""),
    "darn": (lambda t: DARN(), True, GREY, "-.", ""),
    "imle (step)": (IMLE, False, PINK, "-", "X"),
}


def problem():
    g = torch.Generator().manual_seed(2)
    first, second = 0.5 * torch.randn(8, K * C, generator=g), torch.randn(5, 8, generator=g)
    goal, logits = torch.randn(5, generator=g), 0.7 * torch.randn(K, C, generator=g)

    def objective(z):
        return ((z.flatten(-2) @ first.T).tanh() @ second.T - goal).square().mean(-1)

    return logits, objective


def gradients(estimator, logits, objective, draws):
    leaf = logits.expand(draws, K, C).clone().requires_grad_()
    (found,) = torch.autograd.grad(estimator(leaf, objective).sum(), leaf)
    return found.double().flatten(1)


def enumerated(estimator, logits, objective):
    """Exact mean ``[K * C]`` and total variance: one draw of each joint configuration, by its probability."""
    index = configurations(logits, C**K)
    with patch.object(sampling, "categorical", lambda logits, samples: index.unsqueeze(0)):
        found = gradients(estimator, logits, objective, len(index))
    p = log_probabilities(logits.double(), index).exp().unsqueeze(-1)
    mean = (p * found).sum(0)
    return mean, float((p * (found - mean) ** 2).sum()), 0.0


def drawn(estimator, logits, objective):
    """Mean ``[K * C]``, total variance, and the variance of the mean."""
    torch.manual_seed(0)
    total, squares = torch.zeros(()), torch.zeros(())
    for _ in range(DRAWS // AT_ONCE):
        found = gradients(estimator, logits, objective, AT_ONCE)
        total, squares = total + found.sum(0), squares + (found**2).sum(0)
    mean = total / DRAWS
    variance = float((squares / DRAWS - mean**2).sum())
    return mean, variance, variance / DRAWS


def main() -> None:
    torch.set_num_threads(1)
    logits, objective = problem()
    truth = gradients(Exact(), logits, objective, 1)[0]
    norm = float(truth.norm())
    plt.rcParams["font.size"] = 11
    fig, axes = plt.subplots(1, 2, figsize=(13.5, 5.8), sharex=True)
    for name, (make, finite, colour, line, marker) in CURVES.items():
        bias, deviation = [], []
        for t in TEMPERATURES:
            mean, variance, of_mean = (enumerated if finite else drawn)(make(float(t)), logits, objective)
            squared = float(((mean - truth) ** 2).sum()) - of_mean
            bias.append(max(squared, of_mean) ** 0.5 / norm)  # what the draws cannot resolve ends at their error
            deviation.append(variance**0.5 / norm)
        print(f"{name:<26}bias {bias[0]:.3f} .. {bias[-1]:.3f}   deviation {deviation[0]:.3f} .. {deviation[-1]:.3f}")
        style = {"color": colour, "linestyle": line, "marker": marker, "markersize": 6, "linewidth": 1.6}
        style |= {"markeredgecolor": "white", "markeredgewidth": 0.6}
        axes[0].plot(TEMPERATURES, bias, label=name, **style)
        axes[1].plot(TEMPERATURES, deviation, label=name, **style)
    for ax, title, label in zip(
        axes,
        ("Bias", "Standard deviation of one draw"),
        ("|mean gradient - true gradient| / |true gradient|", "root of the total variance / |true gradient|"),
        strict=True,
    ):
        ax.set(
            xscale="log", yscale="log", title=title, ylabel=label, xlabel="temperature (for mve: tau, for imle: step)"
        )
        ax.xaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.grid(which="major", alpha=0.4)
        ax.grid(which="minor", alpha=0.12)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="center right", frameon=False, handlelength=3.2)
    fig.suptitle("Biased gradient estimators: 3 variables of 4 categories, cost of a small tanh network")
    fig.tight_layout(rect=(0, 0, 0.8, 1))
    fig.savefig(PICTURE, dpi=130)


if __name__ == "__main__":
    main()
