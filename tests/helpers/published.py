"""Published values and folders of runs, made up."""

import json
import re

import yaml

from hardmax.harness.config import plain_config
from hardmax.reporting.published.values import Value
from helpers.commands import composed


def value(**changes):
    return Value(**{"table": "T", "name": "a", "value": 10.0, "metric": "test/cost", "where": {}, **changes})


def make_run(where, *overrides, rows=(), finished=True, seed=1):
    """A run folder with these rows of ``metrics.jsonl``."""
    cfg = composed(*overrides, f"seed={seed}")
    folder = where / f"run-{len(list(where.iterdir()))}"
    folder.mkdir()
    chosen = {key: re.search(rf"{key}=(\w+)", " ".join(overrides)) for key in ("task", "estimator")}
    experiment = {"task": cfg.task._target_.rpartition(".")[2].lower(), "estimator": "exact"}
    choices = {key: match[1] if match else experiment[key] for key, match in chosen.items()} | {"seed": seed}
    (folder / "config.yaml").write_text(yaml.safe_dump({"choices": choices, **plain_config(cfg)}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    about = {"commit": "0123456789abcdef", "device": "a machine", "python": "3.11", "versions": {"torch": "2"}}
    (folder / "environment.json").write_text(json.dumps(about))
    if finished:
        (folder / "summary.json").write_text(json.dumps({"steps": cfg.steps, "seconds": 1.0, "evaluations": 1}))
    return folder


def losses(*values, every=200):
    return [{"step": every * (n + 1), "train/loss": v, "test/cost": v} for n, v in enumerate(values)]
