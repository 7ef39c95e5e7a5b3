"""On which kinds of place a test of the store runs: marks for modules and tests that use a new place.

Without one a test runs in a folder, and as a slow test on object storage too.
"""

from __future__ import annotations

from pathlib import Path

import obstore
import pytest

from data.store import backend_of
from data.store.objects import Objects

# What is meant for a folder alone (links, rights, fsync, bytes that rot on a disk), and what asks so often for the
# same that it would only take long.
in_a_folder = pytest.mark.parametrize("new_place", ["folder"], indirect=True)
on_both = pytest.mark.parametrize("new_place", ["folder", "objects"], indirect=True)


def files(place: str) -> dict[str, bytes]:
    """Every file of a store by its path, read past everything that the store knows of names and digests."""
    backend = backend_of(place)
    if isinstance(backend, Objects):
        return {
            one.path: bytes(obstore.get(backend.bucket.objects, one.path).bytes())
            for one in backend.entries()
        }
    root = Path(place)
    found = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}
