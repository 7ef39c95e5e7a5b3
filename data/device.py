"""Which device a name of a recipe means on this machine. PyTorch is imported when it is asked."""

from __future__ import annotations

from data.errors import ModelError


def resolve_device(name: str | None) -> str:
    """`name`, or for "auto" or none the GPU if there is one. ModelError for one that this machine lacks."""
    import torch

    if name is None or name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda:all":
        name = "cuda:0"  # the first, for what runs on one; `tasks.spread` shows every process one GPU
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise ModelError(f"{name!r} is no device; say auto, cpu, cuda, cuda:0 or cuda:all") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            f"device {name!r} was asked for, but this machine has no usable GPU; say auto or cpu"
        )
    if kind == "cuda" and (torch.device(name).index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"device {name!r} was asked for, but this machine has {torch.cuda.device_count()} GPUs"
        )
    return name


def device_kind(device: str) -> str:
    """What computes: "cpu", or "cuda NVIDIA H200". ModelError for a device that this machine lacks."""
    import torch

    found = resolve_device(device)
    return f"cuda {torch.cuda.get_device_name(found)}" if found.startswith("cuda") else found
