"""Arrays, pictures and texts of the user's own are read as they are, or refused in a line that says what is wrong."""

import gzip
import io
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from hardmax.tasks.data import own, own_images
from hardmax.tasks.routing import Routing
from hardmax.tasks.sentences import own_text
from helpers.commands import SHORT, folders

DRAWN = np.random.default_rng(0)
GREY = DRAWN.integers(0, 256, (20, 4, 3), dtype=np.uint8)
COLOUR = DRAWN.integers(0, 256, (20, 4, 3, 3), dtype=np.uint8)
CLASSES = np.arange(20) % 7


@pytest.fixture
def npz(tmp_path):
    def save(**arrays):
        np.savez(tmp_path / "mine.npz", **arrays)
        return str(tmp_path / "mine.npz")

    return save


@pytest.fixture
def folder(tmp_path):
    """A folder of pictures, given as arrays or as Pillow's images, by name."""

    def save(**files):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        for name, picture in files.items():
            picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
            picture.save(tmp_path / f"pictures/{name}.png")
        return str(tmp_path / "pictures")

    return save


# ---------------------------------------------------------------- arrays


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (GREY, (4, 3, 1)),
        (GREY[..., None], (4, 3, 1)),
        (COLOUR, (4, 3, 3)),
        (GREY.reshape(20, 12), (1, 12, 1)),
        (GREY[:, :3].reshape(20, 9), (3, 3, 1)),
        (GREY / 255, (4, 3, 1)),
        ((GREY / 255).astype(">f4"), (4, 3, 1)),
    ],
)
def test_arrays_are_read_as_they_are(npz, array, shape):
    found = own_images(npz(train=array[:10], valid=array[10:14], test=array[14:]), "none")
    assert found.shape == shape
    assert found.labels is None
    levels = torch.tensor(array.astype(np.float32)).flatten(1) / (255 if array.dtype == np.uint8 else 1)
    for split, expected in zip(("train", "valid", "test"), levels.split([10, 4, 6]), strict=True):
        assert torch.equal(found.get_buffer(f"{split}_images"), expected)


@pytest.mark.parametrize("given", [(), ("valid",), ("test",)])
def test_splits_that_are_missing_are_taken_from_training_images(npz, capsys, given):
    """A tenth each, the same every time, with their classes; images are numbered by their first pixel."""
    numbered = np.arange(50).repeat(2).reshape(50, 1, 2) / 100
    more = dict.fromkeys(given, numbered[:3]) | {f"{split}_labels": CLASSES[:3] for split in given}
    path = npz(train=numbered, train_labels=np.arange(50), **more)
    images, again = own_images(path, "none"), own_images(path, "none")
    taken = []
    for split in ("train", "valid", "test"):
        found = images.get_buffer(f"{split}_images")
        assert torch.equal(found, again.get_buffer(f"{split}_images"))
        if split in given:
            assert torch.equal(found, torch.tensor(numbered[:3]).flatten(1).float())
            continue
        taken.append((found[:, 0] * 100).round().long())
        assert torch.equal(images.labels()[split], taken[-1])
        assert split == "train" or len(found) == 5
    assert torch.cat(taken).sort().values.tolist() == list(range(50))
    assert taken[1].max() - taken[1].min() > 10, "not the first ones, which may be alike"
    assert capsys.readouterr().out.startswith(f"{path}: {len(taken[0])} images to train on, ")


def test_labels_are_for_tasks_that_need_them(npz):
    data = own_images(npz(train=GREY, train_labels=CLASSES, test=GREY, test_labels=CLASSES))
    assert torch.equal(data.labels()["test"], torch.tensor(CLASSES))
    assert Routing(data=data).experts[0][0].out_features == 7


def npy(header):
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize(
    ("arrays", "line"),
    [
        ({}, "it has nothing; accepted are `train` and, beside it, valid, test, train_labels"),
        ({"x_train": GREY}, "it has x_train; accepted are `train`"),
        ({"train": GREY, "vaild": GREY}, "it has train, vaild; accepted are"),
        ({"train": GREY[0, 0]}, r"train is \[3\]; accepted are \[N, H, W\]"),
        ({"train": GREY[:0]}, r"train is \[0, 4, 3\]; accepted are \[N, H, W\]"),
        ({"train": np.zeros((20, 3, 4, 4))}, r"train is \[20, 3, 4, 4\]; accepted .* \[N, H, W, 3\] \(colour\) or"),
        ({"train": GREY, "test": GREY[:, 1:]}, r"images of test are \[3, 3\]; accepted are those of train, \[4, 3\]"),
        ({"train": GREY.astype(float)}, "train has float64 from 0 to 25.; accepted are bytes .* or floats from 0 to 1"),
        ({"train": GREY / -255}, "train has float64 from -1 to -0"),
        ({"train": np.full((20, 4), np.nan)}, "train has NaN, 80 of 80 values; accepted are floats from 0 to 1"),
        ({"train": GREY.astype(int)}, "train has int64 from 0 to 25.; accepted are bytes"),
        ({"train": GREY.astype(str)}, "train has <U.*; accepted are bytes"),
        ({"train": GREY > 9}, "train has bool; accepted are bytes"),
        ({"train": (GREY > 9).astype(np.uint8)}, "its bytes are all 0 or 1, and white is 255: multiply"),
        ({"train": np.array([None] * 20)}, "train has objects, which are not loaded; accepted are"),
        ({"train": GREY[:2]}, "it has 2 training images; accepted are at least 3"),
        ({"train": GREY, "test": GREY, "train_labels": CLASSES}, "accepted are labels of all its splits, or of none"),
        ({"train": GREY, "valid_labels": CLASSES}, "accepted are labels of all its splits, or of none"),
        (
            {"train": GREY, "train_labels": CLASSES[1:]},
            r"train_labels is int64 \[19\]; accepted are 20 integers from 0",
        ),
        (
            {"train": GREY, "train_labels": CLASSES - 1},
            r"train_labels is int64 \[20\], the lowest of them -1; accepted are 20 integers from 0",
        ),
        ({"train": GREY, "train_labels": CLASSES / 2}, r"train_labels is float64 \[20\]"),
    ],
)
def test_other_arrays_are_refused(npz, arrays, line):
    with pytest.raises(ValueError, match=rf"^data\.file=.*mine\.npz: .*{line}") as error:
        own_images(npz(**arrays))
    assert "\n" not in str(error.value)


def zipped(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("train.npy", content)
    return file.getvalue()


WHOLE = zipped(npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (20, 4), }\n") + GREY.tobytes()[:80])


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "it is no .npz file, or a broken one"),
        (b"a text", "it is no .npz file, or a broken one"),
        (WHOLE[:-30], "it is no .npz file, or a broken one"),
        (WHOLE[:70] + b"\0\0\0\0" + WHOLE[74:], "it is no .npz file, or a broken one"),
        (zipped(b"\0" * 10_000), "more than 9000 bytes"),
        (zipped(b"nothing"), "train cannot be read|train has objects"),
        (zipped(npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d,), }\n" % 2**50)), "train cannot be read"),
        (
            zipped(npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (20, 4), }\n") + b"\0"),
            "train cannot be read",
        ),
    ],
)
def test_broken_files_are_refused(tmp_path, monkeypatch, content, line):
    """Also what would be large once unpacked, or says that it would."""
    monkeypatch.setattr(own, "MOST_UNPACKED", 9000)
    path = tmp_path / "mine.npz"
    path.write_bytes(WHOLE)
    assert own_images(str(path)).train_images.shape == (16, 4)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^data\.file=.*mine\.npz: .*({line})") as error:
        own_images(str(path))
    assert "\n" not in str(error.value)


def test_a_file_is_needed():
    for missing in (None, "/nowhere.npz", "", 3, "x" * 300):
        with pytest.raises(ValueError, match=f"data.file={missing}: there is no such file or folder; accepted are an"):
            own_images(missing)
        with pytest.raises(
            ValueError, match=f"data.file={missing}: there is no such file; accepted is a text in UTF-8"
        ):
            own_text(missing)


# ---------------------------------------------------------------- pictures


def test_pictures_are_read_in_the_order_of_their_names(folder):
    place = folder(**{f"{n:02}": picture for n, picture in enumerate(GREY)}, **{".hidden": GREY[0, 1:]})
    found = own_images(place, "none")
    assert found.shape == (4, 3, 1)
    levels = torch.tensor(GREY).flatten(1) / 255
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found.held_out("valid"), levels[order[:2]])
    assert torch.equal(found.held_out("test"), levels[order[2:4]])
    assert torch.equal(found.train_images, levels[order[4:].sort().values])


def test_pictures_may_have_colours_and_palettes(folder):
    plain = [Image.fromarray(picture) for picture in COLOUR]
    few = plain[2].quantize(4)
    found = own_images(folder(a=plain[0], b=plain[1], c=few), "none")
    assert found.shape == (4, 3, 3)
    colours = torch.stack([found.train_images[0], found.held_out("valid")[0], found.held_out("test")[0]])
    expected = torch.stack([torch.tensor(np.asarray(p)).flatten() for p in (plain[0], plain[1], few.convert("RGB"))])
    assert sorted((colours * 255).round().long().tolist()) == sorted(expected.long().tolist())


CLEAR = Image.fromarray(GREY[0])
CLEAR.info["transparency"] = 3


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({}, "there are no pictures in this folder; accepted are PNG, JPEG, BMP, PPM"),
        (
            {"b": GREY[0, 1:], "c": COLOUR[0], "d": GREY[0].T, "e": GREY[0].T},
            r"of one size, and all grey or all in colour, as a.png \(3 x 4, grey\), unlike b.png \(3 x 3, grey\), "
            r"c.png \(3 x 4, colour\), .* and 1 more",
        ),
        ({"b": Image.fromarray(COLOUR[0]).convert("RGBA")}, "b.png is RGBA; accepted are opaque grey or colour"),
        ({"b": CLEAR}, "b.png is L with transparency; accepted are opaque"),
        ({"b": Image.fromarray(GREY[0].astype(np.uint16) * 255)}, "b.png is I;16; accepted are .* of 8 bits"),
        ({f"{n}": GREY[0] for n in range(9)}, "its pictures have more than 100 values"),
    ],
)
def test_other_pictures_are_refused(folder, monkeypatch, files, line):
    monkeypatch.setattr(own, "MOST_UNPACKED", 100)
    with pytest.raises(ValueError, match=rf"^data\.file=.*pictures: .*{line}") as error:
        own_images(folder(**(files and {"a": GREY[0], **files})))
    assert "\n" not in str(error.value)


def test_folders_in_a_folder_are_said_not_to_be_looked_into(folder, tmp_path):
    folder(a=GREY[0])
    with pytest.raises(
        ValueError, match="no pictures in this folder, and its subfolders are not looked into; accepted are"
    ):
        own_images(str(tmp_path))


@pytest.mark.parametrize("cut", [0, 30, 60])
def test_broken_pictures_are_refused(folder, tmp_path, cut):
    path = tmp_path / "pictures/b.png"
    place = folder(a=GREY[0], b=GREY[1])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"b\.png is no picture, or a broken one"):
        own_images(place)


# ---------------------------------------------------------------- texts


def test_a_text_of_any_characters(tmp_path):
    text = "Füße, 日本語 und \U0001f600\r\n" * 50
    for name, content in (("plain", text.encode()), ("packed", gzip.compress(text.encode("utf-8-sig")))):
        (tmp_path / name).write_bytes(content)
        found = own_text(str(tmp_path / name), 6)
        assert found.words == sorted(set(text))
        assert found.text(found.batch(torch.tensor([1]))[0]) == text[1:7]
        held = len(text) // 20
        assert "".join(map(found.text, found.held_out("test"))) == text[-held:][: held // 6 * 6]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"\xff\xfe", "invalid start byte; accepted is a text in UTF-8, gzipped or not"),
        (gzip.compress(b"a text" * 100, mtime=0)[:-20], "cut off"),
        (b"short", "length=4 needs a text of at least 80 characters, .*; this one has 5"),
        (b"", "length=4 needs a text of at least 80 characters, .*; this one has 0"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, content, line):
    (tmp_path / "mine.txt").write_bytes(content)
    with pytest.raises(ValueError, match=line):
        own_text(str(tmp_path / "mine.txt"), 4)


# ---------------------------------------------------------------- runs


def test_runs_notice_that_pictures_were_added_or_changed(command, folder, tmp_path):
    folder(**{f"{n:02}": picture for n, picture in enumerate(COLOUR)})
    run = ["data=images", "data.file=pictures", "measure.every=0", "valid.every=0", *SHORT, "batch_size=16"]
    code, _, err = command(*run)
    assert code == 0, err
    (place,) = folders(tmp_path)
    assert len(json.loads((place / "environment.json").read_text())["data"]) == 21
    assert Image.open(place / "reconstructions.png").mode == "RGB"
    for name, picture in (("20", COLOUR[0]), ("00", COLOUR[1])):
        path = tmp_path / f"pictures/{name}.png"
        before = path.read_bytes() if path.exists() else None
        folder(**{name: picture})
        code, _, err = command(*run)
        changed = f"pictures/{name}.png" if before else "pictures"
        assert (code, f"was finished by other code or data ({changed}): fresh=true" in err) == (2, True), err
        path.write_bytes(before) if before else path.unlink()
    assert "finished already" in command(*run)[1]
