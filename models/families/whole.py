"""Whether the weights of every part of a model fill it: by headers, in seconds at any size."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.hub import cached
from data.weights import check_keys, read_weights, weight_files
from data.whole import building, check_transformers
from models.families.layout import INDEX, Part, check_part, parts_of
from models.families.settings import ModelSettings
from models.lazy import LazyModule

if TYPE_CHECKING:
    import accelerate
    import diffusers
    import transformers
else:
    accelerate, diffusers, transformers = (
        LazyModule("accelerate"),
        LazyModule("diffusers"),
        LazyModule("transformers"),
    )


def check_whole(settings: ModelSettings, only: str | None = None) -> None:
    """Check the parts of a model that are on this machine.

    Args:
        settings: which model. Of a hub id those parts are looked at whose weights are in the cache.
        only: name of one part; None: all that the index names.

    Raises:
        ModelError: files of a part are missing or not whole, or its weights lack keys of its configuration's
            network, hold others, or have other shapes.
    """
    local = Path(settings.path)
    folder = local if local.is_dir() else cached(settings.path, settings.revision)
    if folder is None or not (folder / INDEX).is_file():
        return  # `models.policy.base_id` says so of a folder; a hub id comes later
    for name, part in parts_of(folder).items():
        there = folder == local or weight_files(folder / name, part.stems, part.shards_first)
        if there and only in (None, name):
            check_part(folder / name, part)
            if part.is_network:
                _check_network(f"the {name} of {settings.path}", folder / name, part)


def _check_network(what: str, folder: Path, part: Part) -> None:
    library: Any = diffusers if part.library == "diffusers" else transformers
    kind = getattr(library, part.kind, None)
    if kind is None:
        return  # the library says so when the pipeline is loaded
    if library is diffusers:
        _check_diffusers(what, folder, part, kind)
    else:
        check_transformers(what, folder, kind)


def _check_diffusers(what: str, folder: Path, part: Part, kind: Any) -> None:
    """As `data.whole.check_transformers`, of a network of diffusers, and by its rules."""
    weights = read_weights(folder, part.stems, part.shards_first)
    from diffusers.models.modeling_utils import no_init_weights

    with building(what):
        config = kind.load_config(folder, local_files_only=True)
        if config.get("quantization_config") is not None:
            return
        with no_init_weights(), accelerate.init_empty_weights():
            network = kind.from_config(config)
    found = dict(weights.shapes)
    if not weights.sharded:
        network._fix_state_dict_keys_on_load(found)  # names of former versions, which it translates so
    wanted = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    ignored = kind._keys_to_ignore_on_load_unexpected or ()
    kept = {
        key: shape for key, shape in found.items()
        if key in wanted or not any(re.search(pattern, key) for pattern in ignored)
    }  # fmt: skip
    check_keys(f"{what} ({part.kind})", kept, wanted)
