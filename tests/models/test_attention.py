"""The choice of the attention kernel."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend

from models.attention import ranking, trial


def test_the_trial_runs_backward_inside_a_pass_without_gradients() -> None:
    # Measured on a GPU first: asked for by the reference pass, every kernel "did not run", and training took
    # the slowest.
    once = trial(SDPBackend.MATH, torch.device("cpu"), (1, 2, 16, 8))
    with torch.no_grad():
        once()


def test_a_kernel_that_does_not_run_here_says_so() -> None:
    with pytest.raises(RuntimeError):
        trial(SDPBackend.CUDNN_ATTENTION, torch.device("cpu"), (1, 2, 16, 8))()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="kernels are timed on a GPU")
def test_the_ranking_is_measured_inside_a_pass_without_gradients(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "models.attention")
    ranking.cache_clear()
    with torch.no_grad():
        first = ranking(torch.cuda.get_device_name(), torch.device("cuda"))[0]
    assert first in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION)
    assert "does not run" not in caplog.text
