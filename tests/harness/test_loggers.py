"""What other loggers than W&B have of a run, read back with the library of each."""

import csv
import json

import pytest
import yaml

from hardmax.harness.config import key_of, plain_config
from helpers.cases import in_part
from helpers.commands import SHORT, composed, folders, rows_of
from helpers.uploads import end_at, logged

QUICK = [*SHORT, "task=dvae", "measure.every=10", "log_every=5", "checkpoint_every=0"]


def figures(folder):
    """Values by figure and step, of the last row of a step that has it, without those that are undefined."""
    return {(k, row["step"]): v for row in logged(folder) for k, v in row.items() if k != "step" and v is not None}


def in_tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return found


def in_csv(folder):
    """Rows of the table without empty cells; the library for it is Python's own."""
    with (folder / "csv/metrics.csv").open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def in_mlflow(folder):
    from mlflow import MlflowClient

    client = MlflowClient()
    return client, client.get_run((folder / "mlflow.id").read_text())


def test_tensorboard_and_csv_at_once_have_every_row(command, tmp_path, monkeypatch):
    """Of a run that was interrupted and went on, each once."""
    pytest.importorskip("tensorboard")
    both = [*QUICK, "logger=[tensorboard,csv]"]
    with monkeypatch.context() as broken:
        end_at(broken, 15)
        broken.setattr("hardmax.harness.state.State.save", lambda state, *to: None)
        assert command(*both)[0] == 130
    code, out, err = command(*both)
    assert code == 0, err
    assert "W&B" not in out
    (folder,) = folders(tmp_path)
    assert not (folder / "wandb").exists()
    assert in_csv(folder) == [{k: v for k, v in row.items() if v is not None} for row in logged(folder)]
    found = in_tensorboard(folder)
    scalars = {(tag, event.step): event.value for tag in found.Tags()["scalars"] for event in found.Scalars(tag)}
    assert sum(len(found.Scalars(tag)) for tag in found.Tags()["scalars"]) >= len(figures(folder))
    assert {k: scalars[k] for k in figures(folder)} == pytest.approx(figures(folder), rel=1e-6)
    assert len(found.Scalars("train/loss")) == 4
    assert {path.stem for path in folder.glob("*.png")} <= {*found.Tags()["images"]}
    assert any("config" in tag for tag in found.Tags()["tensors"])
    assert "_hparams_/session_start_info" in found.summary_metadata


@pytest.mark.long
@pytest.mark.parametrize("store", in_part(["sqlite:///{}/mlflow.db", "file://{}/mlruns"], 2))
def test_mlflow_has_metrics_parameters_tags_and_artifacts(store, command, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    pytest.importorskip("alembic")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.format(tmp_path))
    arguments = [*QUICK, "logger=mlflow", "logger.mlflow.experiment=mine", "wandb.tags=[first]"]
    with monkeypatch.context() as broken:
        end_at(broken, 15)
        broken.setattr("hardmax.harness.state.State.save", lambda state, *to: None)
        assert command(*arguments)[0] == 130
    code, _, err = command(*arguments)
    assert code == 0, err
    (folder,) = folders(tmp_path)
    client, run = in_mlflow(folder)
    assert client.get_experiment(run.info.experiment_id).name == "mine"
    assert len(client.search_runs([run.info.experiment_id])) == 1, "a run that goes on is the same one there"
    assert run.info.status == "FINISHED"
    assert run.info.run_name == f"dvae-gumbel_softmax-{folder.name}"
    history = {
        (m.key, m.step): m.value for key in run.data.metrics for m in client.get_metric_history(run.info.run_id, key)
    }
    made = {k: v for k, v in figures(folder).items() if "seconds" not in k[0]}  # rows made again took other times
    assert {k: history[k] for k in made} == made
    assert len(client.get_metric_history(run.info.run_id, "row")) == len(rows_of(folder)), "a row is there twice"
    assert run.data.params["optimizer.lr"] == "0.001"
    assert run.data.tags["estimator"] == "gumbel_softmax"
    assert len(run.data.tags["mlflow.source.git.commit"]) == 40
    kept = {path.name for path in folder.glob("*.png")}
    assert kept == {artifact.path for artifact in client.list_artifacts(run.info.run_id)}


def test_loggers_make_no_other_run(command):
    key = lambda *overrides: key_of(plain_config(composed(*overrides)))
    assert key() == key("logger=csv") == key("logger=[wandb,csv]")


OWN = """
from hardmax.harness.loggers import Logger


class Mine(Logger):
    def __init__(self, folder, config, prefix):
        super().__init__(folder, config)
        self.prefix = prefix

    def take(self, row):
        print(self.prefix, row["step"])
        if row["step"] == 2:
            raise OSError("enough")
"""


def test_a_logger_of_one_s_own_may_fail(command, tmp_path):
    (tmp_path / "conf/logger").mkdir(parents=True)
    (tmp_path / "conf/logger/mine.yaml").write_text("mine: {_target_: own_logger.Mine, prefix: seen}\n")
    (tmp_path / "own_logger.py").write_text(OWN)
    toy = ["task=toy", "steps=4", "log_every=1", "measure.every=0", "valid.every=0"]
    sweep = ["-m", "--config-dir", "conf", *toy, "logger=[mine,csv]", "seed=1,2"]
    code, out, err = command(*sweep)
    assert code == 0, err
    assert [line for line in out.splitlines() if line.startswith("seen")] == [f"seen {n}" for n in (0, 1, 2)] * 2
    assert err.count("mine stopped (OSError: enough); output/toy/gumbel_softmax/") == 2
    for folder in folders(tmp_path):
        assert [row["step"] for row in in_csv(folder)] == [0, 1, 2, 3, 4, 4]
        assert json.loads((folder / "summary.json").read_text())["steps"] == 4
        assert yaml.safe_load((folder / "config.yaml").read_text())["logger"]["mine"]["prefix"] == "seen"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["logger=nope"], "logger=nope does not exist; there are: csv, mlflow, tensorboard, wandb"),
        (
            ["logger=[wandb,cvs]"],
            "logger=cvs does not exist (did you mean csv?); there are: csv, mlflow, tensorboard, wandb",
        ),
        (["logger=mlflow,csv"], "logger=mlflow,csv: a list is expected, as in 'logger=[mlflow,csv]'"),
        (["logger=mlflow"], "logger=mlflow needs an extra: pip install -e '.[mlflow]'"),
        (["logger=[csv,tensorboard]"], "logger=tensorboard needs an extra: pip install -e '.[tensorboard]'"),
        (["logger.wandb=1", "logger=wandb"], None),
        (["logger=[]"], None),
    ],
)
def test_what_is_no_logger_here_is_refused(command, tmp_path, monkeypatch, arguments, line):
    find = __import__("importlib").util.find_spec
    absent = lambda name, *more: None if name in ("mlflow", "tensorboard") else find(name, *more)
    monkeypatch.setattr("importlib.util.find_spec", absent)
    code, _, err = command("task=toy", "steps=1", "measure.every=0", "wandb.mode=disabled", *arguments)
    assert (code, err) == ((2, f"error: {line}\n") if line else (0, err))
    assert bool(folders(tmp_path)) == (line is None)
