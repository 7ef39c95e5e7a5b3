"""The store: what was computed, kept under the question it answers, and the files it is made of."""

from data.store.manifest import DamagedManifest, Manifest, Media, Part
from data.store.store import FORMAT, Store

__all__ = ["FORMAT", "DamagedManifest", "Manifest", "Media", "Part", "Store"]
