"""Runs from Python: the same as from the command line, and a table of what there is."""

import sys

import pytest
import torch

import hardmax
from hardmax.harness.shared import Refused

TOY = ["estimator=arsm", "task=toy", "wandb.mode=disabled", "measure.every=0"]


def test_a_run_is_the_command_line_s(tmp_path, command):
    threads = torch.get_num_threads()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    run = hardmax.run(*TOY, steps=20, output=str(tmp_path / "a b"), log_every=10)
    assert torch.equal(torch.rand(2), expected), "the process's own random numbers go on"
    assert torch.get_num_threads() == threads
    assert command(*TOY, "steps=20", "log_every=10", f"output={tmp_path / 'c'}")[0] == 0
    (other,) = (tmp_path / "c").rglob("metrics.jsonl")
    assert other.read_bytes() == (run.folder / "metrics.jsonl").read_bytes()
    assert run.figures["test/gap"] == run.figures["test/cost"] - run.figures["test/optimum"]
    assert run.rows["train/loss"].count() == 2
    again = hardmax.run(*TOY, steps=20, output=str(tmp_path / "a b"), log_every=10)
    assert again.folder == run.folder, "finished already"


def test_a_notebook_shows_how_far_a_run_is(tmp_path, monkeypatch, capsys):
    hardmax.run(*TOY, steps=10, output=str(tmp_path / "script"))
    assert "10/10" not in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    hardmax.run(*TOY, steps=10, output=str(tmp_path / "notebook"))
    assert "10/10" in capsys.readouterr().err


def test_runs_and_rows_of_a_folder(tmp_path):
    for seed in (1, 2):
        hardmax.run(*TOY, steps=10, seed=seed, output=str(tmp_path))
    runs = hardmax.runs(tmp_path)
    assert sorted(runs.seed) == ["1", "2"]
    assert set(runs.status) == {"finished"}
    assert runs["test/cost"].notna().all()
    rows = hardmax.rows(tmp_path)
    assert set(rows.estimator) == {"arsm"}
    assert rows.groupby("seed").step.max().tolist() == [10, 10]
    assert hardmax.rows(tmp_path / "nothing here").empty


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"stepz": 3}, "stepz is no option (did you mean steps?); python run.py --help lists them"),
        (
            {"estimator": "reinforce", "+extra.a": 1, "estimator.baselin": 3},
            "estimator.baselin is no option (did you mean",
        ),
        ({"steps": "abc"}, "steps=abc: an integer is expected"),
        ({"estimator": "armm"}, "estimator=armm does not exist (did you mean arsm?)"),
        ({"steps": -1}, "steps must be an integer of at least 1, got -1"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, settings, text):
    with pytest.raises(Refused) as refused:
        hardmax.run("task=toy", output=str(tmp_path), **settings)
    assert str(refused.value).startswith(text)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_config():
    cfg = hardmax.compose(["estimator=reinforce", "estimator.samples=4"])
    assert (cfg.estimator.samples, cfg.task.variables) == (4, 20)


def test_values_of_any_type(tmp_path):
    cfg = hardmax.run(*TOY, steps=1, output=str(tmp_path), notes='a "b", {c}: $', fresh=False, name=None)
    assert cfg.folder.is_dir()
    assert 'a "b", {c}: $' in (cfg.folder / "config.yaml").read_text()


def test_a_class_of_the_notebook_s_own(tmp_path, monkeypatch):
    import __main__

    class Mine(hardmax.Reinforce):
        pass

    monkeypatch.setattr(__main__, "Mine", Mine, raising=False)
    (tmp_path / "conf/estimator").mkdir(parents=True)
    (tmp_path / "conf/estimator/mine.yaml").write_text("_target_: __main__.Mine\n")
    run = hardmax.run(*TOY[1:], "estimator=mine", config_dir=tmp_path / "conf", steps=5, output=str(tmp_path / "out"))
    assert run.folder.parent.name == "mine"


def test_a_class_of_a_notebook_that_is_typed_anew_is_other_code(tmp_path, monkeypatch):
    """Its file is none; what counts is what it does, and what the bases do that were typed there too."""
    (tmp_path / "conf/estimator").mkdir(parents=True)
    (tmp_path / "conf/estimator/mine.yaml").write_text("_target_: __main__.Mine\n")
    main = sys.modules["__main__"]
    cell = """
from hardmax.estimators import Reinforce
class Base(Reinforce):
    def estimate(self, logits, objective, context):
        return {factor} * super().estimate(logits, objective, context)
class Mine(Base):
    def __init__(self, decay={decay}):
        super().__init__(decay=decay)
"""

    def typed(factor, decay=0.9):
        exec(compile(cell.format(factor=factor, decay=decay), f"<cell {factor}>", "exec"), main.__dict__)

    for name in ("Base", "Mine"):
        monkeypatch.setattr(main, name, None, raising=False)
    mine = ["estimator=mine", *TOY[1:]]
    with monkeypatch.context() as patch:
        for name in ("Base", "Mine", "Reinforce"):
            patch.setitem(main.__dict__, name, None)
        typed(1)
        first = hardmax.run(*mine, steps=5, output=str(tmp_path), config_dir=tmp_path / "conf")
        typed(1)
        again = hardmax.run(*mine, steps=5, output=str(tmp_path), config_dir=tmp_path / "conf")
        assert again.folder == first.folder, "the same, typed again"
        for changed in ((0, 0.9), (1, 0.8)):
            typed(*changed)
            with pytest.raises(Refused, match=r"was finished by other code or data \(__main__.Mine\): fresh=true"):
                hardmax.run(*mine, steps=5, output=str(tmp_path), config_dir=tmp_path / "conf")
