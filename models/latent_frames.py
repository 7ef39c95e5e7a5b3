"""Which latent frames hold a piece of a clip, for video autoencoders that are causal in time.

Latent frame 0 is video frame 0; latent frame k >= 1 holds video frames (k - 1) s + 1 to k s, s the temporal
stride (Wan and CogVideoX: 4; LTX-Video: 8).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from data.errors import ModelError


def held(spans: Sequence[tuple[float, float]], frames: int, fps: float, latent_frames: int) -> Tensor:
    """Which latent frames hold a video frame of one of the spans, bool [latent_frames].

    Args:
        spans: (start, end) in seconds; frame i, at i / fps, is in a span if start <= i / fps < end.
        frames: of the video; with `latent_frames` they say the stride.
        fps: frames per second of the video.
        latent_frames: of its latent.

    Raises:
        ModelError: so many frames have no such latent, or no frame lies in a span.
    """
    stride, rest = divmod(frames - 1, max(1, latent_frames - 1))
    if rest or (latent_frames > 1 and not stride):
        raise ModelError(
            f"{frames} video frames in {latent_frames} latent frames: segments need 1 + a whole number of "
            "frames for each further latent frame; use curate.segments: ignore"
        )
    kept = torch.zeros(latent_frames, dtype=torch.bool)
    for start, end in spans:
        # Spans begin and end on frames; rounding puts back what the division by fps left.
        for frame in range(max(0, round(start * fps)), min(frames, round(end * fps))):
            kept[min(-(-frame // max(1, stride)), latent_frames - 1)] = True
    if not bool(kept.any()):
        raise ModelError(f"segments {list(spans)} hold none of the {frames} frames at {fps:g} a second")
    return kept
