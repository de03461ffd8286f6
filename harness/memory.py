r"""How the C library hands out memory."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def keep_freed_memory() -> None:
    r"""Lets the process keep what it frees, up to 1 GiB, rather than give it back to the system and ask again.

    Tensors of a few megabytes otherwise cost more time in page faults than in arithmetic: ARSM on images of 784
    pixels takes half as long again. Does nothing where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_TRIM_THRESHOLD, 2**30)
    mallopt(_MMAP_THRESHOLD, 2**30)
