"""Arrays between pages that nobody may touch: what runs over their ends stops the process there and then."""

from __future__ import annotations

import ctypes
import math
import mmap
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_NOBODY = 0  # PROT_NONE


def guarded(size: int, at_end: bool, fill: int) -> Array:
    """``size`` bytes of memory, every one ``fill``, with a guard page on both sides.

    Args:
        at_end: whether the bytes touch the guard behind them, which catches what runs over the end; else they touch
            the one before them.

    Raises:
        OSError: the system gives no such memory.
    """
    page = mmap.PAGESIZE
    inner = math.ceil(max(size, 1) / page) * page
    memory = mmap.mmap(-1, inner + 2 * page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    whole = np.frombuffer(memory, np.uint8)
    whole[page : page + inner] = fill
    libc = ctypes.CDLL(None, use_errno=True)
    for at in (0, page + inner):
        if libc.mprotect(ctypes.c_void_p(whole.ctypes.data + at), ctypes.c_size_t(page), _NOBODY):
            raise OSError(ctypes.get_errno(), "mprotect failed")
    start = page + (inner - size if at_end else 0)
    return whole[start : start + size]
