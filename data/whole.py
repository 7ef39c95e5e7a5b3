"""Whether the weights of a transformers model fill it, by the library's own rules; no tensor is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from data.errors import ModelError
from data.weights import read_weights, require_fit

STEMS: Final = ("model",)
"""What transformers calls weights."""


def check_transformers(what: str, folder: Path, kind: Any) -> None:
    """Check that a folder's weights are those of the network that its configuration describes, and no others.

    The library itself loads tensors of the stated shapes and no content, on the device "meta": so tied
    weights, keys of former versions and keys that a class ignores are what they are when it loads in earnest.
    Of weights that are stored quantised (`quantization_config`) only the files are looked at: what they hold
    is the quantiser's affair.

    Args:
        what: whose weights, for messages.
        folder: of the network.
        kind: its class, or an Auto class.

    Raises:
        ModelError: files are missing or not whole, or keys are missing, unexpected or of another shape.
    """
    import torch
    import transformers

    weights = read_weights(folder, STEMS)
    with _quiet(transformers), building(what):
        config_class = getattr(kind, "config_class", None) or transformers.AutoConfig
        config = config_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if getattr(config, "quantization_config", None) is not None:
            return
        if not hasattr(kind, "_load_pretrained_model"):  # an Auto class: it knows which one
            with torch.device("meta"):
                kind = type(kind.from_config(config))
        _, said = kind.from_pretrained(
            None,
            config=config,
            state_dict={key: torch.empty(shape, device="meta") for key, shape in weights.shapes.items()},
            device_map={"": "meta"},
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # else it raises at the first, and says less
        )
    shapes = {key: (tuple(found), tuple(wanted)) for key, found, wanted in said["mismatched_keys"]}
    require_fit(f"{what} ({kind.__name__})", said["missing_keys"], said["unexpected_keys"], shapes)


@contextmanager
def building(what: str) -> Iterator[None]:
    """Whatever a library says of a configuration that it cannot build, as ModelError that names it."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{what}: its configuration describes no network that can be built: {error}"
        ) from error


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Keep the library's own report of keys, and its progress bar, off the terminal."""
    logging = transformers.utils.logging
    before, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bar:
            logging.enable_progress_bar()
