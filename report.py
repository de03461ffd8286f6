"""Finished runs side by side: a table, a CSV file and a picture for each task. ``python report.py FOLDER``."""

import argparse
import json
import sys
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import yaml

from harness.options import NOT_RESULTS
from harness.tracking import FINISHED

# Okabe and Ito's colours, which the colour-blind can tell apart; line styles tell them apart in grey print.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A8A8A"]
STYLES = ["-", "--", "-.", ":"]
VARIANCE = "gradient/logits/variance"
WORDS = {
    "train/loss": "training loss",
    "valid/elbo": "validation ELBO, discrete draws (nats)",
    "valid/distance": "distance to the language's entropy (nats per token)",
    "valid/kl": "KL divergence of the model from the language (nats)",
    "valid/cost": "exact expected cost",
    VARIANCE: "gradient variance to the logits",
    "gradient/encoder/variance": "gradient variance to the parameters",
    "gradient/encoder/dead": "dead share of the parameters",
}
# What tells no more where another figure is there, which is drawn in its place.
INSTEAD = {
    "valid/elbo": "valid/distance",
    "valid/kl": "valid/elbo",
    "gradient/encoder/variance": VARIANCE,
    "gradient/encoder/dead": VARIANCE,
}


def read_run(folder: Path) -> tuple[dict, pd.DataFrame, dict | None]:
    r"""Config, rows and final figures of one run; the figures are None while it is unfinished.

    A last line that was cut off is left out. Raises ValueError, OSError or KeyError for anything else.
    """
    config = yaml.safe_load((folder / "config.yaml").read_text())
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    rows = pd.DataFrame([json.loads(line) for line in lines if line.endswith("\n")])
    summary = folder / FINISHED
    if not {"task", "estimator", "seed"} <= config["choices"].keys():
        raise ValueError("no config of a run")
    return config, rows, json.loads(summary.read_text()) if summary.is_file() else None


def flat(config: dict, prefix: str = "") -> dict:
    r"""A nested config as one dictionary with dotted keys, without what cannot change results."""
    found = {}
    for key, value in config.items():
        if not prefix and key in (*NOT_RESULTS, "choices", "seed"):
            continue
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)}
    return found


def labels(runs: pd.DataFrame) -> pd.Series:
    r"""A name for each run: its estimator, and the settings in which runs on the same task differ."""

    def varying(configs):
        table = pd.DataFrame(list(configs))
        return [c for c in table if table[c].nunique(dropna=False) > 1]

    names = pd.Series(index=runs.index, dtype=object)
    for _, on_task in runs.groupby("task"):
        shared = varying({k: v for k, v in c.items() if not k.startswith("estimator.")} for c in on_task.config)
        for estimator, of_one in on_task.groupby("estimator"):
            own = [k for k in varying(of_one.config) if k.startswith("estimator.")]
            for index, config in of_one.config.items():
                settings = [f"{k.removeprefix('estimator.')}={config[k]}" for k in shared + own if k in config]
                names[index] = f"{estimator} ({', '.join(settings)})" if settings else estimator
    return names


def collect(folders: list[Path]) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    r"""All finished runs below the folders, their rows, and a note on everything that was left out."""
    runs, rows, notes = [], [], []
    for path in sorted({p for folder in folders for p in folder.rglob("config.yaml")}):
        folder = path.parent
        try:
            config, table, summary = read_run(folder)
        except (ValueError, OSError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
            notes.append(f"not a run: {folder} ({type(error).__name__}: {error})")
            continue
        if summary is None:
            last = int(table.step.max()) if len(table) else 0
            notes.append(f"unfinished, left out: {folder} (step {last} of {config['steps']})")
            continue
        made = (folder / FINISHED).stat().st_mtime
        runs.append({**config["choices"], "config": flat(config), "folder": folder, "made": made, **summary})
        rows.append(table.assign(folder=folder))
    if not runs:
        return pd.DataFrame(), pd.DataFrame(), notes
    runs = pd.DataFrame(runs).sort_values("made", kind="stable")
    runs["label"] = labels(runs)
    again = runs.duplicated(["task", "label", "seed"], keep="last")
    notes += [f"repeated later, left out: {folder}" for folder in runs[again].folder]
    runs = runs[~again].sort_values(["task", "label", "seed"])
    rows = pd.concat(rows).merge(runs[["folder", "task", "label", "seed"]], on="folder")
    return runs, rows, notes


def final_figures(runs: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    r"""Final figures in long form: task, label, metric, mean and standard error over seeds, number of seeds."""
    runs = runs.assign(**{"cost/evaluations": runs.evaluations / runs.steps, "cost/seconds": runs.seconds})
    tested = [c for c in runs if c.startswith(("test/", "cost/"))]
    long = [runs.melt(["task", "label", "seed"], tested, "metric", "value")]
    measured = [c for c in rows if c.startswith("gradient/") or c == "train/loss"]
    for metric in measured:
        last = rows.dropna(subset=[metric]).sort_values("step").groupby(["task", "label", "seed"])[metric].last()
        long.append(last.rename("value").reset_index().assign(metric=metric))
    long = pd.concat(long).dropna(subset=["value"])
    grouped = long.groupby(["task", "label", "metric"]).value
    table = grouped.agg(mean="mean", standard_error="sem", seeds="count").reset_index()
    return table


def shown(figures: pd.DataFrame, task: str) -> pd.DataFrame:
    r"""The table of one task as printed: mean ± standard error of the figures that matter most."""
    of_task = figures[figures.task == task].copy()
    error = of_task.standard_error
    of_task["text"] = [
        f"{m:.4g}" if np.isnan(e) or e == 0 else f"{m:.4g} ± {e:.2g}"
        for m, e in zip(of_task["mean"], error, strict=True)
    ]
    tested = sorted(m for m in of_task.metric.unique() if m.startswith("test/"))
    wanted = ["train/loss", *tested, VARIANCE, "gradient/logits/snr", "cost/evaluations", "cost/seconds"]
    table = of_task.pivot(index="label", columns="metric", values="text")
    table = table[[m for m in wanted if m in table]].fillna("undefined")
    table.insert(0, "seeds", of_task.groupby("label").seeds.max())
    return table.rename_axis("estimator", axis=0).rename_axis(None, axis=1)


def look(n: int) -> tuple[str, str]:
    r"""Colour and line style of the n-th curve: 32 pairs before any comes again."""
    return COLOURS[n % len(COLOURS)], STYLES[(n + n // len(COLOURS)) % len(STYLES)]


def draw(rows: pd.DataFrame, task: str, path: Path) -> None:
    r"""Loss, held-out figure and gradient variance against steps: mean over seeds, band of one standard error."""
    of_task = rows[rows.task == task]
    metrics = [m for m in WORDS if m in of_task and of_task[m].notna().any()]
    metrics = [m for m in metrics if INSTEAD.get(m) not in metrics]
    names = sorted(of_task.label.unique())
    texts = [textwrap.fill(name, 70) for name in names]
    columns = max(1, min(len(texts), 40 * len(metrics) // max(map(len, texts))))
    height = 4 + 0.24 * -(-len(texts) // columns)  # the legend's rows are on top of the axes
    figure, axes = plt.subplots(1, len(metrics), figsize=(4.6 * len(metrics), height), layout="constrained")
    for axis, metric in zip(np.atleast_1d(axes), metrics, strict=True):
        absent = []
        for n, name in enumerate(names):
            of_one = of_task[of_task.label == name].dropna(subset=[metric])
            values = of_one[metric]
            if metric.endswith("/variance"):  # geometric mean and error, as the axis is logarithmic
                of_one, values = of_one[values > 0], np.log10(values[values > 0])
            by_step = values.groupby(of_one.step)
            mean, error = by_step.mean(), by_step.sem().fillna(0)
            if mean.empty:
                absent.append(name)
                continue
            low, high = mean - error, mean + error
            if metric.endswith("/variance"):
                mean, low, high = 10**mean, 10**low, 10**high
            colour, style = look(n)
            marker = "o" if len(mean) == 1 else None  # a line of one point would not be seen
            axis.plot(mean.index, mean, color=colour, linestyle=style, marker=marker, label=name, linewidth=1.8)
            axis.fill_between(mean.index, low, high, color=colour, alpha=0.2, linewidth=0)
        if metric.endswith("/variance"):
            axis.set_yscale("log")
        elif metric.startswith("train/"):
            axis.set_ylim(*robust_limits(of_task[metric]))
        if absent:
            axis.text(0.98, 0.98, f"no variance: {', '.join(absent)}", transform=axis.transAxes, ha="right", va="top")
        axis.set_title(WORDS[metric], fontsize=11)
        axis.set_xlabel("optimiser steps")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    handles, texts = np.atleast_1d(axes)[0].get_legend_handles_labels()
    texts = [textwrap.fill(text, 70) for text in texts]
    figure.legend(handles, texts, loc="outside lower center", ncols=columns, frameon=False)
    seeds = int(of_task.groupby("label").seed.nunique().min())
    figure.suptitle(f"{task}: mean over {seeds} seed{'s' * (seeds > 1)}, band ± one standard error")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def robust_limits(values: pd.Series) -> tuple[float, float]:
    r"""Limits that show the course of a loss rather than its first moments."""
    low, high = values.min(), values.quantile(0.97)
    margin = 0.05 * (high - low) or 0.05 * abs(low) or 1.0
    return low - margin, high + margin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="runs are looked for below it")
    parser.add_argument("--to", type=Path, help="where the report goes (default: report in the first FOLDER)")
    options = parser.parse_args()
    if absent := [str(f) for f in options.folders if not f.is_dir()]:
        sys.exit(f"error: no such folder: {', '.join(absent)}")
    runs, rows, notes = collect(options.folders)
    for note in notes:
        print(note, file=sys.stderr)
    if not len(runs):
        sys.exit(f"error: no finished run below {', '.join(map(str, options.folders))}")
    to = options.to or options.folders[0] / "report"
    to.mkdir(parents=True, exist_ok=True)
    figures = final_figures(runs, rows)
    figures.to_csv(to / "final.csv", index=False)
    for task in sorted(runs.task.unique()):
        draw(rows, task, to / f"{task}.png")
        print(f"\n{task}: final figures, mean ± standard error over seeds\n")
        print(shown(figures, task).to_string())
    print(f"\n{to / 'final.csv'}" + "".join(f"\n{to / f'{task}.png'}" for task in sorted(runs.task.unique())))


if __name__ == "__main__":
    main()
