"""Ids of base models and policies. No torch here: a fully cached round needs only these."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from data.errors import ModelError
from data.keys import digest, files_digest, tree_digest
from models.families.layout import check_layout, loaded_files

BASE: Final = "base"
"""What a recipe says for "the base model, without any adapter"."""


def base_id(path: str | Path, revision: str | None = None) -> str:
    """Identity of a base model: what loaders read of a local folder, or a hub id at a pinned commit.

    Args:
        path: a local folder in diffusers layout, or a hub id "owner/name".
        revision: commit of the hub id, 40 hex digits; must be None for a local folder.

    Raises:
        ModelError: the folder is not in diffusers layout or not whole, or the hub id has no pinned commit (a
            branch moves, and with it what every stored clip of that policy would mean).
    """
    check_layout(path)
    folder = Path(path)
    if folder.is_dir():
        if revision is not None:
            raise ModelError(f"model.revision is set, but {folder} is a local folder: remove the revision")
        return "local-" + files_digest(folder, loaded_files(folder))[:32]
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(path)):
        raise ModelError(f"no model at {path}: neither an existing folder nor a hub id like owner/name")
    if not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        raise ModelError(
            f"model {path} is neither an existing folder nor a hub id with a pinned commit: "
            f"set model.revision to its 40-digit commit (it is {revision!r})"
        )
    return f"hub-{path}@{revision}"


def former_id(path: str | Path) -> str | None:
    """What versions before 0.2 called a local folder; None: it is none.

    They counted every file of these names below the index, at any depth, also what no loader reads.
    """
    named = ("model_index.json", "*/*.safetensors", "*/*.json", "*/*.txt", "*/*.model")
    return "local-" + tree_digest(path, named)[:32] if Path(path).is_dir() else None


def policy_id(base: str, parents: Sequence[str] = (), adapter_sha256: str = "") -> str:
    """Identity of a policy: "m" + 24 hex digits.

    Args:
        base: what `base_id` gave.
        parents: ids of the policies that training started from; empty for the base model.
        adapter_sha256: digest of the adapter's bytes; "" for the base model itself.
    """
    return "m" + digest({"base": base, "parents": list(parents), "adapter": adapter_sha256})[:24]
