"""What ``hardmax.compare`` names in a minute along a run, and how well that trains at its best setting.

    python -m benchmarks.advised output/tuned/report/tuned.csv output/tuned/dvae/reinmax/1-0a1b2c3d --to output/advised

The first file is what ``report.py FOLDER --tune`` wrote; the folders are runs of the same problem. At the parameters
after the first step, after a third and at the end of a run every estimator is compared, on two cores, for as long as
``--seconds`` says. The rankings are kept in the folder ``--to`` as RUN.csv.xz: given in the place of the run's folder,
it makes the table without the run. An estimator is *within the error* of the five that train best if it is better than
the fifth, or worse by at most two standard errors of the difference.
"""

import argparse
import functools
import time
from pathlib import Path

import pandas as pd
import torch
from omegaconf import OmegaConf

import hardmax
from benchmarks.advice import found_along, name_of, places, tuned_figures
from hardmax import markdown
from hardmax.harness.config import build
from hardmax.harness.contents import saved_config
from hardmax.harness.shared import CHECKPOINT
from hardmax.harness.train import prepare
from hardmax.numbers import with_error
from hardmax.paths import CONFIGS
from hardmax.reporting.published.values import content_of
from hardmax.tasks.base import Problem

BEST, EXAMPLES, CORES = 5, 100, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tuned", type=Path)
    parser.add_argument("compared", type=Path, nargs="+")
    parser.add_argument("--to", type=Path, default=Path("output/advised"))
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    torch.set_num_threads(CORES)
    along = lambda folder: compared_along(folder, given.to, given.seconds)
    for rankings in found_along(given.compared, given.to, along):
        print(table(rankings, given.tuned))


def compared_along(folder: Path, to: Path, seconds: float) -> pd.DataFrame:
    """The rankings at three places of a run: estimators, the best first, with the errors by which they are ranked."""
    rows = []
    for columns, place in places(folder, to):
        problem = problem_at(place)
        begun = time.perf_counter()
        found = hardmax.compare(
            problem.logits.detach(), problem.objective, seconds, context=problem.context, log_q=problem.log_q
        )
        columns |= {"seconds": round(time.perf_counter() - begun, 1)}
        for rank, candidate in enumerate(found.table, 1):
            error, standard_error = found.ranking.errors[candidate.estimator]
            row = {"place": rank, "estimator": candidate.estimator, "error": error, "standard_error": standard_error}
            rows.append(columns | row)
    return pd.DataFrame(rows)


def problem_at(folder: Path) -> Problem:
    """The problem of a run on a fixed batch, at the parameters in its folder."""
    config = saved_config(folder)
    cfg, chosen = OmegaConf.create(config), config["choices"]
    task, estimator = build(cfg, "task", chosen["task"]), build(cfg, "estimator", chosen["estimator"])
    state = prepare(cfg, task, estimator, torch.device("cpu"))
    state.load_parameters(folder / CHECKPOINT)
    return task.problem(task.measurement_batch(EXAMPLES))


def table(rankings: pd.DataFrame, tuned: Path) -> str:
    """What is named at each place, and how that trains, as Markdown."""
    better = rankings.better.iloc[0]
    known = tuned_figures(tuned, rankings.figure.iloc[0]).sort_values("mean", ascending=better == "lower")
    known = known.set_index("estimator")
    rows = []
    for (of, step), found in rankings.groupby(["run", "after"], sort=False):
        named = found.sort_values("place").estimator.map(in_configs)
        first = next((label for label in named if name_of(label) in known.index), None)
        cells = [of, f"{step:,}", markdown.literal(named.iloc[0]), f"{found.seconds.iloc[0]:.0f}"]
        rows.append(cells + (standing(first, known, better) if first else ["none", "", ""]))
    titles = ["parameters of", "step", "named", "after seconds", "the first that was tuned", "its figure", "its place"]
    return markdown.table(titles, rows)


def in_configs(label: str) -> str:
    """``GumbelSoftmax(temperature=0.3)`` as configs and reports name it."""
    made, options = label.split("(", 1)
    return f"{config_names()[made]}({options}".removesuffix("()")


@functools.cache
def config_names() -> dict[str, str]:
    """Names of estimators by class."""
    paths = (CONFIGS / "estimator").glob("*.yaml")
    return {str(content_of(path)["_target_"]).rpartition(".")[2]: path.stem for path in paths}


def standing(label: str, known: pd.DataFrame, better: str) -> list[str]:
    """The label, its tuned figure, and where that is among the others, the best first."""
    own, fifth = known.loc[name_of(label)], known.iloc[min(BEST, len(known)) - 1]
    worse = (own["mean"] - fifth["mean"]) * (1 if better == "lower" else -1)
    within = worse <= 2 * (own.standard_error**2 + fifth.standard_error**2) ** 0.5
    place = f"{known.index.get_loc(name_of(label)) + 1} of {len(known)}"
    place += f": {'within' if within else 'not within'} the error of the best {BEST}"
    return [markdown.literal(label), with_error(own["mean"], own.standard_error), place]


if __name__ == "__main__":
    main()
