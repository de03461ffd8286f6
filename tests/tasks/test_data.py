"""Readers of data files, the folders they are looked for in, and what is said when something is wrong."""

import gzip
import hashlib
import http.server
import io
import threading
from functools import partial

import numpy as np
import pytest
import torch
from scipy.io import savemat

from hardmax.tasks import data
from hardmax.tasks.data import Images, files, formats, sets
from hardmax.tasks.data.files import File
from hardmax.tasks.data.formats import Malformed
from hardmax.tasks.data.images import BINARISATIONS
from hardmax.tasks.dvae import DiscreteVAE
from hardmax.tasks.sentences import tiny_shakespeare
from helpers.cases import in_part
from helpers.commands import SHORT, folders

GENERATOR = np.random.default_rng(0)
COUNTS = {"train": 60, "t10k": 20}


def as_idx(array, header=b"\0\0\x08"):
    return header + bytes([array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def as_mat(**variables):
    file = io.BytesIO()
    savemat(file, variables)
    return file.getvalue()


def as_text(array):
    return "".join(" ".join(map(str, row)) + " \n" for row in array).encode()


IMAGES = GENERATOR.integers(0, 256, (60, 4, 3), dtype=np.uint8)
BITS = GENERATOR.integers(0, 2, (10, 12), dtype=np.uint8)
GREY = GENERATOR.random((784, 30))


# ---------------------------------------------------------------- formats


def test_idx_files_read_back():
    for array in (IMAGES, IMAGES[:, 0, 0], IMAGES[:0]):
        assert np.array_equal(formats.idx(as_idx(array)), array)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "begins with nothing"),
        (b"\x89PNG", "begins with 89 50 4e 47"),
        (as_idx(IMAGES, b"\0\0\x0d"), "begins with 00 00 0d 03"),
        (as_idx(IMAGES)[:10], "cut off in its header, after 10 bytes"),
        (as_idx(IMAGES)[:-1], r"cut off: \[60, 4, 3\] entries need 736 bytes, there are 735"),
        (as_idx(IMAGES) + b"x", "followed by something else"),
        (b"\0\0\x08\xff" + b"\xff" * 4 * 255, "cut off"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "cut off"),
    ],
)
def test_what_is_no_idx_file_is_refused(content, line):
    with pytest.raises(Malformed, match=line):
        formats.idx(content)


@pytest.mark.parametrize(
    "content",
    [
        as_text(BITS),
        as_text(BITS).replace(b" \n", b"\r\n"),
        as_mat(X=BITS),
        as_mat(X=BITS.astype(float)),
        as_mat(X=BITS.astype(bool)),
    ],
)
def test_binary_pixels_read_back_from_text_and_matlab(content):
    assert np.array_equal(formats.bits(content), BITS)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "rows of different lengths"),
        (as_text(BITS)[:-5], "no end of the last one"),
        (as_text(BITS)[2:], "rows of different lengths"),
        (as_text(BITS).replace(b"1", b"2"), "characters other than 0, 1"),
        (as_mat(X=BITS + 1), "entries other than 0 and 1"),
        (as_mat(Y=BITS), "without the variable X"),
        (as_mat(X=BITS)[:200], "no MATLAB file, or a broken one"),
    ],
)
def test_what_is_no_file_of_binary_pixels_is_refused(content, line):
    with pytest.raises(Malformed, match=line):
        formats.bits(content)


def test_omniglot_s_images_stand_upright():
    train, test = GREY[:, :20], GREY[:, 20:]
    found = formats.chardata(as_mat(data=train, testdata=test))
    assert found.shape == (30, 28, 28)
    assert np.allclose(found[25], test[:, 5].reshape(28, 28, order="F"))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (as_mat(data=GREY), "without the variable testdata"),
        (as_mat(data=GREY[1:], testdata=GREY[1:]), "no images of 784 pixels"),
        (as_mat(data=GREY * 2, testdata=GREY), "grey levels outside of 0 to 1"),
        (b"<html>not found</html>", "no MATLAB file"),
    ],
)
def test_what_is_not_omniglot_is_refused(content, line):
    with pytest.raises(Malformed, match=line):
        formats.chardata(content)


# ---------------------------------------------------------------- folders and downloads


class Server:
    """What is at the addresses of a small server, by path."""

    def __init__(self):
        self.content, self.asked = {}, []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(handler):
                self.asked.append(handler.path)
                found = self.content.get(handler.path)
                handler.send_response(404 if found is None else 200)
                handler.send_header("Content-Length", str(len(found or b"")))
                handler.end_headers()
                handler.wfile.write(found or b"")

            def log_message(handler, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.server.shutdown()
    server.server.server_close()


@pytest.fixture
def small(monkeypatch, tmp_path, server):
    """Small data sets in the place of the real ones, on the server; gives the files' content by path."""
    monkeypatch.delenv("HARDMAX_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    published, small_files = {}, {}

    def publish(name, path, read, plain, verified=True):
        content = gzip.compress(plain) if path.endswith(".gz") else plain
        published[path] = content
        server.content[f"/b/{path}"] = content
        sums = [hashlib.sha256(c).hexdigest() if verified else None for c in (content, plain)]
        mirrors = (f"{server.address}/a/{path}", f"{server.address}/b/{path}")
        small_files[name] = File(path, read, read(plain).shape, mirrors, *sums)

    for split, count in COUNTS.items():
        images, labels = GENERATOR.integers(0, 256, (count, 28, 28), dtype=np.uint8), np.arange(count, dtype=np.uint8)
        for what, array, rank in (("images", images, 3), ("labels", labels, 1)):
            for folder in ("mnist", "fashion_mnist"):
                path = f"{folder}/{split}-{what}-idx{rank}-ubyte.gz"
                publish(f"{folder}/{split}-{what}", path, formats.idx, as_idx(array))
    for split in ("train", "valid", "test"):
        publish(f"binarized_mnist/{split}", f"mnist/binarized_mnist_{split}.amat", formats.bits, as_mat(X=BITS), False)
    publish(
        "omniglot", "omniglot/chardata.mat", formats.chardata, as_mat(data=GREY[:, :20], testdata=GREY[:, 20:]), False
    )
    publish("tiny_shakespeare", "tinyshakespeare/input.txt", formats.characters, b"To be, or not to be.\n" * 100)
    monkeypatch.setattr(files, "FILES", small_files)
    monkeypatch.setattr(sets, "OMNIGLOT_TEST", 10)
    return published


def put(folder, published, *names):
    for path, content in published.items():
        if not names or path in names:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)


IMAGE = "mnist/train-images-idx3-ubyte.gz"
LOAD = partial(files.load, "mnist/train-images")


def test_folders_are_searched_in_their_order(small, tmp_path, server, monkeypatch):
    places = [tmp_path / name for name in ("option", "variable", "cache/hardmax")]
    for place in places:
        put(place, small)
    monkeypatch.setenv("HARDMAX_DATA", str(places[1]))
    for at, place in enumerate(places):
        LOAD(str(places[0]))
        for other in places[at + 1 :]:  # would not do, so it is not read
            (other / IMAGE).write_bytes(b"wrong")
        LOAD(str(places[0]))
        (place / IMAGE).unlink()
        put(tmp_path / "cache/hardmax", small)
        put(places[1], small)
    (places[1] / IMAGE).unlink()
    LOAD(str(places[0]))
    assert not server.asked


def test_files_may_be_packed_or_not(small, tmp_path, server):
    expected = LOAD(None)
    server.asked.clear()
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist/train-images-idx3-ubyte").write_bytes(gzip.decompress(small[IMAGE]))
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare/input.txt.gz").write_bytes(gzip.compress(small["tinyshakespeare/input.txt"]))
    assert np.array_equal(LOAD(str(tmp_path)), expected)
    assert files.load("tiny_shakespeare", str(tmp_path)).tobytes() == small["tinyshakespeare/input.txt"]
    assert not server.asked


def test_a_missing_file_is_downloaded_once_from_the_first_mirror_that_has_it(small, tmp_path, server, monkeypatch):
    first = LOAD(None)
    assert server.asked == [f"/a/{IMAGE}", f"/b/{IMAGE}"]
    assert (tmp_path / "cache/hardmax" / IMAGE).read_bytes() == small[IMAGE]
    assert np.array_equal(LOAD(None), first)
    assert len(server.asked) == 2
    monkeypatch.setenv("HARDMAX_DATA", str(tmp_path / "elsewhere"))
    files.load("mnist/t10k-images")
    assert (tmp_path / "elsewhere/mnist/t10k-images-idx3-ubyte.gz").is_file(), "into the first folder that is named"


def test_a_download_with_another_checksum_is_not_kept(small, tmp_path, server):
    server.content[f"/a/{IMAGE}"] = gzip.compress(as_idx(np.zeros((60, 28, 28), np.uint8)))
    assert LOAD(None).any(), "the second mirror has the right one"
    (tmp_path / "cache/hardmax" / IMAGE).unlink()
    del server.content[f"/b/{IMAGE}"]
    with pytest.raises(FileNotFoundError) as raised:
        LOAD(None)
    line = str(raised.value)
    assert f"{IMAGE} is not in {tmp_path / 'cache/hardmax'}" in line
    assert f"/a/{IMAGE}: its SHA-256 is not the official one" in line
    assert "404" in line
    assert "data.folder or HARDMAX_DATA" in line
    assert not list((tmp_path / "cache/hardmax/mnist").iterdir())


def test_a_download_that_is_something_else_is_not_kept(small, tmp_path, server):
    server.content["/a/omniglot/chardata.mat"] = b"<html>moved</html>"
    with pytest.raises(ValueError, match=r"chardata.mat: no MATLAB file.*; the download was removed"):
        files.load("omniglot")
    assert not list((tmp_path / "cache/hardmax/omniglot").iterdir())


def test_without_a_network_the_line_says_what_to_do(small, tmp_path, server):
    server.server.shutdown()
    server.server.server_close()
    with pytest.raises(
        FileNotFoundError, match=r"is not in .*, and could not be downloaded \(http.*; put it there, or"
    ):
        LOAD(None)


def test_without_room_for_a_download_the_line_says_so(small, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(FileNotFoundError, match=r"is not in .*, and no folder could be written to"):
        LOAD(None)
    with pytest.raises(FileNotFoundError, match="folder=/nowhere: there is no such data folder"):
        LOAD("/nowhere")


# What is in the place of the first file, and what is said about it.
BROKEN = [
    (lambda good: good[:-20], "a gzip file that is cut off"),
    (lambda good: good[:40] + bytes(20) + good[60:], "a broken gzip file"),
    (lambda good: gzip.compress(gzip.decompress(good)[:-1]), "not the official"),
    (lambda good: gzip.compress(as_idx(np.zeros((60, 28, 28), np.uint8))), "not the official"),
    (lambda good: b"", "not the official"),
    (lambda good: b"<html>", "not the official"),
]


@pytest.mark.parametrize(("spoil", "line"), BROKEN)
def test_a_wrong_file_is_never_used(command, small, tmp_path, spoil, line):
    put(tmp_path / "data", small)
    file = tmp_path / "data" / IMAGE
    file.write_bytes(spoil(small[IMAGE]))
    code, _, err = command("data=mnist", f"data.folder={tmp_path / 'data'}", "data.valid=10", *SHORT)
    assert code == 2
    assert err.startswith(f"error: task=dvae: {file}: {line}")
    assert "; remove it and the next run downloads it from http://127.0.0.1" in err
    assert len(err.splitlines()) == 1
    assert not folders(tmp_path)


def test_files_of_the_right_format_and_other_sizes_are_refused(small, tmp_path):
    put(tmp_path, {"mnist/binarized_mnist_valid.amat": as_text(BITS[:9])})
    with pytest.raises(ValueError, match=r"\[9, 12\] entries, where \[10, 12\] are expected"):
        files.load("binarized_mnist/valid", str(tmp_path))


def test_no_file_is_unpacked_without_bounds(small, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "MOST_UNPACKED", 10_000)
    put(tmp_path, small, IMAGE)
    with pytest.raises(ValueError, match="more than 10000 bytes"):
        LOAD(str(tmp_path))


# ---------------------------------------------------------------- in a run


@pytest.mark.parametrize("name", in_part(["mnist", "fashion_mnist", "omniglot", "binarized_mnist"], 2))
def test_the_autoencoder_trains_on_each(command, small, tmp_path, name):
    put(tmp_path / "data", small)
    valid = [] if name == "binarized_mnist" else ["data.valid=5"]
    short = [a for a in SHORT if not a.startswith("batch_size")]
    code, out, err = command(f"data={name}", f"data.folder={tmp_path / 'data'}", *valid, *short, "batch_size=10")
    assert code == 0, err
    assert "test/elbo" in out
    (folder,) = folders(tmp_path)
    text = (folder / "config.yaml").read_text()
    assert f"hardmax.tasks.data.{name}" in text
    assert "folder" not in text, "where files lie does not change results"


@pytest.mark.parametrize(
    ("arguments", "line"),
    in_part(
        [
            (["data=mnst"], "data=mnst does not exist (did you mean mnist?); there are: "),
            (["task=toy", "data=mnist"], "data: this task takes none"),
            (
                ["data.binarisation=sometimes"],
                "task=dvae: data.binarisation must be one of dynamic, static, threshold, none, got",
            ),
            (["data=mnist", "data.valid=60"], "task=dvae: data.valid must be below the 60 training images, got 60"),
            (["data=mnist", "data.valid=-1"], "data.valid must be an integer of at least 0, got -1"),
            (
                ["data=mnist", "+data.mine=1"],
                "unexpected keyword argument 'mine'; it takes: folder, valid, binarisation",
            ),
            (["data=mnist", "data.folder=nowhere"], "task=dvae: data.folder=nowhere: there is no such data folder"),
            (
                ["data=mnist", "data.flder=x"],
                "data.flder is no option (did you mean data.folder?); data takes: folder, ",
            ),
        ],
        2,
    ),
)
def test_wrong_options_of_data_are_refused(command, small, tmp_path, arguments, line):
    put(tmp_path / "cache/hardmax", small)
    code, _, err = command(*arguments)
    assert code == 2
    assert line in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "omniglot"])
@pytest.mark.parametrize("option", [{"binarisation": "sometimes"}, {"valid": -1}])
def test_wrong_options_are_refused_before_anything_is_downloaded(tmp_path, monkeypatch, name, option):
    monkeypatch.setattr(files, "download", lambda *_: pytest.fail("downloaded"))
    with pytest.raises(ValueError, match=next(iter(option))):
        getattr(data, name)(str(tmp_path), **option)


def test_splits_and_labels_belong_together(small, tmp_path):
    images = data.mnist(valid=10)
    raw = files.load("mnist/train-images")
    assert torch.equal(images.train_images, torch.tensor(raw[10:]).flatten(1).float() / 255)
    labels = images.labels()
    assert labels["valid"].tolist() == list(range(10))
    assert labels["train"].tolist() == list(range(10, 60))
    assert labels["test"].tolist() == list(range(20))
    assert {len(images.held_out(s)) for s in ("valid", "test")} == {10, 20}
    images = data.mnist(valid=0, binarisation="none")
    assert torch.equal(images.held_out("valid"), images.train_images), "of which there are fewer than 10,000"
    assert torch.equal(images.train_images, torch.tensor(raw).flatten(1).float() / 255)
    assert images.labels()["valid"].tolist() == images.labels()["train"].tolist() == list(range(60))
    images = data.omniglot(valid=5, binarisation="none")
    assert [len(x) for x in (images.train_images, images.valid_images, images.test_images)] == [15, 5, 10]
    kept = torch.cat([images.train_images, images.valid_images])
    assert len(kept.unique(dim=0)) == 20


@pytest.mark.parametrize("binarisation", BINARISATIONS)
def test_binarisation(binarisation):
    grey = torch.rand(500, 6, generator=torch.Generator().manual_seed(0))
    images = Images(grey, grey, grey, binarisation)
    index, generator = torch.arange(500), torch.Generator().manual_seed(1)
    first, second = images.batch(index, generator), images.batch(index, generator)
    assert torch.equal(first, second) == (binarisation != "dynamic")
    held = images.held_out("test")
    for x in (first, held):
        if binarisation == "none":
            assert torch.equal(x, grey)
        elif binarisation == "threshold":
            assert torch.equal(x, (grey >= 0.5).float())
        else:
            assert set(x.unique().tolist()) == {0.0, 1.0}
            assert abs(float((x - grey).mean())) < 5 * 0.5 / 3000**0.5
    assert torch.equal(held, Images(grey, grey, grey, binarisation).held_out("test"))


def test_data_moves_with_the_model_and_is_not_saved_with_it():
    vae = DiscreteVAE(2, 3, [4], [4])
    assert vae.to(torch.float64).data.train_images.dtype == torch.float64
    assert not any("images" in name for name in vae.state_dict())
    with pytest.raises(TypeError, match="data must be images, got dict"):
        DiscreteVAE(data={})


# ---------------------------------------------------------------- text


def test_windows_of_a_text(small):
    text = small["tinyshakespeare/input.txt"].decode()
    found = tiny_shakespeare(length=7)
    assert found.words == sorted(set(text))
    held = len(text) // 20
    assert found.examples == len(text) - 2 * held - 6
    batch = found.batch(torch.tensor([0, 5, found.examples - 1]))
    expected = [text[:7], text[5:12], text[len(text) - 2 * held - 7 : len(text) - 2 * held]]
    assert [found.text(row) for row in batch] == expected
    for split, start in (("valid", len(text) - 2 * held), ("test", len(text) - held)):
        windows = found.held_out(split)
        assert windows.shape == (held // 7, 7)
        assert "".join(map(found.text, windows)) == text[start : start + held // 7 * 7]
    with pytest.raises(ValueError, match=f"length={held + 1} needs a text of at least {20 * held + 20} characters"):
        tiny_shakespeare(length=held + 1)


def test_the_text_task_trains_on_characters(command, small, tmp_path):
    put(tmp_path / "data", small)
    choice = ["task=text", "data=tiny_shakespeare", f"data.folder={tmp_path / 'data'}", "data.length=8"]
    code, out, err = command(*choice, *SHORT)
    assert code == 0, err
    assert "test/bits" in out
    assert "test/accuracy" in out
    assert "test/distance" not in out, "nobody knows the language"
    (folder,) = folders(tmp_path)
    shown = (folder / "reconstructions.csv").read_text().splitlines()
    assert shown[0] == "sentence,reconstruction"


@pytest.mark.parametrize(
    ("arguments", "line"),
    in_part(
        [
            (["task=text", "data=mnist"], "task=text: data must be a text, got Images"),
            (["task=dvae", "data=tiny_shakespeare"], "task=dvae: data must be images, got Sentences"),
            (["task=text", "data=tiny_shakespeare", "data.length=0"], "length must be an integer of at least 1, got 0"),
            (["task=routing", "data=binarized_mnist"], "task=routing: data must have labels, these images have none"),
        ],
        2,
    ),
)
def test_data_of_another_kind_is_refused(command, small, tmp_path, arguments, line):
    put(tmp_path / "cache/hardmax", small)
    valid = ["data.valid=10"] if "data=mnist" in arguments else []
    code, _, err = command(*arguments, *valid)
    assert code == 2
    assert line in err
    assert len(err.splitlines()) == 1
