"""Memory that a step freed stays with the process until the next step wants it again.

glibc gives a free end of its heap back to the system from 128 KiB on, and larger blocks at once. A prefill's
intermediate tensors then cost a page fault for every 4 KiB of every pass (docs/LOG.md has what that takes).
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT = 512 << 20  # bytes of free heap that stay
OWN_MAPPING = 32 << 20  # blocks from this size on are mapped one by one; glibc allows no more


@cache
def keep_freed_memory() -> bool:
    """Tell glibc's malloc so, once for this process; False where there is another one."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    return bool(libc.mallopt(M_TRIM_THRESHOLD, KEPT) and libc.mallopt(M_MMAP_THRESHOLD, OWN_MAPPING))
