r"""Estimators side by side at given parameters: ``measure.py``."""

import os
import sys
from pathlib import Path

import hydra
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import yaml
from omegaconf import DictConfig, OmegaConf

from harness import memory, options
from harness.app import CONFIGS, fail, refusal
from harness.gradients import WHERE
from harness.measuring import asked_for
from harness.options import Refused
from harness.train import prepare

RIVALS = [
    "reinforce",
    {"reinforce": {"samples": 4, "baseline": "leave_one_out"}},
    *("arsm", "rebar", "straight_through", "gumbel_softmax", "st_gumbel_softmax", "gumbel_rao", "reinmax", "zgr"),
]  # unless others are asked for
REFERENCE_DRAWS = 100
WITH_FOLDER = ("measure.", "device=", "threads=")
# Okabe and Ito's colours, which the colour-blind can tell apart; markers tell apart what shares one.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A8A8A"]
MARKERS = "osD^vPX*<>h"
WHAT = {"logits": "gradient to the logits, of one example", "encoder": "gradient to the encoder, of the batch's mean"}


def config_of(arguments: list[str]) -> tuple[DictConfig, dict[str, str], Path | None]:
    r"""The config, what was chosen from its groups, and the run's folder, if one is given first.

    Raises:
        Refused: If the folder holds no finished run, or does not go with an option.
    """
    folder = Path(arguments[0]) if arguments and "=" not in arguments[0] else None
    overrides = arguments[folder is not None :]
    cfg = hydra.compose("config", overrides, return_hydra_config=True)
    chosen = {group: Path(str(choice)).name for group, choice in cfg.hydra.runtime.choices.items()}
    OmegaConf.set_readonly(cfg, False)
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    if not any(o.startswith("measure.rivals=") for o in overrides):
        cfg.measure.rivals = [r for r in RIVALS if folder is not None or r != chosen["estimator"]]
    if not any(o.startswith("measure.reference_draws=") for o in overrides):
        cfg.measure.reference_draws = REFERENCE_DRAWS
    if folder is not None:
        if not all((folder / name).is_file() for name in ("config.yaml", "state.pt")):
            raise Refused(f"{folder}: no folder of a finished run (config.yaml and state.pt)")
        if other := [o for o in overrides if not o.startswith(WITH_FOLDER)]:
            raise Refused(f"{other[0]}: beside a run's folder only measure, device and threads can be given")
        saved = yaml.safe_load((folder / "config.yaml").read_text())
        chosen = saved.pop("choices")
        for key in ("task", "estimator", "optimizer", "seed", "batch_size"):
            cfg[key] = saved[key]
        if saved["data"] is not None:
            cfg.data = saved["data"]
            cfg.task.setdefault("data", saved["data"])  # it is said once, at the top
    options.check(cfg)
    return cfg, chosen, folder


def compare(cfg: DictConfig, chosen: dict[str, str], folder: Path | None) -> list[dict]:
    r"""Statistics of the config's estimator and of its rivals: a row for each, and for logits and encoder."""
    device = options.device_of(cfg)
    torch.manual_seed(cfg.seed)
    task = options.build(cfg, "task", chosen["task"])
    estimator = options.build(cfg, "estimator", chosen["estimator"])
    state = prepare(cfg, task, estimator, device, *asked_for(cfg))
    if folder is not None:
        saved = torch.load(folder / "state.pt", map_location=device, weights_only=True)["state"]
        state.task.load_state_dict(saved["task"])
        state.estimator.load_state_dict(saved["estimator"])
        state.step = saved["step"]
    found, seconds = state.measuring.take(state.step)
    rows = []
    for name in [None, *state.measuring.rivals.estimators]:
        prefix = "" if name is None else f"rivals/{name}/"
        label = name or chosen["estimator"] + (" (trained)" if folder else "")
        of_one = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
        common = {"estimator": label, "where": None, "step": state.step, "seconds": seconds[f"{prefix}seconds"]}
        common |= {k: of_one[k] for k in ("draws", "evaluations", "objective_gradients")}
        common |= {k: v for k, v in found.items() if k.startswith("truth/")}
        for where in WHERE:
            of_where = {k.removeprefix(f"{where}/"): v for k, v in of_one.items() if k.startswith(f"{where}/")}
            rows.append(common | {"where": where} | of_where)
    return rows


def relative_biases(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    r"""Biases over the true norm, and whether they are more than two standard errors; if not, upper limits."""
    absent = pd.Series(np.nan, rows.index)
    bias2, error, norm = (rows.get(k, absent).to_numpy(float) for k in ("bias2", "bias2_error", "true_norm"))
    resolved = bias2 > 2 * np.nan_to_num(error)
    return np.sqrt(np.where(resolved, bias2, np.maximum(bias2, 0) + 2 * error)) / norm, resolved


def table(rows: pd.DataFrame) -> pd.DataFrame:
    r"""What is printed for logits or encoder: figures with their standard errors, a line for each estimator.

    A bias that cannot be told from 0 is shown as its upper limit: the root scale hides how uncertain a small one is.
    """

    def text(row, name):
        value, error = row.get(name), row.get(f"{name}_error")
        if pd.isna(value):
            return "undefined"
        exact = pd.isna(error) or error <= 1e-6 * abs(value)  # but for rounding
        return f"{value:.3g}" if exact else f"{value:.3g} ± {error:.1g}"

    names = {
        "bias / |g|": "relative_bias",
        "variance": "variance",
        "squared error": "mse",
        "cosine": "cosine",
        "dead": "dead_per_draw",
        "evaluations": "evaluations",
        "derivatives": "objective_gradients",
        "variance x evaluations": "work_variance",
        "draws": "draws",
    }
    bias, resolved = relative_biases(rows)
    shown = {title: [text(row, name) for _, row in rows.iterrows()] for title, name in names.items()}
    shown["bias / |g|"] = [
        b if known else "undefined" if np.isnan(limit) else f"< {limit:.2g}"
        for b, known, limit in zip(shown["bias / |g|"], resolved, bias, strict=True)
    ]
    shown["ms a draw"] = [f"{1e3 * seconds:.2g}" for seconds in rows.seconds]
    return pd.DataFrame(shown, index=rows.estimator.rename(None))


def picture(rows: pd.DataFrame, title: str, path: Path) -> None:
    r"""Bias against standard deviation, both in units of the true gradient's norm: of one draw, and at equal cost."""
    bias, resolved = relative_biases(rows)
    norm = rows.true_norm.iloc[0]
    deviation = np.sqrt(rows.variance.to_numpy(float)) / norm
    at_equal_cost = deviation * np.sqrt(rows.evaluations.to_numpy(float))
    figure, axes = plt.subplots(1, 2, figsize=(12.5, 5.6), sharex=True, sharey=True, layout="constrained")
    seen = np.concatenate([deviation, at_equal_cost])
    seen = seen[seen > 0]
    floor = (seen.min() if len(seen) else 1.0) / 2.5  # where estimators without noise are put
    left = (bias[bias > 0].min() if (bias > 0).any() else 1e-3) / 2.5
    x, order = np.maximum(bias, left * 1.25), np.argsort(np.hypot(bias, deviation))
    highest = max(seen.max() if len(seen) else 1.0, floor * 10) * 1.8
    axes[0].set(xscale="log", yscale="log", xlim=(left / 1.4, max(x.max() * 1.6, left * 10)), ylim=(floor, highest))
    for axis, y in zip(axes, (deviation, at_equal_cost), strict=True):
        for rank, i in enumerate(order):
            style = {"color": COLOURS[rank % len(COLOURS)], "marker": MARKERS[rank % len(MARKERS)], "ms": 9, "mew": 1.8}
            at = (x[i], max(y[i], floor * 1.25))
            label = rows.estimator.iloc[i].replace("(", "\n(") if axis is axes[0] else None
            axis.plot(*at, ls="", mfc=style["color"] if resolved[i] else "white", label=label, **style)
            if not resolved[i]:
                arrow = {"arrowstyle": "->", "color": style["color"], "lw": 1.4}
                axis.annotate("", (at[0] / 1.45, at[1]), at, arrowprops=arrow)
            if y[i] == 0:
                axis.annotate("no noise", at, (0, 9), textcoords="offset points", ha="center", fontsize=9)
        low, high = axis.get_xlim()
        for total in 10.0 ** np.arange(np.floor(np.log10(floor)), np.ceil(np.log10(highest)) + 1):
            part = np.geomspace(low, min(total, high), 300) if total > low else np.empty(0)
            axis.plot(part, np.sqrt(np.maximum(total**2 - part**2, 1e-30)), color="#BBBBBB", lw=0.8, zorder=0)
        axis.set_xlabel("bias: |mean gradient − true gradient| / |true gradient|")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(which="major", alpha=0.2)
    axes[0].set_ylabel("standard deviation / |true gradient|")
    axes[0].set_title("One gradient draw", fontsize=11)
    axes[1].set_title("At equal cost: times the root of its evaluations", fontsize=11)
    figure.legend(loc="outside right center", frameon=False, title="smallest error of one draw first", alignment="left")
    figure.suptitle(title)
    figure.supxlabel(
        "Hollow with arrow: no bias to be seen, it lies below this (two standard errors). "
        "Grey arcs: equal root mean square error, 10 times more from one to the next.",
        fontsize=9,
        color="#555555",
    )
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    r"""Entry point of ``measure.py``."""
    sys.path.append(os.getcwd())  # for estimators and tasks of the user's own
    options.register()
    if {"-h", "--help"} & set(sys.argv):
        print(sys.modules["__main__"].__doc__)
        return
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        try:
            cfg, chosen, folder = config_of(sys.argv[1:])
            torch.set_num_threads(cfg.threads)
            memory.keep_freed_memory()
            rows = pd.DataFrame(compare(cfg, chosen, folder))
        except Exception as error:
            if refusal(error) is None:
                raise
            fail(error)
    to = folder or Path(cfg.output) / "measured" / chosen["task"]
    to.mkdir(parents=True, exist_ok=True)
    rows.to_csv(to / "measured.csv", index=False)
    written = [to / "measured.csv"]
    (truth,) = [(c.removeprefix("truth/"), int(rows[c].iloc[0])) for c in rows if c.startswith("truth/")] or [(None, 0)]
    against = {None: "no truth", "exact": "the exact gradient"}.get(truth[0], f"{truth[1]} draws of {truth[0]}")
    for where, of_one in rows.groupby("where", sort=False):
        print(f"\n{chosen['task']}, step {rows.step[0]}: {WHAT[where]}; truth: {against}\n")
        print(table(of_one).to_string())
        if "bias2" in of_one and of_one.true_norm.notna().all():
            written.append(to / f"measured_{where}.png")
            title = f"{chosen['task']}, step {rows.step[0]}: {WHAT[where]}\ntruth: {against}"
            picture(of_one, title, written[-1])
    print("".join(f"\n{path}" for path in written))
