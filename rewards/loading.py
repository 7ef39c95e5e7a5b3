"""Where a reward's weights are, and the digest of their content."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from data.errors import ModelError
from data.keys import tree_digest
from data.resources import find

HUB: Final = "hf-hub:"

# Everything that decides what a model computes; cards and READMEs may be reworded without a new version.
_CONTENT: Final = ("*.safetensors", "*.json", "*.txt", "*.model")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


def local_folder(name: str) -> Path | None:
    """The folder called `name`, from the working directory or else inside an installed package; or None."""
    found = find(name)
    return found if found.is_dir() else None


def cached(name: str, revision: str | None = None) -> Path | None:
    """The folder of a hub id (hf-hub:org/name) in the hub's cache on this machine; or None."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name.removeprefix(HUB), revision=revision, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        return None


def folder_content(name: str, *more: str) -> dict[str, str] | None:
    """What a version digests in place of a local folder's weights; None if there is no such folder.

    Args:
        name: of the folder.
        more: patterns of files that decide, beside those of every model.

    Raises:
        ModelError: it holds no safetensors file.
    """
    folder = local_folder(name)
    if folder is None:
        return None
    if not any(folder.rglob("*.safetensors")):
        raise ModelError(f"{folder} holds no .safetensors file; other weight formats are not read")
    return {"content": tree_digest(folder, (*_CONTENT, *more))}


def weights_identity(reward: str, name: str, pretrained: str) -> dict[str, str]:
    """What a version digests in place of the weights, without loading them.

    A local folder goes by its content, so moving it changes nothing and
    retraining it does. Published weights go by their names, because they may not be on this machine yet.

    Raises:
        ModelError: the folder does not exist, or holds no safetensors file.
    """
    content = folder_content(name)
    if content is not None:
        return content
    if "/" in name and not name.startswith(HUB):
        raise ModelError(f"{reward}.model: there is no folder {name}; for a hub id say {HUB}{name}")
    return {"name": name, "pretrained": pretrained}


def pinned_identity(reward: str, model: str, revision: str) -> dict[str, str]:
    """`weights_identity` of a folder, or of a hub id at a commit: what a branch points to may change.

    Raises:
        ModelError: there is no such folder, no safetensors in it, or a hub id has no commit.
    """
    if local_folder(model) is None:
        if not model.startswith(HUB):
            raise ModelError(f"{reward}.model: there is no folder {model}; for a hub id say {HUB}org/name")
        if not _COMMIT.fullmatch(revision):
            raise ModelError(
                f"{reward}: {model} needs the commit to take: set {reward}.revision to its 40 hex digits, "
                f"not {revision!r}"
            )
    return weights_identity(reward, model, revision)


@contextmanager
def opening(reward: str, model: str) -> Iterator[None]:
    """Whatever a library says of a checkpoint that it cannot read, as ModelError with its name."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(f"{reward}: cannot load {model!r}: {error}") from error


def open_pretrained(kind: Any, processor: Any, reward: str, model: str, revision: str, dtype: str) -> Any:
    """A transformers model, ready to score, and its processor; safetensors and no code of the checkpoint.

    Args:
        kind, processor: their classes.
        reward: for messages.
        model, revision: a folder; or a hub id and its commit.
        dtype: "float32", "bfloat16" or "float16".

    Returns:
        (model, processor).

    Raises:
        ModelError: they cannot be loaded, or the checkpoint lacks a part of the model, which transformers
            would fill with random numbers.
    """
    import torch

    folder = local_folder(model)
    where = model.removeprefix(HUB) if folder is None else str(folder)
    pinned = {"trust_remote_code": False} | ({"revision": revision} if folder is None else {})
    with opening(reward, model):
        found, said = kind.from_pretrained(
            where, use_safetensors=True, dtype=getattr(torch, dtype), output_loading_info=True, **pinned
        )
        words = processor.from_pretrained(where, **pinned)
    lacking = sorted(said["missing_keys"])
    if lacking:
        more = f" and {len(lacking) - 1} more" if lacking[1:] else ""
        raise ModelError(f"{reward}: {model} is no whole {kind.__name__}: it lacks {lacking[0]}{more}")
    return found.eval().requires_grad_(False), words
