"""The tiny model and recipe, and a Prefect server, for this folder's tests."""

from tests.prefect_server import prefect_server
from tests.tiny_round import tiny, tiny_model, vidloop

__all__ = ["prefect_server", "tiny", "tiny_model", "vidloop"]
