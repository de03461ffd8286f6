r"""What a command prints, which must not end it: its reader may be gone, a disk full, an output closed."""

import atexit
import gc
import io
import os
import sys
from typing import Any


class Dropping(io.FileIO):
    r"""An open file that drops what it cannot write."""

    def write(self, content: Any, /) -> int:
        try:
            written = super().write(content)
        except OSError:
            written = None  # as where it would have to wait
        return len(content) if written is None else written


def begin_command() -> None:
    r"""What every command begins with: output cannot fail, and at its end nothing that was imported is looked through.

    Else Python would search all objects of PyTorch for cycles before it ends, for half a second.
    """
    drop_what_cannot_be_written()
    atexit.register(gc.freeze)


def drop_what_cannot_be_written() -> None:
    r"""Makes writing to standard output and error never fail, nor characters that their encoding does not have.

    Closed ones, as after ``>&-``, are opened to nowhere: the next file that is opened would take their place.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            nowhere = os.open(os.devnull, os.O_RDWR)  # in the lowest place that is free: that of the closed one
            os.set_inheritable(nowhere, True)
            setattr(sys, name, os.fdopen(nowhere, mode))
        elif mode == "w" and stream is getattr(sys, f"__{name}__"):
            file = io.BufferedWriter(Dropping(stream.fileno(), "w", closefd=False))
            errors = "backslashreplace" if stream.errors == "strict" else stream.errors
            buffering = {"line_buffering": stream.line_buffering, "write_through": stream.write_through}
            setattr(sys, name, io.TextIOWrapper(file, stream.encoding, errors, **buffering))
