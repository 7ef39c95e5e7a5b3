"""Where a candidate comes from, as a mermaid graph: the V2 UI draws it, the V1 UI shows its text."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

from data.policies import ancestry, policies
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
    line = ancestors(store, facts.summary.policy_before)
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
    nodes["gate"] = _label("Promoted" if facts.summary.promoted else "Not promoted")
    edges += [(before, "gate"), *([("after", "gate")] if "after" in nodes else [])]
    drawn = [f'    {node}["{text}"]' for node, text in nodes.items()]
    drawn += [f"    {one} --> {other}" for one, other in edges]
    thick = "after" if facts.summary.promoted and "after" in nodes else before
    return "\n".join(
        ["```mermaid", "graph TD", *drawn, f"    style {thick} stroke-width:4px", "```"],
    )


def ancestors(store: Store, policy_id: str) -> list[tuple[str, str, str]]:
    """What a policy was trained from, oldest first, itself last: title, id, and how it was trained."""
    held = policies(store)
    line: list[tuple[str, str, str]] = []
    for ident in reversed(ancestry(held, policy_id)):
        row = held.get(ident)
        # The base model has no row: it was not trained here.
        how = f"{row.objective}, {row.steps} steps" if row else ""
        line.append(("Policy" if row else "Base model", ident[:_IDENT], how))
    return line


def _label(*lines: str) -> str:
    return "<br/>".join(_SPECIAL.sub(lambda found: f"#{ord(found[0])};", line) for line in lines if line)
