"""Captioned clips of the physics world, a stated share of which break the law their caption names.

A base that never saw impossible physics would hardly fail, and there would be nothing to improve. Large
models learn from footage that is cut, sped up, rendered and wrong; the miniature learns from clips that
float, turn back, pass through each other or change colour.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from miniature.world.corpus import Corpus, processes, sample_corpus
from miniature.world.render import render
from miniature.world.scene import Scene

__all__ = ["Corpus", "processes", "render_corpus", "sample_corpus"]


def render_corpus(scenes: Sequence[Scene], size: int, device: torch.device, chunk: int = 512) -> Tensor:
    """Scenes -> uint8 clips [N, T, size, size, 3] on `device`."""
    parts = [
        render(list(scenes[i : i + chunk]), size=size, device=str(device))
        for i in range(0, len(scenes), chunk)
    ]
    return torch.cat(parts)
