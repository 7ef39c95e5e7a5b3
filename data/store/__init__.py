"""The store: what was computed, kept under the question it answers, and the files it is made of."""

from data.store.format import FORMAT
from data.store.manifest import Damaged, Manifest, Media, Part
from data.store.places import backend_of
from data.store.store import NOT_THERE, Store

__all__ = ["FORMAT", "NOT_THERE", "Damaged", "Manifest", "Media", "Part", "Store", "backend_of"]
