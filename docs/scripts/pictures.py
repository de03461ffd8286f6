"""The pictures of the tutorial, each a function of the name by which the page shows it."""

import drawing
import torch
from drawing import BLUE, GREEN, INK, ORANGE, PINK, RED, gradient_draws, in_triangle, panels
from torch import tensor

from hardmax.estimators import (
    ARSM,
    Exact,
    GumbelSoftmax,
    Reinforce,
    ReinMax,
    StochasticStraightThrough,
    StraightThroughGumbelSoftmax,
)

LOGITS, GOAL = tensor([[1.0, 2.0, 3.0]]), tensor([0.1, 0.5, -0.6])  # as in the page


def cost(z):
    return 1 + (z @ GOAL - 0.45).square().sum(-1)


def exact():
    return gradient_draws(Exact(), LOGITS, cost, 1)[0]


def deviation(g):
    return (g.var(0).sum().sqrt() / exact().norm()).item()


def softmax():
    drawn, axes = panels(3, 2.0, 2.1)
    for axis, x in zip(axes, ([1.0, 2.0, 3.0], [1.0, 2.0, 5.0], [11.0, 12.0, 13.0]), strict=True):
        p = tensor(x).softmax(-1)
        bars = axis.bar([f"{v:.0f}" for v in x], p, color=BLUE)
        axis.bar_label(bars, [f"{v:.2f}" for v in p], color=INK)
        axis.set(ylim=(0, 1.1), xlabel="logit", yticks=[0, 0.5, 1])
    axes[0].set_ylabel("probability")
    return drawn


def hardmax():
    drawn, (left, right) = panels(2)
    x = torch.linspace(-4, 8, 241)
    logits = torch.stack([x, torch.ones_like(x), torch.full_like(x, 2.0)], -1)
    p = logits.softmax(-1)[:, 0]
    left.plot(x, p, color=BLUE, label="softmax")
    left.plot(x, (logits.argmax(-1) == 0).float(), color=RED, label="hardmax", drawstyle="steps-post")
    right.plot(x, p * (1 - p), color=BLUE)
    right.plot(x, torch.zeros_like(x), color=RED)
    left.legend()
    left.set(xlabel="first logit; the others are 1 and 2", title="output")
    right.set(xlabel="first logit", title="derivative")
    return drawn


def overflow():
    drawn, (axis,) = panels(1, 4.6)
    factor = torch.logspace(-1, 3, 200)
    x = factor.unsqueeze(-1) * LOGITS
    axis.plot(
        factor,
        x.softmax(-1)[:, 2],
        color=BLUE,
        label="softmax that subtracts the largest logit",
        linewidth=5,
        alpha=0.5,
    )
    axis.plot(factor, (x.exp() / x.exp().sum(-1, keepdim=True))[:, 2], color=RED, label="as the formula stands")
    axis.set(xscale="log", xlabel="logits (1, 2, 3) times", ylabel="probability of the last", ylim=(0.3, 1.05))
    axis.legend(loc="lower right")
    return drawn


def cross_entropy():
    drawn, (axis,) = panels(1, 4.6)
    lead = torch.linspace(0, 12, 100)
    for name, color in (("cross-entropy", BLUE), ("squared error", RED)):
        x = torch.stack([lead, 0 * lead, 0 * lead], -1).requires_grad_()
        p, y = x.softmax(-1), tensor([0.0, 0.0, 1.0])
        loss = -x.log_softmax(-1)[:, 2] if name == "cross-entropy" else (p - y).square().sum(-1)
        (g,) = torch.autograd.grad(loss.sum(), x)
        axis.plot(lead, -g[:, 2], color=color, label=name)
    axis.set(xlabel="lead of the wrong category's logit", ylabel="pull on the right one's")
    axis.legend()
    return drawn


def saturation():
    drawn, (axis,) = panels(1, 4.6)
    lead = torch.linspace(0, 25, 251)
    x = torch.stack([lead, 0 * lead, 0 * lead], -1).requires_grad_()
    (g,) = torch.autograd.grad(x.softmax(-1)[:, 0].sum(), x)
    axis.plot(lead, g[:, 0].where(g[:, 0] > 0, torch.nan), color=BLUE)
    axis.set(yscale="log", xlabel="lead of the first logit", ylabel="derivative of its probability")
    return drawn


def gumbel():
    drawn, (axis,) = panels(1, 4.2)
    winners = StraightThroughGumbelSoftmax().sample(LOGITS.expand(20_000, 1, 3)).argmax(-1)
    place = torch.arange(3)
    axis.bar(
        place - 0.2,
        torch.bincount(winners.flatten(), minlength=3) / 20_000,
        0.38,
        color=GREEN,
        label="how often it wins",
    )
    axis.bar(place + 0.2, LOGITS[0].softmax(-1), 0.38, color=BLUE, label="softmax")
    axis.set(xticks=place, xticklabels=["1", "2", "3"], xlabel="logit", ylabel="share")
    axis.legend()
    return drawn


def temperature():
    drawn, axes = panels(3, 2.1, 2.2)
    for axis, t in zip(axes, (0.3, 1.0, 5.0), strict=True):
        drawing.triangle(axis)
        axis.scatter(
            *in_triangle(GumbelSoftmax(t).sample(LOGITS.expand(1000, 3))),
            s=4,
            alpha=0.3,
            color=BLUE,
            linewidths=0,
            rasterized=True,
        )
        axis.set_title(f"temperature {t:g}", fontsize=9, y=-0.15)
    return drawn


def trade():
    drawn, (axis,) = panels(1, 4.6)
    temperatures = torch.logspace(-1, 1, 13)
    draws = [gradient_draws(GumbelSoftmax(t.item()), LOGITS, cost, 10_000) for t in temperatures]
    axis.plot(
        temperatures, [(g.mean(0) - exact()).norm() / exact().norm() for g in draws], "o-", color=RED, label="bias"
    )
    axis.plot(temperatures, [deviation(g) for g in draws], "s-", color=BLUE, label="standard deviation")
    axis.set(xscale="log", yscale="log", xlabel="temperature", ylabel="over the exact gradient")
    axis.legend()
    return drawn


def straight_through():
    drawn, (axis,) = panels(1, 4.6, 2.7)
    p = torch.linspace(0.02, 0.98, 49)
    logits = torch.stack([p, 1 - p], -1).log().unsqueeze(-2)  # [49, 1, 2]
    looks = (
        ("exact", Exact(), INK, "-"),
        ("straight-through", StochasticStraightThrough(), RED, "-"),
        ("ReinMax", ReinMax(), GREEN, ":"),
    )
    for name, estimator, color, line in looks:
        g = gradient_draws(estimator, logits, lambda z: (z[..., 0, 0] - 0.45) ** 2, 4000)
        axis.plot(p, g.mean(0)[:, 0, 0], line, color=color, label=name)
    axis.axhline(0, color=INK, linewidth=0.5)
    axis.set(xlabel="probability of 'on'", ylabel="expected gradient")
    axis.legend()
    return drawn


def reinforce():
    drawn, axes = panels(2, 2.6, 2.6)
    for axis, shift in zip(axes, (-1, 0), strict=True):
        g = gradient_draws(Reinforce(baseline="none"), LOGITS, lambda z, shift=shift: cost(z) + shift, 1000)[:, 0]
        jitter = 0.04 * torch.randn(1000, 2)
        axis.scatter(*(g[:, 1:] + jitter).T, s=6, alpha=0.3, color=BLUE, linewidths=0, rasterized=True)
        axis.plot(*exact()[0, 1:].tolist(), "x", color=RED, markersize=10, markeredgewidth=2.5)
        axis.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), xlabel="by logit 2", title=("without", "with 1 added")[shift + 1])
        axis.set_aspect("equal")
    axes[0].set_ylabel("by logit 3")
    return drawn


def leave_one_out():
    drawn, (axis,) = panels(1, 4.6)
    samples = [2, 4, 8, 16]
    for baseline, label, color in (("none", "no baseline", RED), ("leave_one_out", "leave-one-out", BLUE)):
        found = [deviation(gradient_draws(Reinforce(s, baseline=baseline), LOGITS, cost, 10_000)) for s in samples]
        axis.plot(samples, found, "o-", color=color, label=label)
    axis.set(xscale="log", yscale="log", xlabel="draws", ylabel="standard deviation\nover the exact gradient")
    axis.set_xticks(samples, [str(s) for s in samples], minor=False)
    axis.set_xticks([], minor=True)
    axis.legend()
    return drawn


def arsm():
    drawn, (axis,) = panels(1, 4.2, 3.2)
    pi = torch.distributions.Dirichlet(torch.ones(3)).sample((4000,))
    winner = (pi.log() - LOGITS).argmin(-1)
    for i, color in enumerate((ORANGE, GREEN, PINK)):
        axis.scatter(
            *in_triangle(pi[winner == i]),
            s=6,
            alpha=0.4,
            color=color,
            linewidths=0,
            rasterized=True,
            label=f"{i + 1} wins",
        )
    drawing.triangle(axis, ("all to 1", "all to 2", "all to 3"))
    axis.set_xlim(-0.25, 1.25)
    one = tensor([0.10, 0.30, 0.60])
    axis.plot(*in_triangle(one), "o", color=INK, markersize=7)
    for order in ([1, 0, 2], [2, 1, 0], [0, 2, 1]):
        axis.plot(*in_triangle(one[order]), "o", color=INK, markersize=8, markerfacecolor="none", markeredgewidth=2)
    axis.legend(loc="upper left", markerscale=3, bbox_to_anchor=(-0.25, 1.05))
    return drawn


def mean():
    drawn, (axis,) = panels(1, 4.6, 2.7)
    counts = torch.logspace(1, 5, 17).long()
    looks = (
        ("REINFORCE, leave-one-out", Reinforce(2, baseline="leave_one_out"), BLUE, "-"),
        ("ARSM", ARSM(), GREEN, "-"),
        ("straight-through", StochasticStraightThrough(), RED, "--"),
        ("Gumbel-softmax", GumbelSoftmax(1.0), ORANGE, "--"),
    )
    for name, estimator, color, line in looks:
        g = gradient_draws(estimator, LOGITS, cost, 100_000).cumsum(0)
        away = [(g[n - 1] / n - exact()).norm() / exact().norm() for n in counts]
        axis.plot(counts, away, line, color=color, label=name)
    axis.set(xscale="log", yscale="log", xlabel="gradients in the mean", ylabel="distance from the exact one")
    axis.legend(fontsize=8)
    return drawn
