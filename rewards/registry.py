"""Every kind of reward there is, found by itself: ours in the modules of this package, others by entry point.

    rewards/NAME.py          exports REWARD: a RewardKind, or a tuple of several
    "vidloop.rewards"        an entry point of an installed package that names a RewardKind

Nothing here loads a network, and no module of this package imports torch.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import ConfigError
from data.explain import nearest, validated
from data.plugins import plugins
from data.settings import Settings
from rewards.base import Reward
from rewards.kind import Named, RewardKind, RewardRef

if TYPE_CHECKING:
    from data.store import Store

GROUP = "vidloop.rewards"


@functools.cache
def reward_kinds() -> Mapping[str, RewardKind]:
    """Every kind of reward by its name, in the order of names.

    Raises:
        ConfigError: a plug-in cannot be loaded, is no reward, or bears a name that is taken.
    """
    return {name: kind for name, (kind, _) in sorted(_found().items())}


def sources() -> dict[str, str]:
    """Where each kind of reward comes from: a module of ours, or a distribution or folder."""
    return {name: source for name, (_, source) in sorted(_found().items())}


@functools.cache
def _found() -> dict[str, tuple[RewardKind, str]]:
    found: dict[str, tuple[RewardKind, str]] = {}
    for kind, source in (*_ours(), *_others()):
        if kind.name in found:
            raise ConfigError(
                f"two rewards are called {kind.name!r}: of {found[kind.name][1]} and of {source}. Rename or "
                "uninstall one of them"
            )
        found[kind.name] = (kind, source)
    return found


def _ours() -> Iterator[tuple[RewardKind, str]]:
    folder = str(Path(__file__).parent)
    for name in sorted(module.name for module in pkgutil.iter_modules([folder], "rewards.")):
        exported = getattr(importlib.import_module(name), "REWARD", ())
        for kind in exported if isinstance(exported, tuple) else (exported,):
            yield _checked(kind, name), name


def _others() -> Iterator[tuple[RewardKind, str]]:
    for plugin in plugins(GROUP).values():
        kind = _checked(plugin.load(), f"{plugin.source} ({plugin.target})")
        if kind.name != plugin.name:
            raise ConfigError(
                f"plug-in {plugin.name!r} of {plugin.source} is a reward that calls itself {kind.name!r}: "
                "its entry point must bear the same name"
            )
        yield kind, plugin.source


def _checked(exported: object, where: str) -> RewardKind:
    if not isinstance(exported, RewardKind):
        raise ConfigError(f"{where}: a reward is a `rewards.RewardKind`, this is a {type(exported).__name__}")
    return exported


def reward_kind(name: str) -> RewardKind:
    """The kind of this name. Raises ConfigError with the nearest name for one that is not there."""
    kinds = reward_kinds()
    if name not in kinds:
        raise ConfigError(f"there is no reward {name!r}{nearest(name, kinds)}")
    return kinds[name]


def reward_settings(kind: str, given: object = None) -> Settings:
    """Settings of a kind of reward from a mapping of some of them; None: the defaults.

    Raises:
        ConfigError: no such reward, or an unknown or impossible setting; with the nearest known key.
    """
    model = reward_kind(kind).settings
    if isinstance(given, model):
        return given
    return validated(model, {} if given is None else given, f"reward {kind!r}")


def reward_ref(
    name: str, kind: str, settings: object = None, named: Named | None = None, store: Store | None = None
) -> RewardRef:
    """A reward that is asked for, with its version; nothing is loaded.

    Args:
        name: what the recipe calls it.
        kind: name of its kind.
        settings: as for `reward_settings`.
        named: the other rewards of the recipe, for one that mixes them; None: a kind's name, with defaults.
        store: of the clips, for one whose values lie there.

    Raises:
        ConfigError: as `reward_settings`, or what it reads is not in the store.
        UserError: weights or other files are missing.
    """
    known, bound = reward_kind(kind), _bound(kind, settings, named, store)
    return RewardRef(name, known.version(bound), bound, known.parts(bound), kind)


def build_reward(kind: str, settings: object = None) -> Reward:
    """A reward, ready to score. As `reward_version`; UserError for weights that cannot be loaded, too."""
    return reward_kind(kind).build(_bound(kind, settings))


def reward_version(kind: str, settings: object = None) -> str:
    """Version of the scores that a reward would give, without building it: 16 hex digits.

    It changes with the weights, the settings that matter and the code. `settings` and errors as of
    `reward_ref`; of a mixture also what `RewardKind.bind` made of them.
    """
    return reward_ref(kind, kind, settings).version


def _bound(kind: str, settings: object, named: Named | None = None, store: Store | None = None) -> Any:
    """What the functions of a kind take: settings, or these with what they name, or what a store says."""
    held, bind = reward_kind(kind).held, reward_kind(kind).bind
    if held is None and bind is None:
        return reward_settings(kind, settings)
    if settings is not None and not isinstance(settings, Mapping | Settings):
        return settings  # bound already
    if held is not None:
        if store is None:
            raise ConfigError(f"reward {kind!r} says what lies in a store, and none was named")
        return held(reward_settings(kind, settings), store)
    assert bind is not None
    return bind(reward_settings(kind, settings), named or (lambda name: reward_ref(name, name)))
