r"""A leaderboard: every estimator at its best setting, at equal steps, at equal evaluations and at equal time."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import altair as alt
import numpy as np
from hydra.utils import get_class
from omegaconf import OmegaConf

from hardmax import markdown
from hardmax.files import write_whole
from hardmax.harness.shared import Refused
from hardmax.paths import CONFIGS

from .charts import as_png, axis_of, inline, picture_of_charts, rounded
from .final_figures import Results, results_of
from .groups import Group, grouped
from .published.experiments import experiment
from .reproduction import as_paragraphs, circumstances_line
from .runs import Run, find_runs
from .tables import NONE, about_runs, answer, cell
from .tuning import Entry, Tuned, at_edges, figure_of, merit_reported, tuned
from .validation import CostLimit
from .writing import file_name

PANEL_WIDTH, ROW = 190, 17  # pixels of a panel, and of an estimator in it
COLOUR = "#0072B2"
NEVER_CUT = 4  # estimators at most of which all are drawn to scale
DRAWN_TO = 4  # times the distance of the median from the best, beyond which figures are cut off
LEADERBOARD_HEAD = """\
# Leaderboard

Which estimator should I take? Estimators, each at its best setting, on problems of different character; those that
have not been run yet are named. Written by `make leaderboard` from the archive of runs in `docs/leaderboard`, and by
nothing else.

Each tries as many settings as the others, with one seed: learning rates, and what its class calls worth trying of its
own options. The best by the validation figure runs again with other seeds, and these alone are reported. In the tables
*chosen from* is the number of settings (and of all runs, the tuning's and the reported); figures are means over seeds
± standard error; bold is the best and what is not significantly worse (95 %), and ? below three runs; † marks those
that were chosen from fewer settings. The test figure is that of the last step; at equal evaluations and at equal time
the same runs count with their best validation figure up to what the cheapest run spends in all, so that those that
become worse again do better there; their settings were chosen for the whole run, and what is chosen for a smaller
budget (`report.py --tune --at`) does better, above all with several evaluations a step. Times are those of runs side
by side on a machine that did other work too: factors of two mean something, less does not.
"""
WHY_TUNED = """
## Why it is tuned

Compared at default settings after 2,000 steps, as on an earlier page, most estimators have left the plateau of an
ignored latent variable but are far from their end, and the order is that of how soon they left it. REINFORCE with one
draw then stood near the bottom, and what is usually meant by it, four draws that are each other's baseline, was not
tried; Gumbel-softmax stood below it at a temperature of 1, at which its bias makes it worse from some step on. Where
their best settings put them is in the tables above.
"""


@dataclass(frozen=True)
class Board:
    r"""One problem.

    Attributes:
        found: Estimators at their best settings, reported at the end of their runs.
        evaluations, seconds: What the cheapest of the reported runs spends in all.
    """

    found: Tuned
    evaluations: CostLimit
    seconds: CostLimit

    @functools.cached_property
    def entries(self) -> list[Entry]:
        r"""Those that other seeds than the tuning seeds report, best first."""
        return [entry for entry in self.found.entries if entry.others]

    def results(self, budget: CostLimit | None, kept: Callable[[str], bool] = lambda estimator: True) -> Results:
        r"""Reported figures of some estimators: at the end, or the best on validation up to a budget."""
        metric, groups = self.found.metric, []
        for group in self.groups:
            if kept(group.estimator):
                own = [replace(run, figures={metric: figure_of(run, metric, budget)}) for run in group.runs]
                groups.append(replace(group, runs=own) if budget else group)
        return results_of(self.found.task, groups, "valid/" if budget else "test/")

    @property
    def groups(self) -> list[Group]:
        labels = [entry.label for entry in self.entries]
        return [group for group in self.found.results.groups if group.label in labels]

    @property
    def runs(self) -> list[Run]:
        return [run for group in self.groups for run in group.finished]

    @property
    def missing(self) -> list[str]:
        r"""Estimators of the experiment that no finished run with another seed reports."""
        rows = [row for name in self.experiments if (about := experiment(name)) for row in about.rows]
        there = {entry.estimator for entry in self.entries}
        return sorted({row["estimator"] for row in rows if "estimator" in row} - there)

    @property
    def name(self) -> str:
        r"""Of its experiment, without what all leaderboards' begin with; of its task where it has none, or several."""
        own = [name.removeprefix("leaderboard_") for name in self.experiments if name]
        return own[0] if len(own) == 1 else self.found.task

    @property
    def experiments(self) -> list[str]:
        return sorted({run.config.get("experiment", "") for entry in self.found.entries for run in entry.runs})


def write_leaderboard(folders: list[Path], to: Path) -> tuple[list[Path], list[str]]:
    r"""Writes the page, and beside it a picture for each problem; their paths, the page last, and notes.

    Raises:
        Refused: If no problem has a tuned comparison, or nothing can be written.
    """
    found = find_runs(folders)
    known = sorted({run.estimator for run in found.runs})
    boards, answers, sections, written = [], [], [], []
    for task, groups in grouped(found.runs, [], known, found.notes).items():
        board = board_of(task, groups, known)
        if board is None:
            found.notes.append(
                f"left out: {task}, which no estimator has run on with other seeds than those it was tuned with"
            )
        else:
            boards.append(board)
    if not boards:
        raise Refused("".join(f"{n}\n" for n in found.notes) + f"nothing tuned below {', '.join(map(str, folders))}")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        for board in boards:
            written.append(to.with_name(f"{to.stem}_{file_name(board.name)}.png"))
            write_whole(written[-1], as_png(drawing(board)))
            answers.append(answer_section(board))
            sections.append(problem_section(board, written[-1].name))
        write_whole(to, "\n".join([LEADERBOARD_HEAD, *answers, *sections, WHY_TUNED]))
    except OSError as error:
        raise Refused(f"--leaderboard {to}: {error.filename or to} cannot be written: {error.strerror}") from error
    return [*written, to], found.notes


def board_of(task: str, groups: list[Group], known: list[str]) -> Board | None:
    r"""The leaderboard of a problem; None if nothing was tuned there and then run with other seeds."""
    found = tuned(task, groups, [], known, None)
    if found is None:
        return None
    curves = [
        run.validation[found.metric]
        for entry in found.entries
        if entry.others
        for run in entry.reported
        if run.finished and found.metric in run.validation
    ]
    if not curves:
        return None
    least = {axis: min(curve.end(axis) for curve in curves) for axis in ("evaluations", "seconds")}
    seconds = float(f"{least['seconds']:.2g}")
    return Board(found, CostLimit("evaluations", least["evaluations"]), CostLimit("seconds", seconds))


@functools.cache
def is_black_box(name: str) -> bool:
    r"""Whether an estimator needs only values of the objective."""
    path = CONFIGS / f"estimator/{name}.yaml"
    return path.is_file() and not getattr(get_class(OmegaConf.load(path)._target_), "differentiates_objective", True)


def answer_section(board: Board) -> str:
    r"""What to take, in words."""
    equal = {"At equal steps": None} | {f"At {budget}": budget for budget in (board.evaluations, board.seconds)}
    lines = [f"## What to take: {markdown.plain_text(board.found.task)}\n"]
    for title, budget in equal.items():
        lines.append(f"* {title}: {plain(answer(board.results(budget)))}")
    lines.append("* Where the objective cannot be differentiated:")
    for title, budget in equal.items():
        lines.append(f"    * {title.lower()}: {plain(answer(board.results(budget, is_black_box)))}")
    return "\n".join(lines) + "\n"


def plain(sentence: str) -> str:
    return markdown.plain_text(sentence)


def problem_section(board: Board, picture_name: str) -> str:
    r"""Settings, picture and table of a problem."""
    merit = merit_reported(board.found)
    assert merit is not None
    at_end, at_evaluations, at_seconds = (board.results(b) for b in (None, board.evaluations, board.seconds))
    titles = ["estimator", "best setting", "chosen from", "runs", at_end.words(merit).with_unit]
    titles += [f"validation, at {b}" for b in (board.evaluations, board.seconds)]
    titles += ["evaluations a step", "seconds a run"]
    rows = []
    for group in at_end.groups:
        figures = [(at_end, merit), (at_evaluations, board.found.metric), (at_seconds, board.found.metric)]
        cells = [cell(results, group, metric) for results, metric in figures]
        texts = [f"**{c.text}**" if c.marked else c.text for c in cells]
        costs = [of_runs(group, name) for name in ("cost/evaluations_per_step", "cost/seconds")]
        settings = [group.settings.get(name, NONE) for name in ("best setting", "chosen from")]
        rows.append([markdown.plain_text(text) for text in (group.label, *settings, about_runs(group))] + texts + costs)
    about = [as_paragraphs(known.about) for name in board.experiments if (known := experiment(name))]
    missing = f"Not run yet: {', '.join(board.missing)}.\n" if board.missing else ""
    edges = "; ".join(at_edges(board.found))
    edge = f"At an edge of what was tried, beyond which there may be better ones: {edges}.\n" if edges else ""
    task = markdown.plain_text(board.found.task)
    parts = [f"\n## {task}\n", *about, missing, plain(edge), f"![{task}]({picture_name})\n"]
    parts += [markdown.table(titles, rows), circumstances_line(board.runs)]
    return "\n".join(part for part in parts if part)


def of_runs(group: Group, metric: str) -> str:
    r"""The mean of a cost over the finished runs."""
    found = [value for run in group.finished if (value := run.figures.get(metric)) is not None]
    return f"{np.mean(found):,.3g}" if found else NONE


def drawing(board: Board) -> dict:
    r"""The figure at equal steps, evaluations and time, a panel each and a line for every estimator, for print."""
    merit, at_end = merit_reported(board.found), board.results(None)
    assert merit is not None
    order = [group.label for group in at_end.groups if group.finished]
    charts = []
    for title, budget in (
        (at_end.words(merit).with_unit, None),
        *((f"validation, at {b}", b) for b in (board.evaluations, board.seconds)),
    ):
        results, metric = board.results(budget), board.found.metric if budget else merit
        means = [(label, mean) for label in order if (mean := results.means[label].get(metric))]
        figures = [(label, mean.value, float(np.nan_to_num(mean.error))) for label, mean in means]
        charts.append(ranking_panel(order, title, figures, board.found.words.better))
    remark = "Bars: ± one standard error over seeds."
    return picture_of_charts(charts, f"{board.found.task}: every estimator, tuned", len(charts), remark)


def edge_of(values: list[float]) -> float:
    r"""Of values from the best to the worst, the last that is drawn to scale: a few bad ones would hide all others."""
    if len(values) < NEVER_CUT:
        return values[-1]
    inner = abs(values[0] - values[len(values) // 2])
    return next(v for v in reversed(values) if abs(v - values[0]) <= DRAWN_TO * inner)


def ranking_panel(order: list[str], title: str, figures: list[tuple[str, float, float]], better: int) -> alt.LayerChart:
    r"""A figure and its standard error for each label in this order; what is too bad for the scale is written there."""
    edge = edge_of(sorted((value for _, value, _ in figures), key=lambda value: -better * value))
    rows = []
    for label, value, error in figures:
        row = {"label": label, "value": rounded(value), "note": ""}
        row |= {"low": rounded(value - error), "high": rounded(value + error)}
        if better * (edge - value) > 0:
            text = f"{value:.3g}".replace("-", "−")
            row |= dict.fromkeys(("value", "low", "high"), edge) | {"note": f"← {text}" if better > 0 else f"{text} →"}
        rows.append(row)
    scale = alt.Scale(zero=False, nice=False, padding=8)
    axis = alt.Axis(grid=True, labelLimit=300, ticks=False)
    y = alt.Y("label:N", sort=order, title=None, scale=alt.Scale(domain=order), axis=axis)
    x = lambda name: alt.X(f"{name}:Q", title=title, scale=scale, axis=axis_of(False))
    base = alt.Chart(inline(rows)).encode(y=y)
    there = base.transform_filter("!datum.note")
    bar = there.mark_rule(color=COLOUR, strokeWidth=1.5).encode(x=x("low"), x2="high:Q")
    point = there.mark_point(size=45, filled=True, color=COLOUR, opacity=1).encode(x=x("value"))
    beyond = base.mark_text(color=COLOUR, align="left" if better > 0 else "right").encode(x=x("value"), text="note:N")
    return alt.layer(bar, point, beyond).properties(width=PANEL_WIDTH, height=ROW * len(order))
