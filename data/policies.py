"""The policies that a store holds, and which was trained from which; and the ids of best-of-N policies."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping

from data.keys import digest
from data.lineage import parents
from data.records import Policy
from data.store import Damaged, Manifest, Store

log = logging.getLogger("vidloop.store")


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

    A unit that is damaged holds none, and a line of the log says so: one of years ago stops nobody.
    """
    return {row.policy_id: row for row, _ in _trained(store)}


def taught(store: Store, policy_id: str) -> dict[str, frozenset[str] | None]:
    """Texts of the prompts that a policy, its parents, theirs and so on were trained on, nearest first.

    Those of all clips of a round count, whatever of them was curated. None: the store does not hold how this
    policy was trained, as of a base model, or not all of its clips any more, or not whole.
    """
    held: dict[str, Policy] = {}
    trainings: dict[str, list[Manifest]] = {}
    for row, manifest in _trained(store):
        held[row.policy_id] = row
        trainings.setdefault(row.policy_id, []).append(manifest)
    found: dict[str, frozenset[str] | None] = {}
    read: dict[str, frozenset[str] | None] = {}  # rounds in a row share what they learned from
    for one in ancestry(held, policy_id):
        try:
            keys = {key for manifest in trainings.get(one, ()) for key in parents(store, manifest)}
        except Damaged as error:
            log.warning("what a policy was trained on is not known: %s", error.what)
            found[one] = None
            continue
        for key in keys - read.keys():
            read[key] = _prompts(store, key)
        texts = [read[key] for key in keys]
        known = [some for some in texts if some is not None]
        found[one] = frozenset().union(*known) if known and len(known) == len(texts) else None
    return found


def _trained(store: Store) -> Iterator[tuple[Policy, Manifest]]:
    for path in store.manifest_files("finetune"):
        try:
            manifest = store.manifest(path.stem)
            rows = store.read(path.stem, "policies")
        except Damaged as error:
            log.warning("a policy is left out: %s", error.what)
            continue
        if manifest is not None:
            yield from ((row, manifest) for row in rows)


def _prompts(store: Store, key: str) -> frozenset[str] | None:
    """Texts of the prompts of one unit, none if it has no clips; None: the store does not hold it whole."""
    try:
        manifest = store.manifest(key)
        if manifest is None:
            return None
        if manifest.part("clips") is None:
            return frozenset()
        return frozenset(row.prompt for row in store.read(key, "clips"))
    except Damaged as error:
        log.warning("what a policy was trained on is not known: %s", error.what)
        return None


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
