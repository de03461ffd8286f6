r"""What is in data files, by their formats; nothing that a file declares is taken on trust."""

import gzip
import io
import math
import zlib
from pathlib import Path
from typing import Literal

import numpy as np

MOST_UNPACKED = 2**28  # bytes that a file may have once unpacked; the largest here has 78 million
MATRIX, COMPRESSED = 14, 15  # kinds of variables in a MATLAB file
MATLAB_NUMBERS = (
    "double",
    "single",
    "logical",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)


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
        if others := {name: kind for name, kind in kinds.items() if kind not in MATLAB_NUMBERS}:
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
    order: Literal["little", "big"] = "little" if content[126:128] == b"IM" else "big"
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
                parts.append(unpack.decompress(content[at + 8 : end], MOST_UNPACKED + 1 - total))
            except zlib.error as error:
                raise Malformed(f"a broken MATLAB file ({error})") from None
            if total + len(parts[-1]) > MOST_UNPACKED:
                raise Malformed(f"more than {MOST_UNPACKED} bytes")
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


def unpacked(path: Path) -> bytes:
    r"""The content of a file, unpacked if it is a gzip file."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        parts, total = [], 0
        with gzip.open(path) if packed else path.open("rb") as file:
            while part := file.read(2**20):
                parts.append(part)
                if (total := total + len(part)) > MOST_UNPACKED:
                    raise Malformed(f"more than {MOST_UNPACKED} bytes")
    except EOFError:
        raise Malformed("a gzip file that is cut off") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise Malformed(f"a broken gzip file ({error})") from None
    return b"".join(parts)
