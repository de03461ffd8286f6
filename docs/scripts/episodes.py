"""Writes docs/cartpole.md and draws its picture: ``python docs/scripts/episodes.py ARCHIVE PAGE PICTURE``."""

import sys
from pathlib import Path

import drawing
import numpy as np
from matplotlib import pyplot as plt

import hardmax
from hardmax.markdown import table
from hardmax.numbers import with_error

COLOURS = (drawing.BLUE, drawing.RED, drawing.GREEN, drawing.ORANGE, drawing.PINK)
SOLVED = 195  # mean return of 100 episodes
FIRST = 1000  # simulated steps at which the logarithmic axis begins
PAGE = """# A pole on a cart

<!-- written by docs/scripts/episodes.py, as `make pictures` calls it -->

A policy of two hidden layers of ten units learns to balance a pole, from one episode a step: a problem of the
[paper on ARSM](https://arxiv.org/abs/1905.01413), with its network, optimiser and limits; what differs is listed in
`configs/experiment/cartpole.yaml`. An episode has at most 200 steps and brings a reward of 1 for each; the problem is
solved once 100 successive training episodes brought 195 on average. [The page on tasks](tasks.md) says what is
estimated, and how.

An estimator that compares actions must try those that the policy did not take, in branches of the episode, and each
of these is simulated up to its end. So there are two prices: training episodes, which are optimiser steps, and
simulated steps, branches included, which are what an environment takes its time for.

![Return in the course of training](cartpole.png)

*Mean return of 100 fresh episodes: the mean over the seeds and, shaded, the range from the worst to the best of them;
in grey the means of the other estimators. Dotted is 195, from which on a policy is good. Above by training episodes,
below by simulated steps, as far as that run of each estimator that simulated least.*

{results}
Means over seeds, as many as the second column says, with standard errors; steps are simulated steps. ≥: some seeds did
not get there in {episodes} episodes, and count with what they took. *Steps for one solution* are what is to be expected
of starting anew with another seed after every {episodes} episodes in vain: the steps of all seeds, until each was
solved or at its end, divided by the number of those that were solved. Comparisons of optimisers call it the
[expected running time](https://doi.org/10.1080/10556788.2020.1808977). REINFORCE, which solves few, has ten seeds more.

A policy is good once 100 fresh episodes bring 195 on average, which is looked at every 20 training episodes. That costs
no training, while it takes 100 training episodes, with all their branches, to say that a problem is solved. At most 16
branches of an episode are simulated.

Branches cost many times the steps of their episode, so an estimator that saves episodes need not save steps. ARSM,
local expectation and leave-one-out solve the problem with every seed, mostly in few episodes. NVIL and REINFORCE with a
running mean solve it with some seeds. With the steps of the failures counted, theirs are fewer on average than ARSM's,
but so few seeds do not settle it. Branches also say when there is nothing left to learn: where every action leads to
the full 200 steps, what the first three compare is equal, their gradient is exactly 0, and the policy stays. The other
two subtract one number, or a function of the state, from returns that depend on how many steps are left: noise remains,
and at this learning rate it leads away from good policies again.

`make comparisons` runs it all again, `make pictures` writes this page from its archive in `docs/comparisons`.
"""


def label(run):
    """An estimator, with the settings that tell it from others in the table."""
    if run.estimator != "reinforce":
        return run.estimator
    baseline = run["estimator.baseline"].replace("_", " ")
    return f"reinforce, {baseline}" + ("" if run["estimator.samples"] == "1" else f" of {run['estimator.samples']}")


def mean(values):
    return with_error(values.mean(), values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else None)


def at_least(values, reached):
    return ("" if all(reached) else "≥ ") + mean(values)


def for_one(values, reached):
    """What all runs took until they were solved or at their end, for each that was solved, with its standard error."""
    if not any(reached):
        return "> " + with_error(values.sum(), None)
    ratio = values.sum() / reached.sum()
    spread = (values - ratio * reached).std(ddof=1) / reached.mean() if len(values) > 1 else None
    return with_error(ratio, spread if spread is None else spread / len(values) ** 0.5)


def first_good(rows):
    """Simulated steps at the first validation with the mean return, by run, else all; and whether there is one."""
    last = rows.groupby("folder")["valid/steps"].max()
    good = rows[rows["valid/return"] >= SOLVED].groupby("folder")["valid/steps"].min()
    return good.reindex(last.index).fillna(last), last.index.isin(good.index)


def results(runs, rows):
    """A line for each estimator, the one that was solved after the fewest simulated steps first."""
    lines = []
    for name, those in runs.groupby("label"):
        solved, steps = those["test/solved"], those["test/steps_to_solve"]
        cells = [f"`{name}`", f"{int(solved.sum())} of {len(those)}", at_least(those["test/episodes_to_solve"], solved)]
        cells += [for_one(steps, solved), at_least(*first_good(rows[rows.folder.isin(those.folder)]))]
        lines.append((-solved.mean(), steps.mean(), [*cells, mean(those["test/steps"]), mean(those["test/return"])]))
    titles = ["estimator", "solved", "episodes until solved", "steps for one solution", "steps until a good policy"]
    return table([*titles, "steps in all", "return at the end"], [cells for *_, cells in sorted(lines)], True)


def draw(runs, rows):
    """A column of two panels for each estimator, in which the means of the others are grey."""
    rows = rows.merge(runs[["folder", "label"]], on="folder")
    labels = sorted(set(rows.label))
    drawn, axes = plt.subplots(2, len(labels), figsize=(2.0 * len(labels), 4.6), sharex="row", sharey=True)
    for of_cost, cost in zip(axes, ("valid/episodes", "valid/steps"), strict=True):
        curves = {name: over_seeds(those, cost) for name, those in rows.groupby("label")}
        for axis, name, colour in zip(of_cost, labels, COLOURS, strict=True):
            for other in labels:
                at, returns = curves[other]
                axis.plot(at, returns.mean(0), color="lightgrey", linewidth=1)
            at, returns = curves[name]
            axis.fill_between(at, returns.min(0), returns.max(0), color=colour, alpha=0.25, linewidth=0)
            axis.plot(at, returns.mean(0), color=colour)
            axis.axhline(SOLVED, color="black", linewidth=0.8, linestyle=":")
            axis.set(ylim=(0, 205))
    for axis, name in zip(axes[0], labels, strict=True):
        axis.set_title(name.replace(", ", ",\n"), fontsize=9)
    axes[1, 0].set_xscale("log")
    for of_cost, title in zip(axes, ("training episodes", "simulated steps, branches included"), strict=True):
        of_cost[len(labels) // 2].set_xlabel(title)
    drawn.supylabel("return, reward per episode", fontsize=9)
    return drawn


def over_seeds(rows, cost):
    """Points up to where that seed ends which ends first, and the return of each seed there."""
    curves = [seed.sort_values(cost) for _, seed in rows.groupby("folder")]
    end = min(curve[cost].max() for curve in curves)
    at = np.linspace(0, end, 200) if cost == "valid/episodes" else np.geomspace(FIRST, end, 200)
    return at, np.stack([np.interp(at, curve[cost], curve["valid/return"]) for curve in curves])


archive, page, picture = map(Path, sys.argv[1:])
runs, rows = hardmax.runs(archive), hardmax.rows(archive).dropna(subset="valid/return")
runs["label"] = runs.apply(label, axis=1)
written = PAGE.format(
    results=results(runs, rows),
    episodes=f"{int(runs['test/episodes'].max()):,}",
)
page.write_text(written, encoding="utf-8")
style = drawing.STYLE | {name: "black" for name, value in drawing.STYLE.items() if value == drawing.INK}
with plt.rc_context(style | {"savefig.transparent": False}):
    draw(runs, rows).savefig(picture, dpi=150, metadata={"Software": None})
