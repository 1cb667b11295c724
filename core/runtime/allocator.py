"""How the C library handles memory that a training step gives back, which the next step asks for again."""

from __future__ import annotations

import ctypes
import functools
import os

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's ``mallopt`` (malloc.h)."""
OWN_MAPPING = 32 << 20
"""Bytes from which a block has a mapping of its own: the most that glibc itself goes to when large blocks are freed."""
KEPT = 1 << 30
"""Free bytes at the end of the heap that are kept."""
SAID_BY_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""Variables of the environment that set the same."""


@functools.cache
def keep_freed() -> bool:
    """Let the heap keep up to `KEPT` bytes that are freed, for as long as the process lives.

    Else glibc gives the maps of a step back to the system when its backward pass has freed them, and the next step waits for
    every page of them again: one of 15 seconds of a NAFNet's training on one thread.

    Returns:
        Whether anything was set: not where there is no glibc, nor against variables of the environment.
    """
    if any(name in os.environ for name in SAID_BY_USER):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    # The second call alone would put every block of 128 KB into a mapping of its own.
    return bool(mallopt(MMAP_THRESHOLD, OWN_MAPPING) and mallopt(TRIM_THRESHOLD, KEPT))
