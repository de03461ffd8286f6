"""The guide to a task of one's own, in an empty folder: it is certified, swept and reported as the guide has it."""

import json
import re
import sys

import pytest

from hardmax import certify
from helpers.commands import ROOT, folders, rows_of
from helpers.processes import finish_forked

PAGE = (ROOT / "docs" / "guides" / "own_task.md").read_text(encoding="utf-8")
QUICK = ["steps=100", "batch_size=20", "optimizer.lr=0.05", "valid.every=50", "measure.every=0", "wandb.mode=disabled"]


def block(language):
    """The first block of a language in the page."""
    return re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[1]


@pytest.mark.long
def test_a_task_from_an_empty_folder(tmp_path, monkeypatch, capsys):
    (tmp_path / "slots.py").write_text(block("python"))
    (tmp_path / "conf" / "task").mkdir(parents=True)
    (tmp_path / "conf" / "task" / "slots.yaml").write_text(block("yaml"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert certify.main(["--task", "slots.Slots", "arms=3"]) == 0, capsys.readouterr()
    sweep = ["-m", "task=slots", "estimator=arsm,reinmax", "task.noise=0.1"]
    code, _, err = finish_forked("--config-dir", "conf", *sweep, *QUICK, where=tmp_path)
    assert code == 0, err
    runs = folders(tmp_path / "output")
    assert {folder.parts[-3:-1] for folder in runs} == {("slots", "arsm"), ("slots", "reinmax")}
    for folder in runs:
        assert json.loads((folder / "summary.json").read_text())["test/regret"] < rows_of(folder)[0]["valid/regret"] / 2
    code, _, err = finish_forked("output", where=tmp_path, script="report.py")
    assert code == 0, err
    (page,) = tmp_path.rglob("report.html")
    assert "reward forgone" in page.read_text(encoding="utf-8")


def test_the_class_is_as_short_as_the_guide_says():
    code = block("python").partition("\n\n\n")[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
