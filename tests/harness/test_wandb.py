"""Weights & Biases as its server sees it, healthy and not, and what of the account's key is left behind."""

import math

import pytest

from helpers.commands import SHORT, folders, rows_of
from helpers.offline import kept_offline
from helpers.uploads import lines_about_wandb, once_rows_come, outcome


def test_a_healthy_server_gets_every_row(tmp_path, surroundings):
    done, _ = outcome(tmp_path, surroundings, lambda path: None)
    assert done.stdout.splitlines()[-1] == "  W&B          online"
    assert not lines_about_wandb(done)


@pytest.mark.long
def test_a_server_that_refuses_rows_in_the_middle(tmp_path, surroundings):
    done, _ = outcome(tmp_path, surroundings, once_rows_come(403))
    assert "W&B          incomplete (upload: " in done.stdout
    assert "W&B stopped (ConnectionError: the server refused rows); output/dvae" in done.stderr


FIGURES = ["valid/elbo", "valid/bound", "test/elbo", "test/bound"]
GRADIENT = ["variance", "relative_bias", "relative_bias_error", "snr", "dead"]
TWELVE = {"train/loss", *FIGURES, *(f"gradient/encoder/{what}" for what in GRADIENT)}
TWELVE |= {"cost/evaluations", "cost/seconds"}
MOST_CHARTS = 16


def columns(rows):
    """Names of what rows hold, without W&B's own and the axis; pictures are named once."""
    return {key.partition(".")[0] for row in rows for key in row if not key.startswith("_") and key != "step"}


def test_twelve_columns_in_five_sections_tell_of_a_run(command, tmp_path):
    assert command(*SHORT, "measure.reference_draws=4", "wandb.mode=offline")[0] == 0
    (folder,) = folders(tmp_path)
    rows, config, metrics, summary = kept_offline(folder)
    found = columns(rows)
    pictures = {path.stem for path in folder.glob("*.png")}
    assert found - pictures == TWELVE
    assert len(found) <= MOST_CHARTS
    assert {name.partition("/")[0] for name in TWELVE} == {"train", "valid", "test", "gradient", "cost"}
    assert len({key for row in rows_of(folder) for key in row}) > 60, "the file has all"
    for row, whole in zip(rows, rows_of(folder), strict=False):
        assert {k: v for k, v in row.items() if k in whole} == {k: v for k, v in whole.items() if k in row}
    assert metrics["step"].options.hidden
    assert metrics["*"].step_metric == "step"
    best = max(row["valid/elbo"] for row in rows_of(folder) if "valid/elbo" in row)
    assert math.isclose(summary["valid/elbo"]["max"], best)
    assert summary["test/kl"] > 0, "of the final figures all"
    about = config["environment"]
    assert len(about["commit"]) == 40
    assert about.keys() >= {"changed_files", "versions", "python", "device"}
    assert about["versions"]["torch"]


def test_all_columns_where_they_are_asked_for(command, tmp_path):
    task = ["task=toy", "steps=2", "measure.draws=4", "log_every=1"]
    assert command(*task, "wandb.mode=offline", "wandb.detail=full")[0] == 0
    (folder,) = folders(tmp_path)
    rows, _, metrics, summary = kept_offline(folder)
    made = {key for row in rows_of(folder) for key in row} | {"cost/seconds", "gradient/seconds"}
    assert columns(rows) ^ made == {"step"}
    gaps = [row["valid/gap"] for row in rows_of(folder) if "valid/gap" in row]
    assert math.isclose(summary["valid/gap"]["min"], min(gaps)), "lower is better"
    assert not metrics["valid/gap"].summary.max
    assert "valid/optimum" not in metrics, "which is neither"


def test_what_wandb_records_by_itself_is_chosen_by_options(command, tmp_path, monkeypatch):
    import wandb

    seen, init = [], wandb.init
    monkeypatch.setattr(wandb, "init", lambda **asked: seen.append(asked["settings"]) or init(**asked))
    for more in ([], ["wandb.system=true", "wandb.console=true"]):
        assert (
            command("task=toy", "steps=1", "measure.every=0", "wandb.mode=offline", f"seed={len(more)}", *more)[0] == 0
        )
    assert [(s.x_disable_stats, s.console) for s in seen] == [(True, "off"), (False, "wrap")]
