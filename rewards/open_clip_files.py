"""A folder of open_clip: which file it reads weights from, and whether they fill the model. Headers only."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from data.weights import SUFFIX, Weights, check_keys
from data.whole import building

# The names that open_clip prefers, in its order.
_STEMS: Final = ("open_clip_model", "open_clip_pytorch_model", "model")
_NO_WEIGHTS: Final = "No pretrained weights loaded"


def open_clip_stems(folder: Path | None) -> tuple[str, ...]:
    """What open_clip would call the weights in a folder: where no name is one that it prefers, the first."""
    if folder is None or any((folder / f"{stem}{SUFFIX}").is_file() for stem in _STEMS):
        return _STEMS
    others = sorted(file.name for file in folder.glob(f"*{SUFFIX}") if not file.name.startswith("."))
    return (*_STEMS, *(name.removesuffix(SUFFIX) for name in others[:1]))


def check_open_clip(what: str, architecture: str, weights: Weights, *, convert: bool) -> None:
    """Check that weights fill a model of open_clip.

    Args:
        what: whose weights, for messages.
        architecture: as open_clip takes it.
        weights: files and shapes.
        convert: whether keys of other code bases and older versions are renamed as open_clip does; without,
            only the name of a part called `model`, which they may all be of, is left out.

    Raises:
        ModelError: the configuration cannot be built, or keys are missing, unexpected or of another shape.
            open_clip itself would stretch position embeddings of another size in silence.
    """
    import open_clip
    import torch

    with building(what), torch.device("meta"), _unwarned():
        model: Any = open_clip.create_model(architecture, load_weights=False, device="meta")
        found = {key: torch.empty(shape) for key, shape in weights.shapes.items()}
        found = _as_open_clip(model, found) if convert else without_part(found)
    wanted = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    shapes = {key: tuple(tensor.shape) for key, tensor in found.items()}
    for scalar in ("logit_scale", "logit_bias"):
        if convert and scalar in wanted and shapes.get(scalar) in ((), (1,)):
            shapes[scalar] = wanted[scalar]  # a number, or a list of one: open_clip takes both
    if convert and "logit_bias" in wanted:
        shapes.setdefault("logit_bias", wanted["logit_bias"])  # zero, where weights have none
    check_keys(f"{what} ({type(model).__name__})", shapes, wanted)


def without_part(state: dict[str, Any]) -> dict[str, Any]:
    """Weights that are all of a part called `model`, as some published copies have them, without its name."""
    part = "model."
    if not all(key.startswith(part) for key in state):
        return state
    return {key.removeprefix(part): tensor for key, tensor in state.items()}


def _as_open_clip(model: Any, state: dict[str, Any]) -> dict[str, Any]:
    """As `open_clip.factory.load_checkpoint` renames keys before it loads them."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    state = convert_state_dict(model, state)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    state.pop("text.transformer.embeddings.position_ids", None)
    return state


@contextmanager
def _unwarned() -> Iterator[None]:
    """Without open_clip's warning that the model has no weights: here it is to have none."""

    def keep(record: logging.LogRecord) -> bool:
        return _NO_WEIGHTS not in record.getMessage()

    logging.root.addFilter(keep)
    try:
        yield
    finally:
        logging.root.removeFilter(keep)
