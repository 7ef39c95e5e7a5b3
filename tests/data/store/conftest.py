"""What the tests of the store share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than `tmp_path`, which may lie in memory (Makefile) or on a disk."""
    for place in ("/dev/shm", "/var/tmp"):
        with tempfile.TemporaryDirectory(dir=place) as folder:
            if Path(folder).stat().st_dev != tmp_path.stat().st_dev:
                yield Path(folder)
                return
    pytest.skip("tests, /dev/shm and /var/tmp lie on one file system")
