"""How pictures of the site are drawn: as SVG within the page, so that they are dark where the page is."""

import html
import io
import re

import matplotlib
import torch

matplotlib.use("Agg")
from matplotlib import pyplot as plt

BLUE, RED, GREEN, ORANGE, PINK = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7"
INK = "#010203"  # stands for the colour of the page's text
STYLE = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif",
    "font.size": 9,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "savefig.dpi": 200,  # of what is made of thousands of dots
    "savefig.transparent": True,
    "svg.fonttype": "none",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
CORNERS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]])  # of the triangle of three probabilities


def figure(draw, caption, name):
    """HTML of what a function draws, with a caption."""
    with plt.rc_context(STYLE | {"svg.hashsalt": name}), torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = draw()
        file = io.StringIO()
        drawn.savefig(file, format="svg", metadata={"Date": None})
        plt.close(drawn)
    svg = file.getvalue()[file.getvalue().index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\n\s*", " ", svg).replace("<svg ", f'<svg role="img" aria-label="{html.escape(caption)}" ', 1)
    return f'<figure class="picture">{svg}<figcaption>{caption}</figcaption></figure>'


def panels(n=1, width=3.1, height=2.4):
    """A figure and its n axes side by side."""
    drawn, axes = plt.subplots(1, n, figsize=(max(n * width, 4.2), height), squeeze=False)
    return drawn, list(axes[0])


def in_triangle(z):
    """Points ``[..., 3]`` of the simplex, or gradients, which add up to 0, in the plane ``[..., 2]``."""
    return (z @ CORNERS).unbind(-1)


def triangle(axis, names=("1", "2", "3")):
    """Draws the triangle, with the names of its corners."""
    x, y = CORNERS[[0, 1, 2, 0]].T
    axis.plot(x, y, color=INK, linewidth=0.8)
    for (x, y), name, (dx, dy) in zip(CORNERS.tolist(), names, ((-0.05, -0.04), (0.05, -0.04), (0, 0.06)), strict=True):
        axis.text(x + dx, y + dy, name, ha="center", va="center")
    axis.set_aspect("equal")
    axis.axis("off")


def gradient_draws(estimator, logits, cost, draws):
    """Independent gradients ``[draws, K, C]`` by logits ``[K, C]``."""
    leaf = logits.expand(draws, *logits.shape).clone().requires_grad_()
    (g,) = torch.autograd.grad(estimator(leaf, cost).sum(), leaf)
    return g
