"""Forward and backward pass of an estimator, as two panels: where the objective is evaluated, and gradient draws.

The SVG is written out, as there is one on every estimator's page and a plotting library would take half a minute.
"""

import torch
from drawing import BLUE, CORNERS, GREEN, RED, gradient_draws, in_triangle

from hardmax.estimators import Exact

LOGITS = torch.tensor([[0.0, 0.5, 1.0]])
GOAL = torch.tensor([0.2, -0.6, 0.9])
DRAWS, SHOWN = 1000, 250
SIZE, MIDDLE, CENTRE = 84, 110, 128  # of both panels, in units of the picture: half a width, and where it is
CAPTION = (
    "One choice among three, with a cost that is curved between them. Left: where the objective is evaluated forwards. "
    "Right: gradient draws to the logits (dots), their mean (ring) and the exact gradient (cross), in the plane in "
    "which gradients add up to 0. What learns has not learned anything yet; dots are moved apart a little."
)


def cost(z):
    return 1 + (z @ GOAL - 0.3).pow(2).sum(-1) + (z @ GOAL).sum(-1).pow(3)


def cloud(estimator):
    """The picture of any estimator, as HTML."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        seen = estimator.sample(LOGITS.expand(SHOWN, 1, 3))[:, 0] + 0.02 * torch.randn(SHOWN, 3)
        exact = gradient_draws(Exact(), LOGITS, cost, 1)[0, 0]
        g = gradient_draws(estimator, LOGITS, cost, DRAWS)[:, 0]
        reach = 0.8 * max(g.norm(dim=-1).quantile(0.97), 1.3 * exact.norm())
        apart = (g[:SHOWN] + 0.015 * reach * torch.randn(SHOWN, 3)) / reach
    middle = CORNERS.mean(0)
    left = [(x - middle[0], y - middle[1]) for x, y in zip(*in_triangle(seen), strict=True)]
    right = [(x, y) for x, y in zip(*in_triangle(apart), strict=True) if max(abs(x), abs(y)) < 1.2]
    corners = [place(MIDDLE, corner - middle, 2) for corner in CORNERS]
    names = [place(MIDDLE, 1.25 * (corner - middle), 2) for corner in CORNERS]
    around = [place(3 * MIDDLE, corner - middle, 2) for corner in CORNERS]
    parts = [
        text(MIDDLE, 14, "forwards: z"),
        text(3 * MIDDLE, 14, "backwards: gradients"),
        f'<polygon points="{" ".join(f"{x:.0f},{y:.0f}" for x, y in corners)}" fill="none" stroke="currentColor"/>',
        *(text(x, y + 4, str(n)) for n, (x, y) in enumerate(names, 1)),
        *(f'<path d="M{3 * MIDDLE} {CENTRE}L{x:.0f} {y:.0f}" stroke="currentColor" opacity=".4"/>' for x, y in around),
        *(text(x, y + (14 if y > CENTRE else -5), f"logit {n}") for n, (x, y) in enumerate(around, 1)),
        dots((place(MIDDLE, p, 2) for p in left), GREEN),
        dots((place(3 * MIDDLE, p, 1) for p in right), BLUE),
    ]
    x, y = place(3 * MIDDLE, torch.stack(in_triangle(exact / reach)), 1)
    parts.append(f'<path d="M{x - 6:.1f} {y - 6:.1f}l12 12m0 -12l-12 12" stroke="{RED}" stroke-width="3"/>')
    x, y = place(3 * MIDDLE, torch.stack(in_triangle(g.mean(0) / reach)), 1)
    parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" fill="none" stroke="currentColor" stroke-width="2"/>')
    svg = f'<svg viewBox="0 0 {4 * MIDDLE} 200" width="560" role="img" aria-label="{CAPTION}">{"".join(parts)}</svg>'
    return f'<figure class="picture">{svg}<figcaption>{CAPTION}</figcaption></figure>'


def place(middle, point, scale):
    """Where in the picture a point of a panel lies."""
    return middle + scale * SIZE * float(point[0]) / 1.2, CENTRE - scale * SIZE * float(point[1]) / 1.2


def dots(places, colour):
    circles = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.6"/>' for x, y in places)
    return f'<g fill="{colour}" opacity=".5">{circles}</g>'


def line(x, y, to_x, to_y):
    return f'<path d="M{x} {y}L{to_x:.0f} {to_y:.0f}" stroke="currentColor" opacity=".4"/>'


def text(x, y, words):
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="11" text-anchor="middle" fill="currentColor">{words}</text>'
