"""Which backend a store's name stands for."""

from __future__ import annotations

from pathlib import Path

from data.store.backend import Backend
from data.store.bucket import Bucket, is_url
from data.store.folder import Folder


def backend_of(url: str | Path) -> Backend:
    """What lies behind the name of a store, whether there is one or not.

    Raises StoreError: the name is a URL, and none of a store.
    """
    if is_url(str(url)):
        # Its library takes a while to import, and most stores are folders.
        from data.store.objects import Objects

        return Objects(Bucket(str(url)))
    return Folder(Path(url).expanduser().absolute())
