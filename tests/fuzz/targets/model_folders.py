"""Configurations in a model's folder, as a plan reads them before any network is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from models.families import family_names
from models.families.check_fit import check_fit
from models.families.layout import check_layout
from models.families.settings import ModelSettings, SampleSettings
from tests.fuzz.target import SEPARATOR, Target, folder

_ROOT = Path(__file__).parents[3]
_WAN = _ROOT / "miniature/weights/wan"
_PARTS = ("transformer/config.json", "vae/config.json", "scheduler/scheduler_config.json")


def _home() -> Path:
    home = folder() / "model"
    for part in _PARTS:
        (home / part).parent.mkdir(parents=True, exist_ok=True)
    return home


def _index(data: bytes) -> None:
    """The index of the parts, and that of a part's shards: the two of an input."""
    home = _home()
    index, _, shards = data.partition(SEPARATOR)
    (home / "model_index.json").write_bytes(index)
    (home / "transformer/diffusion_pytorch_model.safetensors.index.json").write_bytes(shards or b"{}")
    check_layout(home)


def _indices() -> Iterator[bytes]:
    index = json.dumps(json.loads((_WAN / "model_index.json").read_bytes())).encode()
    yield index
    yield b'{"_class_name": "WanPipeline", "transformer": ["diffusers", "X"]}\n---\n{"weight_map": {"a": "one.safetensors"}}'


def _config(data: bytes) -> None:
    """The configurations of three parts."""
    home = _home()
    parts = (data.split(SEPARATOR) + [b"{}"] * 3)[:3]
    for name, content in zip(_PARTS, parts, strict=True):
        (home / name).write_bytes(content)
    for family in family_names():
        check_fit(ModelSettings(family=family, path=str(home)), SampleSettings(flow_shift=3.0))


def _configs() -> Iterator[bytes]:
    yield SEPARATOR.join((_WAN / part).read_bytes() for part in _PARTS)
    yield (
        b'{"_class_name": "CogVideoXTransformer3DModel", "patch_size": 2, "sample_height": 60, "sample_width": 90, '
        b'"sample_frames": 49, "temporal_compression_ratio": 4, "patch_size_t": null, "use_rotary_positional_embeddings": '
        b'false}\n---\n{"temporal_compression_ratio": 4, "block_out_channels": [1, 2]}\n---\n{"_class_name": "CogVideoXDDIM"}'
    )
    yield (
        b'{"patch_size": 1}\n---\n{"patch_size": 4, "patch_size_t": 1, "spatio_temporal_scaling": [true, false]}\n---\n'
        b'{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0, "use_dynamic_shifting": true}'
    )


TARGETS = (
    Target("model-index", _index, _indices, trees=True, words=("_class_name", "weight_map", "[null, null]", "..", "/", "\\u0000"), share=0),
    Target("model-config", _config, _configs, trees=True,
           words=("patch_size", "sample_height", "use_dynamic_shifting", "_class_name", "[1, 2, 2]", "null", "0", "1e999",
                  "-1", "\n---\n"), share=0),
)  # fmt: skip
