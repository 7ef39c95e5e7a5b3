"""Where a candidate comes from, as a mermaid graph: the V2 UI draws it, the V1 UI shows its text."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

from data.records import Policy
from data.store import Store
from flows.reporting.facts import Facts

GENERATIONS: Final = 4
"""Policies that are drawn, the round's own included; of older ones the number is said."""
# Steps of a report's lineage between the two policies, by the name of their node.
_WAY: Final = {"Clips": "clips", "Scores": "scores", "Curated data": "data", "Policy after": "after"}
_IDENT: Final = 12
# Everything else becomes one of mermaid's entities: a label ends no quote and brings no markup.
_SPECIAL: Final = re.compile(r"[^A-Za-z0-9 ',.:/+%()_-]")


def mermaid(store: Store, facts: Facts) -> str:
    """The policies before the round, what was made on the way to its candidate, and what the gate said.

    Args:
        store: holds the policies.
        facts: of the round.

    Returns:
        A fenced block of markdown.
    """
    line = ancestors(store, facts.policy_before)
    older, line = line[:-GENERATIONS], line[-GENERATIONS:]
    nodes = {f"p{at}": _label(*told) for at, told in enumerate(line)}
    chain, before = list(nodes), f"p{len(line) - 1}"
    if older:
        nodes["older"] = _label(f"{len(older)} older policies")
        chain.insert(0, "older")
    made = {step.what: step for step in facts.lineage}
    for what, node in _WAY.items():
        if what in made:
            told = (
                ancestors(store, made[what].ident)[-1][1:] if what == "Policy after" else (made[what].detail,)
            )
            nodes[node] = _label(what, *told)
            chain.append(node)
    edges = list(pairwise(chain))
    nodes["gate"] = _label("Promoted" if facts.promoted else "Not promoted")
    edges += [(before, "gate"), *([("after", "gate")] if "after" in nodes else [])]
    drawn = [f'    {node}["{text}"]' for node, text in nodes.items()]
    drawn += [f"    {one} --> {other}" for one, other in edges]
    thick = "after" if facts.promoted and "after" in nodes else before
    return "\n".join(
        ["```mermaid", "graph TD", *drawn, f"    style {thick} stroke-width:4px", "```"],
    )


def ancestors(store: Store, policy_id: str) -> list[tuple[str, str, str]]:
    """What a policy was trained from, oldest first, itself last: title, id, and how it was trained.

    A policy of several parents is followed along its first.
    """
    manifests = [one for one in store.manifests("finetune") if one.part("policies")]
    rows: dict[str, Policy] = {
        row.policy_id: row for one in manifests for row in store.read(one.key, "policies")
    }
    line: list[tuple[str, str, str]] = []
    at: str | None = policy_id
    seen: set[str] = set()
    while at is not None and at not in seen:
        seen.add(at)
        row = rows.get(at)
        # The base model has no row: it was not trained here.
        how = f"{row.objective}, {row.steps} steps" if row else ""
        line.append(("Policy" if row else "Base model", at[:_IDENT], how))
        at = row.parents[0] if row and row.parents else None
    return line[::-1]


def _label(*lines: str) -> str:
    return "<br/>".join(_SPECIAL.sub(lambda found: f"#{ord(found[0])};", line) for line in lines if line)
