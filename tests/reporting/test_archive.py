"""Archives of runs: what is kept, that pages come out the same, and that nothing in one leads anywhere else."""

import json
import lzma
import os
import shutil
import threading
import types

import numpy as np
import pandas as pd
import pytest

from hardmax.reporting import archives, archiving
from hardmax.reporting.archives import read_archive
from hardmax.reporting.archiving import evenly, steps_to_keep, thinned_rows
from hardmax.reporting.runs import find_runs
from helpers.cases import in_part
from helpers.made_up import run


def tree(tmp_path):
    for seed in (1, 2, 3):
        for name, elbo in (("arsm", -25.0), ("reinmax", -24.0)):
            place = run(tmp_path / "output", name, seed, elbo - seed / 10)
            os.utime(place / "summary.json", (1.7e9 + seed, 1.7e9 + seed))
    run(tmp_path / "output", "nvil", 1, None)
    return tmp_path / "output"


def test_an_archive_and_its_folders_make_the_same_tables(tmp_path, reported):
    shutil.rmtree(tree(tmp_path) / "dvae/nvil")  # which has not finished
    assert reported("output", "--archive", "kept")[0] == 0
    assert [path.name for path in (tmp_path / "kept").glob("[!.]*")] == ["dvae.jsonl.xz"]
    assert reported("output", "--to", "a")[0] == reported("kept", "--to", "b")[0] == 0
    assert reported("kept/dvae.jsonl.xz", "--to", "c")[0] == 0
    for other in ("b", "c"):
        pd.testing.assert_frame_equal(
            pd.read_csv(tmp_path / other / "final.csv"), pd.read_csv(tmp_path / "a/final.csv")
        )
    for name in ("dvae.md", "dvae.tex"):
        expected = (tmp_path / "a" / name).read_text()
        assert expected == (tmp_path / "b" / name).read_text() == (tmp_path / "c" / name).read_text()
    listed = pd.read_csv(tmp_path / "b/runs.csv")
    assert set(listed.folder) >= {"kept/dvae.jsonl.xz/dvae/arsm/1-key", "kept/dvae.jsonl.xz/dvae/reinmax/3-key"}


def test_the_same_run_is_never_there_twice(tmp_path, reported):
    tree(tmp_path)
    reported("output", "--archive", "kept")
    before = (tmp_path / "kept/dvae.jsonl.xz").read_bytes()
    for source in ("output", "kept"):
        code, out, _ = reported(source, "--archive", "kept")
        assert (code, out.strip()) == (0, "nothing new to archive")
    assert (tmp_path / "kept/dvae.jsonl.xz").read_bytes() == before
    run(tmp_path / "more", "arsm", 4)
    assert "kept/dvae.jsonl.xz" in reported("more", "--archive", "kept")[1]
    assert len(pd.read_json(tmp_path / "kept/dvae.jsonl.xz", lines=True)) == 7


def test_a_run_by_other_code_stays_beside_the_new_one_which_counts(tmp_path, reported):
    for where, elbo, made in (("new", -20.0, 1.7e9), ("old", -30.0, 1.6e9)):
        place = run(tmp_path / where, "arsm", 1, elbo)
        about = json.loads((place / "environment.json").read_text())
        (place / "environment.json").write_text(json.dumps({**about, "code": {"estimators/arsm.py": where}}))
        os.utime(place / "summary.json", (made, made))
        reported(where, "--archive", "kept")
    assert len(list(read_archive(tmp_path / "kept/dvae.jsonl.xz"))) == 2
    code, _, err = reported("kept", "--to", "a")
    assert code == 0
    assert "left out: kept/dvae.jsonl.xz/dvae/arsm/1-key (kept/dvae.jsonl.xz/dvae/arsm/1-key-2 is taken)" in err
    assert "-20" in (tmp_path / "a/final.csv").read_text()
    assert "-30" not in (tmp_path / "a/final.csv").read_text()


def test_rows_are_thinned_and_training_figures_stay_means():
    rows = [{"step": 10 * n, "train/loss": float(n), "cost/evaluations": n} for n in range(1, 2001)]
    for n in (500, 1000, 1500, 2000):
        rows[n - 1] |= {"valid/elbo": -n, "gradient/logits/bias2": 1 / 3, "gradient/logits/norm_error": 0.1}
    kept = steps_to_keep(rows)
    assert len(kept) == 200
    assert {10, 5000, 10_000, 15_000, 20_000} <= kept
    found = list(thinned_rows(rows, kept))
    assert [row["step"] for row in found] == sorted(kept)
    spans = np.diff([0, *(row["step"] for row in found)]) / 10
    assert sum(spans * [row["train/loss"] for row in found]) == pytest.approx(2001 * 1000)
    assert found[-1]["train/loss"] == 2000
    assert found[-1]["gradient/logits/norm_error"] == 0.1
    assert [row.get("gradient/logits/bias2") for row in found if "valid/elbo" in row] == [0.33333333] * 4
    assert sum("gradient/logits/norm_error" in row for row in found) == 1
    assert evenly([1, 2, 3, 4, 5], 2) == [3, 5]
    assert len(steps_to_keep([{"step": n, "valid/elbo": 0.0} for n in range(999)])) == 200


def test_validations_are_kept_before_measurements_and_those_before_all_else():
    rows = [{"step": n, "train/loss": 0.0, "gradient/encoder/running_variance": 1.0} for n in range(1, 1001)]
    for n in range(10, 1001, 10):
        rows[n - 1]["valid/elbo"] = 0.0
    for n in range(7, 1001, 20):
        rows[n - 1]["gradient/logits/variance"] = 0.0
    kept = steps_to_keep(rows)
    assert len(kept) == 200
    assert kept > {*range(10, 1001, 10), *range(7, 1001, 20)}
    for row in rows:
        row["gradient/logits/variance"] = 0.0
    assert steps_to_keep(rows) > set(range(10, 1001, 10))


def test_the_last_training_figures_stay_as_they_are():
    """Where validations take all places, and where a row of test figures comes after the last of training."""
    rows = [{"step": n, "train/loss": float(n)} for n in range(1, 1004)]
    for n in range(5, 1004, 5):
        rows[n - 1]["valid/elbo"] = 0.0
    rows.append({"step": 1003, "test/elbo": 0.0})
    kept = steps_to_keep(rows)
    assert len(kept) == 200
    assert [row.get("train/loss") for row in thinned_rows(rows, kept)][-2:] == [1003, None]


def test_what_two_processes_add_at_once_is_all_there(tmp_path, monkeypatch):
    """The second waits until what the first adds is there."""
    for name in ("arsm", "reinmax"):
        run(tmp_path / name, name)
    begun, go_on = threading.Event(), threading.Event()

    def slowly(content, **options):
        begun.set()
        assert go_on.wait(20)
        return lzma.compress(content, **options)

    slow = types.SimpleNamespace(compress=slowly, PRESET_EXTREME=lzma.PRESET_EXTREME)
    monkeypatch.setattr(archiving, "lzma", slow)
    adding = [
        threading.Thread(target=archiving.add_runs, args=(find_runs([tmp_path / name]).runs, tmp_path / "kept"))
        for name in ("arsm", "reinmax")
    ]
    adding[0].start()
    assert begun.wait(20)
    adding[1].start()
    adding[1].join(0.5)
    assert adding[1].is_alive(), "it waits"
    go_on.set()
    for thread in adding:
        thread.join(20)
    assert len(list(read_archive(tmp_path / "kept/dvae.jsonl.xz"))) == 2


def entry(**changes):
    good = {"key": "dvae/arsm/1-key", "made": 1, "files": {"config.yaml": ""}}
    return {**good, **changes}


@pytest.mark.parametrize(
    "content",
    in_part(
        [
            [entry(key="../../etc/cron")],
            [entry(key="dvae/../1-key")],
            [entry(key="/dvae/1-key")],
            [entry(key="dvae/arsm/.ssh")],
            [entry(key="dvae/arsm")],
            [entry(key=["dvae", "arsm", "1"])],
            [entry(files={"../x": ""})],
            [entry(files={"payload.py": ""})],
            [entry(files={"config.yaml": {}})],
            [entry(made="now")],
            [entry(made=-1)],
            [{"key": "dvae/arsm/1-key"}],
            ["text"],
        ],
        4,
    ),
)
def test_what_leads_anywhere_else_is_left_out_and_costs_the_others_nothing(tmp_path, reported, content):
    tree(tmp_path)
    bad = tmp_path / "output/bad.jsonl.xz"
    bad.write_bytes(lzma.compress("".join(json.dumps(line) + "\n" for line in content).encode()))
    before = {path for path in tmp_path.rglob("*") if "report" not in path.parts}
    code, _, err = reported("output")
    assert code == 0, err
    assert "left out, from here on: output/bad.jsonl.xz (ValueError: line 1" in err
    assert {path for path in tmp_path.rglob("*") if "report" not in path.parts} == before
    assert not any(archives.unpacking_folder().rglob("payload.py"))


@pytest.mark.parametrize("content", [b"", b"no archive", lzma.compress(b"{"), lzma.compress(b"{}\n" * 50)[:-9]])
def test_a_broken_archive_costs_the_others_nothing(tmp_path, reported, content):
    tree(tmp_path)
    (tmp_path / "output/bad.jsonl.xz").write_bytes(content)
    code, out, err = reported("output")
    assert code == 0, err
    assert "output/bad.jsonl.xz" in err
    assert "25.2" in out


def test_an_archive_that_unpacks_without_end_is_left(tmp_path, reported, monkeypatch):
    tree(tmp_path)
    monkeypatch.setattr(archives, "MOST_ROWS_BYTES", 10_000)
    (tmp_path / "output/bad.jsonl.xz").write_bytes(lzma.compress(b" " * 10**7))
    code, _, err = reported("output")
    assert code == 0
    assert "output/bad.jsonl.xz (ValueError: unpacks to more than 10,000 bytes)" in err


def test_runs_of_one_key_lie_beside_each_other(tmp_path):
    lines = "".join(json.dumps(entry(made=n)) + "\n" for n in range(3000))
    (tmp_path / "same.jsonl.xz").write_bytes(lzma.compress(lines.encode()))
    assert len({*archives.unpacked_runs(tmp_path / "same.jsonl.xz")}) == 3000


def test_an_archive_that_is_a_link_or_a_pipe_is_not_read(tmp_path, reported):
    tree(tmp_path)
    reported("output", "--archive", "kept")
    (tmp_path / "output/linked.jsonl.xz").symlink_to(tmp_path / "kept/dvae.jsonl.xz")
    os.mkfifo(tmp_path / "output/pipe.jsonl.xz")
    code, _, err = reported("output")
    assert code == 0
    assert "linked.jsonl.xz" in err
    assert "pipe.jsonl.xz" in err
    assert len(find_runs([tmp_path / "output"]).runs) == 7


def test_runs_of_no_experiment_are_archived_by_task(tmp_path, reported):
    run(tmp_path / "output", "arsm", 1, settings={"experiment": None})
    run(tmp_path / "output", "arsm", 2, settings={"experiment": "mine"})
    assert reported("output", "--archive", "kept")[0] == 0
    assert sorted(path.name for path in (tmp_path / "kept").glob("[!.]*")) == ["dvae.jsonl.xz", "mine.jsonl.xz"]


def test_archives_are_refused_where_folders_are_needed(tmp_path, reported):
    tree(tmp_path)
    reported("output", "--archive", "kept")
    code, _, err = reported("kept/dvae.jsonl.xz", "--upload")
    assert (code, err) == (2, "error: --upload takes folders of runs, got the archive kept/dvae.jsonl.xz\n")
    assert reported("output", "--archive", "kept", "--to", "page")[0] == 2


def test_an_experiment_that_is_no_name_of_a_file_is_not_archived(tmp_path, reported):
    run(tmp_path / "output", "arsm", 1, settings={"experiment": "../../home/user"})
    code, _, err = reported("output", "--archive", "kept")
    assert code == 0
    assert "not archived: output/dvae/arsm/1-key (ValueError: ../../home/user is no name of a file)" in err
    assert not (tmp_path / "kept").exists()


def test_an_archive_that_cannot_be_read_is_never_written_over(tmp_path, reported):
    tree(tmp_path)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/dvae.jsonl.xz").write_bytes(b"mine")
    code, _, err = reported("output", "--archive", "kept")
    assert code == 2
    assert err.startswith("error: --archive kept: dvae.jsonl.xz: ")
    assert (tmp_path / "kept/dvae.jsonl.xz").read_bytes() == b"mine"
