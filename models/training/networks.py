"""How the network that learns computes, in words."""

from __future__ import annotations

import torch
from torch import nn

from data.networks import PYTORCHS, network_line
from models.compile import attention_on, repeated_blocks
from models.families.base import Family
from models.families.settings import ModelSettings
from models.training.settings import TrainSettings


def training_line(
    family: Family, model: ModelSettings, settings: TrainSettings, network: nn.Module | None = None
) -> str:
    """The line of policy and reference, which are one network.

    Args:
        network: as it was loaded; None: in processes of its own.
    """
    device = torch.device(model.torch_device)
    blocks = f"{len(repeated_blocks(network))} blocks" if network and settings.compile else "blocks"
    weights = "" if model.quantise == "none" else f" with weights as {model.quantise}"
    return network_line(
        family.network_class,
        str(device),
        f"{model.dtype}{weights}",
        attention_on(device) if settings.attention == "fastest" else PYTORCHS,
        f"{blocks} compiled" if settings.compile else "not compiled",
        *([f"{settings.processes} processes"] if settings.processes > 1 else []),
    )
