"""Files of weights: adapters and checkpoints, both in safetensors."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator

import torch
from torch import nn

from data.errors import VidloopError
from data.keys import bytes_digest
from models.lora import LoraFile, LoraSpec, play, read, write
from models.training.checkpoint import latest
from models.training.checkpoint import save as save_checkpoint
from tests.fuzz.target import SEPARATOR, Target, folder

_WORDS = ("__metadata__", "lora_adapter_metadata", "vidloop", "base_id", "expert", "data_offsets", "dtype", "shape", "F32",
          "BF16", "F8_E4M3", "transformer.r", "transformer.lora_alpha", "transformer.target_modules", "[", "{", "null",
          "1e999", "-1", "18446744073709551615", "\\u0000")  # fmt: skip


class _Network(nn.Module):
    """Two layers that an adapter may be for."""

    dtype = torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.ModuleDict({"to_q": nn.Linear(3, 3), "to_v": nn.Linear(3, 2)})])


def _adapter(data: bytes) -> None:
    """As it is; and, where it is trees, a file made of them: what an adapter says of itself, and its tensors."""
    _play(data)
    parts = data.split(SEPARATOR, 3)
    if len(parts) == 4:
        config, facts, tensors, body = parts
        said = {
            "lora_adapter_metadata": config.decode("utf-8", "replace"),
            "vidloop": facts.decode("utf-8", "replace"),
        }
        # By hand: `tensors` may be no JSON.
        header = b'{"__metadata__":' + json.dumps(said).encode() + b"," + tensors.strip()[1:]
        header += b" " * (-len(header) % 8)
        _play(struct.pack("<Q", len(header)) + header + body)


def _play(data: bytes) -> None:
    try:
        read(data, "local-1", "high")
    except VidloopError:
        return
    play(_Network(), data, "local-1", "high")


def _adapters() -> Iterator[bytes]:
    spec = LoraSpec(2, 4.0, ("to_q", "to_v"))
    tensors = {
        f"blocks.0.to_q.lora_{part}.weight": torch.ones(shape)
        for part, shape in (("A", (2, 3)), ("B", (3, 2)))
    }
    whole = write(LoraFile(spec, tensors, "local-1", {"expert": "high"}))
    yield whole
    yield write(LoraFile(spec, {}, None))
    end = 8 + struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8:end])
    metadata = header.pop("__metadata__")
    parts = (metadata["lora_adapter_metadata"], metadata["vidloop"], json.dumps(header))
    yield SEPARATOR.join([*(part.encode() for part in parts), whole[end:]])


def _checkpoint(data: bytes) -> None:
    home = folder() / "checkpoints"
    home.mkdir(exist_ok=True)
    (home / "step-00000001.checkpoint").write_bytes(bytes_digest(data).encode() + b"\n" + data)
    latest(home, "run")


def _checkpoints() -> Iterator[bytes]:
    home = folder() / "saved"
    save_checkpoint(home, "run", 1, {"a": torch.ones(2, 2)}, [{"step": 1, "loss": 0.5}])
    yield (home / "step-00000001.checkpoint").read_bytes().partition(b"\n")[2]
    yield json.dumps({"format": 2, "identity": "run", "step": 1, "curve": []}).encode() + b"\n"


TARGETS = (
    Target("adapter", _adapter, _adapters, words=_WORDS, most=2048, trees=True, share=10),
    Target(
        "checkpoint",
        _checkpoint,
        _checkpoints,
        words=(*_WORDS, "format", "identity", "curve"),
        most=2048,
    ),
)
