r"""The files of real data sets: found in a data folder, or else downloaded and verified."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .formats import Malformed, bits, characters, chardata, idx, unpacked

OMNIGLOT_TEST = 8_070  # of its images, the last ones


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
        raise FileNotFoundError(f"{missing(file, places)}, and no folder could be written to ({'; '.join(failures)})")
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
