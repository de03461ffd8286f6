"""Files from anyone: checkpoints, data and run folders that were made to do harm, or are damaged."""

import gzip
import io
import itertools
import os
import pickle
import re
import resource
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import torch
from scipy.io import savemat

from hardmax.harness.shared import Refused
from hardmax.harness.train import train
from hardmax.reporting.runs import find_runs
from hardmax.tasks.data import formats
from hardmax.tasks.data.formats import Malformed
from helpers.cases import in_part
from helpers.commands import ROOT, SHORT, folders, started

PRODUCT = [
    *ROOT.glob("*.py"),
    *(
        p
        for d in ("estimators", "gradients", "hardmax", "harness", "reporting", "tasks")
        for p in (ROOT / d).rglob("*.py")
    ),
]
RUN = ["estimator=nvil", *SHORT, "wandb.mode=disabled"]


def peak():
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def test_nothing_unpickles():
    """No reader that runs what a file says, and no torch.load but the one that runs nothing."""
    unsafe = r"\b(pickle|dill|cloudpickle|joblib|marshal|shelve)\b|allow_pickle|unsafe_load|full_load|\beval\(|\bexec\("
    loads = []
    for path in PRODUCT:
        text = path.read_text()
        code = "\n".join(line for line in text.splitlines() if "hydra/launcher" not in line)
        code = code.replace("allow_pickle=False", "")
        of_a_class = "eval(expression.removeprefix(AT_MOST), {},"  # which is code that has been run already
        assert not re.search(unsafe, code.replace(".eval()", "").replace(of_a_class, "")), path
        loads += re.findall(r"torch\.load\(.*", text)
        for call in re.findall(r"yaml\.load\((.*)\)", text):
            assert call.endswith("LOADER"), path
    assert len(loads) == 1
    assert "weights_only=True" in loads[0]


# ---------------------------------------------------------------- checkpoints


class Calls:
    """What a pickle calls when it is read."""

    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


def changed(good, change, packing=zipfile.ZIP_STORED):
    """An archive with other content in its files, by their names without the folder."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good)) as found, zipfile.ZipFile(made, "w", packing) as archive:
        for name in found.namelist():
            archive.writestr(name, change.get(name.partition("/")[2], found.read(name)))
    return made.getvalue()


def saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def calling(function, *arguments):
    return lambda good: changed(good, {"data.pkl": pickle.dumps(Calls(function, *arguments), 2)})


# What becomes of a good checkpoint, and what is said about it; a million bytes are 100 million once unpacked.
CRAFTED = {
    "a command": (calling(os.system, "touch harmed"), r"it calls posix system"),
    "a command in an old format": (lambda good: pickle.dumps(Calls(os.system, "touch harmed")), "not a zip file"),
    "bytes that are not there": (calling(bytearray, 10**9), r"it calls \w+ bytearray"),
    "a tensor that is not there": (calling(torch.Tensor, 10**9), "it calls torch Tensor"),
    "a bomb": (
        lambda good: changed(good, {"data/0": bytes(10**9)}, zipfile.ZIP_DEFLATED),
        "would unpack to more bytes than its entries have",
    ),
    "cut off": (lambda good: good[: len(good) // 2], "not a zip file"),
    "noise": (lambda good: np.random.default_rng(0).bytes(5000), "not a zip file"),
    "nothing": (lambda good: b"", "not a zip file"),
    "another archive": (lambda good: saved(torch.zeros(3)), "it has no state, or no sizes"),
    "another dictionary": (lambda good: saved({"state": {}, "sizes": {}}), "state does not match this run"),
    "no sizes": (lambda good: saved({"state": torch.load(io.BytesIO(good))["state"]}), "it has no state, or no sizes"),
    "other files": (
        lambda good: saved(torch.load(io.BytesIO(good)) | {"sizes": {"x": 1}}),
        "is no checkpoint of this run",
    ),
    "more rows than there are": (
        lambda good: saved(torch.load(io.BytesIO(good)) | {"sizes": {"metrics.jsonl": 10**9, "timings.jsonl": 3}}),
        "state.pt is newer than what is left of metrics.jsonl",
    ),
    "more steps than there are": (
        lambda good: saved(with_changed(torch.load(io.BytesIO(good)), ["state", "step"], lambda _: 21)),
        "is no checkpoint of this run",
    ),
}


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    """A run that is to go on from its last step; gives its folder of output, and its checkpoint."""
    return tmp_path_factory.mktemp("unfinished"), {}


@pytest.mark.parametrize("case", in_part(CRAFTED, 3))
def test_a_crafted_checkpoint_is_refused(command, measured, tmp_path, unfinished, case):
    place, kept = unfinished
    if not kept:
        assert command(*RUN, f"output={place}")[0] == 0
    (folder,) = folders(place)
    (folder / "summary.json").unlink(missing_ok=True)
    kept.setdefault("good", (folder / "state.pt").read_bytes())
    kept.setdefault("rows", (folder / "metrics.jsonl").read_bytes())
    craft, line = CRAFTED[case]
    (folder / "state.pt").write_bytes(craft(kept["good"]))
    before = peak()
    code, _, err = command(*RUN, f"output={place}")
    assert code == 2
    assert re.fullmatch(
        rf"error: {re.escape(str(folder))}/.*{line}.*: it cannot go on, and fresh=true begins anew\n", err
    ), err
    assert peak() - before < 200
    assert not (tmp_path / "harmed").exists()
    assert (folder / "metrics.jsonl").read_bytes() == kept["rows"]
    if any(word in line for word in ("sizes", "newer", "checkpoint")):
        return  # which only going on needs
    code, _, err = measured(folder, "measure.rivals=[]")
    assert code == 2
    assert err.startswith(f"error: {folder}/state.pt cannot be read (")
    assert err.count("\n") == 1
    assert not (tmp_path / "harmed").exists()


def with_changed(content, path, change):
    """A copy of nested dictionaries and lists in which one entry is another."""
    if not path:
        return change(content)
    key, *rest = path
    if isinstance(content, dict):
        return type(content)(content) | {key: with_changed(content[key], rest, change)}
    return [*content[:key], with_changed(content[key], rest, change), *content[key + 1 :]]


HUGE = torch.zeros(1).expand(10**12)
MOMENTS = ["optimizer", "state", 0]
WRONG = [
    (["state", "task"], lambda d: dict(list(d.items())[1:])),
    (["state", "task", "encoder.0.bias"], lambda _: torch.zeros(3)),
    (["state", "task", "encoder.0.bias"], lambda _: "text"),
    (["state", "task", "encoder.0.bias"], lambda _: HUGE),
    (["state", "task", "encoder.0.bias"], lambda v: v.double()),
    (["state", "task", "encoder.0.bias"], lambda v: v[:1].clone().expand(len(v))),
    (["state", "optimizer"], lambda _: None),
    (["state", "optimizer", "param_groups"], lambda groups: groups[:1]),
    (["state", "optimizer", "param_groups", 0, "betas"], lambda _: "text"),
    (["state", "optimizer", "param_groups", 0, "lr"], lambda _: [1]),
    (["state", *MOMENTS], lambda d: {k: v for k, v in d.items() if k != "exp_avg"}),
    (["state", *MOMENTS, "exp_avg"], lambda _: torch.zeros(2, 2)),
    (["state", *MOMENTS, "exp_avg"], lambda _: HUGE),
    (["state", *MOMENTS, "step"], lambda _: "text"),
    (["state", "batches", "order"], lambda v: v + 1),
    (["state", "batches", "order"], lambda v: v[:7]),
    (["state", "batches", "order"], lambda v: v.float()),
    (["state", "batches", "position"], lambda _: 10**9),
    (["state", "batches", "position"], lambda _: -1),
    (["state", "batches", "generator"], lambda v: v[:9]),
    (["state", "random"], lambda v: v * 0),
    (["state", "window"], lambda _: torch.zeros(1, 2)),
    (["state", "step"], lambda _: 1.5),
    (["state", "step"], lambda _: -1),
    (["state", "step"], lambda _: True),
    (["state", "seconds"], lambda _: float("nan")),
    (["state", "evaluations"], lambda _: None),
    (["state", "measuring", "rivals", "optimizers", "rodeo", "state", 0, "exp_avg"], lambda _: torch.zeros(2, 2)),
    (["state", "measuring", "rivals", "advanced"], lambda _: {}),
    (["sizes", "metrics.jsonl"], lambda _: "3"),
    (["sizes", "metrics.jsonl"], lambda _: -1),
    (["sizes", "metrics.jsonl"], lambda _: 3.0),
]
WITH_RIVALS = ["measure.rivals=[rodeo]", "measure.rival_steps=1", "measure.every=5", *RUN]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A checkpoint of a run with everything that learns, read."""
    state, cfg = started(*WITH_RIVALS)
    train(state, cfg, lambda *_: None)
    path = tmp_path_factory.mktemp("good") / "state.pt"
    state.save(path.parent, {"metrics.jsonl": 3})
    assert started(*WITH_RIVALS)[0].load(path) == {"metrics.jsonl": 3}
    return torch.load(path)


@pytest.fixture(scope="module")
def fresh():
    return started(*WITH_RIVALS)[0]


@pytest.mark.parametrize(
    ("where", "change"), WRONG, ids=lambda value: ".".join(map(str, value)) if isinstance(value, list) else ""
)
def test_a_state_of_another_form_is_refused(tmp_path, good, fresh, where, change):
    """Whatever is missing, or of another shape or type."""
    path = tmp_path / "state.pt"
    torch.save(with_changed(good, where, change), path)
    before = peak()
    line = rf"^{path} cannot be read \(.*\)$"
    with pytest.raises(Refused, match=line):
        fresh.load(path)
    assert peak() - before < 200


def test_a_wrong_state_leaves_nothing_in_the_way_of_a_good_one(tmp_path, good):
    """That of the checkpoint before it, which is tried next."""
    state, _ = started(*WITH_RIVALS)
    for where in ("exp_avg", "exp_avg_sq"):
        torch.save(with_changed(good, ["state", *MOMENTS, where], lambda _: torch.zeros(2, 2)), tmp_path / "bad.pt")
        with pytest.raises(Refused, match="optimiser's exp_avg"):
            state.load(tmp_path / "bad.pt")
    torch.save(good, tmp_path / "good.pt")
    assert state.load(tmp_path / "good.pt") == {"metrics.jsonl": 3}


@pytest.mark.parametrize("optimizer", in_part(sorted(p.stem for p in (ROOT / "configs/optimizer").glob("*.yaml")), 3))
def test_checkpoints_of_every_optimiser_are_read(tmp_path, optimizer):
    choice = [*RUN, f"optimizer={optimizer}", "optimizer.lr=1e-4", "measure.every=0", "valid.every=0"]
    state, cfg = started(*choice)
    train(state, cfg, lambda *_: None)
    state.save(tmp_path, {"metrics.jsonl": 3})
    assert started(*choice)[0].load(tmp_path / "state.pt") == {"metrics.jsonl": 3}


BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}]\n" for a, b in itertools.pairwise("abcdefghijklmnopqrstuvwxyz")
)
DEEP = f"{'[' * 300_000}{']' * 300_000}"


@pytest.mark.parametrize(
    "more",
    [f"more: {DEEP}\n", BOMB, "more: &x [*x]\n", 'more: !!int ""\n'],
    ids=["deep", "doubling", "of itself", "tag"],
)
def test_configs_that_grow_or_nest_without_end_are_refused(command, measured, tmp_path, more):
    """In a process of its own such a file would end in a crash, of the stack or for want of memory."""
    assert command(*RUN)[0] == 0
    (folder,) = folders(tmp_path)
    with (folder / "config.yaml").open("a") as file:
        file.write(more)
    found = find_runs([tmp_path])
    assert found.runs == []
    assert found.notes == [f"not a run: {folder} (its config.yaml is not a run's)"]
    code, _, err = measured(folder, "measure.rivals=[]")
    assert (code, err.count("\n")) == (2, 1)
    assert "config.yaml cannot be read" in err


def test_deep_json_is_none(command, tmp_path):
    assert command(*RUN)[0] == 0
    (folder,) = folders(tmp_path)
    for name in ("environment.json", "summary.json"):
        (folder / name).write_text(DEEP)
    (run,) = find_runs([tmp_path]).runs
    assert (run.status, run.environment) == ("unfinished", {})


# ---------------------------------------------------------------- data

BIG = 2**31 - 1
UINT8, INT32, UINT32, CHAR, MATRIX, PACKED = 2, 5, 6, 16, 14, 15  # kinds of elements in a MATLAB file
CELL, STRUCT, OBJECT, TEXT, SPARSE, BYTES = 1, 2, 3, 4, 5, 9  # kinds of variables


def mat(**variables):
    file = io.BytesIO()
    savemat(file, variables)
    return file.getvalue()


def element(kind, body):
    return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)


def variable(kind, shape, body, name=b"X"):
    about = element(UINT32, struct.pack("<II", kind, 0)) + element(INT32, struct.pack(f"<{len(shape)}i", *shape))
    return element(MATRIX, about + element(1, name) + body)


def packed(content, after=b""):
    return element(PACKED, zlib.compress(content, 9) + after)[: 8 + len(zlib.compress(content, 9) + after)]


HEAD = mat()[:128]
BITS = np.eye(3, dtype=np.uint8)
DECLARED = struct.pack("<II", UINT8, 3 * 10**9)  # bytes that do not follow
FILES = {
    "huge shape": (HEAD + variable(BYTES, (BIG, BIG), element(UINT8, bytes(8))), "or a broken one"),
    "huge shape, packed": (HEAD + packed(variable(BYTES, (BIG, BIG), element(UINT8, bytes(8)))), "or a broken one"),
    "huge size": (HEAD + variable(BYTES, (2, 2), DECLARED), "or a broken one"),
    "huge size, packed": (HEAD + packed(variable(BYTES, (2, 2), DECLARED)), "or a broken one"),
    "huge variable": (HEAD + struct.pack("<II", MATRIX, 2**32 - 1) + bytes(64), "no variable at byte 128"),
    "text": (HEAD + variable(TEXT, (10**9, 1), element(CHAR, b"")), "no numbers in the char X"),
    "cells": (HEAD + variable(CELL, (10**8, 10), b""), "no numbers in the cell X"),
    "a struct": (HEAD + variable(STRUCT, (10**8, 10), element(INT32, bytes(4))), "no numbers in the struct X"),
    "an object": (HEAD + variable(OBJECT, (10**8, 10), b""), "no numbers in the object X"),
    "sparse": (HEAD + variable(SPARSE, (BIG, BIG), element(INT32, bytes(4)) * 2), "no numbers in the sparse X"),
    "real cells": (mat(X=np.array([[1, "a"]], dtype=object)), "no numbers in the cell X"),
    "packed twice": (
        HEAD + packed(packed(variable(BYTES, (3, 3), element(UINT8, BITS.tobytes())))),
        "broken MATLAB file",
    ),
    "no packing": (HEAD + struct.pack("<II", PACKED, 16) + bytes(16), "broken MATLAB file"),
    "cut off in a packing": (HEAD + element(PACKED, zlib.compress(bytes(999))[:16]), "broken MATLAB file"),
    "something after a packing": (
        HEAD + packed(variable(BYTES, (3, 3), element(UINT8, BITS.tobytes())), b"x" * 8),
        "broken MATLAB file",
    ),
    "something after all": (mat(X=BITS) + b"something else", "no variable at byte"),
    "a few bytes after all": (mat(X=BITS) + b"xxx", "no variable at byte"),
    "version 7.3": (b"MATLAB 7.3".ljust(124) + b"\0\2IM\x89HDF\r\n\x1a\n" + bytes(99), "no MATLAB file"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_crafted_matlab_file_is_refused(case):
    content, line = FILES[case]
    before = peak()
    with pytest.raises(Malformed, match=line) as raised:
        formats.bits(content)
    assert "\n" not in str(raised.value)
    assert peak() - before < 100


def test_good_matlab_files_are_read():
    for compressed in (False, True):
        file = io.BytesIO()
        savemat(file, {"X": BITS, "other": "text"}, do_compression=compressed)
        assert np.array_equal(formats.bits(file.getvalue()), BITS)
    old = io.BytesIO()
    savemat(old, {"X": BITS.astype(float)}, format="4")
    assert np.array_equal(formats.matlab(old.getvalue(), "X")[0], BITS)
    assert np.array_equal(formats.bits(HEAD + packed(variable(BYTES, (3, 3), element(UINT8, BITS.tobytes())))), BITS)


@pytest.mark.long
def test_bombs_are_unpacked_no_further_than_a_bound(tmp_path, monkeypatch):
    """A packed variable of 500 MB, in several parts as well, and in a gzip file."""
    monkeypatch.setattr(formats, "MOST_UNPACKED", 10**7)
    part = variable(BYTES, (1, 6 * 10**6), element(UINT8, bytes(6 * 10**6)))
    whole = variable(BYTES, (1, 5 * 10**8), element(UINT8, bytes(5 * 10**8)))
    bombs = [HEAD + packed(whole), HEAD + packed(part) * 2]
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(10**8)) * 5)
    del whole, part
    tracemalloc.start()
    for bomb in bombs:
        assert len(bomb) < 10**6
        with pytest.raises(Malformed, match="more than 10000000 bytes"):
            formats.bits(bomb)
    with pytest.raises(Malformed, match="more than 10000000 bytes"):
        formats.unpacked(tmp_path / "bomb.gz")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 50_000_000


@pytest.mark.parametrize(
    "variables",
    [
        {"data": np.zeros((784, 2)), "testdata": np.zeros((783, 2))},
        {"data": np.zeros((784, 0)), "testdata": np.zeros((784, 0))},
        {"data": np.zeros((784, 2, 2)), "testdata": np.zeros((784, 2))},
        {"data": np.zeros((784, 2)) * 1j, "testdata": np.zeros((784, 2))},
    ],
)
def test_parts_that_do_not_go_together_are_refused(variables):
    with pytest.raises(Malformed, match="no images of 784 pixels"):
        formats.chardata(mat(**variables))


@pytest.mark.parametrize("rank", [1, 3, 255])
def test_an_idx_file_that_declares_too_much_is_refused(rank):
    before = peak()
    with pytest.raises(Malformed, match="cut off"):
        formats.idx(b"\0\0\x08" + bytes([rank]) + b"\x80\0\0\0" * rank + bytes(100))
    assert peak() - before < 50
