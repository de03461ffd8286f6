"""Images and texts of the user's own are what they are said to be, or refused in a line when they are loaded."""

import pytest
import torch

from hardmax.tasks.data import Images, embedded_digits
from hardmax.tasks.data.images import BINARISATIONS
from hardmax.tasks.language import NOTHING
from hardmax.tasks.sentences import Sentences
from helpers.commands import SHORT, folders

GREY = torch.rand(6, 64, generator=torch.Generator().manual_seed(0))
NOT_A_NUMBER = GREY.clone()
NOT_A_NUMBER[2, 3] = torch.nan


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (GREY * 255, r"images must be floats from 0 to 1, got float32 from .* to 25\d\.?\d*: divide them by 255"),
        ((GREY * 255).to(torch.uint8), r"images must be floats from 0 to 1, got uint8 from \d+ to 25\d: divide them"),
        (GREY.round().long(), "images must be floats from 0 to 1, got int64 from 0 to 1$"),
        (GREY - 0.5, "images must be floats from 0 to 1, got float32 from -0.4"),
        (NOT_A_NUMBER, "images must be floats from 0 to 1, got float32 from nan to nan"),
        (GREY.view(6, 8, 8), r"images must be \[N, D\] with .*, got \[6, 8, 8\]: flatten\(1\) makes them so"),
        (GREY[0], r"images must be \[N, D\] with at least one pixel, got \[64\]$"),
        (GREY[:0], r"images must be \[N, D\] with at least one pixel, got \[0, 64\]"),
    ],
)
@pytest.mark.parametrize("place", ["train", "valid", "test"])
def test_what_are_no_grey_levels_is_refused(place, wrong, line):
    with pytest.raises(ValueError, match=f"^{place} {line}"):
        Images(**{**dict.fromkeys(["train", "valid", "test"], GREY), place: wrong})


def test_all_splits_have_the_same_pixels():
    with pytest.raises(ValueError, match="test images have 63 pixels, training images 64"):
        Images(GREY, GREY, GREY[:, 1:])


def test_the_shape_of_an_image_is_given_or_a_square_or_one_row():
    assert Images(GREY, GREY, GREY).shape == (8, 8, 1)
    assert Images(*[GREY[:, 1:]] * 3).shape == (1, 63, 1)
    assert Images(*[GREY[:, :48]] * 3, shape=[2, 8, 3]).shape == (2, 8, 3)
    for wrong in ([8, 8], [8, 4, 2], [4, 8, 1], [-8, -8, 1], [64.0, 1, 1]):
        with pytest.raises(ValueError, match="shape must be height, width and 1 or 3 channels of 64 values, got"):
            Images(GREY, GREY, GREY, shape=wrong)


@pytest.mark.parametrize("labels", [torch.arange(5), torch.arange(6.0), torch.arange(6) - 1, torch.arange(6)[None]])
def test_every_image_has_a_class(labels):
    splits = ("train", "valid", "test")
    good = dict.fromkeys(splits, torch.arange(6, dtype=torch.int32))
    assert Images(GREY, GREY, GREY, labels=lambda: good).labels()["test"].dtype == torch.long
    for split in splits:
        images = Images(GREY, GREY, GREY, labels=lambda split=split: good | {split: labels})
        with pytest.raises(ValueError, match=f"{split} labels must be 6 classes, counted from 0, got"):
            images.labels()


def test_a_pixel_of_one_half_is_above_the_threshold():
    """3 % of the digits' pixels are exactly that, as they have 17 grey levels."""
    half = torch.tensor([[0.0, 0.49, 0.5, 0.51, 1.0]])
    images = Images(half, half, half, "threshold")
    for split in ("train", "valid", "test"):
        assert images.held_out(split).tolist() == [[0, 0, 1, 1, 1]]
    plain, thresholded = (embedded_digits(kind).train_images for kind in ("none", "threshold"))
    assert float((plain == 0.5).float().mean()) > 0.02
    assert torch.equal(thresholded, (plain >= 0.5).float())


@pytest.mark.parametrize(
    ("tokens", "line"),
    [
        (torch.tensor([[0, 1, 3]]), "train tokens must be integers below the 3 words, got int64 from 0 to 3"),
        (torch.tensor([[0.0, 1.0, 2.0]]), "train tokens must be integers below the 3 words, got float32 from 0.0 to"),
        (torch.tensor([[0, 1, -2]]), "got int64 from -2 to 1"),
        (torch.tensor([0, 1, 2, NOTHING]), "got int64 from -1 to 2"),
        (torch.tensor([[0, 1]]), r"train tokens must be \[N\], N at least 3, or \[N, 3\], got \[1, 2\]"),
        (torch.tensor([0, 1]), r"got \[2\]"),
    ],
)
def test_what_are_no_tokens_is_refused(tokens, line):
    good = torch.tensor([[0, 1, NOTHING]])
    with pytest.raises(ValueError, match=line):
        Sentences({"train": tokens, "valid": good, "test": good}, 3, ["end", "a", "b"], 2.0, str)


@pytest.mark.parametrize(
    ("shape", "line"),
    [("(1, 64) * 255", "from 0 to 255: divide them by 255"), ("(8, 8)", "got [16, 8, 8]: flatten(1) makes them so")],
)
def test_wrong_images_of_the_user_s_own_are_refused_before_any_work(command, tmp_path, shape, line):
    size, _, factor = shape.partition(" * ")
    (tmp_path / "own_images.py").write_text(
        "import torch\nfrom hardmax.tasks.data import Images\n\n\ndef images(shape, factor):\n"
        "    return Images(*[(torch.arange(1024.0) % 256 / 255 * factor).view(16, *shape)] * 3)\n"
    )
    (tmp_path / "conf/data").mkdir(parents=True)
    shape = "[8, 8]" if size == "(8, 8)" else "[64]"
    text = f"_target_: own_images.images\nshape: {shape}\nfactor: {factor or 1}\n"
    (tmp_path / "conf/data/own.yaml").write_text(text)
    code, _, err = command("--config-dir", "conf", "data=own", *SHORT)
    assert (code, folders(tmp_path)) == (2, [])
    assert err.startswith("error: task=dvae: train images must be ")
    assert line in err
    assert err.count("\n") == 1


def test_an_empty_folder_of_data_is_none_and_said(command):
    code, _, err = command("data=mnist", "data.folder=''", *SHORT)
    assert code == 2
    assert "there is no such data folder" in err


@pytest.mark.parametrize("binarisation", BINARISATIONS)
def test_images_of_any_precision_are_kept_as_float32(binarisation):
    double, single = (Images(*[grey] * 3, binarisation) for grey in (GREY.double(), GREY))
    for split in ("train", "valid", "test"):
        assert torch.equal(double.get_buffer(f"{split}_images"), single.get_buffer(f"{split}_images"))


def test_labels_of_some_splits_are_refused():
    images = Images(GREY, GREY, GREY, labels=lambda: {"train": torch.arange(6)})
    with pytest.raises(ValueError, match="labels must be by split, train, valid, test, got those of train alone"):
        images.classes()
