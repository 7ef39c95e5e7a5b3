"""The tiny model and recipe, and the command line, for this folder's tests."""

from tests.tiny_round import tiny, tiny_model, vidloop

__all__ = ["tiny", "tiny_model", "vidloop"]
