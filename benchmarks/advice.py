"""How good advice from gradients is: do the estimators that look best there train best, each at its best setting?

    python -m benchmarks.advice output/tuned/report/tuned.csv output/tuned/dvae/reinmax/1-0a1b2c3d --to output/advice

The first file is what ``report.py FOLDER --tune`` wrote; the folders are runs of the same problem. For each of them
every setting worth trying of every estimator is measured at the parameters after the first step, after a third and at
the end of the run, and the rank correlation (Spearman) of four scores with the task's tuned figures is printed as a
Markdown table, with its 95 % interval by 2,000 bootstraps over estimators. An estimator's score is that of its best
setting; 1 means that the order is the same, 0 that the score says nothing. Runs to a third and measurements are kept
in the folder ``--to``, and those that are there are not made again. What was measured along a run is there as one file
too, RUN.csv.xz: given in the place of the run's folder, it makes the table without the run.
"""

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from hardmax import markdown
from hardmax.gradients import Candidate, candidate_of
from hardmax.gradients.advice import AVERAGED, by_evaluations, by_seconds
from hardmax.harness.contents import json_of, saved_config
from hardmax.notebook import composed, run_config
from hardmax.paths import ROOT

GROUPS = ("task", "estimator", "optimizer", "schedule", "data")
BOOTSTRAPS = 2000
SCORES: dict[str, Callable[[list[Candidate], int], dict[str, float]]] = {
    "squared error x evaluations": lambda found, _: {c.estimator: c.mse_per_evaluation for c in found},
    "squared error x seconds": lambda found, _: {c.estimator: c.mse_per_second for c in found},
    f"error of {AVERAGED:,} evaluations": lambda found, B: errors_of(by_evaluations(found, examples=B).errors),
    "error in equal time": lambda found, B: errors_of(by_seconds(found, examples=B).errors),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tuned", type=Path)
    parser.add_argument("measured", type=Path, nargs="+")
    parser.add_argument("--to", type=Path, default=Path("output/advice"))
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--reference-draws", type=int, default=100)
    given = parser.parse_args()
    along = lambda folder: measured_along(folder, given.to, given.draws, given.reference_draws)
    for measured in found_along(given.measured, given.to, along):
        print(table(measured, given.tuned))


def found_along(paths: list[Path], to: Path, along: Callable[[Path], pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """What ``along`` finds in each run's folder, kept in the folder ``to``; of a file, what was kept in it."""
    to.mkdir(parents=True, exist_ok=True)
    for path in paths:
        if path.is_dir():
            found = along(path)
            found.to_csv(to / f"{path.name}.csv.xz", index=False)
            yield found
        else:
            yield pd.read_csv(path)


def measured_along(folder: Path, to: Path, draws: int, reference_draws: int) -> pd.DataFrame:
    """What ``measure.py`` finds at three places of a run."""
    return pd.concat(
        measured_at(place, draws, reference_draws).assign(**columns) for columns, place in places(folder, to)
    )


def places(folder: Path, to: Path) -> Iterator[tuple[dict, Path]]:
    """Three places along a run: columns that say which, and of what figure; a folder with its parameters there."""
    config = saved_config(folder)
    last = json.loads((folder / "summary.json").read_text("utf-8"))["steps"]
    name, about = next((n, about) for n, about in json_of(folder / "figures.json").items() if about["better"])
    of = {"run": f"{config['choices']['estimator']}, seed {config['seed']}"}
    of |= {"figure": f"test/{name}", "better": about["better"]}
    for step in sorted({1, max(1, last // 3), last}):
        yield of | {"after": step}, parameters_after(step, last, folder, config, to)


def table(measured: pd.DataFrame, tuned: Path) -> str:
    """The correlations at each place, as Markdown."""
    better = measured.better.iloc[0]
    rows = tuned_figures(tuned, measured.figure.iloc[0])
    badness = dict(zip(rows.estimator, (1.0 if better == "lower" else -1.0) * rows["mean"], strict=True))
    lines = [
        [str(of), f"{step:,}", str(where), *correlations(of_one, badness)]
        for (of, step, where), of_one in measured.groupby(["run", "after", "where"], sort=False)
    ]
    titles = ["parameters of", "step", "gradient", *SCORES, "advice", "its place when tuned"]
    return markdown.table(titles, lines)


def tuned_figures(path: Path, figure: str) -> pd.DataFrame:
    """Rows of a tuned.csv about a figure, one for each estimator that has it."""
    rows = pd.read_csv(path)
    rows = rows[rows.metric == figure].dropna(subset=["mean"])
    if rows.task.nunique() != 1:
        raise SystemExit(f"error: {path} has {figure} of {', '.join(rows.task.unique()) or 'nothing'}: one is expected")
    return rows


def parameters_after(step: int, last: int, folder: Path, config: dict, to: Path) -> Path:
    """A folder with the run's config and its parameters after so many steps: of a run that ends there, or a copy."""
    if step == last and (folder / "state.pt").is_file():
        copy = to / "end" / config["choices"]["task"] / config["choices"]["estimator"] / folder.name
        copy.mkdir(parents=True, exist_ok=True)
        for name in ("config.yaml", "state.pt"):
            shutil.copy2(folder / name, copy / name)
        return copy
    chosen = [f"{group}={config['choices'][group]}" for group in GROUPS if config["choices"].get(group)]
    same = [f"{key}={config[key]}" for key in ("seed", "steps", "batch_size")]
    quiet = ["valid.every=0", "measure.every=0", "wandb.mode=disabled", f"stop_after={step}", f"output={to / 'runs'}"]
    with composed([*chosen, *same, *quiet], None) as cfg:
        for group in GROUPS:
            cfg[group] = config[group]
        with contextlib.redirect_stdout(sys.stderr):
            return run_config(cfg)[1]


def measured_at(folder: Path, draws: int, reference_draws: int) -> pd.DataFrame:
    """What ``measure.py`` finds there of every setting worth trying, unless it has before."""
    path = folder / "measured.csv"
    if not path.is_file():
        options = [f"measure.draws={draws}", f"measure.reference_draws={reference_draws}"]
        command = [sys.executable, str(ROOT / "measure.py"), str(folder), "measure.rivals=worth_trying", *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found = pd.read_csv(path)
    return found[~found.estimator.str.endswith(" (trained)")]


def correlations(rows: pd.DataFrame, badness: dict[str, float]) -> list[str]:
    """Cells of one place: the correlation of each score, what is advised, and where that stands among the tuned."""
    each = [row for _, row in rows.iterrows()]
    found = [candidate_of(row["estimator"], bool(row["unbiased"]), row, row["seconds"]) for row in each]
    known = [c for c in found if c and name_of(c.estimator) in badness]
    examples = int(rows.examples.iloc[0]) if rows["where"].iloc[0] == "encoder" else 1
    cells = []
    for score in SCORES.values():
        best: dict[str, float] = {}
        for label, value in score(known, examples).items():
            best[name_of(label)] = min(value, best.get(name_of(label), value))
        cells.append(correlation(np.array([(value, badness[name]) for name, value in best.items()])))
    advised = by_evaluations(known, examples=examples).order[0].estimator
    place = 1 + sum(other < badness[name_of(advised)] for other in badness.values())
    return [*cells, markdown.literal(advised), f"{place} of {len(badness)}"]


def correlation(pairs: np.ndarray) -> str:
    """Spearman's of pairs ``[n, 2]``, with its bootstrap interval."""
    generator, n = np.random.default_rng(0), len(pairs)
    rank = lambda chosen: float(stats.spearmanr(chosen[:, 0], chosen[:, 1]).statistic) if spread(chosen) else np.nan
    resampled = [rank(pairs[generator.integers(n, size=n)]) for _ in range(BOOTSTRAPS)]
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return f"{rank(pairs):.2f} ({low:.2f} to {high:.2f}, n = {n})"


def spread(pairs: np.ndarray) -> bool:
    """Whether neither column is constant, so that there are ranks to correlate."""
    return len(pairs) > 1 and bool((np.ptp(pairs, axis=0) > 0).all())


def errors_of(found: dict[str, tuple[float, float]]) -> dict[str, float]:
    return {label: error for label, (error, _) in found.items()}


def name_of(label: str) -> str:
    """The estimator's name in a label such as ``reinmax(temperature=1.3)``."""
    return label.partition("(")[0]


if __name__ == "__main__":
    main()
