r"""Where a run's figures go: files in a folder of its own, flushed row by row, and Weights & Biases."""

import contextlib
import csv
import io
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
import yaml
from PIL import Image

from hardmax.files import open_rows
from hardmax.paths import HOME
from hardmax.tasks.base import Figure

from .folders import OpenFolder
from .logger import ROWS, TIMINGS, Logger
from .online import OWN_ID, start_wandb
from .shared import FIGURES, FINISHED, NotWritten, Refused, one_line, write_json, write_whole, writing
from .sources import changed_since, located, versions

MAGNIFIED = 1_000  # pixels of a picture's longer side up to which it is shown larger


def same_code(folder: Path, code: dict[str, str]) -> bool:
    r"""Whether the run of ``folder`` is known to have begun by this very code."""
    try:
        return not changed_since(folder, code)
    except Refused:
        return False


def environment(device: torch.device) -> dict:
    r"""Versions, commit and hardware behind a run; an installed package has a version and no commit."""
    return {
        **commit(HOME),
        "command": sys.argv,
        **versions(),
        "platform": platform.platform(),
        **(gpu(device) if device.type == "cuda" else {"device": processor()}),
    }


def gpu(device: torch.device) -> dict:
    r"""A GPU's name, its number among those that the process sees, and which these are if something has chosen them."""
    number = torch.cuda.current_device() if device.index is None else device.index
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"device": torch.cuda.get_device_name(device), "gpu": number, "visible_gpus": chosen}


def commit(folder: Path) -> dict:
    r"""``commit`` and ``changed_files`` of a git checkout; None and none of them if ``folder`` is not all of one.

    An installed package may lie in a virtual environment within a repository of something else.
    """
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments):
        command = ["git", "--no-optional-locks", *arguments]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10, env=surroundings)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.rstrip("\n") if done.returncode == 0 else None

    top = git("rev-parse", "--show-toplevel")
    if top is None or Path(top) != folder.resolve():
        return {"commit": None, "changed_files": []}
    return {"commit": git("rev-parse", "HEAD"), "changed_files": (git("status", "--porcelain") or "").splitlines()}


def processor() -> str:
    r"""The processor's name, and how many of its cores there are."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        if names:
            return f"{names[0]}, {os.cpu_count()} cores"
    return f"{platform.processor() or 'cpu'}, {os.cpu_count()} cores"


class Tracker:
    r"""Writes rows to ``metrics.jsonl`` and ``timings.jsonl`` in the run's folder, and to loggers.

    ``metrics.jsonl`` holds nothing that depends on the clock: two runs of one config on one machine write the
    same bytes. W&B, and what else ``logger`` chose, may fail at any moment without harm to the run: W&B's ``mode`` is
    ``online``, ``offline``, ``disabled``, ``incomplete`` if its server has not taken everything, or None without W&B.

    Arguments:
        folder: The run's own, already made.
        config: The resolved config, plain.
        labels: ``task``, ``estimator`` and ``seed``, and what else was chosen from a group of configs.
        device: Where the run computes.
        sources: Hashes of the ``code`` that makes the results and of the ``data`` files that it reads, by file.
        sizes: What :meth:`sizes` gave when the checkpoint was written that the run goes on from: rows after it are
            made again. None for a new run.
        figures: What the task says of its figures, by name.

    Its methods, and making one, raise:
        NotWritten: If a file cannot be written.
    """

    FILES = (ROWS, TIMINGS)

    def __init__(
        self,
        folder: Path,
        config: dict,
        labels: dict,
        device: torch.device,
        sources: dict[str, dict[str, str]],
        sizes: dict[str, int] | None = None,
        figures: dict[str, Figure] | None = None,
    ):
        config = {"choices": labels, **config}
        with writing(folder):
            self.open_folder = OpenFolder(folder)
            write_whole(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False).encode())
            if sizes is None:
                if not same_code(folder, sources["code"]):  # what W&B has is of other code
                    (folder / OWN_ID).unlink(missing_ok=True)
                write_json(folder / "environment.json", {**environment(device), **sources})
            write_json(folder / FIGURES, {name: asdict(figure) for name, figure in (figures or {}).items()})
            self.metrics, self.timings = (open_rows(folder / name, (sizes or {}).get(name, 0)) for name in self.FILES)
        self.loggers: dict[str, Logger] = {}
        self.mode: str | None = None
        for name, settings in config.get("logger", {"wandb": {}}).items():
            if name == "wandb":
                started, self.mode = start_wandb(folder, config)
                self.loggers |= {"W&B": started} if started else {}
            else:
                self.start(name, dict(settings), folder, config)
        self.to_loggers(lambda logger: logger.send_rows(folder))

    def start(self, name: str, settings: dict, folder: Path, config: dict) -> None:
        r"""Starts a logger; that it cannot be is said, and no harm to the run."""
        try:
            self.loggers[name] = located(settings.pop("_target_"))(folder, config, **settings)
        except Exception as error:
            print(f"{name} could not start ({type(error).__name__}: {one_line(error)})", file=sys.stderr)

    @property
    def folder(self) -> Path:
        r"""The run's folder, where it is now."""
        return self.open_folder.path()

    def is_there(self) -> bool:
        r"""Whether the run's folder is still there."""
        with contextlib.suppress(NotWritten):
            return self.folder.is_dir()
        return False

    def sizes(self) -> dict[str, int]:
        r"""Bytes of the files of rows so far, which are on disk when this returns."""
        with writing(self.folder):
            for file in (self.metrics, self.timings):
                os.fsync(file.fileno())
            return {name: (self.folder / name).stat().st_size for name in self.FILES}

    def log(self, step: int, row: dict, timings: dict[str, float]) -> None:
        r"""One row after ``step`` optimiser steps, and seconds: of training so far, and of what was measured."""
        timing = {name: float(f"{seconds:.4g}") for name, seconds in timings.items()}
        with writing(self.folder):
            for file, content in ((self.metrics, row), (self.timings, timing)):
                file.write(json.dumps({"step": step, **content}, allow_nan=False) + "\n")
                file.flush()
        self.to_loggers(lambda logger: logger.send({"step": step, **row, **timing}))

    def keep(self, examples: dict[str, list[dict[str, str]] | torch.Tensor]) -> None:
        r"""Keeps what people look at: tables as ``NAME.csv`` in the folder, pictures as ``NAME.png``, both in W&B."""
        for name, rows in examples.items():
            if isinstance(rows, torch.Tensor):
                self.keep_picture(name, rows)
                continue
            table = io.StringIO(newline="")
            writer = csv.DictWriter(table, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
            with writing(self.folder):
                write_whole(self.folder / f"{name}.csv", table.getvalue())
        self.to_loggers(lambda logger: logger.send_examples(self.folder))

    def keep_picture(self, name: str, pixels: torch.Tensor) -> None:
        r"""Keeps pixels in [0, 1], ``[height, width]`` or ``[height, width, 3]``; small ones three times as large."""
        levels = (pixels.cpu().float().clamp(0, 1) * 255).round().byte()
        size, picture = 3 if max(levels.shape) <= MAGNIFIED else 1, io.BytesIO()
        Image.fromarray(levels.repeat_interleave(size, 0).repeat_interleave(size, 1).numpy()).save(picture, "PNG")
        with writing(self.folder):
            write_whole(self.folder / f"{name}.png", picture.getvalue())

    def finish(self, summary: dict) -> None:
        r"""Marks the run as finished, with its final figures and :meth:`sizes`."""
        with writing(self.folder):
            write_json(self.folder / FINISHED, {**summary, "sizes": self.sizes()})
        self.to_loggers(lambda logger: logger.summarise(summary))
        self.to_loggers(lambda logger: logger.send_model(self.folder, summary))

    def close(self, exit_code: int) -> None:
        r"""Closes the files, and W&B with what has reached it."""
        for file in (self.metrics, self.timings):
            with contextlib.suppress(OSError):  # of rows that could not be written, which was said
                file.close()
        self.to_loggers(lambda logger: logger.finish(exit_code))
        self.open_folder.close()

    def to_loggers(self, action: Callable[[Logger], None]) -> None:
        r"""Lets every logger do something; one that fails is left out from there on."""
        for name, logger in list(self.loggers.items()):
            try:
                action(logger)
            except Exception as error:  # whatever it is, the local files are complete
                text = f"{type(error).__name__}: {' '.join(str(error).split())}"
                print(f"{name} stopped ({text}); {self.open_folder.known} holds all rows", file=sys.stderr)
                del self.loggers[name]
                if name == "W&B" and self.mode == "online":
                    self.mode = "incomplete"
