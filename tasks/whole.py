"""Whether the weights of a round fill their networks, before anything is computed with them.

That takes the libraries which build networks, seconds to import; so what a local folder holds is looked at
once on a machine, and again when its content, a setting or a library changes. Whoever loads it looks again.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from data import remembered
from data.keys import digest
from models.families import get_family
from models.families.settings import ModelSettings
from models.policy import base_id
from rewards import RewardRef, reward_kind
from rewards.composite import unmixed
from rewards.loading import local_folder

# Raise it when what is looked at changes.
_CODE: Final = 1
_LIBRARIES: Final = ("torch", "torchvision", "diffusers", "transformers", "open_clip_torch")


def check_weights(model: ModelSettings, rewards: Iterable[RewardRef]) -> None:
    """Check the weights of a model and of rewards, by configurations and headers, whatever their size.

    Raises:
        ModelError: they are missing, not whole, or another network's.
    """
    local = Path(model.path).is_dir()
    key = _key(model.family, base_id(model.path), model) if local else None
    if key is None or not remembered.is_known(key):
        get_family(model.family).check(model)
        _note(key)
    for reward in {one.version: one for mixed in rewards for one in unmixed(mixed)}.values():
        named = getattr(reward.settings, "model", None)
        local = isinstance(named, str) and local_folder(named) is not None
        key = _key(reward.kind, reward.version, reward.settings) if local else None
        if key is None or not remembered.is_known(key):
            reward_kind(reward.kind).whole(reward.settings)
            _note(key)


def _key(name: str, content: str, settings: Any) -> str:
    said = settings.model_dump(mode="json", exclude={"path"})
    return digest([_CODE, name, content, said, list(map(importlib.metadata.version, _LIBRARIES))])


def _note(key: str | None) -> None:
    if key is not None:
        remembered.note(key)
