r"""A report at Weights & Biases about runs that are there, by W&B's own library: ``report.py FOLDER --wandb``."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardmax.files import write_whole
from hardmax.harness.contents import printable
from hardmax.harness.online import WANDB_BEST, figures_of, known_id, reachable, telling_part, wandb_mode
from hardmax.harness.shared import Refused, one_line

from .archives import shown
from .groups import CHOICES, Group, chosen, grouped, swept
from .runs import Run, find_runs, said_by
from .words import words

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2 import PanelGrid, Report
    from wandb_workspaces.reports.v2.interface import PanelTypes

FILE = "wandb_report.json"
LONGEST_REPORT_TITLE = 128  # letters that W&B takes
WIDTH, HEIGHT = 8, 7  # of a panel; 24 of the former are a row
VARIANCE, BIAS = (f"gradient/encoder/{what}" for what in ("variance", "relative_bias"))


def write_online_report(
    folders: list[Path], to: Path, conditions: list[str], by: list[str]
) -> tuple[str, list[Path], list[str]]:
    r"""Makes a report at W&B and a file with it, the latter alone without an account; its address, the file and notes.

    For each problem it has curves by group with bands over seeds, final figures as bars, bias against variance and a
    table of the runs with the columns in which they differ. Runs are those whose folder has an id of W&B's.

    Arguments:
        folders: Below which runs are looked for.
        to: The folder of the file ``wandb_report.json``, the report as W&B's library writes it.
        conditions: ``KEY=VALUE``, of the runs that are wanted.
        by: Keys of groups; without any, a group is what differs in seeds alone.

    Raises:
        Refused: If W&B's library for reports is not installed, there are no such runs, they are of several projects,
            the file cannot be written, or W&B does not take the report.
    """
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise Refused("--wandb needs an extra: pip install -e '.[wandb]'")
    found = find_runs(folders)
    runs = [run for run in chosen(found.runs, conditions) if run.finished] if found.runs else []
    there = [run for run in runs if known_id(run.folder)]
    if not there:
        hint = f"; report.py {' '.join(map(str, folders))} --upload sends them" * bool(runs)
        raise Refused(f"no finished run below {', '.join(map(str, folders))} that W&B knows{hint}")
    notes = found.notes + [f"left out, not at W&B: {shown(run.folder)}" for run in runs if not known_id(run.folder)]
    project, entity = (common(key, there) for key in ("wandb.project", "wandb.entity"))
    groups = grouped(there, by, sorted({run.estimator for run in there}), notes)
    asked = wandb_mode(None)
    online = asked in (None, "online") and reachable()
    try:
        if online and entity is None:
            import wandb

            entity = wandb.Api().default_entity
        report = report_of(groups, by, project or "", entity if online and entity else "")
        content = report._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=2)
        address = report.save().url if online else ""
    except Exception as error:  # whatever W&B raises
        raise Refused(f"W&B does not take the report ({type(error).__name__}: {one_line(error)[:300]})") from error
    if not address:
        refused = asked in ("offline", "disabled")
        why = f"WANDB_MODE={asked}" if refused else "no credentials, or the server does not answer"
        notes.append(f"W&B: {why}: the report is a file alone")
    try:
        to.mkdir(parents=True, exist_ok=True)
        write_whole(to / FILE, content)
    except OSError as error:
        raise Refused(f"--to {to}: {error.filename or to} cannot be written: {error.strerror}") from error
    return address, [to / FILE], notes


def common(key: str, runs: list[Run]) -> str | None:
    r"""What all runs have of a setting; None where that is null.

    Raises:
        Refused: If they differ in it.
    """
    values = sorted({run.config.get(key, "null") for run in runs})
    if len(values) > 1:
        raise Refused(f"--wandb takes runs of one {key}, got {', '.join(values)}: --only {key}={values[0]} chooses")
    return None if values[0] == "null" else values[0]


def report_of(groups: dict[str, list[Group]], by: list[str], project: str, entity: str) -> "Report":
    r"""The report, not yet at W&B.

    Arguments:
        groups: By problem.
        by: Keys of the groups, if these were chosen.
        project, entity: Of the runs and the report at W&B; without an entity, nobody is asked.
    """
    import wandb_workspaces.reports.v2 as wr

    blocks: list = []
    for problem, own in groups.items():
        over = ", ".join(dict.fromkeys(["seeds", *(name for group in own for name in group.pooled)]))
        text = f"Lines and bars are means over {over}; bands and whiskers are one standard error to each side."
        blocks += [wr.H1(problem), wr.P(text), panel_grid(own, by, project if entity else "", entity)]
    title = printable(f"hardmax: {'; '.join(groups)}")[:LONGEST_REPORT_TITLE]
    return wr.Report(project=project, entity=entity, title=title, blocks=blocks, width="fluid")


def panel_grid(groups: list[Group], by: list[str], project: str, entity: str) -> "PanelGrid":
    r"""The panels about one problem, and the table of its runs."""
    import wandb_workspaces.reports.v2 as wr
    from wandb_workspaces import expr

    runs = [run for group in groups for run in group.runs]
    keys = by or list(dict.fromkeys(["estimator", *(key for group in groups for key in group.keys.values())]))
    metrics = metrics_of(runs)
    tested = [metric for metric in metrics if metric.startswith("test/")]
    varied = ["estimator", *keys, *(key for own in swept(runs).values() for key in own), "seed"]
    columns = [f"config:{place_in_config(key)}" for key in dict.fromkeys(varied)]
    columns += [f"summary:{column}" for column in [*best_columns(runs, metrics), *tested]]
    better = {metric: words(metric, said_by(runs)).better for metric in tested}
    order = [wr.OrderBy(wr.SummaryMetric(m), ascending=better[m] < 0) for m in tested if better[m]][:1]
    table = wr.Runset(
        project=project,
        entity=entity,
        name="Runs",
        filters=expr.And(expr.Metric("ID").isin([known_id(run.folder) for run in runs])),
        groupby=[f"config.{place_in_config(key)}" for key in keys],
        visible_columns=["run:displayName", *columns, "summary:cost/evaluations", "summary:cost/seconds"],
        lock_columns=True,
        order=order or [wr.OrderBy("CreatedTimestamp")],
    )
    return wr.PanelGrid(runsets=[table], panels=list(report_panels(runs, metrics, keys)))


def report_panels(runs: list[Run], metrics: list[str], keys: list[str]) -> Iterator["PanelTypes"]:
    r"""Curves against steps, final figures as bars, and bias against variance where both are known."""
    import wandb_workspaces.reports.v2 as wr

    said = said_by(runs)
    layout = lambda: wr.Layout(w=WIDTH, h=HEIGHT)
    means: dict[str, Any] = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stderr"}
    if len(keys) == 1:  # several are those of the table of runs
        means["groupby"] = place_in_config(keys[0])
    for metric in metrics:
        word = words(metric, said)
        arrow = {1: ", higher is better", -1: ", lower is better", 0: ""}[word.better]
        title = f"{word.with_unit}{arrow}"
        if metric.startswith("test/"):
            yield wr.BarPlot(title=title, metrics=[metric], layout=layout(), **means)
        elif not metric.startswith("cost/"):
            log = word.log or None
            yield wr.LinePlot(title=title, x="step", y=[metric], title_x="step", log_y=log, layout=layout(), **means)
    if {VARIANCE, BIAS} <= {*metrics}:
        x, y = (wr.SummaryMetric(metric) for metric in (VARIANCE, BIAS))
        yield wr.ScatterPlot(title="bias against variance of the gradient", x=x, y=y, log_x=True, layout=layout())


def metrics_of(runs: list[Run]) -> list[str]:
    r"""What W&B has of runs by default, in the order of the report; without standard errors."""
    known: dict[str, None] = {}
    for run in runs:
        values = {key: value for key, value in run.figures.items() if value is not None}
        known |= dict.fromkeys(telling_part({**run.curves, **values}, figures_of(run.folder)))
    sections = ("valid/", "train/", "gradient/", "test/")
    told = [key for key in known if key.startswith(sections) and not key.endswith("_error")]
    return sorted(told, key=lambda key: next(n for n, section in enumerate(sections) if key.startswith(section)))


def best_columns(runs: list[Run], metrics: list[str]) -> list[str]:
    r"""Where W&B has the best value of each validation figure that can be better or worse."""
    better = {f"valid/{name}": word for run in runs for name, word in figures_of(run.folder).items()}
    return [f"{m}.{WANDB_BEST[better[m]]}" for m in metrics if better.get(m) in WANDB_BEST]


def place_in_config(key: str) -> str:
    r"""Where W&B has a setting of a run: below each key of the top level it has ``value``."""
    first, *rest = (f"choices.{key}" if key in CHOICES else key).split(".")
    return ".".join([first, "value", *rest])
