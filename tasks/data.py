r"""Real data sets in their standard file formats: found in a data folder, or else downloaded and verified."""

import gzip
import hashlib
import io
import math
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hardmax.checks import at_least, one_of

from .digits import digits

MOST = 2**28  # bytes that a file may have once unpacked; the largest here has 78 million
OMNIGLOT_TEST = 8_070  # of its images, the last ones
MATRIX, COMPRESSED = 14, 15  # kinds of variables in a MATLAB file
NUMBERS = ("double", "single", "logical", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
BINARISATIONS = ("dynamic", "static", "threshold", "none")


class Malformed(ValueError):
    r"""A file's content is not what its format says."""


def idx(content: bytes) -> np.ndarray:
    r"""The array of unsigned bytes in a file of the IDX format, the one of MNIST."""
    if content[:3] != b"\0\0\x08" or len(content) < 4:
        raise Malformed(f"no IDX file of unsigned bytes: it begins with {content[:4].hex(' ') or 'nothing'}")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise Malformed(f"cut off in its header, after {len(content)} bytes")
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    size = start + math.prod(shape)
    if len(content) != size:
        what = "cut off" if len(content) < size else "followed by something else"
        raise Malformed(f"{what}: {shape} entries need {size} bytes, there are {len(content)}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def matlab(content: bytes, *names: str) -> list[np.ndarray]:
    r"""Variables of a MATLAB file by name, which are arrays of numbers; what the file declares is never allocated."""
    from scipy.io import loadmat, whosmat

    plain = content if 0 in content[:4] else uncompressed(content)  # version 4 knows no compression
    try:
        kinds = {name: kind for name, _, kind in whosmat(io.BytesIO(plain)) if name in names}
        if others := {name: kind for name, kind in kinds.items() if kind not in NUMBERS}:
            raise Malformed(f"no numbers in {', '.join(f'the {kind} {name}' for name, kind in others.items())}")
        found = loadmat(io.BytesIO(plain), variable_names=names)
    except Malformed:
        raise
    except Exception as error:  # scipy raises whatever a broken file leads to
        raise Malformed(f"no MATLAB file, or a broken one ({type(error).__name__}: {error})") from None
    if missing := [name for name in names if not isinstance(found.get(name), np.ndarray)]:
        raise Malformed(f"a MATLAB file without the variable {missing[0]}")
    return [found[name] for name in names]


def uncompressed(content: bytes) -> bytes:
    r"""A MATLAB file of version 5 with its variables unpacked, to MOST bytes at most.

    After a head of 128 bytes each variable is its kind and the size of what follows, of four bytes each, and that.
    """
    order = "little" if content[126:128] == b"IM" else "big"
    parts, total, at = [content[:128]], 128, 128
    while at < len(content):
        kind, size = (int.from_bytes(content[i : i + 4], order) for i in (at, at + 4))
        end = at + 8 + size
        if kind not in (MATRIX, COMPRESSED) or end > len(content):
            raise Malformed(f"no MATLAB file, or a broken one (no variable at byte {at})")
        if kind == MATRIX:
            parts.append(content[at:end])
        else:
            try:
                unpack = zlib.decompressobj()
                parts.append(unpack.decompress(content[at + 8 : end], MOST + 1 - total))
            except zlib.error as error:
                raise Malformed(f"a broken MATLAB file ({error})") from None
            if total + len(parts[-1]) > MOST:
                raise Malformed(f"more than {MOST} bytes")
            if int.from_bytes(parts[-1][:4], order) != MATRIX or not unpack.eof or unpack.unused_data:
                raise Malformed(f"a broken MATLAB file at byte {at}")
        total, at = total + len(parts[-1]), end
    return b"".join(parts)


def bits(content: bytes) -> np.ndarray:
    r"""Rows of zeros and ones, as text with blanks between them or as the variable X of a MATLAB file: bytes."""
    if content[:6] == b"MATLAB":
        (found,) = matlab(content, "X")
        if found.dtype.kind not in "uifb" or not np.isin(found, (0, 1)).all():
            raise Malformed("entries other than 0 and 1")
        return found.astype(np.uint8)
    characters = np.frombuffer(content, np.uint8)
    digit = (characters | 1) == ord("1")
    if not (digit | np.isin(characters, np.frombuffer(b" \t\r\n", np.uint8))).all():
        raise Malformed("characters other than 0, 1 and blanks")
    ends = np.flatnonzero(characters == ord("\n"))
    lengths = np.diff(np.cumsum(digit)[ends], prepend=0) if len(ends) else np.zeros(0)
    lengths = lengths[lengths > 0]
    if not len(lengths) or (lengths != lengths[0]).any() or lengths.sum() != digit.sum():
        raise Malformed("rows of different lengths, or no end of the last one")
    return (characters[digit] - ord("0")).reshape(len(lengths), -1)


def characters(content: bytes) -> np.ndarray:
    r"""The bytes of a text."""
    return np.frombuffer(content, np.uint8)


def chardata(content: bytes) -> np.ndarray:
    r"""Images of OMNIGLOT as Burda et al. made them, grey levels in [0, 1]: training images, then test images."""
    parts = matlab(content, "data", "testdata")
    if any(part.ndim != 2 or len(part) != 784 or not part.size or part.dtype.kind not in "uif" for part in parts):
        raise Malformed("no images of 784 pixels")
    images = np.concatenate(parts, -1).T
    if not (images.min() >= 0 and images.max() <= 1):
        raise Malformed("grey levels outside of 0 to 1")
    return images.reshape(-1, 28, 28).transpose(0, 2, 1).astype(np.float32)  # columns first in MATLAB


@dataclass(frozen=True)
class File:
    r"""A published file, and what it must be.

    Attributes:
        path: Below a data folder.
        read: From its content, unpacked, to an array.
        shape: Of that array.
        mirrors: Where to download it.
        sha256: Of the file that the mirrors have; None if no official one is known.
        content: SHA-256 of its content, unpacked, which every copy must have; None where copies differ in format.
    """

    path: str
    read: Callable[[bytes], np.ndarray]
    shape: tuple[int, ...]
    mirrors: tuple[str, ...]
    sha256: str | None
    content: str | None


def idx_files(folder: str, mirrors: tuple[str, ...], sums: dict[str, tuple[str, str]]) -> dict[str, File]:
    r"""The four files of a data set like MNIST: images and labels by split, named ``folder/train-images`` and so on."""
    found = {}
    for name, (sha256, content) in sums.items():
        split, what = name.split("-")
        count = 60_000 if split == "train" else 10_000
        shape, rank = ((count, 28, 28), 3) if what == "images" else ((count,), 1)
        file = f"{name}-idx{rank}-ubyte.gz"
        found[f"{folder}/{name}"] = File(
            f"{folder}/{file}", idx, shape, tuple(f"{m}/{file}" for m in mirrors), sha256, content
        )
    return found


GITHUB = "https://raw.githubusercontent.com"
ARM = f"{GITHUB}/mingzhang-yin/ARM-gradient/9b5f74da4e4009c5556e8d7a87c88c8e291c253d"
FILES = {
    **idx_files(
        "mnist",
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "https://storage.googleapis.com/cvdf-datasets/mnist",
            f"{GITHUB}/fgnt/mnist/ae608a02b796c9ee908c082585a5f006fe05258e",
        ),
        {
            "train-images": (
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            ),
            "train-labels": (
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            ),
            "t10k-images": (
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            ),
            "t10k-labels": (
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        },
    ),
    **idx_files(
        "fashion_mnist",
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            f"{GITHUB}/zalandoresearch/fashion-mnist/b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion",
        ),
        {
            "train-images": (
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            ),
            "train-labels": (
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            ),
            "t10k-images": (
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            ),
            "t10k-labels": (
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
        },
    ),
    # The mirror keeps them in MATLAB's format; the original text files, of the same names, are read as well.
    **{
        f"binarized_mnist/{split}": File(
            f"mnist/binarized_mnist_{split}.amat",
            bits,
            (count, 784),
            (f"{ARM}/binarized_mnist_{split}.amat",),
            sha256,
            None,
        )
        for split, count, sha256 in (
            ("train", 50_000, "79a0312c7389d855cfc97e3812de3998417c5829d8a51543b56a90a91252ae7e"),
            ("valid", 10_000, "7436afc856959075c7787025bb8a4ba2b520b9230ee39667c66aa7dd2819dd68"),
            ("test", 10_000, "5bc30222e1e7896cbccd1e1db6b28540cc1230f4d2d5473841a5f6cc54be8d38"),
        )
    },
    # No official checksum is known: numbers and ranges are what it is verified by.
    "omniglot": File(
        "omniglot/chardata.mat",
        chardata,
        (24_345 + OMNIGLOT_TEST, 28, 28),
        ("https://github.com/yburda/iwae/raw/master/datasets/OMNIGLOT/chardata.mat",),
        None,
        None,
    ),
    "tiny_shakespeare": File(
        "tinyshakespeare/input.txt",
        characters,
        (1_115_394,),
        (f"{GITHUB}/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt",),
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
}


def load(name: str, folder: str | None = None) -> np.ndarray:
    r"""What is in one of :data:`FILES`, found or downloaded.

    Arguments:
        name: Of the file.
        folder: Where to look first; then come ``HARDMAX_DATA`` and the platform's cache folder.

    Raises:
        FileNotFoundError: If it is nowhere and cannot be downloaded; says where it was looked for.
        ValueError: If what is there is something else; says what is wrong and how to get it.
    """
    file, places = FILES[name], folders(folder)
    found = [path for place in places for name in packings(file.path) if (path := place / name).is_file()]
    path = found[0] if found else download(file, places)
    again = f"remove it and the next run downloads it from {file.mirrors[0]}" if found else "the download was removed"
    try:
        content = unpacked(path)
        if file.content and (seen := hashlib.sha256(content).hexdigest()) != file.content:
            raise Malformed(f"not the official {file.path}: the SHA-256 of its content is {seen}, not {file.content}")
        array = file.read(content)
        if array.shape != file.shape:
            raise Malformed(f"{list(array.shape)} entries, where {list(file.shape)} are expected")
    except (Malformed, OSError) as error:
        if not found:
            path.unlink()
        raise ValueError(f"{path}: {error}; {again}") from None
    return array


def folders(folder: str | None) -> list[Path]:
    r"""Where data files are looked for, in this order."""
    import pooch

    if folder is not None and not (folder and os.path.isdir(folder)):
        raise FileNotFoundError(f"folder={folder}: there is no such data folder")
    return [Path(p) for p in (folder, os.environ.get("HARDMAX_DATA"), pooch.os_cache("hardmax")) if p]


def packings(path: str) -> tuple[str, str]:
    r"""Names that a file may have: as published, and packed or unpacked."""
    return path, path.removesuffix(".gz") if path.endswith(".gz") else f"{path}.gz"


def download(file: File, places: list[Path]) -> Path:
    r"""Downloads a file into the first of the folders that can be written to; nothing stays of a wrong one."""
    import pooch

    pooch.get_logger().setLevel("ERROR")
    failures = []
    for place in places:
        path = place / file.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            failures.append(f"{path.parent}: {error.strerror}")
            continue
        if os.access(path.parent, os.W_OK):
            break
        failures.append(f"{path.parent} cannot be written to")
    else:
        raise FileNotFoundError(f"{missing(file, places)}, and there is no room for it ({'; '.join(failures)})")
    failures.clear()
    for url in file.mirrors:
        print(f"{file.path}: downloading {url} to {path}", flush=True)
        try:
            get = pooch.HTTPDownloader(timeout=20)
            return Path(pooch.retrieve(url, file.sha256, path.name, path.parent, downloader=get))
        except Exception as error:  # requests raises many kinds
            failures.append(f"{url}: {reason(error)}")
    raise FileNotFoundError(
        f"{missing(file, places)}, and could not be downloaded ({'; '.join(failures)}); "
        f"put it there, or give a folder that has {file.path}, by data.folder or HARDMAX_DATA"
    )


def missing(file: File, places: list[Path]) -> str:
    return f"{file.path} is not in {', '.join(map(str, places))}"


def reason(error: Exception) -> str:
    r"""Why a download failed, in words."""
    text = " ".join(str(error).split())
    if "does not match" in text:
        return "its SHA-256 is not the official one"
    return f"{type(error).__name__}: {text}"[:120]


def unpacked(path: Path) -> bytes:
    r"""The content of a file, unpacked if it is a gzip file."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        parts, total = [], 0
        with gzip.open(path) if packed else path.open("rb") as file:
            while part := file.read(2**20):
                parts.append(part)
                if (total := total + len(part)) > MOST:
                    raise Malformed(f"more than {MOST} bytes")
    except EOFError:
        raise Malformed("a gzip file that is cut off") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise Malformed(f"a broken gzip file ({error})") from None
    return b"".join(parts)


class Images(nn.Module):
    r"""Images by split, as grey levels in [0, 1], and how they become binary.

    Arguments:
        train, valid, test: Grey levels, ``[N, D]``.
        binarisation: ``dynamic``: a pixel is 1 with its grey level as probability, drawn anew each time a training
            image is seen, and once and for all for held-out images; ``static``: drawn once and for all;
            ``threshold``: 1 from a grey level of one half on; ``none``: grey levels as they are, whose
            cross-entropy is no likelihood, so that such figures compare with no others.
        labels: Reads the classes ``[N]`` by split; None if there are none.

    Raises:
        ValueError: If images or labels are of another shape, or have other values.
    """

    def __init__(
        self,
        train: Tensor,
        valid: Tensor,
        test: Tensor,
        binarisation: str = "dynamic",
        labels: Callable[[], dict[str, Tensor]] | None = None,
    ):
        super().__init__()
        self.binarisation = one_of(BINARISATIONS, binarisation=binarisation)
        self.dynamic = binarisation == "dynamic"
        images = {"train": train, "valid": valid, "test": test}
        check_grey(images)
        sizes = {split: len(grey) for split, grey in images.items()}
        self.labels = labels and (lambda: checked_labels(labels(), sizes))
        for split, grey in images.items():
            kept = grey if self.dynamic and split == "train" else self.fixed(grey)
            self.register_buffer(f"{split}_images", kept, persistent=False)

    def fixed(self, grey: Tensor) -> Tensor:
        r"""Grey levels ``[N, D]`` as pixels that stay the same."""
        match self.binarisation:
            case "none":
                return grey
            case "threshold":
                return (grey >= 0.5).to(grey.dtype)
        return grey.bernoulli(generator=torch.Generator().manual_seed(1))

    def batch(self, index: Tensor, generator: torch.Generator) -> Tensor:
        r"""Training images of the indices ``[B]``: ``[B, D]``."""
        images = self.train_images.index_select(0, index)
        if not self.dynamic:
            return images
        noise = torch.rand(images.shape, dtype=images.dtype, device=images.device, generator=generator)
        return (noise < images).to(images.dtype)  # twice as fast as bernoulli

    def held_out(self, split: str) -> Tensor:
        r"""Images of the ``valid`` or ``test`` split, ``[N, D]``."""
        return self.get_buffer(f"{split}_images")


def check_grey(images: dict[str, Tensor]) -> None:
    r"""Refuses what are no grey levels in [0, 1], ``[N, D]`` with the same D in every split."""
    for split, grey in images.items():
        if grey.ndim != 2 or not grey.numel():
            more = ": flatten(1) makes them so" * (grey.ndim > 2)
            raise ValueError(f"{split} images must be [N, D] with at least one pixel, got {list(grey.shape)}{more}")
        if grey.shape[1] != images["train"].shape[1]:
            raise ValueError(f"{split} images have {grey.shape[1]} pixels, training images {images['train'].shape[1]}")
        low, high = grey.min().item(), grey.max().item()
        if not grey.is_floating_point() or not (low >= 0 and high <= 1):
            kind = str(grey.dtype).removeprefix("torch.")
            more = ": divide them by 255" * (1 < high <= 255)
            raise ValueError(f"{split} images must be floats from 0 to 1, got {kind} from {low:g} to {high:g}{more}")


def checked_labels(labels: dict[str, Tensor], images_of: dict[str, int]) -> dict[str, Tensor]:
    r"""The labels, if there is a class for every image of each split; else ValueError."""
    for split, images in images_of.items():
        found = labels[split]
        if found.shape != (images,) or found.is_floating_point() or found.min() < 0:
            kind = f"{str(found.dtype).removeprefix('torch.')} {list(found.shape)}"
            raise ValueError(f"{split} labels must be {images} classes, counted from 0, got {kind}")
    return {split: found.long() for split, found in labels.items()}


def images_only(data: Images | None) -> Images:
    r"""The data of a task about images: embedded ones if None; TypeError for anything else."""
    data = embedded_digits() if data is None else data
    if not isinstance(data, Images):
        raise TypeError(f"data must be images, got {type(data).__name__}")
    return data


def embedded_digits(binarisation: str = "dynamic") -> Images:
    r"""The digits that come with scikit-learn: see :func:`hardmax.tasks.digits.digits`."""
    return Images(**digits(), binarisation=binarisation, labels=lambda: digits(labels=True))


def like_mnist(name: str, folder: str | None, valid: int, binarisation: str) -> Images:
    r"""MNIST, or a data set of its format and sizes; the first ``valid`` training images are for validation."""

    refuse_early(valid, binarisation)

    def grey(split):
        return torch.tensor(load(f"{name}/{split}-images", folder)).flatten(1).float().div_(255)

    def labels():
        train, test = (torch.tensor(load(f"{name}/{s}-labels", folder)).long() for s in ("train", "t10k"))
        return {"train": train[valid:], "valid": train[:valid], "test": test}

    train = grey("train")
    held_back(valid, train)
    return Images(train[valid:], train[:valid], grey("t10k"), binarisation, labels)


def mnist(folder: str | None = None, valid: int = 5_000, binarisation: str = "dynamic") -> Images:
    r"""Handwritten digits of 28 by 28 pixels: 60,000 for training and validation, 10,000 for the test.

    References:
        | Gradient-based learning applied to document recognition (LeCun et al., 1998)
        | https://doi.org/10.1109/5.726791
    """
    return like_mnist("mnist", folder, valid, binarisation)


def fashion_mnist(folder: str | None = None, valid: int = 5_000, binarisation: str = "dynamic") -> Images:
    r"""Pieces of clothing, in the format and numbers of MNIST.

    References:
        | Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms (Xiao et al., 2017)
        | https://arxiv.org/abs/1708.07747
    """
    return like_mnist("fashion_mnist", folder, valid, binarisation)


def binarized_mnist(folder: str | None = None) -> Images:
    r"""MNIST as it was binarised once and for all, 50,000 / 10,000 / 10,000, without labels.

    References:
        | The Neural Autoregressive Distribution Estimator (Larochelle and Murray, 2011)
        | https://proceedings.mlr.press/v15/larochelle11a.html
    """
    splits = ("train", "valid", "test")
    return Images(*(torch.tensor(load(f"binarized_mnist/{s}", folder)).float() for s in splits), "none")


def omniglot(folder: str | None = None, valid: int = 1_345, binarisation: str = "dynamic") -> Images:
    r"""Handwritten characters of 28 by 28 pixels: 24,345 for training and validation, 8,070 for the test.

    Training images lie in the order of their characters, so those for validation are chosen by a fixed permutation.

    References:
        | Human-level concept learning through probabilistic program induction (Lake et al., 2015)
        | https://doi.org/10.1126/science.aab3050
        | Importance Weighted Autoencoders (Burda et al., 2016), whose images and split these are
        | https://arxiv.org/abs/1509.00519
    """
    refuse_early(valid, binarisation)
    images = torch.tensor(load("omniglot", folder)).flatten(1)
    train, test = images.split([len(images) - OMNIGLOT_TEST, OMNIGLOT_TEST])
    held_back(valid, train)
    train = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(0))]
    return Images(train[valid:], train[:valid], test, binarisation)


def refuse_early(valid: int, binarisation: str) -> None:
    r"""Refuses what is wrong whatever the data, before anything is downloaded."""
    at_least(1, valid=valid)
    one_of(BINARISATIONS, binarisation=binarisation)


def held_back(valid: int, train: Tensor) -> None:
    r"""Refuses a number of validation images that leaves none for either use."""
    if valid >= len(train):
        raise ValueError(f"valid must be below the {len(train)} training images, got {valid}")
