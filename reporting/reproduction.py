r"""RESULTS.md: every published experiment, the runs made of it, and published figures beside measured ones."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from hardmax import markdown
from hardmax.files import write_whole
from hardmax.harness.shared import Refused
from hardmax.numbers import with_error

from .chance import chance_paragraph, chance_picture
from .charts import as_png, curve_rows, curves_picture
from .curves import curve_of
from .groups import Group, grouped, of_problem, problems
from .looks import looks
from .published.experiments import Experiment, deviations, experiment, fits, in_small, ran_in_full
from .published.join import (
    AGREES,
    DIFFERS,
    INCOMPLETE,
    NOT_RUN,
    SMALLER,
    UNDECIDED,
    Comparison,
    compare_with_runs,
    course,
)
from .published.texts import HEADS, by_table, cells
from .published.values import FACTS, entries, read_published
from .runs import POINTS, Run, find_runs, said_by
from .series import plane_picture, series_not_run, series_picture, series_rows
from .settings import column_title
from .words import Words, words

LISTED = 8  # cells that were not run, by their settings; more are counted
SEARCHED = ("optimizer.", "task.alpha")  # what papers report the best value of
VERDICTS = (AGREES, DIFFERS, UNDECIDED, INCOMPLETE, SMALLER, NOT_RUN)
BOLD, ITALIC = (AGREES, DIFFERS), (SMALLER, NOT_RUN)
EMPHASIS = dict.fromkeys(VERDICTS, "{}") | dict.fromkeys(BOLD, "**{}**") | dict.fromkeys(ITALIC, "*{}*")
RESULTS_HEAD = """\
# Results

Published experiments, rerun. Written by `make results` from the archive of runs in `docs/results/runs`, and by nothing
else: every measured figure is the mean of finished runs ± its standard error over seeds, and the runs are named by seed
and key. What an experiment's settings are, and what was chosen where the paper leaves them open, is said in
`configs/experiment/NAME.yaml` and repeated here; `python run.py -m experiment=NAME` runs it.

A published figure is said to

* *agree* if all its settings are published, and it lies where 95 % of such figures would lie if they were of runs like
  ours: within t s (1 / m + 1 / n)^½ of our mean, but for rounding. It is the mean of m runs (of a single one, where
  nothing is said), ours of n; s is the standard deviation over seeds, pooled with theirs where that is published, and t
  the quantile of Student's t. One published figure of a single run may thus be far from our mean, and agree. *In
  standard deviations* is the difference over s (1 / m + 1 / n)^½. A figure that is computed, and not drawn, agrees if
  it is equal to as many digits as are stated, in `hooper2026_bias` within a share of 1e-4 beside 5e-9 of rounding; some
  are constants of a problem, such as its lowest cost, and say that it is the same one;
* *differ* if it does not: of figures that runs like ours give, one in twenty does;
* be *undecided* if no spread is known, as there is one run of ours and theirs is not published;
* have its *settings incomplete* if some are not published, or not the same here: the figures stand beside each other,
  and that is all;
* have a *smaller budget* if all settings are the published ones but for that: shown, and never counted;
* be *not run* if there is no finished run with all of its settings and all of its steps. A figure at an earlier step
  counts runs on the same schedule that ended there or later (`stop_after`), which are among the *other runs*.

Curves are means over seeds, their bands one standard error; logarithmic ones are averaged as logarithms, those with a
value of 0 as they are.
"""


def write_results(folders: list[Path], to: Path, published: list[Path]) -> list[Path]:
    r"""Writes the page and its pictures, which go to ``docs/results`` beside it; their paths, the page last.

    Raises:
        Refused: If there are no runs, a file of published values is wrong, or nothing can be written.
    """
    found = find_runs(folders)
    values = read_published(published, found.runs)
    if not found.runs:
        raise Refused(f"no run below {', '.join(map(str, folders))}")
    comparisons = [compare_with_runs(value, found.runs) for value in values]
    about = entries(FACTS, "experiments")
    pictures = to.parent / "docs/results"
    written, parts = [], [RESULTS_HEAD, overview(about, comparisons, found.runs), chance_paragraph(comparisons)]
    try:
        pictures.mkdir(parents=True, exist_ok=True)
        if spec := chance_picture(comparisons):
            written.append(pictures / "chance.png")
            write_whole(written[0], as_png(spec))
            place = written[0].relative_to(to.parent).as_posix()
            parts.append(f"![How far published figures lie from measured ones]({place})\n")
        for name, shown in about.items():
            own = [c for c in comparisons if c.published.experiment == name]
            runs = [run for run in found.runs if run.config.get("experiment") == name]
            drawn = draw_courses(name, shown, runs, pictures / f"{name}.png")
            drawn += draw_series(shown, own, pictures / f"{name}_published.png")
            written += drawn
            parts.append(experiment_section(name, shown, own, runs, [path.relative_to(to.parent) for path in drawn]))
        if others := [c for c in comparisons if c.published.experiment not in about]:
            parts.append("\n".join(["## Values of your own\n", *tables(others)]))
        parts.append("\n".join(["\n## Left out\n", *(f"* {line}" for line in entries(FACTS, "left_out")), ""]))
        write_whole(to, "\n".join(parts))
    except OSError as error:
        raise Refused(f"--results {to}: {error.filename or to} cannot be written: {error.strerror}") from error
    return [*written, to]


def overview(about: dict, comparisons: list[Comparison], runs: list[Run]) -> str:
    r"""Numbers of runs and of verdicts by experiment."""
    rows = []
    for name in about:
        counts = Counter(c.verdict for c in comparisons if c.published.experiment == name)
        own = [run for run in runs if run.config.get("experiment") == name and run.finished]
        full = sum(ran_in_full(run) for run in own)
        rows.append([f"[{name}](#{name})", full, len(own) - full, *(counts[verdict] or "" for verdict in VERDICTS)])
    return without_empty(["experiment", "runs in full", "other runs", *VERDICTS], rows)


def experiment_section(
    name: str, shown: dict, comparisons: list[Comparison], runs: list[Run], pictures: list[Path]
) -> str:
    found, finished = experiment(name), [run for run in runs if run.finished]
    assert found is not None
    full = [run for run in finished if ran_in_full(run)]
    small = [run for run in finished if in_small(run)]
    other = [run for run in finished if run not in full and run not in small]
    parts: list[str | None] = [f"\n## {name}\n", f"{shown['title']}\n", as_paragraphs(found.about)]
    parts += tables(comparisons)
    parts += [f"{remark}\n" for remark in shown.get("remarks", [])]
    parts += [f"![{shown['title']}]({picture.as_posix()})\n" for picture in pictures]
    if full:
        parts += ["Runs in full:\n", figures_table(full, shown), circumstances_line(full)]
    parts.append(missing_cells(found, full))
    if small:
        parts += ["Runs of the small budget, which compare with no published figure:\n", figures_table(small, shown)]
        parts.append(circumstances_line(small))
    if other:
        differ = markdown.plain_text(", ".join(sorted({d for run in other for d in deviations(run)})))
        parts += [f"Runs with other settings ({differ}):\n", figures_table(other, shown), circumstances_line(other)]
    if going := [run for run in runs if not run.finished]:
        counts = Counter(f"{run.status} at step {run.step:,} of {run.steps:,}" for run in going)
        parts.append("Left out: " + ", ".join(f"{count} {what}" for what, count in counts.items()) + ".\n")
    return "\n".join(part for part in parts if part is not None)


def as_paragraphs(comment: str) -> str:
    r"""A comment as Markdown, whose lists want an empty line before them."""
    return re.sub(r"\n(?!- |  )(.*)\n- ", r"\n\1\n\n- ", f"\n{comment}").lstrip("\n") + "\n"


def tables(comparisons: list[Comparison]) -> Iterator[str]:
    r"""Published beside measured, a Markdown table for each published one."""
    for title, about, group in by_table(comparisons):
        yield f"{title}{f' ({about})' * bool(about)}:\n"
        rows = []
        for c in (c for c in group if not c.published.series):
            *figures, verdict, notes = cells(c)
            rows.append([*figures, EMPHASIS[verdict].format(verdict), markdown.plain_text(notes), keys_of(c.runs)])
        if rows:
            yield without_empty([*HEADS, "runs"], rows)
        along = [c for c in group if c.published.series]
        if shown := series_rows(along):
            yield without_empty(list(shown[0]), [list(row.values()) for row in shown])
        yield from filter(None, [series_not_run(along)])
        if unknown := list(dict.fromkeys(fact for c in group for fact in c.published.unpublished)):
            yield f"Not published, or not as published here: {', '.join(unknown)}.\n"


def keys_of(runs: Sequence[Run]) -> str:
    r"""What the runs are called in their archive: seed and key."""
    return markdown.plain_text(", ".join(run.folder.name for run in runs))


def without_empty(titles: list[str], rows: list[list]) -> str:
    r"""A Markdown table without columns that are empty throughout."""
    kept = [n for n in range(len(titles)) if n == 0 or any(str(row[n]) for row in rows)]
    return markdown.table([titles[n] for n in kept], [[row[n] for n in kept] for row in rows])


def groups_of(runs: list[Run]) -> list[Group]:
    r"""Runs that are averaged, on whatever device; each is called by its estimator and by what tells it from others of
    that estimator."""
    anywhere = [replace(run, config={k: v for k, v in run.config.items() if k != "device"}) for run in runs]
    by_task = grouped(anywhere, [], sorted({run.estimator for run in runs}), [])
    groups = [group for groups in by_task.values() for group in groups]
    for estimator in {group.estimator for group in groups}:
        own = [group for group in groups if group.estimator == estimator]
        every = dict.fromkeys(key for group in own for key in group.settings)
        keys = [key for key in every if len({group.settings.get(key) for group in own}) > 1]
        for group in own:
            task = [group.task] * (len({other.task for other in own}) > 1)
            told = ", ".join([*task, *(f"{key}={group.settings[key]}" for key in keys if key in group.settings)])
            group.label = f"{estimator} ({told})" if told else estimator
    return groups


def figures_table(runs: list[Run], shown: dict) -> str:
    r"""Final figures of runs, averaged over seeds."""
    rows = []
    for group in groups_of(runs):
        cells = [markdown.plain_text(group.label), markdown.plain_text(", ".join(run.seed for run in group.finished))]
        for metric in shown["figures"]:
            step = shown.get("step") if metric.startswith("gradient/") else None
            taken = [c for run in group.finished if (c := value_at_step(run, metric, step)) is not None]
            error = float(np.std(taken, ddof=1) / len(taken) ** 0.5) if len(taken) > 1 else None
            cells.append(with_error(float(np.mean(taken)), error) if taken else "")
        rows.append([*cells, keys_of(group.finished)])
    return without_empty(["", "seeds", *(f"`{metric}`" for metric in shown["figures"]), "runs"], rows)


def value_at_step(run: Run, metric: str, step: int | None) -> float | None:
    found = [value for at, value in course(run, metric) if step is None or at == step]
    return found[-1] if found else None


def circumstances_line(runs: list[Run]) -> str:
    r"""Under what circumstances runs were made, in a sentence for each."""
    circumstances = Counter(circumstance(run) for run in runs)
    return "".join(
        f"{count} run{'s' * (count > 1)}: {markdown.plain_text(what)}.\n" for what, count in circumstances.items()
    )


def circumstance(run: Run) -> str:
    about = run.environment
    versions = about["versions"] if isinstance(about.get("versions"), dict) else {}
    device = about.get("device", "an unknown device")
    if device == "cpu" and "x86_64" in str(about.get("platform")):  # of early runs, which said no more
        device = "a processor (x86_64)"
    words = [f"{run.steps:,} step{'s' * (run.steps > 1)}", f"on {device}"]
    words += [f"{name} {versions[name]}" for name in ("torch",) if name in versions]
    words += [f"Python {about['python']}"] if "python" in about else []
    changed = " with changes" * bool(about.get("changed_files"))
    words.append(f"commit {str(about['commit'])[:10]}{changed}" if about.get("commit") else "no commit")
    return ", ".join(words)


def missing_cells(found: Experiment, full: list[Run]) -> str | None:
    r"""Cells of an experiment without a run in full; of what is searched over, such as rates, any value will do."""
    swept = {key: values for key, values in found.params.items() if key != "seed" and not key.startswith(SEARCHED)}
    cells = [row | dict(zip(swept, values, strict=True)) for row in found.rows for values in product(*swept.values())]
    missing = [cell for cell in cells if not any(fits(run, cell) for run in full)]
    if not missing:
        return None
    if not full:
        return "Not run in full: all of it.\n"
    if len(missing) > LISTED:
        return f"Not run in full: {len(missing)} of {len(cells)} cells.\n"
    same = {key for key in cells[0] if len({cell.get(key) for cell in cells}) == 1}
    names = [", ".join(f"{k}={v}" for k, v in cell.items() if k not in same) for cell in missing]
    return "Not run in full: " + "; ".join(names) + ".\n"


# ---------------------------------------------------------------- pictures


def draw_series(shown: dict, comparisons: list[Comparison], path: Path) -> list[Path]:
    r"""Draws published series beside measured ones, in a picture or none."""
    if "plane" in shown:
        across, up = shown["plane"]
        spec = plane_picture(comparisons, across, up, shown["title"])
    else:
        spec = series_picture(comparisons, shown["title"])
    if spec is None:
        return []
    write_whole(path, as_png(spec))
    return [path]


def draw_courses(name: str, shown: dict, runs: list[Run], path: Path) -> list[Path]:
    r"""Draws the courses of an experiment's metrics, of the runs in full, in a picture; in none if there are none."""
    full = [with_courses(run, shown.get("curves", [])) for run in runs if run.finished and ran_in_full(run)]
    found = experiment(name)
    assert found is not None
    split = [key for key in found.params if key != "seed" and not key.startswith(SEARCHED) and not of_problem(key)]
    keys = [key for key in split if len({run.config.get(key) for run in full}) > 1]
    panels: list[tuple[Words, list[dict], str]] = []
    shown_as: dict[str, str] = {}
    one_task = len({run.task for run in full}) == 1
    for problem, on_it in problems(full).items():
        name_of = problem.partition(", ")[2] if one_task else problem
        for combination in sorted({tuple(run.config.get(k) for k in keys) for run in on_it}):
            groups = groups_of([run for run in on_it if tuple(run.config.get(k) for k in keys) == combination])
            shown_as |= {group.label: group.estimator for group in groups}
            settings = [f"{column_title(k)}={v}" for k, v in zip(keys, combination, strict=True)]
            for metric in shown.get("curves", []):
                curves = [curve_of(group, metric, "steps", POINTS) for group in groups]
                if rows := curve_rows(filter(None, curves)):
                    about = ", ".join(filter(None, [name_of, *settings]))
                    panels.append((words(metric, said_by(full)), rows, about))
    if not panels:
        return []
    write_whole(path, as_png(curves_picture(panels, shown["title"], looks(shown_as, []))))
    return [path]


def with_courses(run: Run, metrics: list[str]) -> Run:
    r"""The run with curves of these metrics against steps, also of those that a report draws none of."""
    courses = {metric: course(run, metric) for metric in metrics if metric not in run.curves}
    found = {m: np.array([(step, np.nan, np.nan, value) for step, value in c]) for m, c in courses.items() if c}
    return replace(run, curves=run.curves | found)
