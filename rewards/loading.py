"""Where a reward's weights are, and the digest of their content."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from data import hub
from data.errors import ModelError
from data.keys import files_digest
from data.model_files import check_files, check_tokenizer, model_files
from data.resources import find
from data.weights import read_weights, weight_files
from data.whole import STEMS, check_transformers

HUB: Final = "hf-hub:"

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


def local_folder(name: str) -> Path | None:
    """The folder called `name`, from the working directory or else inside an installed package; or None."""
    found = find(name)
    return found if found.is_dir() else None


def cached(name: str, revision: str | None = None) -> Path | None:
    """The folder of a hub id (hf-hub:org/name) in the hub's cache on this machine; or None."""
    return hub.cached(name.removeprefix(HUB), revision)


def folder_content(name: str, *more: str, stems: Sequence[str] = STEMS) -> dict[str, str] | None:
    """What a version digests in place of a local folder's weights; None if there is no such folder.

    Args:
        name: of the folder.
        more: patterns of files that decide, beside those of every model.
        stems: what its loader calls the weights, without their ending.

    Raises:
        ModelError: it holds no weights in safetensors, or a file that is read is not whole.
    """
    folder = local_folder(name)
    if folder is None:
        return None
    read_weights(folder, stems)
    files = model_files(folder, stems, more=more)
    check_files(files)
    return {"content": files_digest(folder, files)}


def weights_identity(
    reward: str, name: str, pretrained: str, *more: str, stems: Sequence[str] = STEMS
) -> dict[str, str]:
    """What a version digests in place of the weights, without loading them.

    A local folder goes by its content, so moving it changes nothing and
    retraining it does. Published weights go by their names, because they may not be on this machine yet.
    `more` and `stems` as of `folder_content`.

    Raises:
        ModelError: the folder does not exist, or holds no weights that are whole.
    """
    content = folder_content(name, *more, stems=stems)
    if content is not None:
        return content
    if "/" in name and not name.startswith(HUB):
        raise ModelError(f"{reward}.model: there is no folder {name}; for a hub id say {HUB}{name}")
    return {"name": name, "pretrained": pretrained}


def pinned_identity(reward: str, model: str, revision: str, *more: str) -> dict[str, str]:
    """`weights_identity` of a folder, or of a hub id at a commit: what a branch points to may change.

    Raises:
        ModelError: there is no such folder, no whole weights in it, or a hub id has no commit.
    """
    if local_folder(model) is None:
        if not model.startswith(HUB):
            raise ModelError(f"{reward}.model: there is no folder {model}; for a hub id say {HUB}org/name")
        if not _COMMIT.fullmatch(revision):
            raise ModelError(
                f"{reward}: {model} needs the commit to take: set {reward}.revision to its 40 hex digits, "
                f"not {revision!r}"
            )
    return weights_identity(reward, model, revision, *more)


def at_hand(model: str, revision: str | None = None, stems: Sequence[str] = STEMS) -> Path | None:
    """The folder of a model whose weights are here: its own, or a hub id's in the cache; or None."""
    folder = local_folder(model)
    if folder is None and model.startswith(HUB):
        folder = cached(model, revision)
        return folder if folder is not None and weight_files(folder, stems) else None
    return folder


def check_pretrained(kind: Any, reward: str, model: str, revision: str) -> None:
    """Check that a transformers model, and the words of its tokenizer, are whole, where they are at hand.

    Arguments as of `open_pretrained`.

    Raises:
        ModelError: as `data.whole.check_transformers`, or its folder holds no tokenizer.
    """
    folder = at_hand(model, revision or None)
    if folder is not None:
        check_tokenizer(folder)
        check_transformers(f"{reward}: {model}", folder, kind)


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
        ModelError: they cannot be loaded, or the weights do not fill the model: the library would go on with
            random numbers for what is missing.
    """
    import torch

    folder = local_folder(model)
    where = model.removeprefix(HUB) if folder is None else str(folder)
    pinned = {"trust_remote_code": False} | ({"revision": revision} if folder is None else {})
    check_pretrained(kind, reward, model, revision)
    with opening(reward, model):
        found = kind.from_pretrained(where, use_safetensors=True, dtype=getattr(torch, dtype), **pinned)
        words = processor.from_pretrained(where, **pinned)
    if folder is None:
        check_pretrained(kind, reward, model, revision)  # now that all of a hub id is here
    return found.eval().requires_grad_(False), words
