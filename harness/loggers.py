r"""Where rows go beside a run's own files: TensorBoard, MLflow and CSV, each by its own library.

A logger may fail at any moment without harm to the run, whose files have all rows.
"""

import csv
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image

from hardmax.files import read_text, write_whole

from .logger import Logger
from .online import environment_of, example_files

PARAMETERS_AT_ONCE = 100  # that MLflow takes
LONGEST_PARAMETER = 6000  # letters


class CSV(Logger):
    r"""All rows as one table, ``csv/metrics.csv``, with a column for each figure."""

    def __init__(self, folder: Path, config: dict):
        super().__init__(folder, config)
        self.file = (emptied(folder / "csv") / "metrics.csv").open("w", newline="", encoding="utf-8")
        self.columns: list[str] = []
        self.rows: list[dict] = []

    def take(self, row: dict) -> None:
        self.rows.append(row)
        new = [key for key in row if key not in self.columns]
        self.columns += new
        writer = csv.DictWriter(self.file, self.columns)
        if new:  # the table is written anew
            self.file.seek(0)
            self.file.truncate()
            writer.writeheader()
        writer.writerows(self.rows if new else [row])
        self.file.flush()

    def finish(self, exit_code: int) -> None:
        self.file.close()


class TensorBoard(Logger):
    r"""Scalars, pictures, the config and the figures by settings (hparams) in ``tensorboard/``."""

    needs = "tensorboard"

    def __init__(self, folder: Path, config: dict):
        super().__init__(folder, config)
        from torch.utils.tensorboard import SummaryWriter

        self.writer, self.step = SummaryWriter(str(emptied(folder / "tensorboard"))), 0
        self.settings = flat_settings(config)
        lines = [f"| {key} | {value} |" for key, value in self.settings.items()]
        self.writer.add_text("config", "\n".join(["| option | value |", "| --- | --- |", *lines]))

    def take(self, row: dict) -> None:
        self.step = row["step"]
        for key, value in row.items():
            if key != "step" and value is not None:
                self.writer.add_scalar(key, value, self.step)
        self.writer.flush()

    def send_examples(self, folder: Path) -> None:
        for path in example_files(folder):
            if path.suffix == ".png":
                picture = np.asarray(Image.open(path).convert("RGB"))
                self.writer.add_image(path.stem, picture, self.step, dataformats="HWC")

    def summarise(self, summary: dict) -> None:
        from torch.utils.tensorboard.summary import hparams

        figures = {key: value for key, value in summary.items() if key.startswith("test/") and value is not None}
        assert self.writer.file_writer is not None
        for part in hparams(self.settings, figures):
            self.writer._get_file_writer().add_summary(part)

    def finish(self, exit_code: int) -> None:
        self.writer.close()


class MLflow(Logger):
    r"""A run in MLflow, by the id in ``mlflow.id``: metrics, parameters, tags, and tables and pictures as artifacts.

    Arguments:
        folder, config: See :class:`Logger`.
        uri: Of a server, a database or a folder; None: what ``MLFLOW_TRACKING_URI`` says, else MLflow's own.
        experiment: Its name there.
    """

    needs = "mlflow"

    def __init__(self, folder: Path, config: dict, uri: str | None = None, experiment: str = "hardmax"):
        super().__init__(folder, config)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # a server that is away delays no run for long
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # who names a folder wants one
        from mlflow import MlflowClient
        from mlflow.entities import RunStatus
        from mlflow.exceptions import MlflowException

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of each table that it makes
        self.statuses = RunStatus
        with FileLock(Path(config["output"]) / "mlflow.lock"):  # of the jobs of a sweep one makes what is not there
            self.client = MlflowClient(tracking_uri=uri)
            found = self.client.get_experiment_by_name(experiment)
            place = found.experiment_id if found else self.client.create_experiment(experiment)
        try:
            self.id = read_text(folder / "mlflow.id").strip()
            self.there = int(self.client.get_run(self.id).data.metrics.get("row", -1)) + 1
            self.client.update_run(self.id, RunStatus.to_string(RunStatus.RUNNING))
        except (OSError, MlflowException):
            self.id = self.begin(place, folder, config)
            write_whole(folder / "mlflow.id", self.id)

    def begin(self, experiment: str, folder: Path, config: dict) -> str:
        r"""Makes a run with its tags and parameters; its id."""
        from mlflow.entities import Param

        tags = {key: str(value) for key, value in config["choices"].items()} | {"folder": str(folder)}
        tags |= {"group": str(config["wandb"]["group"]), **dict.fromkeys(config["wandb"]["tags"], "")}
        tags |= {"mlflow.source.git.commit": str(environment_of(folder).get("commit"))}
        made = self.client.create_run(experiment, run_name=config["name"], tags=tags).info.run_id
        settings = [Param(key, str(value)[:LONGEST_PARAMETER]) for key, value in flat_settings(config).items()]
        for start in range(0, len(settings), PARAMETERS_AT_ONCE):
            self.client.log_batch(made, params=settings[start : start + PARAMETERS_AT_ONCE])
        return made

    def take(self, row: dict) -> None:
        from mlflow.entities import Metric

        now, step = int(time.time() * 1000), row["step"]
        known = {key: value for key, value in row.items() if key != "step" and value is not None}
        metrics = [Metric(key, value, now, step) for key, value in (known | {"row": self.entries}).items()]
        self.client.log_batch(self.id, metrics=metrics)

    def send_examples(self, folder: Path) -> None:
        for path in example_files(folder):
            self.client.log_artifact(self.id, str(path))

    def finish(self, exit_code: int) -> None:
        status = self.statuses.FAILED if exit_code else self.statuses.FINISHED
        self.client.set_terminated(self.id, self.statuses.to_string(status))


def emptied(place: Path) -> Path:
    r"""A folder of a logger's own, with nothing in it: a run that goes on sends all of its rows again."""
    if place.is_symlink():
        place.unlink()
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    return place


def flat_settings(config: dict, prefix: str = "") -> dict[str, Any]:
    r"""A plain config as one dictionary with dotted keys, of numbers, truth values and texts."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            found |= flat_settings(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, bool | int | float | str) else str(value)
    return found
