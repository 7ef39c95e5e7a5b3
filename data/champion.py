"""The champion: the best policy so far. A pointer, moved in one step, with the way back kept.

`champion.json` holds the history, newest last; its last entry is the champion. It is kept twice, and changed
in steps of which none is lost (`data.store.twice`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final, Literal

from pydantic import ConfigDict, TypeAdapter

from data.errors import StoreError
from data.keys import only_one
from data.policies import is_best_of, policies
from data.store import Store
from data.store.twice import read_either, update_twice

FILE: Final = "champion.json"
# In the place of a round, where a person chose.
BY_HAND: Final = "set by hand"


@dataclass(frozen=True, slots=True)
class Champion:
    """A policy and the round that promoted it (or BY_HAND).

    Attributes:
        policy_id: id of the policy.
        round_id: id of the round.
        approved_by: the person who said yes, where one was asked; else "".
        reason: why, in that person's words.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", strict=True)

    policy_id: str
    round_id: str
    approved_by: str = ""
    reason: str = ""


_HELD: Final = TypeAdapter(dict[Literal["history"], list[Champion]])


class ChampionMoved(StoreError):
    """The champion is not the policy any more that a candidate was compared with."""


def history(store: Store) -> list[Champion]:
    """Every champion that has not been rolled back, newest last.

    Raises Damaged: `champion.json` and its copy are.
    """
    return read_either(store, FILE, parsed) or []


def parsed(said: Mapping[str, Any]) -> list[Champion]:
    """The history from what a file says. Raises ValueError, KeyError: it says none."""
    return _HELD.validate_json(json.dumps(dict(said)))["history"]


def read(store: Store) -> Champion | None:
    """The champion, or None if nothing has been promoted yet (the base is then the policy to beat)."""
    entries = history(store)
    return entries[-1] if entries else None


def promote(
    store: Store,
    policy_id: str,
    round_id: str,
    beaten: str | None = None,
    base: str = "",
    approved_by: str = "",
    reason: str = "",
) -> Champion:
    """Make a policy the champion. Promoting the present champion again changes nothing.

    Args:
        store: the store.
        policy_id: the new champion.
        round_id: the round that compared it.
        beaten: id of the policy that it was compared with: somebody else may have moved the champion since.
            None: whoever is champion.
        base: id of the base model, which is to be beaten where nothing has been promoted yet.
        approved_by, reason: who said yes, and why; kept with the champion.

    Returns:
        The champion now, with the round that made it so.

    Raises:
        ChampionMoved: the champion is another than `beaten`; nothing has changed.
        StoreError: the store cannot be written.
    """

    def step(entries: list[Champion]) -> list[Champion]:
        if entries and entries[-1].policy_id == policy_id:
            return entries
        now = entries[-1].policy_id if entries else base
        if beaten is not None and now != beaten:
            raise ChampionMoved(f"it was compared with {beaten}, but the champion is {now} by now")
        return [*entries, Champion(policy_id, round_id, approved_by, reason)]

    return _change(store, step)[-1]


def set_champion(store: Store, policy_id: str) -> Champion:
    """Make a policy the champion by hand; of its id the first digits will do.

    Raises StoreError: the store holds no such policy, it is a best-of-N policy, or the store cannot be
    written.
    """
    if is_best_of(policy_id):
        raise StoreError(
            f"{policy_id} is a best-of-N policy: a way to sample, with no adapter that could be champion. "
            "Make the policy that it samples the champion, and say policy: {best_of: N, from: champion}"
        )
    known = policies(store)
    policy_id = only_one(policy_id, known)
    if policy_id not in known:
        raise StoreError(
            f"{store.url} holds no policy {policy_id!r}; it holds {', '.join(sorted(known)) or 'none'}"
        )
    return promote(store, policy_id, BY_HAND)


def rollback(store: Store) -> Champion | None:
    """Go back to the champion before this one.

    Returns:
        The champion now, or None if that is the recipe's base.

    Raises:
        StoreError: there is no champion to take back, or the store cannot be written.
    """

    def step(entries: list[Champion]) -> list[Champion]:
        if not entries:
            raise StoreError(f"{store.url} has no champion, so there is nothing to roll back")
        return entries[:-1]

    entries = _change(store, step)
    return entries[-1] if entries else None


def _change(store: Store, step: Callable[[list[Champion]], list[Champion]]) -> list[Champion]:
    """The history after a step, which is asked of the history as it is."""
    after: list[Champion] = []

    def said(before: list[Champion] | None) -> dict[str, Any]:
        after[:] = step(before or [])
        return {"history": [{name: value for name, value in asdict(one).items() if value} for one in after]}

    update_twice(store, FILE, parsed, said)
    return after
