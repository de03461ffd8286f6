r"""Images of the user's own: arrays in an .npz file, or a folder of pictures."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hardmax.checks import one_of

from .formats import MOST_UNPACKED, Malformed
from .images import BINARISATIONS, Images

OWN_SPLITS = ("train", "valid", "test")
ARRAYS = (*OWN_SPLITS, *(f"{split}_labels" for split in OWN_SPLITS))
PICTURES = ("PNG", "JPEG", "BMP", "PPM")
CHANNELS = {"1": 1, "L": 1, "P": 3, "RGB": 3}  # of Pillow's modes of pictures
ACCEPTED = "an .npz file with an array `train`, or a folder of pictures"


def own_images(file: str | None, binarisation: str = "dynamic") -> Images:
    r"""Images of a file or folder of the user's own.

    An .npz file has ``train``, and may have ``valid`` and ``test``: bytes, or floats in [0, 1], ``[N, H, W]``,
    ``[N, H, W, 1]`` (grey), ``[N, H, W, 3]`` (red, green and blue) or ``[N, D]``; and ``train_labels`` and so on,
    integers ``[N]`` from 0 on, for all splits or none. Nothing is unpickled. Of a folder all files that are not hidden
    are read, in the order of their names, and must be pictures of one size, PNG, JPEG, BMP or PPM.

    A split that is missing gets a tenth of ``train``, at least one image, chosen by a permutation that is always the
    same for as many images: the first tenth is for validation, the next for the test, the rest is trained on.

    Arguments:
        file: Path of the .npz file or folder.
        binarisation: How grey levels, or those of each colour, become binary: see :class:`Images`.

    Raises:
        ValueError: If there is no such file, or what is there is something else; says what.
    """
    one_of(BINARISATIONS, binarisation=binarisation)
    if not isinstance(file, str) or not (os.path.isfile(file) or os.path.isdir(file)):
        raise ValueError(f"data.file={file}: there is no such file or folder; accepted are {ACCEPTED}")
    try:
        arrays = read_pictures(Path(file)) if os.path.isdir(file) else npz(Path(file))
        shape, images = pixels_of({split: arrays[split] for split in OWN_SPLITS if split in arrays})
        labels = classes_of(arrays)
        chosen = held_apart({split: len(found) for split, found in images.items()})
        images, labels = (
            {split: found[source][index] for split, (source, index) in chosen.items() if found}
            for found in (images, labels)
        )
    except (Malformed, OSError) as error:
        raise ValueError(f"data.file={file}: {error}") from None
    if any(source != split for split, (source, _) in chosen.items()):
        train, valid, test = (len(found) for found in images.values())
        print(
            f"{file}: {train} images to train on, {valid} for validation, {test} for the test, chosen once and for all"
        )
    classes = (lambda: labels) if labels else None
    return Images(images["train"], images["valid"], images["test"], binarisation, classes, shape)


def npz(path: Path) -> dict[str, np.ndarray]:
    r"""The arrays of an .npz file by name, none of which has objects or is larger than it may be."""
    try:
        with zipfile.ZipFile(path) as file:
            entries = file.infolist()
            if sum(entry.file_size for entry in entries) > MOST_UNPACKED:
                raise Malformed(f"more than {MOST_UNPACKED} bytes")
            names = [entry.filename.removesuffix(".npy") for entry in entries]
            if "train" not in names or not set(names) <= set(ARRAYS):
                named = ", ".join(sorted(names)[:10]) or "nothing"
                raise Malformed(f"it has {named}; accepted are `train` and, beside it, {', '.join(ARRAYS[1:])}")
            contents = {name: file.read(entry) for name, entry in zip(names, entries, strict=True)}
    except (Malformed, OSError):
        raise
    except Exception as error:  # zipfile raises whatever a broken file leads to
        raise Malformed(f"it is no .npz file, or a broken one ({error}); accepted are {ACCEPTED}") from None
    return {name: plain_array(name, content) for name, content in contents.items()}


def plain_array(name: str, content: bytes) -> np.ndarray:
    r"""The array in the content of a .npy file, which must not have objects."""
    try:
        found = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # so does NumPy; a header may also declare more than there is memory
        if "allow_pickle=False" in str(error):
            raise Malformed(
                f"{name} has objects, which are not loaded; accepted are bytes, floats, and labels"
            ) from None
        raise Malformed(f"{name} cannot be read: {error}") from None
    assert isinstance(found, np.ndarray)
    return found


def read_pictures(folder: Path) -> dict[str, np.ndarray]:
    r"""The pictures of a folder as ``train``, bytes ``[N, H, W, channels]``."""
    from PIL import Image, ImageOps

    found: dict[str, np.ndarray] = {}
    total = 0
    for path in sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")):
        try:
            with path.open("rb") as opened, Image.open(opened, formats=PICTURES) as picture:
                channels = CHANNELS.get(picture.mode, 0)
                if not channels or "transparency" in picture.info:
                    kind = picture.mode + " with transparency" * bool(channels)
                    raise Malformed(f"{path.name} is {kind}; accepted are opaque grey or colour pictures of 8 bits")
                if (total := total + picture.width * picture.height * channels) > MOST_UNPACKED:
                    raise Malformed(f"its pictures have more than {MOST_UNPACKED} values")
                upright = ImageOps.exif_transpose(picture).convert("L" if channels == 1 else "RGB")
                found[path.name] = np.asarray(upright).reshape(upright.height, upright.width, channels)
        except Malformed:
            raise
        except Exception:  # so does Pillow
            kinds = ", ".join(PICTURES)
            raise Malformed(f"{path.name} is no picture, or a broken one; accepted are {kinds}") from None
    if not found:
        below = ", and its subfolders are not looked into" * any(path.is_dir() for path in folder.iterdir())
        raise Malformed(f"there are no pictures in this folder{below}; accepted are {', '.join(PICTURES)}")
    (name, first), *_ = found.items()
    if others := [other for other, picture in found.items() if picture.shape != first.shape]:
        named = ", ".join(f"{other} ({size_in_words(found[other])})" for other in others[:3])
        more = f" and {len(others) - 3} more" * (len(others) > 3)
        raise Malformed(
            f"pictures must be of one size, and all grey or all in colour, as {name} ({size_in_words(first)}), unlike "
            f"{named}{more}"
        )
    return {"train": np.stack([*found.values()])}


def size_in_words(picture: np.ndarray) -> str:
    height, width, channels = picture.shape
    return f"{width} x {height}, {'grey' if channels == 1 else 'colour'}"


def pixels_of(arrays: dict[str, np.ndarray]) -> tuple[tuple[int, ...] | None, dict[str, Tensor]]:
    r"""Height, width and channels, where they are known, and images as grey levels in [0, 1], ``[N, D]``, by split."""
    shape = arrays["train"].shape[1:]
    for split, array in arrays.items():
        if array.ndim not in (2, 3, 4) or not array.size or array.shape[3:] not in ((), (1,), (3,)):
            accepted = "[N, H, W], [N, H, W, 1] (grey), [N, H, W, 3] (colour) or [N, D]"
            raise Malformed(f"{split} is {list(array.shape)}; accepted are {accepted}")
        if array.shape[1:] != shape:
            raise Malformed(
                f"images of {split} are {list(array.shape[1:])}; accepted are those of train, {list(shape)}"
            )
        if array.dtype.kind == "f" and (nan := int(np.isnan(array).sum())):
            raise Malformed(f"{split} has NaN, {nan} of {array.size} values; accepted are floats from 0 to 1")
        if array.dtype != np.uint8 and (array.dtype.kind != "f" or not (array.min() >= 0 and array.max() <= 1)):
            more = f" from {array.min():g} to {array.max():g}" if array.dtype.kind in "if" else ""
            raise Malformed(f"{split} has {array.dtype}{more}; accepted are bytes (uint8), or floats from 0 to 1")
    if any(array.dtype == np.uint8 and array.max() <= 1 for array in arrays.values()):
        raise Malformed("its bytes are all 0 or 1, and white is 255: multiply binary images by 255, or give floats")
    levels = {split: torch.tensor(array.astype(np.float32)).flatten(1) for split, array in arrays.items()}
    images = {split: grey / 255 if arrays[split].dtype == np.uint8 else grey for split, grey in levels.items()}
    return (shape if len(shape) == 3 else (*shape, 1) if len(shape) == 2 else None), images


def classes_of(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    r"""Classes ``[N]`` of the splits that are there; nothing if there are none at all."""
    found = {}
    for split in OWN_SPLITS:
        name = f"{split}_labels"
        if (name in arrays) != (split in arrays and "train_labels" in arrays):
            raise Malformed(f"it has {', '.join(arrays)}; accepted are labels of all its splits, or of none")
        if name in arrays:
            array, count = arrays[name], len(arrays[split])
            if array.shape != (count,) or array.dtype.kind not in "iu" or array.min() < 0:
                negative = array.dtype.kind == "i" and array.size and array.min() < 0
                lowest = f", the lowest of them {array.min()}" if negative else ""
                kind = f"{array.dtype} {list(array.shape)}{lowest}"
                raise Malformed(f"{name} is {kind}; accepted are {count} integers from 0 on")
            found[split] = torch.tensor(array.astype(np.int64))
    return found


def held_apart(sizes: dict[str, int]) -> dict[str, tuple[str, Tensor]]:
    r"""For each split the one of the file that its images are taken from, and their numbers there ``[N]``."""
    count, missing = sizes["train"], [split for split in OWN_SPLITS if split not in sizes]
    if not missing:
        return {split: (split, torch.arange(sizes[split])) for split in OWN_SPLITS}
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    each = max(count // 10, 1)
    if count <= each * len(missing):
        named = " and ".join(missing)
        raise Malformed(
            f"it has {count} training images; accepted are at least {len(missing) + 1}, as one is for {named}"
        )
    *parts, rest = order.split([*[each] * len(missing), count - each * len(missing)])
    found = {"train": ("train", rest.sort().values)}
    for split in OWN_SPLITS[1:]:
        found[split] = ("train", parts.pop(0)) if split in missing else (split, torch.arange(sizes[split]))
    return found
