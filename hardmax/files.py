r"""Files as all rooms read and write them: regular ones, opened once, of a bounded size, and never through a link."""

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, TextIO

MOST_BYTES = 1_000_000  # of a text


def open_regular(path: Path) -> BinaryIO:
    r"""A regular file, opened for reading.

    Raises:
        OSError: If it cannot be opened, or is a link, a pipe, a device or a folder.
    """
    descriptor = open_no_link(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def open_no_link(path: Path, flags: int) -> int:
    r"""A descriptor of a file, as :func:`os.open` gives it; OSError if it cannot be opened, or is a link."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "is a link", str(path)) from None
        raise


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    r"""What a regular file holds.

    Raises:
        OSError: As :func:`open_regular`, or if it holds more than ``most`` bytes.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(most + 1) if size <= most else b""
    if size > most or len(content) > most:
        raise OSError(errno.EFBIG, f"is larger than {most:,} bytes", str(path))
    return content


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    r"""As :func:`read_bytes`, in UTF-8; what is none is replaced."""
    return read_bytes(path, most).decode("utf-8", "replace")


def open_rows(path: Path, size: int) -> TextIO:
    r"""A file to which rows are appended, cut off after its first ``size`` bytes; made if it is not there.

    Raises:
        OSError: If it cannot be opened, or is a link.
    """
    descriptor = open_no_link(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    os.ftruncate(descriptor, size)
    return os.fdopen(descriptor, "a", encoding="utf-8")


def write_whole(path: Path, content: bytes | memoryview | str) -> None:
    r"""Writes a file that is either whole and on disk or as it was before; text in UTF-8, where it can be.

    It is written aside, by each process under a name of its own, and renamed: a link of its name is replaced, whatever
    it points at stays as it is.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.unlink(missing_ok=True)
        with partial.open("xb") as file:  # which follows no link
            file.write(content.encode("utf-8", "replace") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()  # it takes the room that others may need
        raise
