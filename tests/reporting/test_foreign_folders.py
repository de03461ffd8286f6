"""A report on folders that anybody may have made: whatever is wrong with a run costs a line, and nothing else.

Each way is a function that damages the folder of a run. Beside it lie two good runs, whose figures must stay what they
are, and a secret, which must not be shown.
"""

import base64
import csv
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import vl_convert
import yaml
from PIL import Image

from hardmax.harness import contents
from hardmax.harness.contents import bounded_text, is_figure
from hardmax.harness.shared import Refused
from hardmax.reporting import examples, leaderboard, page, writing
from hardmax.reporting.runs import find_runs
from hardmax.reporting.spreadsheets import as_csv
from helpers.cases import in_part
from helpers.made_up import picture, run
from report import main

SECRET = "password of somebody"
LOST = ("not a run", "left out")
HUGE, ODD = "9" * 400, "\ud800"
MEASURED = "estimator,where,bias2,bias2_error,true_norm,variance,evaluations,seconds,truth/exact\n"


@pytest.fixture(autouse=True)
def ends():
    """What waits for ever, such as the reader of a pipe, fails instead."""

    def fail(*_):
        raise TimeoutError("a file is waited for")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def rewritten(name, content):
    """A way that gives a file another content."""

    def way(place):
        (place / name).unlink(missing_ok=True)
        (place / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))

    return way


def config(**changes):
    """A way that changes the config, whose keys have dots as ``__``."""

    def way(place):
        found = yaml.safe_load((place / "config.yaml").read_text())
        for key, value in changes.items():
            *path, last = key.split("__")
            node = found
            for part in path:
                node = node.setdefault(part, {})
            node[last] = value
        (place / "config.yaml").write_text(yaml.safe_dump(found))

    return way


def config_text(old, new):
    def way(place):
        text = (place / "config.yaml").read_text()
        assert old in text
        (place / "config.yaml").write_bytes(text.replace(old, new).encode())

    return way


def summary(text):
    """A way whose summary has this in the place of a figure."""
    return rewritten("summary.json", '{"steps": 100, "seconds": 2.0, "evaluations": 100, "test/elbo": ' + text + "}")


def row(**figures):
    """A way whose last row has these texts in the place of figures."""
    found = "".join(f', "{key.replace("__", "/")}": {value}' for key, value in figures.items())
    return rewritten("metrics.jsonl", '{"step": 0, "train/loss": 1.0}\n{"step": 100' + found + "}\n")


def no_file(name, kind):
    """A way that puts something in a file's place that is none."""

    def way(place):
        (place / name).unlink(missing_ok=True)
        if kind == "pipe":
            os.mkfifo(place / name)
        elif kind == "folder":
            (place / name).mkdir()
        elif kind == "socket":
            here = os.getcwd()
            os.chdir(place)  # its path may be too long for one
            socket.socket(socket.AF_UNIX).bind(name)
            os.chdir(here)
        elif kind == "sparse":
            with (place / name).open("wb") as file:
                file.truncate(20 << 30)
        else:
            (place / name).symlink_to(place.parents[3] / "secret" if kind == "secret" else kind)

    return way


def png_of(width, height):
    """The head of a picture that would be so large."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    part = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(bytes(100))) + part(b"IEND", b"")


def environment(content):
    return rewritten("environment.json", json.dumps(content))


def measured(text):
    return rewritten("measured.csv", MEASURED + text)


def renamed(name):
    def way(place):
        os.rename(os.fsencode(place), os.path.join(os.fsencode(place.parent), name))

    return way


def both(*ways):
    def way(place):
        for each in ways:
            each(place)

    return way


LEFT_OUT = {
    "a config of steps without end": config_text("steps: 100", "steps: .inf"),
    "steps of 400 digits": config_text("steps: 100", f"steps: {HUGE}"),
    "steps of 5,000 digits": config_text("steps: 100", f"steps: {'9' * 5000}"),
    "a seed of 5,000 digits": config_text("seed: 3", f"seed: {'9' * 5000}"),
    "a config that names its parts again": rewritten("config.yaml", "a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n"),
    "a config of many levels": rewritten("config.yaml", "[" * 100_000),
    "a config of bytes": rewritten("config.yaml", bytes(range(256))),
    "a config with a tag": rewritten("config.yaml", "!!python/object/apply:os.system [ls]"),
    "a config that is a list": rewritten("config.yaml", "- 1\n- 2\n"),
    "a config of odd keys": rewritten("config.yaml", "? [a, b]\n: 1\n"),
    "a config without choices": rewritten("config.yaml", "steps: 5\n"),
    "a config of too many settings": config(**{f"extra__k{n}": n for n in range(5000)}),
    "a config that is a pipe": no_file("config.yaml", "pipe"),
    "a config that is a folder": no_file("config.yaml", "folder"),
    "a config that is a socket": no_file("config.yaml", "socket"),
    "a config of 20 GB": no_file("config.yaml", "sparse"),
    "a config that is a device": no_file("config.yaml", "/dev/zero"),
    "a config from elsewhere": no_file("config.yaml", "secret"),
    "rows that are a pipe": no_file("metrics.jsonl", "pipe"),
    "rows of 20 GB": no_file("metrics.jsonl", "sparse"),
    "rows that are a device": no_file("metrics.jsonl", "/dev/zero"),
    "rows from elsewhere": no_file("metrics.jsonl", "secret"),
    "timings that are a pipe": no_file("timings.jsonl", "pipe"),
    "timings that are a folder": no_file("timings.jsonl", "folder"),
    "a summary that is a pipe": no_file("summary.json", "pipe"),
    "a summary of 20 GB": no_file("summary.json", "sparse"),
    "a summary from elsewhere": no_file("summary.json", "secret"),
    "a summary that is a folder": no_file("summary.json", "folder"),
    "a summary of too many figures": rewritten("summary.json", json.dumps({f"test/f{n}": 1.0 for n in range(5000)})),
    "a failure from elsewhere": both(lambda p: (p / "summary.json").unlink(), no_file("failed.txt", "secret")),
    "a failure that is a pipe": both(lambda p: (p / "summary.json").unlink(), no_file("failed.txt", "pipe")),
    "an environment from elsewhere": no_file("environment.json", "secret"),
    "an environment that is a pipe": no_file("environment.json", "pipe"),
}
UNDEFINED = {
    "a figure of 400 digits": summary(HUGE),
    "1e308": summary("1e308"),
    "5e-324": summary("5e-324"),
    "NaN": summary("NaN"),
    "-Infinity": summary("-Infinity"),
    "a figure that is a text": summary('"-25"'),
    "a figure that is a list": summary("[1, 2]"),
}
SHOWN = {  # as far as they can be
    "losses out of range": row(train__loss="1e308", valid__elbo="5e-324"),
    "losses of 400 digits": row(train__loss=HUGE),
    "variances out of range": row(**{f"gradient__logits__{k}": "1e308" for k in ("variance", "bias2", "true_norm")}),
    "norms of nearly nothing": row(**{f"gradient__logits__{k}": "5e-324" for k in ("variance", "bias2", "true_norm")}),
    "a bias beyond all norms": row(gradient__logits__bias2="1e99", gradient__logits__true_norm="1e-99"),
    "a norm that is a text": row(gradient__logits__bias2="1.0", gradient__logits__true_norm='"1"'),
    "steps out of range": rewritten("metrics.jsonl", '{"step": 1e308}\n{"step": -5}\n{"step": true}\n{"step": 1}\n'),
    "rows in no order": rewritten("metrics.jsonl", '{"step": 9, "train/loss": 1}\n{"step": 1, "train/loss": 2}\n'),
    "rows that are no UTF-8": rewritten("metrics.jsonl", b'{"step": 1, "train/loss\xff": 1}\n'),
    "rows that are garbage": rewritten("metrics.jsonl", "garbage\n" * 10_000),
    "a metric without a printable name": row(**{f"valid__{name}": "1" for name in ("\\ud800", "\\u001b", "v" * 999)}),
    "a summary of many levels": rewritten("summary.json", '{"a":' + "[" * 100_000),
    "a summary of 5,000 digits": summary("9" * 5000),
    "a lone surrogate in a setting": config_text("lr: 0.001", 'lr: "\\uD800"'),
    "a setting of 100,000 letters": config(optimizer__lr="x" * 100_000),
    "a list of 100,000 letters": config(optimizer__lr=["x" * 1000] * 100),
    "an estimator of 300 letters": config(choices__estimator="e" * 300),
    "an estimator of one letter and 300 dots": config(choices__estimator="e" + "." * 300),
    "an estimator that is a dictionary": config(choices__estimator={"a": 1}),
    "a task of 300 letters": config(choices__task="t" * 300),
    "a task without a name": config(choices__task=""),
    "a task in other folders": config(choices__task="../../../etc/passwd"),
    "a task that is nothing": config(choices__task=None),
    "an experiment elsewhere": config(experiment="../../x"),
    "settings that are dates and bytes": config_text("lr: 0.001", "lr: 2001-01-01\n  a: !!binary aGVs\n  b: !!set {x}"),
    "many settings": config(**{f"estimator__k{n}": "v" * 400 for n in range(200)}),
    "a surrogate in the environment": environment({"commit": ODD, "command": [ODD], "versions": {ODD: 1}}),
    "an environment of other types": environment({"commit": [1], "command": {}, "versions": [], "code": 1}),
    "an environment without end": environment({"versions": {f"v{n}": "x" * 900 for n in range(900)}}),
    "an environment of many levels": rewritten("environment.json", '{"versions":' + "[" * 100_000),
    "a lock that is a pipe": both(lambda p: (p / "summary.json").unlink(), no_file("lock", "pipe")),
    "a lock elsewhere": both(lambda p: (p / "summary.json").unlink(), no_file("lock", "secret")),
    "a failure of bytes": both(lambda p: (p / "summary.json").unlink(), rewritten("failed.txt", bytes(range(256)))),
    "a failure of one long line": both(lambda p: (p / "summary.json").unlink(), rewritten("failed.txt", "x" * 900_000)),
    "a picture that is a folder": no_file("samples.png", "folder"),
    "a picture that is a pipe": no_file("samples.png", "pipe"),
    "a picture from elsewhere": no_file("samples.png", "secret"),
    "a picture that would fill the memory": rewritten("samples.png", png_of(60_000, 60_000)),
    "a picture that is cut off": rewritten("samples.png", picture(900, 900)[:5000]),
    "a table that is a pipe": no_file("texts.csv", "pipe"),
    "a table from elsewhere": no_file("texts.csv", "secret"),
    "a table of a million columns": rewritten("texts.csv", "a\n" + "x," * 1_000_000),
    "a table of one long cell": rewritten("texts.csv", "a\n" + "x" * 1_000_000),
    "a table of bytes": rewritten("texts.csv", bytes(range(256)) * 9),
    "a table with a name that is no UTF-8": lambda p: (p / os.fsdecode(b"\xff.csv")).write_text("a\nb\n"),
    "files without end": lambda p: [(p / f"{n}.csv").write_text("a\nb\n") for n in range(300)],
    "measured figures that are a folder": no_file("measured.csv", "folder"),
    "measured figures that are a pipe": no_file("measured.csv", "pipe"),
    "measured figures from elsewhere": no_file("measured.csv", "secret"),
    "measured figures out of range": measured("a,logits,1e308,1,5e-324,1e308,1,1,1\nb,logits,1,1,1,1,1,1,1\n" * 2),
    "measured figures of 400 digits": measured(f"a,logits,{HUGE},1,1,1,1,1,1\nb,logits,1,1,1,1,1,1,{HUGE}\n"),
    "measured figures that are texts": measured("a,logits,x,x,x,x,x,x,x\n5,logits,1,1,1,1,1,1,x\n"),
    "measured figures without end": measured("a,logits,1,1,1,1,1,1,1\n" * 20_000),
    "a sweep's job that is a pipe": both(rewritten("../sweep.json", "{}"), no_file("../job-0.json", "pipe")),
    "a sweep's job that says nothing": both(
        rewritten("../sweep.json", "{}"), rewritten("../job-0.json", '{"status": "failed", "overrides": [1]}')
    ),
    "a folder with a name that is no UTF-8": renamed(b"\xff\xfe"),
    "a folder with a name that steers a terminal": renamed(b"\x1b[2J"),
    "a folder with a name of 250 letters": renamed(b"n" * 250),
    "a link to the folder above": lambda p: (p.parent / "again").symlink_to(p.parents[2]),
    "a link to itself": lambda p: (p.parent / "itself").symlink_to("itself"),
}  # fmt: skip


def tree(tmp_path, *ways):
    """Two good runs, and one for each way."""
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o600)
    root = tmp_path / "runs"
    for seed in (1, 2):
        run(root, "arsm", seed)
        run(root, "nvil", seed, -26.0)
    for n, way in enumerate(ways):
        way(run(root, f"odd{n}", 3, -30.0, more={"gradient/logits/variance": 1.0}))
    return root


@pytest.fixture
def quick(monkeypatch):
    """Reports without what takes long and hardly depends on the runs: charts, pictures, and the library of the page."""
    monkeypatch.setattr(page.charts, "curve_chart", lambda *_: SimpleNamespace(to_dict=dict))
    monkeypatch.setattr(page.charts, "bias_chart", lambda *_: SimpleNamespace(to_dict=dict))
    monkeypatch.setattr(page, "library", lambda: "")
    monkeypatch.setattr(writing, "pictures", lambda on: {})
    monkeypatch.setattr(writing, "read_published", lambda *_: [])


def report(root):
    """The text, the page, every other text, and the notes of a report."""
    text, written, notes = writing.write([root], root.parent / "to", [], [])
    pages = {path.name: path.read_text("utf-8") for path in written if path.suffix not in (".png", ".svg")}
    return text, pages.pop("report.html"), pages, notes


def check(root, text, page, others, notes):
    """What holds whatever a run is: the good ones have their figures, and no text is without end or a secret."""
    final = pd.read_csv(root.parent / "to/final.csv")
    found = final[(final.metric == "test/elbo") & (final.task == "dvae")].set_index("label")["mean"]
    assert found.filter(regex="arsm").tolist() == [-25.0]
    assert found.filter(regex="nvil").tolist() == [-26.0]
    assert (root.parent / "secret").read_text() == SECRET
    for content in (text, page, *others.values(), *notes):
        assert SECRET not in content
    assert len(notes) < 40


@pytest.mark.parametrize("way", LEFT_OUT)
def test_a_run_that_cannot_be_read_is_one_line(tmp_path, quick, way):
    root = tree(tmp_path, LEFT_OUT[way])
    text, shown, others, notes = report(root)
    check(root, text, shown, others, notes)
    assert [note.startswith(LOST) and "odd0" in note for note in notes] == [True]
    assert "odd0" in shown.split("Noted while reading")[1]
    assert "odd0" not in shown.split("Noted while reading")[0]
    assert all("odd0" not in content for content in others.values())


@pytest.mark.parametrize("way", UNDEFINED)
def test_a_figure_with_which_nothing_can_be_reckoned_is_undefined(tmp_path, quick, way):
    root = tree(tmp_path, UNDEFINED[way])
    check(root, *report(root))
    (odd,) = [run for run in find_runs([root]).runs if run.estimator == "odd0"]
    assert odd.finished
    assert odd.figures.get("test/elbo") is None
    assert odd.figures["cost/seconds"] == 2.0


@pytest.mark.parametrize("way", in_part(SHOWN, 3))
def test_an_odd_run_costs_the_others_nothing(tmp_path, quick, way):
    root = tree(tmp_path, SHOWN[way])
    text, shown, others, notes = report(root)
    check(root, text, shown, others, notes)
    assert sum(map(len, (text, shown, *others.values()))) < 600_000


def test_a_run_1500_folders_deep_is_found():
    """Not below the folder of the tests, which what tidies up there could not delete."""
    here, top = os.getcwd(), Path(tempfile.mkdtemp())
    try:
        run(top, "arsm", 1)
        os.chdir(top)
        for _ in range(1500):
            os.mkdir("d")
            os.chdir("d")
        run(Path(), "deep", 1)
        os.chdir(here)
        assert {run.estimator for run in find_runs([top]).runs} == {"arsm", "deep"}
    finally:
        os.chdir(here)
        subprocess.run(["rm", "-rf", top], check=True)


def test_pictures_are_drawn_of_all_that_is_odd(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "library", lambda: "")
    monkeypatch.setattr(writing, "read_published", lambda *_: [])
    monkeypatch.setattr(vl_convert, "svg_to_png", lambda *_, **__: b"")  # all texts are in the SVG by then
    words = (
        "losses",
        "variances",
        "norm",
        "a bias",
        "a metric",
        "a lone",
        "a setting",
        "a list",
        "an estimator",
        "a task of",
    )
    odd = [way for name, way in SHOWN.items() if name.startswith((*words, "measured figures out", "a folder"))]
    root = tree(tmp_path, *odd, UNDEFINED["1e308"], SHOWN["a task of 300 letters"])
    check(root, *report(root))
    (measured,) = tmp_path.glob("to/*_bias_variance.svg")
    assert measured.stat().st_size > 5000


def test_a_leaderboard_of_all_that_is_odd(tmp_path, monkeypatch):
    monkeypatch.setattr(leaderboard, "as_png", lambda spec: b"")
    root = tree(tmp_path, *SHOWN.values(), *LEFT_OUT.values(), *UNDEFINED.values())
    for seed, rate in ((1, 0.1), (1, 0.2), (2, 0.1), (3, 0.1)):
        run(root, "arsm", seed, settings={"optimizer.lr": rate}, task="tuned", name=str(rate))
    written, notes = leaderboard.write_leaderboard([root], tmp_path / "board.md")
    assert SECRET not in written[-1].read_text("utf-8")
    assert sum(note.startswith(LOST) for note in notes) >= len(LEFT_OUT)


# ---------------------------------------------------------------- reading


def test_a_linked_folder_is_not_followed_and_noted(tmp_path):
    run(tmp_path / "elsewhere", "linked", 1)
    root = tree(tmp_path)
    (root / "dvae/linked").symlink_to(tmp_path / "elsewhere/dvae/linked/1-key")
    found = find_runs([root])
    assert "linked" not in {run.estimator for run in found.runs}
    assert found.notes == [f"a link, not followed: {root / 'dvae/linked'}"]
    assert "linked" in {run.estimator for run in find_runs([root / "dvae/linked"]).runs}, "as it is named"


def test_a_folder_that_cannot_be_read_is_noted(tmp_path, monkeypatch):
    root = tree(tmp_path)
    (root / "private").mkdir()
    scandir = os.scandir
    denied = lambda path: scandir(path) if path.name != "private" else scandir("/proc/1/nothing")
    monkeypatch.setattr(os, "scandir", denied)
    found = find_runs([root])
    assert found.notes == [f"cannot be read: {root / 'private'} (No such file or directory)"]
    assert len(found.runs) == 4


def test_rows_without_end_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "MOST_ROWS", 3)
    root = tree(tmp_path)
    found = find_runs([root])
    assert found.runs == []
    assert all("metrics.jsonl has more than 3 lines" in note for note in found.notes)


def test_long_texts_stay_different(tmp_path):
    for n in (1, 2):
        run(tmp_path, settings={"optimizer.lr": "x" * 100_000 + str(n)}, name=f"key{n}")
    values = [run.config["optimizer.lr"] for run in find_runs([tmp_path]).runs]
    assert len(set(values)) == 2
    assert all(len(value) <= contents.MOST_LETTERS + 50 and "100,001 letters" in value for value in values)
    assert bounded_text("a\x1bb") == "a?b"


@pytest.mark.parametrize("number", [0, 0.0, -3, 1e-100, 1e100, -2.5, 10**99])
def test_numbers_to_reckon_with(number):
    assert is_figure(number)


@pytest.mark.parametrize("number", [True, None, "1", float("nan"), float("inf"), 1e101, 5e-324, 10**400, [1]])
def test_no_numbers_to_reckon_with(number):
    assert not is_figure(number)


# ---------------------------------------------------------------- examples


def test_pictures_are_scaled_and_counted(tmp_path, quick, monkeypatch):
    """Large ones have fewer pixels on the page, and only so many are there."""
    monkeypatch.setattr(examples, "MOST_PICTURES", 7)
    root = tree(tmp_path)
    small, large = picture(8, 8), picture(900, 1200)
    for folder in (path.parent for path in root.rglob("summary.json")):
        for n in range(4):
            (folder / f"kind{n}.png").write_bytes(large if n == 0 else small)
    _, shown, _, notes = report(root)
    found = [base64.b64decode(part.split('"')[0]) for part in shown.split("data:image/png;base64,")[1:]]
    assert len(found) == 7
    assert sum(content == small for content in found) == 5
    for content in found:
        image = Image.open(io.BytesIO(content))
        image.load()
        assert len(content) <= examples.MOST_SHOWN
        assert max(image.size) <= examples.MOST_SIDE
    assert sum("beyond the first 7 pictures" in note for note in notes) == 1


# ---------------------------------------------------------------- writing


WRITTEN = ["final.csv", "runs.csv", "curves.csv", "dvae.md", "dvae.tex", "report.html"]


@pytest.mark.parametrize("name", in_part(WRITTEN, 3))
def test_nothing_is_written_through_a_link(tmp_path, quick, name):
    root = tree(tmp_path)
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / name).symlink_to(tmp_path / "secret")
    check(root, *report(root))
    assert not (tmp_path / "to" / name).is_symlink()


def test_a_report_does_not_go_into_a_linked_folder(tmp_path, quick):
    root = tree(tmp_path)
    (tmp_path / "home").mkdir()
    (tmp_path / "to").symlink_to(tmp_path / "home")
    with pytest.raises(Refused, match="is a link; name the folder that it leads to"):
        report(root)
    assert not list((tmp_path / "home").iterdir())


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path, quick):
    root = tree(tmp_path)
    (tmp_path / "to/runs.csv/inner").mkdir(parents=True)
    with pytest.raises(Refused, match=r"runs\.csv.* cannot be written"):
        report(root)
    assert not list(tmp_path.rglob("*.partial"))


def test_tasks_do_not_overwrite_each_others_files(tmp_path, quick):
    names = ["a/b", "a b", "a_b", "x", "x_bias_variance", "t" * 300, "t" * 301, ""]
    for n, task in enumerate(names):
        config(choices__task=task)(run(tmp_path / "runs", f"e{n}", 1))
    _, _, others, _ = report(tmp_path / "runs")
    tables = {name: content for name, content in others.items() if name.endswith(".md")}
    assert len(tables) == len(names)
    assert {"a_b.md", "x.md"} <= set(tables)
    for n in range(len(names)):
        assert sum(f"| e{n} " in content for content in tables.values()) == 1
    assert all(len(name) < 120 and not name.startswith(".") for name in tables)


def test_cells_of_text_are_no_formulas(tmp_path, quick):
    root = tree(tmp_path)
    for n, start in enumerate("=+-@\t\r"):
        odd = config(choices__estimator=f"{start}cmd|' /C calc'!A{n}", estimator__rate=-0.5, task__p=f"{start}1+{n}")
        odd(run(root, f"odd{n}", 3, -30.0, more={"gradient/logits/variance": 1.0}))
    _, _, others, _ = report(root)
    for name in ("final.csv", "runs.csv", "curves.csv"):
        cells = [cell for row in csv.reader(io.StringIO(others[name])) for cell in row]
        assert any(cell.startswith("'=cmd") for cell in cells)
        for cell in cells:
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")) or float(cell) < 0


def test_measured_tables_have_no_formulas():
    assert as_csv(pd.DataFrame({"=a": ["=1+1", "-0.5", "plain"], "b": [-1.5, 2, 3]})) == (
        "'=a,b\n'=1+1,-1.5\n-0.5,2.0\nplain,3.0\n"
    )


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_terminal_without_all_letters_has_all_figures(tmp_path, quick, monkeypatch, encoding):
    root = tree(tmp_path)
    config(choices__estimator="größer → ∞")(run(root, "odd", 3, -30.0))
    monkeypatch.setattr(sys, "argv", ["report.py", str(root)])
    with (tmp_path / "shown").open("w", encoding=encoding) as shown:
        monkeypatch.setattr(sys, "stdout", shown)
        monkeypatch.setattr(sys, "__stdout__", shown)
        main()
        sys.stdout.flush()
    text = (tmp_path / "shown").read_text(encoding)
    assert "25" in text
    assert str(root / "report/report.html") in text
    assert "größer → ∞" in (root / "report/report.html").read_text("utf-8")
