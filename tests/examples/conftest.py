"""The tiny model and recipe, for this folder's tests."""

from tests.tiny_round import tiny, tiny_model

__all__ = ["tiny", "tiny_model"]
