"""Policies as the stages use them: by the name that a recipe or a person gives."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Callable, Mapping

from data import champion
from data.errors import ConfigError
from data.json_text import parse_json
from data.keys import only_one
from data.policies import is_best_of, policies
from data.records import Policy
from data.store import Store
from models.families.settings import Expert
from models.policy import BASE, policy_id
from tasks.context import PolicyRef

CHAMPION = "champion"
CANDIDATE = "candidate"


def find_policy(
    store: Store, name: str, base: str, former: Callable[[], str | None] = lambda: None
) -> PolicyRef:
    """The policy a recipe means by `base`, `champion` (the base where there is none yet) or an id.

    The first digits of an id will do where no other begins so.

    Args:
        store: where policies are.
        name: what the recipe says.
        base: id of its base model.
        former: asked where a policy's base model has another id: what earlier versions called this one. Such
            a policy keeps the id that it was trained with, and with it all that the store holds of it.

    Raises:
        ConfigError: the store holds no such policy, or it was trained over another base model.
    """
    base_policy = PolicyRef(policy_id(base), base)
    if name == CHAMPION:
        present = champion.read(store)
        name = present.policy_id if present else BASE
    if name in (BASE, base_policy.policy_id):
        return base_policy
    if is_best_of(name):
        raise ConfigError(
            f"policy {name!r} is a best-of-N policy, which has no adapter to start from: say "
            "policy: {best_of: N, by: REWARD, from: POLICY}"
        )
    held = policies(store)
    name = only_one(name, held)
    if name.endswith(".safetensors") or os.path.isdir(name):
        raise ConfigError(
            f"policy {name!r}: an adapter of one's own is no policy, for the store would not know what made "
            "it. Fuse it into the base model, in float32 (diffusers: load_lora_weights, fuse_lora, "
            "unload_lora_weights, save_pretrained), and name that folder as model.path"
        )
    if name not in held or held[name].base_id != base:
        old = former()
        if old is not None and name == policy_id(old):
            return PolicyRef(name, old)
        if name in held and held[name].base_id == old:
            return policy_of(held, name)
    if name not in held:
        known = ", ".join(sorted(held)) or "none"
        raise ConfigError(
            f"policy {name!r}: {store.url} holds no such policy: {_remedy(store, name)}; or say base, "
            f"champion, or one of: {known}"
        )
    if held[name].base_id != base:
        raise ConfigError(
            f"policy {name} was trained over base model {held[name].base_id}, the recipe's is {base}"
        )
    return policy_of(held, name)


def _remedy(store: Store, policy: str) -> str:
    """How to have a policy again that the store does not hold: by the round that made it, from its recipe."""
    for path in reversed(store.find("rounds/*/summary.json")):
        with contextlib.suppress(OSError, ValueError, AttributeError, KeyError, TypeError):
            said, recipe = parse_json(store.read_file(path)), path.replace("summary.json", "recipe.json")
            if said.get("policy_after") == policy and store.has(recipe):
                unit = f"manifests/finetune/{said['stages']['finetune']['key']}.json"
                where = f"--recipe {shlex.quote(store.where(recipe))} --store {shlex.quote(store.url)}"
                return f"{unit} is damaged or gone, `vidloop round {where}` makes it again"
    return "no round of it made one"


def policy_of(held: Mapping[str, Policy], name: str) -> PolicyRef:
    """A policy with the adapters of all its experts: those it did not train are its parents'."""
    row = held[name]
    known = [parent for parent in row.parents if parent in held]
    return policy_ref(row, policy_of(held, known[0]) if known else None)


def policy_ref(row: Policy, before: PolicyRef | None = None) -> PolicyRef:
    """What the other stages need to know of a policy.

    Args:
        before: the policy that it was trained on, whose other experts it keeps.
    """
    trained: Expert | None = json.loads(row.settings).get("expert")
    held = dict(before.experts) if before is not None else {}
    experts = {**held, trained: row.adapter_path} if trained is not None else {}
    return PolicyRef(
        row.policy_id, row.base_id, row.adapter_path, row.adapter_sha256, tuple(sorted(experts.items()))
    )
