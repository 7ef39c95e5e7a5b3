"""The policies of a store, and which was trained from which."""

from __future__ import annotations

from data.policies import ancestry, policies
from data.records import Policy
from data.store import Store


def policy(ident: str, *parents: str) -> Policy:
    return Policy(ident, "base", [*parents], "dpo", "d", "", "", 4, 4.0, ["to_q"], 1, "{}", "[]")


def test_a_store_says_which_policies_it_holds_and_where_each_comes_from(store: Store) -> None:
    assert policies(store) == {}
    for row in (policy("a", "base"), policy("b", "a"), policy("c", "a"), policy("d", "b", "c")):
        store.commit("finetune", {"stage": "finetune", "id": row.policy_id}, {"policies": [row]})
    store.commit("finetune", {"stage": "finetune", "id": "no training data"}, {"policies": []})
    held = policies(store)
    assert sorted(held) == ["a", "b", "c", "d"]
    assert ancestry(held, "d") == ["d", "b", "c", "a", "base"]
    assert ancestry(held, "base") == ["base"]


def test_a_circle_of_parents_ends() -> None:
    held = {one.policy_id: one for one in (policy("a", "b"), policy("b", "a"))}
    assert ancestry(held, "a") == ["a", "b"]
