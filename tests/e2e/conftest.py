"""The tiny model and recipe, and a Prefect server, for this folder's tests."""

from tests.calm_model import calm_model
from tests.prefect_server import prefect_server
from tests.tiny_round import tiny, tiny_model, vidloop
from tests.tiny_study import tiny_study
from tests.tiny_vlm import tiny_vlm

__all__ = ["calm_model", "prefect_server", "tiny", "tiny_model", "tiny_study", "tiny_vlm", "vidloop"]
