"""Step caching while sampling: diffusers' TaylorSeer hooks, set and taken away around one run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from models.families.settings import StepCacheSettings


@contextmanager
def step_cache(transformer: Any, settings: StepCacheSettings | None) -> Iterator[None]:
    """Within: at most steps, blocks are skipped and the last projection's output is extrapolated.

    The network must be this thread's own (`clone_sharing_weights`): the hooks keep state between steps. They
    are put on for one run and taken away after it, so that a run that failed leaves nothing behind.
    """
    if settings is None:
        yield
        return
    from diffusers import TaylorSeerCacheConfig

    transformer.enable_cache(
        TaylorSeerCacheConfig(
            cache_interval=settings.interval,
            disable_cache_before_step=settings.warmup,
            max_order=settings.order,
            # Differences of bfloat16 answers lose digits that the expansion then multiplies.
            taylor_factors_dtype=torch.float32,
            use_lite_mode=True,
        )
    )
    try:
        yield
    finally:
        transformer.disable_cache()
