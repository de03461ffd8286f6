"""Run folders that look like those of real runs, with figures chosen by a test."""

import io
import json
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

STEPS = 100
FIGURES = {
    "elbo": {"title": "ELBO, discrete draws", "unit": "nats", "better": "higher"},
    "bound": {"title": "importance-weighted bound", "unit": "nats", "better": "higher"},
    "loss": {"title": "loss", "unit": "nats", "better": ""},
}


def run(
    folder: Path,
    estimator: str = "arsm",
    seed: int = 1,
    elbo: float | None = -25.0,
    *,
    task: str = "dvae",
    settings: dict | None = None,
    more: dict | None = None,
    rows: list[dict] | None = None,
    timings: list[dict] | None = None,
    name: str = "key",
    figures: dict | None = None,
) -> Path:
    """Writes one run and gives its folder; without ``elbo`` it has no end.

    Arguments:
        settings: Of its config, with dots.
        more: Final figures, or gradient statistics of its last row.
        rows, timings: Of its files, in place of five with a loss and an ELBO.
        figures: What its task says of its figures, in place of ELBO, bound and loss.
    """
    place = folder / task / estimator / f"{seed}-{name}"
    place.mkdir(parents=True)
    config = {"choices": {"task": task, "estimator": estimator, "seed": seed}, "seed": seed, "steps": STEPS}
    config |= {
        "name": None,
        "estimator": {"_target_": f"hardmax.estimators.{estimator}"},
        "task": {"_target_": f"hardmax.tasks.{task}"},
    }
    for key, value in {"optimizer.lr": 0.001, **(settings or {})}.items():
        *path, last = key.split(".")
        node = config
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    (place / "figures.json").write_text(json.dumps(FIGURES if figures is None else figures))
    end = -25.0 if elbo is None else elbo
    of_gradients = {key: value for key, value in (more or {}).items() if not key.startswith("test/")}
    rows = rows or [
        {
            "step": step,
            "train/loss": -end + 10 - step / 10,
            "valid/elbo": end - 10 + step / 10,
            "cost/evaluations": step,
        }
        for step in range(0, STEPS + 1, 25)
    ]
    rows[-1] = rows[-1] | of_gradients
    timings = timings or [{"step": row["step"], "cost/seconds": row["step"] / 50} for row in rows]
    for file, content in {"metrics.jsonl": rows, "timings.jsonl": timings}.items():
        (place / file).write_text("".join(json.dumps(row) + "\n" for row in content))
    environment = {"commit": "a" * 40, "command": ["run.py", f"estimator={estimator}"], "versions": {"torch": "2.13.0"}}
    (place / "environment.json").write_text(json.dumps(environment))
    if elbo is not None:
        figures = {key: value for key, value in (more or {}).items() if key.startswith("test/")}
        summary = {"steps": STEPS, "seconds": 2.0, "evaluations": STEPS, "test/elbo": elbo, **figures}
        (place / "summary.json").write_text(json.dumps(summary))
    return place


def picture(width: int, height: int) -> bytes:
    """A PNG of noise, which hardly compresses."""
    packed = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(packed, "PNG")
    return packed.getvalue()
