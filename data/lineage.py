"""Which units a unit was computed from."""

from __future__ import annotations

from data.store import Manifest, Store


def parents(store: Store, manifest: Manifest) -> list[str]:
    """Keys of the units that one was computed from, each once, sorted.

    A manifest names a few; where there are as many as a round has shards, table `inputs` of the unit lists
    them. Raises Damaged: that part is gone or was changed.
    """
    listed = (
        [] if manifest.part("inputs") is None else store.arrow([manifest.key], "inputs")["key"].to_pylist()
    )
    return sorted({*manifest.parents, *listed})
