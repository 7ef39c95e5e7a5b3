"""The tiny model and recipe, and the command line, for this folder's tests."""

from tests.calm_model import calm_model
from tests.tiny_round import tiny, tiny_model, vidloop

__all__ = ["calm_model", "tiny", "tiny_model", "vidloop"]
