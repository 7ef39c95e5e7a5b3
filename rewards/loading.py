"""Where a reward's weights are, the digest of their content, and the device they run on."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from data.errors import BadInput
from data.keys import tree_digest

CHECKOUT: Final = Path(__file__).resolve().parent.parent

HUB: Final = "hf-hub:"

# Everything that decides what a model computes; cards and READMEs may be reworded without a new version.
_CONTENT: Final = ("*.safetensors", "*.json", "*.txt", "*.model")


def local_folder(name: str) -> Path | None:
    """The folder called `name`, from the working directory or else from the checkout; or None."""
    for root in (Path.cwd(), CHECKOUT):
        if (root / name).is_dir():
            return root / name
    return None


def weights_identity(name: str, pretrained: str) -> dict[str, str]:
    """What a version digests in place of the weights, without loading them.

    A local folder goes by its content, so moving it changes nothing and
    retraining it does. Published weights go by their names, because they may not be on this machine yet.

    Raises:
        BadInput: the folder does not exist, or holds no safetensors file.
    """
    folder = local_folder(name)
    if folder is not None:
        if not any(folder.rglob("*.safetensors")):
            raise BadInput(f"{folder} holds no .safetensors file; other weight formats are not read")
        return {"content": tree_digest(folder, _CONTENT)}
    if "/" in name and not name.startswith(HUB):
        raise BadInput(f"there is no folder {name}; for a hub id say {HUB}{name}")
    return {"name": name, "pretrained": pretrained}


def resolve_device(name: str) -> str:
    """`name`, or for "auto" the GPU if there is one. Raises BadInput for a device that this machine lacks."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise BadInput(f"{name!r} is no device; say auto, cpu, cuda or cuda:0") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise BadInput(f"device {name!r} was asked for, but this machine has no usable GPU; say auto or cpu")
    if kind == "cuda" and (torch.device(name).index or 0) >= torch.cuda.device_count():
        raise BadInput(
            f"device {name!r} was asked for, but this machine has {torch.cuda.device_count()} GPUs"
        )
    return name
