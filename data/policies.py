"""The policies that a store holds, and which was trained from which."""

from __future__ import annotations

from collections.abc import Mapping

from data.records import Policy
from data.store import Store


def policies(store: Store) -> dict[str, Policy]:
    """Every trained policy of the store, by its id. Base models have no row.

    Raises StoreError: a unit that holds one is damaged.
    """
    keys = [manifest.key for manifest in store.manifests("finetune") if manifest.part("policies")]
    return {row.policy_id: row for key in keys for row in store.read(key, "policies")}


def ancestry(held: Mapping[str, Policy], policy_id: str) -> list[str]:
    """Ids of a policy, of its parents, of theirs, and so on, nearest first, each once.

    Args:
        held: the policies of a store.
        policy_id: where to begin; an id that is not in `held`, such as a base model's, ends its line.
    """
    line = [policy_id]
    for child in line:  # it grows meanwhile
        parents = held[child].parents if child in held else []
        line += [parent for parent in parents if parent not in line]
    return line
