"""Rows at Weights & Biases: each once, whatever became of the run, and from its files where there is no other way."""

import json
import shlex
import shutil
from types import SimpleNamespace

import pytest

from hardmax.harness.online import id_of
from helpers.commands import SHORT, folders, rows_of
from helpers.uploads import end_at, figures, logged, without_clock

QUICK = [*SHORT, "task=dvae", "measure.every=0", "log_every=1", "checkpoint_every=0", "wandb.detail=full"]


@pytest.fixture
def uploaded(reported):
    """Runs ``report.py ... --upload`` in this process; gives exit code, output and errors."""
    return lambda *arguments: reported(*arguments, "--upload")


def name_of(folder):
    return (folder / "wandb.id").read_text()


def test_runs_below_a_folder_are_uploaded_whole_and_only_once(command, uploaded, server, tmp_path):
    """Finished offline or without W&B: rows, final figures, tables and pictures, under an id of the run's own."""
    assert command(*QUICK, "wandb.mode=offline", "wandb.group=mine")[0] == 0
    assert command(*QUICK, "wandb.mode=disabled", "output=output/bob")[0] == 0
    assert not server.runs
    for once in (True, False):
        code, out, _ = uploaded("output")
        assert code == 0
        for folder in folders(tmp_path):
            assert figures(server.rows(name_of(folder))) == logged(folder), "a row is missing, or is there twice"
            there = len(rows_of(folder))
            counts = (there, 0) if once else (0, there)
            assert "{}: {} rows sent, {} were there".format(folder.relative_to(tmp_path), *counts) in out
    kept = {path.stem for path in folders(tmp_path)[0].glob("*.png")}
    for folder in folders(tmp_path):
        *_, last = server.rows(name_of(folder))
        assert kept == {name for name, value in last.items() if isinstance(value, dict)} != set()
    assert {about["name"] for about in server.runs.values()} == {f"dvae-gumbel_softmax-{folder.name}"}
    assert "mine" in {about["group"] for about in server.runs.values()}
    assert len(server.runs) == 2, "equal configs in two folders are two runs"
    summaries = [json.loads(content) for path, content in server.files if path.endswith("wandb-summary.json")]
    assert all("test/elbo" in summary for summary in summaries)


def test_a_run_that_was_interrupted_is_uploaded_as_far_as_it_is_and_then_the_rest(
    command, uploaded, server, tmp_path, monkeypatch
):
    with monkeypatch.context() as broken:
        end_at(broken, 7)
        assert command(*QUICK, "wandb.mode=disabled")[0] == 130
    (folder,) = folders(tmp_path)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "train/lo')  # as a process leaves it that dies while it writes
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert uploaded("output")[0] == 0
    assert [row["step"] for row in server.rows()] == [*range(8)]
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name in before} == before
    assert command(*QUICK, "wandb.mode=disabled")[0] == 0
    code, out, _ = uploaded(folder)
    assert code == 0
    assert "14 rows sent, 8 were there" in out
    assert without_clock(server.rows()) == rows_of(folder)


def test_a_run_online_that_goes_on_logs_no_row_twice(command, server, tmp_path, monkeypatch):
    """Its checkpoint is older than its last rows, which are made again and are there already."""
    with monkeypatch.context() as broken:
        end_at(broken, 7)
        broken.setattr("hardmax.harness.state.State.save", lambda state, *to: None)
        assert command(*QUICK, "wandb.mode=online")[0] == 130
    (folder,) = folders(tmp_path)
    sent = [row["step"] for row in server.rows()]
    assert sent == [*range(8)]
    assert command(*QUICK, "wandb.mode=online")[0] == 0
    assert without_clock(server.rows()) == rows_of(folder)
    assert list(server.runs) == [name_of(folder)]


def test_a_run_that_begins_again_by_other_code_is_another_run_there(command, server, tmp_path, monkeypatch):
    with monkeypatch.context() as broken:
        end_at(broken, 3)
        broken.setattr("hardmax.harness.state.State.save", lambda state, *to: None)
        assert command(*QUICK, "wandb.mode=online")[0] == 130
    (folder,) = folders(tmp_path)
    first, path = name_of(folder), folder / "environment.json"
    about = json.loads(path.read_text())
    about["code"] = dict.fromkeys(about["code"], "0" * 16)
    path.write_text(json.dumps(about))
    assert command(*QUICK, "wandb.mode=online")[0] == 0
    assert name_of(folder) != first
    assert figures(server.rows(name_of(folder))) == logged(folder)
    assert len(server.rows(first)) == 4


def test_a_run_that_goes_on_offline_keeps_all_of_its_rows_there(command, tmp_path, monkeypatch):
    with monkeypatch.context() as broken:
        end_at(broken, 7)
        assert command(*QUICK, "wandb.mode=offline")[0] == 130
    sent = []
    monkeypatch.setattr("wandb.Run.log", lambda run, row, **_: sent.append(row))
    assert command(*QUICK, "wandb.mode=offline")[0] == 0
    (folder,) = folders(tmp_path)
    assert sent[:-1] == logged(folder), "and the examples"


def test_one_bad_folder_does_not_cost_the_others_their_upload(command, uploaded, server, tmp_path):
    assert command(*QUICK, "wandb.mode=disabled")[0] == 0
    (good,) = folders(tmp_path)
    bad = {name: good.parent / name for name in ("0-config", "0-rows", "0-none", "0-linked")}
    for folder in bad.values():
        shutil.copytree(good, folder)
        (folder / "wandb.id").unlink(missing_ok=True)
    (bad["0-config"] / "config.yaml").write_text("a: [")
    (bad["0-rows"] / "metrics.jsonl").write_text("no row\n")
    (bad["0-none"] / "config.yaml").unlink()
    (tmp_path / "secret.csv").write_text("word\nkeep me\n")
    (bad["0-linked"] / "secret.csv").symlink_to(tmp_path / "secret.csv")
    code, out, err = uploaded("output")
    assert code == 1
    said = [line for line in err.splitlines() if not line.startswith("wandb: ")]
    assert len(said) == 3, err
    assert {line.split()[2] for line in said} == {
        str(bad[name].relative_to(tmp_path)) for name in bad if name != "0-linked"
    }
    assert figures(server.rows(name_of(good))) == logged(good)
    assert str(good.relative_to(tmp_path)) in out
    assert not any("secret" in row for row in server.rows(name_of(bad["0-linked"]))), "a link out of the folder"


def test_an_id_is_kept_in_the_folder_and_made_anew_without_its_file(tmp_path):
    first = id_of(tmp_path)
    assert id_of(tmp_path) == first
    (tmp_path / "wandb.id").unlink()
    assert id_of(tmp_path) != first, "one that was deleted at W&B cannot be used again"
    for content in ("", "a/b", "x" * 65):
        (tmp_path / "wandb.id").write_text(content)
        assert id_of(tmp_path) == name_of(tmp_path) != content


def test_what_cannot_be_uploaded_is_said_in_one_line(uploaded, tmp_path, monkeypatch):
    (tmp_path / "output").mkdir()
    code, _, err = uploaded("output")
    assert (code, err) == (2, "error: no runs below output\n")
    (tmp_path / "output/metrics.jsonl").touch()
    monkeypatch.setattr("hardmax.reporting.uploading.reachable", lambda: False)
    code, _, err = uploaded("output")
    assert (code, err) == (2, "error: W&B: no credentials (wandb login), or the server does not answer\n")


def test_the_printed_command_is_quoted(command, uploaded, server, tmp_path):
    code, out, _ = command(*QUICK, "wandb.mode=offline", "output=my runs")
    assert code == 0
    words = shlex.split(out.rpartition("(upload: ")[2].partition(")\n")[0])
    (folder,) = folders(tmp_path)
    assert words[1:] == ["report.py", str(folder.relative_to(tmp_path)), "--upload"]
    assert uploaded(*words[2:-1])[0] == 0
    assert figures(server.rows()) == logged(folder)


def test_a_run_is_measured_from_its_model_at_wandb(command, measured, uploaded, server, tmp_path):
    """From one that it sent, and one that was uploaded later; what is there is what a checkpoint is."""
    code, out, err = command(*QUICK, "wandb.mode=online", "wandb.artifact=true")
    assert code == 0, err
    assert "W&B          online" in out, err
    (folder,) = folders(tmp_path)
    (model,) = server.models.values()
    assert model["name"] == f"model-{name_of(folder)}"
    about = json.loads(model["metadata"])
    assert about["test/elbo"] == json.loads((folder / "summary.json").read_text())["test/elbo"]
    assert len(about["commit"]) == 40
    few = ["measure.draws=4", "measure.rivals=[]", "measure.reference_draws=0"]
    code, _, err = measured(f"wandb:tester/hardmax/{name_of(folder)}", *few)
    assert code == 0, err
    place = next((tmp_path / "artifacts").iterdir())
    assert (place / "state.pt").read_bytes() == (folder / "state.pt").read_bytes()
    assert measured(str(folder), *few)[0] == 0
    assert (place / "measured.csv").read_text().splitlines()[1].split(",")[:3] == (
        (folder / "measured.csv").read_text().splitlines()[1].split(",")[:3]
    )
    code, _, err = measured("wandb:tester/hardmax/none", *few)
    assert (code, err.count("\n")) == (2, 1)
    assert "wandb:tester/hardmax/none: no model was found (" in err
    code, _, err = measured("wandb:tester/none", *few)
    assert (code, "wandb:ENTITY/PROJECT/RUN is expected" in err) == (2, True)


def test_a_model_with_other_files_than_a_checkpoint_is_not_downloaded(measured, monkeypatch):
    entries = {"config.yaml": SimpleNamespace(ref=None), "../secret": SimpleNamespace(ref=None)}
    for left_out, bad in (("", "../secret"), ("../secret", "config.yaml")):
        entries.pop(left_out, None)
        if left_out:
            entries["config.yaml"].ref = "file:///etc/passwd"
        found = SimpleNamespace(manifest=SimpleNamespace(entries=entries))  # has nothing to download with
        monkeypatch.setattr("wandb.Api", lambda **_: SimpleNamespace(artifact=lambda *_, **__: found))
        code, _, err = measured("wandb:a/b/c")
        assert (code, err) == (2, f"error: wandb:a/b/c: its model has {bad}, which no checkpoint of a run has\n")
