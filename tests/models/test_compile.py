"""The choice of the attention kernel: a rule by card, so that two runs take one kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from models import compile as compiling
from models.compile import fastest_attention


@pytest.mark.parametrize(
    ("device", "capability", "first"),
    [
        ("cpu", (9, 0), None),
        ("cuda", (8, 9), None),
        ("cuda", (9, 0), SDPBackend.CUDNN_ATTENTION),
        ("cuda", (10, 0), SDPBackend.CUDNN_ATTENTION),
    ],
)
def test_cudnn_is_first_from_hopper_on_and_nothing_changes_elsewhere(
    monkeypatch: pytest.MonkeyPatch, device: str, capability: tuple[int, int], first: SDPBackend | None
) -> None:
    asked: list[SDPBackend] = []

    @contextmanager
    def listed(order: list[SDPBackend], **how: Any) -> Iterator[None]:
        assert how == {"set_priority": True}
        asked.extend(order)
        yield

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(compiling, "sdpa_kernel", listed)
    with fastest_attention(torch.device(device)):
        assert asked[:1] == ([] if first is None else [first])
    # a kernel that does not take the input leaves it to the next: the last one takes everything
    assert asked[-1:] == ([] if first is None else [SDPBackend.MATH])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="kernels are timed on a GPU")
def test_the_rule_names_the_kernel_that_is_fastest_on_this_card() -> None:
    """Forward and backward at video length, in bfloat16, against FlashAttention."""
    device = torch.device("cuda")
    if torch.cuda.get_device_capability(device) < (9, 0):
        pytest.skip("the rule says nothing of this card")
    query, key, value = (
        torch.randn(1, 12, 8192, 128, device=device, dtype=torch.bfloat16).requires_grad_() for _ in range(3)
    )

    def seconds(kind: SDPBackend) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        for timed in (False, True):
            if timed:
                start.record()
            for _ in range(3):
                with sdpa_kernel(kind):
                    out = F.scaled_dot_product_attention(query, key, value)
                torch.autograd.grad(out, (query, key, value), out.detach())
        end.record()
        torch.cuda.synchronize(device)
        return float(start.elapsed_time(end)) / 3000

    assert seconds(SDPBackend.CUDNN_ATTENTION) < seconds(SDPBackend.FLASH_ATTENTION)
