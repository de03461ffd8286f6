r"""The final table of a task, as CSV, Markdown, LaTeX and plain text."""

import re
from dataclasses import dataclass

import pandas as pd

from hardmax import markdown
from hardmax.numbers import with_error

from .archives import shown
from .final_figures import Results
from .groups import Group
from .statistics import AS_GOOD, BEST, FEWEST, Mean
from .words import spelled

LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\^{}"}
LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$", "×": r"$\times$", "−": "$-$"}
NONE = "–"


@dataclass(frozen=True)
class Cell:
    r"""What a table says in one place.

    Attributes:
        text: In plain Unicode.
        marked: Whether it is the best or not significantly worse.
        word: The verdict, if there is one.
    """

    text: str
    marked: bool = False
    word: str = ""


@dataclass
class Table:
    r"""Titles of the columns, and rows of a group and its cells."""

    titles: list[str]
    rows: list[tuple[Group, list[Cell]]]


def with_heading(results: Results, what: str = "final figures") -> str:
    r"""The table of plain text under a line that says what it shows."""
    return f"\n{results.task}: {table_heading(results, what)}\n\n{as_text(final_table(results))}"


def table_heading(results: Results, what: str = "final figures") -> str:
    r"""What the table of plain text shows, in a line."""
    marks = "no marks, as options are pooled" if results.pooled else "* the best, or not significantly worse"
    untested = any(verdict.untested for of_metric in results.verdicts.values() for verdict in of_metric.values())
    few = f"; ? nothing can be said (fewer than {FEWEST} runs, or some without it)" * untested
    return f"{what}, mean ± standard error over {results.over}; {marks}{few}"


def final_table(results: Results) -> Table:
    r"""A row for each group: what was swept, runs, figures with their standard errors, cost."""
    columns = list(dict.fromkeys(name for group in results.groups for name in group.settings))
    titles = [*map(spelled_key, columns), "runs", *(results.words(metric).with_unit for metric in results.shown)]
    rows = []
    for group in results.groups:
        settings = [Cell(group.settings.get(name, NONE)) for name in columns]
        rows.append((group, [*settings, Cell(about_runs(group)), *(cell(results, group, m) for m in results.shown)]))
    return Table(titles, rows)


def spelled_key(key: str) -> str:
    return spelled(key).replace(".", " ")


def answer(results: Results) -> str:
    r"""What came out, in a sentence."""
    if results.pooled:
        pooled = " and ".join(results.pooled)
        return f"Pooled over {pooled}: no best is named, as means and errors mix the values of these options."
    metric = next((m for m in results.shown if results.verdicts.get(m)), None)
    if metric is None:
        return ""
    found, words = results.verdicts[metric], results.words(metric)
    best = next((label for label, verdict in found.items() if verdict.word == BEST), None)
    if best is None:
        return f"Which has the best {words.title} is not said: every group lacks it in some of its finished runs."
    mean = results.means[best][metric]
    value = with_error(mean.value, mean.error) + f" {words.unit}" * bool(words.unit)
    text = f"Best {words.title}: {best}, {value} ({mean.runs} run{'s' * (mean.runs > 1)})."
    if found[best].few:
        return f"{text} With fewer than {FEWEST} runs, that may be chance."
    as_good = [group.label for group in results.groups if group.label in found and found[group.label].word == AS_GOOD]
    if as_good:
        listed = ", ".join(as_good[:8]) + f" and {len(as_good) - 8} more" * (len(as_good) > 8)
        text += f" Not significantly worse: {listed}."
    return text


def about_runs(group: Group) -> str:
    r"""Such as ``3 of 5; 1 failed, 1 missing``, and over which options they are averaged."""
    finished, total = len(group.finished), len(group.runs) + len(group.missing)
    counts = {status: sum(run.status == status for run in group.runs) for status in ("failed", "running", "unfinished")}
    counts["missing"] = len(group.missing)
    rest = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    pooled = [f"over {name}={', '.join(values)}" for name, values in group.pooled.items()]
    return "; ".join([f"{finished} of {total}", *filter(None, [rest]), *pooled])


def cell(results: Results, group: Group, metric: str) -> Cell:
    r"""A figure of a group; where it is not defined in all finished runs, it says in how many."""
    mean, verdict = results.means[group.label].get(metric), results.verdicts.get(metric, {}).get(group.label)
    if metric.endswith("/relative_bias"):
        found = results.bias(group.label, metric.split("/")[1])
        if found is None:
            return Cell(NONE)
        value, error, limit = found
        return Cell(f"< {value:.2g}" if limit else with_error(value, error))
    if mean is None:
        return Cell(NONE)
    text = with_error(mean.value, mean.error)
    if mean.runs < len(group.finished):
        text += f" ({mean.runs} of {len(group.finished)})"
    if verdict is None:
        return Cell(text)
    return Cell(text + " ?" * verdict.untested, verdict.marked, verdict.word)


def as_markdown(table: Table) -> str:
    r"""A Markdown table; what is marked is bold."""
    bold = lambda cell: f"**{markdown.literal(cell.text)}**" if cell.marked else markdown.literal(cell.text)
    titles = ["estimator", *map(markdown.literal, table.titles)]
    rows = [[markdown.literal(group.estimator), *map(bold, cells)] for group, cells in table.rows]
    return markdown.table(titles, rows, right=True)


def as_latex(table: Table) -> str:
    r"""A LaTeX table for booktabs; what is marked is bold."""
    lines = [["estimator", *map(latex, table.titles)]]
    for group, cells in table.rows:
        bold = [rf"\textbf{{{latex(c.text)}}}" if c.marked else latex(c.text) for c in cells]
        lines.append([latex(group.estimator), *bold])
    head, *body = (" & ".join(line) + r" \\" for line in lines)
    rules = [rf"\begin{{tabular}}{{l{'r' * len(table.titles)}}}", r"\toprule", head, r"\midrule", *body]
    return "\n".join([*rules, r"\bottomrule", r"\end{tabular}", ""])


def latex(text: str) -> str:
    power = re.sub(
        r"10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", lambda m: f"10^{m[1].translate(str.maketrans('⁻⁰¹²³⁴⁵⁶⁷⁸⁹', '-0123456789'))}", text
    )
    found = "".join(LATEX.get(c, c) for c in " ".join(power.splitlines()))
    return re.sub(r"10\\\^\{\}(-?\d+)", r"$10^{\1}$", found)


def as_text(table: Table) -> str:
    r"""The table for a terminal."""
    rows = [[cell.text + "*" * cell.marked for cell in cells] for _, cells in table.rows]
    return pd.DataFrame(rows, columns=table.titles, index=[group.estimator for group, _ in table.rows]).to_string()


def final_csv(all_results: list[Results]) -> pd.DataFrame:
    r"""Every final figure in long form: task, label, settings, metric, mean, standard error, seeds, and the verdict."""
    rows = []
    for results in all_results:
        for group in results.groups:
            about = {"task": results.task, "label": group.label, "estimator": group.estimator, **group.settings}
            for metric, mean in results.means[group.label].items():
                rows.append(about | {"metric": metric} | of_mean(mean) | of_verdict(results, group.label, metric))
    return pd.DataFrame(rows)


def of_mean(mean: Mean) -> dict:
    return {"mean": mean.value, "standard_error": mean.error, "seeds": mean.runs}


def of_verdict(results: Results, label: str, metric: str) -> dict:
    verdict = results.verdicts.get(metric, {}).get(label)
    found = verdict and verdict.difference
    names = ("mean", "low", "high", "paired")
    about = {f"difference_{name}": getattr(found, name) if found else None for name in names}
    return {"verdict": verdict and verdict.word} | about


def runs_csv(all_results: list[Results]) -> pd.DataFrame:
    r"""Every run that was found, whatever became of it, with its final figures of merit and costs."""
    rows = []
    for results in all_results:
        for group in results.groups:
            for run in group.runs:
                about: dict[str, object] = {
                    "task": results.task,
                    "label": group.label,
                    "estimator": run.estimator,
                    **group.settings,
                }
                about |= {"seed": run.seed, "status": run.status, "reason": run.reason, "step": run.step}
                rows.append(about | {"folder": shown(run.folder)} | {m: run.figures.get(m) for m in results.shown})
    return pd.DataFrame(rows)
