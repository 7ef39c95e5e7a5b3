"""How much of a prompt the text encoder of a model reads. No torch, no network's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from data.text_limit import TextLimit, limit_of
from models.families.settings import ModelSettings, SampleSettings

_PART: Final = "tokenizer"


def text_limit(model: ModelSettings, settings: SampleSettings, *, fetch: bool = False) -> TextLimit | None:
    """What `max_sequence_length` leaves of a prompt, by the model's tokenizer.

    Args:
        fetch: get the tokenizer of a hub id that is not in the cache.

    Returns:
        None: the tokenizer is not on this machine.
    """
    folder = Path(model.path) if Path(model.path).is_dir() else _cached(model, fetch)
    return limit_of(folder / _PART, settings.max_sequence_length) if folder is not None else None


def _cached(model: ModelSettings, fetch: bool) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                model.path,
                revision=model.revision,
                allow_patterns=[f"{_PART}/*"],
                local_files_only=not fetch,
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
        return None
