"""Copies of a network for other threads: every weight shared, no other state."""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

from torch import nn


def clone_sharing_weights(module: nn.Module) -> Any:
    """A copy of `module` over the same parameters and buffers; switches, caches and hooks are its own."""
    tensors = chain(module.parameters(), module.buffers())
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
