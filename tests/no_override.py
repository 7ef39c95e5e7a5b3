"""Root reads what nobody may: the capabilities by which it does so are laid down for a while."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, bits of linux/capability.h.
_OVERRIDE: Final = 1 << 1 | 1 << 2
# _LINUX_CAPABILITY_VERSION_3: two words for each of effective, permitted and inheritable.
_VERSION: Final = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Words(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inherited", ctypes.c_uint32),
    )


@contextmanager
def no_override() -> Iterator[None]:
    """Within: file modes hold for this thread, and threads that it starts, as they do for any other user."""
    if os.getuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, words = _Header(_VERSION, 0), (_Words * 2)()
    _checked(libc.capget(ctypes.byref(header), words))
    before = words[0].effective
    words[0].effective = before & ~_OVERRIDE
    _checked(libc.capset(ctypes.byref(header), words))
    try:
        yield
    finally:
        words[0].effective = before
        _checked(libc.capset(ctypes.byref(header), words))


def _checked(said: int) -> None:
    if said != 0:
        raise OSError(ctypes.get_errno(), "capabilities cannot be set")
