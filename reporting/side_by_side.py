r"""What ``measure.py`` has measured, as tables, pictures and a CSV file."""

import itertools
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd

from hardmax.files import write_whole
from hardmax.gradients import candidate_of, recommend
from hardmax.numbers import with_error

from .biases import BiasComparison, drawable, points_of, relative_biases, truths_in_words
from .charts import as_png, bias_picture
from .looks import looks
from .spreadsheets import as_csv

WHAT = {"logits": "gradient to the logits, of one example", "encoder": "gradient to the encoder, of the batch's mean"}


def show_side_by_side(measured: list[dict], task: str, to: Path) -> None:
    r"""Prints the tables, and writes all figures and the pictures to a folder; what was measured before is kept."""
    rows = pd.DataFrame(measured)
    to.mkdir(parents=True, exist_ok=True)
    if kept := keep_former(to):
        print(f"what was measured here before is kept: {kept}")
    write_whole(to / "measured.csv", as_csv(rows))
    written = [to / "measured.csv"]
    for where, of_one in rows.groupby("where", sort=False):
        print(f"\n{task}, step {rows.step[0]}: {WHAT[where]}; truth: {truths_in_words(rows)}\n")
        print(printed_table(of_one).to_string())
        if sentence := recommended(of_one):
            print(f"\n{sentence}")
        if "bias2" in of_one and of_one.true_norm.notna().all():
            written.append(to / f"measured_{where}.png")
            title = f"{task}, step {rows.step[0]}: {WHAT[where]}; truth: {truths_in_words(rows)}"
            bias_variance_picture(of_one, title, written[-1])
    print("".join(f"\n{path}" for path in written))


def keep_former(folder: Path) -> Path | None:
    r"""Renames what was measured before, if anything was, by the first number that is free; gives its figures' file."""
    former = [folder / name for name in ("measured.csv", *(f"measured_{where}.png" for where in WHAT))]
    if not os.path.lexists(former[0]):
        return None
    numbered = lambda n: [path.with_stem(f"{path.stem}.{n}") for path in former]
    n = next(n for n in itertools.count(1) if not any(map(os.path.lexists, numbered(n))))
    for before, after in zip(former, numbered(n), strict=True):
        if os.path.lexists(before):
            before.rename(after)
    return numbered(n)[0]


def printed_table(rows: pd.DataFrame) -> pd.DataFrame:
    r"""What is printed for logits or encoder: figures with their standard errors, a line for each estimator.

    A bias that cannot be told from 0 is shown as its upper limit: the root scale hides how uncertain a small one is.
    """

    def text(row, name):
        value, error = row.get(name), row.get(f"{name}_error")
        if pd.isna(value):
            return "undefined"
        exact = pd.isna(error) or error <= 1e-6 * abs(value)  # but for rounding
        return with_error(value, None if exact else error)

    names = {
        "bias / |g|": "relative_bias",
        "variance": "variance",
        "squared error": "mse",
        "cosine": "cosine",
        "dead": "dead_per_draw",
        "evaluations": "evaluations",
        "derivatives": "objective_gradients",
        "variance x evaluations": "work_variance",
        "squared error x evaluations": "mse_per_evaluation",
        "squared error x seconds": "mse_per_second",
        "draws": "draws",
    }
    bias, resolved = relative_biases(rows)
    shown = {title: [text(row, name) for _, row in rows.iterrows()] for title, name in names.items()}
    shown["bias / |g|"] = [
        "0" if limit == 0 else b if known else "undefined" if np.isnan(limit) else f"< {limit:.2g}"
        for b, known, limit in zip(shown["bias / |g|"], resolved, bias, strict=True)
    ]
    shown["ms a draw"] = [f"{1e3 * seconds:.2g}" for seconds in rows.seconds]
    return pd.DataFrame(shown, index=rows.estimator.rename(None))


def recommended(rows: pd.DataFrame) -> str:
    r"""One sentence on which of the estimators to take; empty where there are fewer than two whose bias is known.

    A gradient of the batch's mean is of all its examples, and so takes as many times the evaluations.
    """
    each = [row for _, row in rows.iterrows()]
    found = [candidate_of(str(row["estimator"]), bool(row["unbiased"]), row, row["seconds"]) for row in each]
    known = [candidate for candidate in found if candidate]
    examples = int(rows.examples.iloc[0]) if rows["where"].iloc[0] == "encoder" else 1
    return recommend(known, examples=examples) if len(known) > 1 else ""


def bias_variance_picture(rows: pd.DataFrame, title: str, path: Path) -> None:
    r"""Bias against standard deviation, both in units of the true gradient's norm: of one draw, and at equal cost."""
    points = sorted(drawable(points_of(rows)), key=lambda point: math.hypot(point.bias, point.deviation))
    own = looks({point.label: point.estimator for point in points}, [])
    spec = bias_picture(BiasComparison(title, points), title, {point.label: own[point.label] for point in points})
    write_whole(path, as_png(spec))
