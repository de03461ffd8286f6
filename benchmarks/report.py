"""Seconds and memory of a report on 2,000 runs of 500 rows: ``python -m benchmarks.report``.

The runs are made up: 20 estimators, 10 learning rates and 10 seeds, with the rows, keys and files that a run on
``dvae`` writes. Memory is the sum over all processes of the report, shared pages counted once, at its highest.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from hardmax.paths import ROOT

ESTIMATORS = sorted(path.stem for path in (ROOT / "configs/estimator").glob("*.yaml"))
RATES = [round(1e-4 * 1.6**n, 6) for n in range(10)]
ROWS, LOG_EVERY = 500, 50
STATISTICS = (
    *("norm", "rms_norm", "variance", "variance_mean", "snr", "dead_per_draw", "true_norm", "bias2", "mse", "cosine"),
    *("cosine_mean", "relative_bias", "work_variance"),
)


def config_of(estimator: str, rate: float, seed: int) -> dict:
    """What a run's config.yaml says."""
    return {
        "choices": {"task": "dvae", "estimator": estimator, "seed": seed},
        **{"seed": seed, "steps": ROWS * LOG_EVERY, "batch_size": 100, "device": "cpu", "threads": 1},
        **{"output": "output", "fresh": False, "retry": False, "checkpoint_every": 60.0, "name": None, "notes": None},
        **{"log_every": LOG_EVERY, "compile": False, "detect_anomaly": False, "valid": {"every": 500}},
        "measure": {"every": 1000, "draws": 100, "precision": None, "reference_draws": 20, "rivals": []},
        "wandb": {"mode": "offline", "project": "hardmax", "entity": None, "group": None, "tags": []},
        "estimator": {"_target_": f"hardmax.estimators.{estimator}"},
        "task": {
            "_target_": "hardmax.tasks.dvae.DiscreteVAE",
            "variables": 20,
            "categories": 10,
            "encoder_widths": [200],
        },
        "optimizer": {"_target_": "torch.optim.Adam", "lr": rate, "estimator_lr": None, "betas": [0.9, 0.999]},
        "schedule": {"_target_": "hardmax.harness.schedules.Constant"},
        "data": {"_target_": "hardmax.tasks.data.embedded_digits", "binarisation": "dynamic"},
    }


def rows_of(dice: random.Random, level: float) -> tuple[list[dict], list[dict]]:
    """Rows of metrics and timings as a run writes them."""
    metrics, timings = [], []
    for row in range(ROWS):
        step = row * LOG_EVERY
        figure = -25 - level - 20 / (1 + row) + dice.gauss(0, 0.1)
        found = {"train/loss": -figure, "cost/evaluations": step}
        if row % 10 == 0:
            found |= {f"valid/{name}": figure + n for n, name in enumerate(("elbo", "bound", "reconstruction", "kl"))}
        if row % 20 == 0:
            for where in ("logits", "encoder"):
                found |= {f"gradient/{where}/{name}": dice.lognormvariate(0, 1) for name in STATISTICS}
                found |= {f"gradient/{where}/{name}_error": dice.random() for name in STATISTICS}
                found |= {f"gradient/{where}/dead": 0.0}
            found |= {"gradient/draws": 100, "gradient/evaluations": 1.0, "gradient/truth/local_expectation": 20}
        metrics.append({"step": step, **found})
        timings.append({"step": step, "cost/seconds": step / 500})
    return metrics, timings


def make(folder: Path, estimators: list[str], rates: list[float], seeds: range) -> int:
    """Writes the runs; their number."""
    environment = {"commit": "0" * 40, "command": ["run.py", "-m"], "versions": {"torch": "2.13.0"}, "device": "cpu"}
    environment |= {"code": {f"estimators/{name}.py": "0" * 16 for name in ESTIMATORS}}
    texts = lambda rows: "".join(json.dumps(row) + "\n" for row in rows)
    for n, estimator in enumerate(estimators):
        for rate in rates:
            for seed in seeds:
                place = folder / "dvae" / estimator / f"{seed}-{rate}"
                place.mkdir(parents=True)
                metrics, timings = rows_of(random.Random(f"{estimator} {rate} {seed}"), n / 10)
                figures = {f"test/{name}": metrics[-10][f"valid/{name}"] for name in ("elbo", "bound")}
                summary = {"steps": ROWS * LOG_EVERY, "seconds": 50.0, "evaluations": ROWS * LOG_EVERY, **figures}
                (place / "config.yaml").write_text(yaml.dump(config_of(estimator, rate, seed), sort_keys=False))
                (place / "metrics.jsonl").write_text(texts(metrics))
                (place / "timings.jsonl").write_text(texts(timings))
                (place / "environment.json").write_text(json.dumps(environment))
                (place / "summary.json").write_text(json.dumps(summary))
    return len(estimators) * len(rates) * len(seeds)


def memory_of(process: int) -> int:
    """Bytes that a process and those it started have for themselves, plus their part of what they share."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    own = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return own + sum(memory_of(int(child)) for child in children)


def measured(command: list[str]) -> tuple[float, int]:
    """Seconds that a command takes, and the most memory that it had."""
    start, highest = time.perf_counter(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT)
    while process.poll() is None:
        highest = max(highest, memory_of(process.pid))
        time.sleep(0.05)
    if process.returncode:
        sys.exit(process.returncode)
    return time.perf_counter() - start, highest


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count = make(folder, ESTIMATORS[:20], RATES, range(10))
        size = sum(path.stat().st_size for path in folder.rglob("*.jsonl"))
        print(f"{count:,} runs of {ROWS} rows, {size / 1e6:.0f} MB")
        seconds, memory = measured([sys.executable, "report.py", str(folder)])
        page = (folder / "report/report.html").stat().st_size / 1e6
        busy = sum(os.times()[2:4])  # of this machine's processors, however busy it is with other things
        print(f"{seconds:.1f} s, {busy:.1f} s of processors, {memory / 1e6:.0f} MB of memory, a page of {page:.1f} MB")


if __name__ == "__main__":
    main()
