r"""Where a run's figures go: files in a folder of its own, flushed row by row, and Weights & Biases."""

import csv
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import torch
import yaml

from harness.options import Refused

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 10  # seconds that W&B may keep a run waiting at either end
FINISHED = "summary.json"


def runs_of(output: str, task: str, estimator: str, seed: int, key: str) -> list[Path]:
    r"""Folders of the runs made from one config so far, oldest first."""
    parent = Path(output) / task / estimator
    again = [p for p in parent.glob(f"{seed}-{key}-*") if p.name.rsplit("-", 1)[1].isdigit()]
    return [parent / f"{seed}-{key}"] * (parent / f"{seed}-{key}").is_dir() + sorted(
        again, key=lambda p: int(p.name.rsplit("-", 1)[1])
    )


def new_folder(output: str, task: str, estimator: str, seed: int, key: str) -> Path:
    r"""Makes ``output/task/estimator/seed-key``, or the same with -2, -3, ... if that is taken.

    Raises:
        Refused: If it cannot be made, or not be written to.
    """
    base, count = Path(output) / task / estimator / f"{seed}-{key}", 1
    while True:
        folder = base if count == 1 else base.with_name(f"{base.name}-{count}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if not folder.is_dir():
                raise Refused(f"output={output}: {folder} is a file, where a folder is needed") from None
            count += 1
        except OSError as error:
            raise Refused(f"output={output}: cannot make {folder}: {error.strerror}") from error


def environment(device: torch.device) -> dict:
    r"""Versions, commit and hardware behind a run."""

    def git(*arguments):
        try:
            done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    packages = ("torch", "numpy", "hydra-core", "omegaconf", "wandb")
    return {
        "commit": git("rev-parse", "HEAD"),
        "changed_files": (git("status", "--porcelain") or "").splitlines(),
        "command": sys.argv,
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
    }


def write_json(path: Path, content: dict) -> None:
    r"""Writes a file that is either whole or not there."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.replace(path)


class Tracker:
    r"""Writes rows to ``metrics.jsonl`` and ``timings.jsonl`` in the run's folder, and to W&B.

    ``metrics.jsonl`` holds nothing that depends on the clock: two runs of one config on one machine write the
    same bytes. W&B may fail at any moment without harm to the run.

    Arguments:
        folder: The run's own, already made.
        config: The resolved config, plain.
        labels: ``task``, ``estimator`` and ``seed``, for the names that were left open.
        device: Where the run computes.
    """

    def __init__(self, folder: Path, config: dict, labels: dict, device: torch.device):
        self.folder = folder
        (folder / "config.yaml").write_text(yaml.safe_dump({"choices": labels, **config}, sort_keys=False))
        write_json(folder / "environment.json", environment(device))
        self.metrics = (folder / "metrics.jsonl").open("a")
        self.timings = (folder / "timings.jsonl").open("a")
        self.wandb, self.mode = start_wandb(folder, config, labels)

    def log(self, step: int, row: dict, timings: dict[str, float]) -> None:
        r"""One row after ``step`` optimiser steps, and seconds: of training so far, and of what was measured."""
        timing = {name: float(f"{seconds:.4g}") for name, seconds in timings.items()}
        for file, content in ((self.metrics, row), (self.timings, timing)):
            file.write(json.dumps({"step": step, **content}, allow_nan=False) + "\n")
            file.flush()
        self.to_wandb(lambda run: run.log({"step": step, **row, **timing}))

    def keep(self, tables: dict[str, list[dict[str, str]]]) -> None:
        r"""Keeps tables for people to read: ``NAME.csv`` in the folder, and a W&B table."""
        for name, rows in tables.items():
            with (self.folder / f"{name}.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
            self.to_wandb(lambda run, name=name, rows=rows: run.log({name: as_table(rows)}))

    def finish(self, summary: dict) -> None:
        r"""Marks the run as finished, with its final figures."""
        write_json(self.folder / FINISHED, summary)
        self.to_wandb(lambda run: run.summary.update(summary))

    def close(self, exit_code: int) -> None:
        r"""Closes the files, and W&B with what has reached it."""
        self.metrics.close()
        self.timings.close()
        self.to_wandb(lambda run: run.finish(exit_code=exit_code))

    def to_wandb(self, action) -> None:
        if self.wandb is None:
            return
        try:
            action(self.wandb)
        except Exception as error:  # whatever it is, the local files are complete
            print(f"W&B stopped ({type(error).__name__}: {error}); the run goes on in {self.folder}", file=sys.stderr)
            self.wandb = None


def as_table(rows: list[dict[str, str]]):
    r"""A W&B table of the rows."""
    import wandb

    return wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])


def start_wandb(folder: Path, config: dict, labels: dict):
    r"""A W&B run, or None, and the mode that was chosen."""
    asked = config["wandb"]["mode"] or os.environ.get("WANDB_MODE")
    if asked == "disabled":
        return None, "disabled"
    import wandb

    mode = asked or "online"
    if mode == "online" and not reachable(wandb):
        mode = "offline"
        if asked:
            print("W&B: no credentials, or the server does not answer: this run is kept offline", file=sys.stderr)
    task, estimator, seed = labels["task"], labels["estimator"], labels["seed"]
    for attempt in dict.fromkeys([mode, "offline"]):
        try:
            run = wandb.init(
                project=config["wandb"]["project"],
                entity=config["wandb"]["entity"],
                group=config["wandb"]["group"] or f"{task}-{estimator}",
                tags=config["wandb"]["tags"],
                name=config["name"] or f"{task}-{estimator}-{seed}",
                notes=config["notes"],
                config={"choices": labels, **config},
                dir=folder.resolve(),  # its service keeps the folder that it was started in
                mode=attempt,
                settings=wandb.Settings(
                    init_timeout=PATIENCE,
                    finish_timeout=PATIENCE,
                    silent=True,
                    console="off",
                    disable_git=True,
                    disable_code=True,
                    x_disable_stats=True,
                ),
            )
            run.define_metric("*", step_metric="step")
            return run, attempt
        except Exception as error:
            print(f"W&B could not start {attempt} ({type(error).__name__}: {error})", file=sys.stderr)
    return None, "disabled"


def reachable(wandb) -> bool:
    r"""Whether the W&B server answers within 5 seconds and credentials for it exist."""
    answered = threading.Event()

    def probe():
        try:
            urllib.request.urlopen(wandb.Settings().base_url, timeout=5).close()
        except urllib.error.HTTPError:
            pass
        except (OSError, ValueError):
            return
        answered.set()

    threading.Thread(target=probe, daemon=True).start()
    if not answered.wait(5):
        return False
    try:
        return bool(wandb.login(prompt=False))
    except Exception:
        return False
