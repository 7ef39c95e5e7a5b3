"""The tiny study, and the command line, for this folder's tests."""

from tests.tiny_round import tiny, tiny_model, vidloop
from tests.tiny_study import study_file, tiny_study
from tests.tiny_vlm import tiny_vlm

__all__ = ["study_file", "tiny", "tiny_model", "tiny_study", "tiny_vlm", "vidloop"]
