"""The policies that a store holds, and which was trained from which; and the ids of best-of-N policies."""

from __future__ import annotations

import re
from collections.abc import Mapping

from data.keys import digest
from data.records import Policy
from data.store import Store


def best_of_id(policy_id: str, n: int, reward: str, version: str) -> str:
    """Identity of "the best of n": "b" + 24 hex digits. It is a way to sample, and no row of the table.

    Args:
        policy_id: the policy that is sampled.
        n: clips to choose from.
        reward: kind of the reward that chooses, with its `version`.
    """
    return "b" + digest({"policy": policy_id, "best_of": n, "by": [reward, version]})[:24]


def is_best_of(policy_id: str) -> bool:
    """Whether an id is of a best-of-N policy, which has no adapter of its own."""
    return re.fullmatch(r"b[0-9a-f]{24}", policy_id) is not None


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
