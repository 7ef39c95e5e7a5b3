"""The tables of docs/study.md: what was found, with intervals, as Markdown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

from data.records import Studied
from studies.facts import Effect, Facts
from studies.grid import BEST_OF, CONTROL, IN_A_ROW, MAIN, TUNING

JUDGE = "judge-binary"
METRICS = ("clip", "flow")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows))


def gain(effect: Effect | None, nothing: str = "no training data") -> str:
    """A difference in points with its interval; `nothing` where there is none."""
    if effect is None:
        return nothing
    lacking = f", {effect.absent} seeds without training data" if effect.absent else ""
    if effect.low is None or effect.high is None:
        return f"{100 * effect.value:+.1f}{lacking}"
    return f"{100 * effect.value:+.1f} ({100 * effect.low:+.1f} to {100 * effect.high:+.1f}){lacking}"


def groups(rows: Sequence[Studied], *names: str) -> list[tuple[tuple[Any, ...], list[Studied]]]:
    """Rows that are equal in these fields together, sorted by them."""
    found: dict[tuple[Any, ...], list[Studied]] = {}
    for row in rows:
        found.setdefault(tuple(getattr(row, name) for name in names), []).append(row)
    return sorted(found.items())


def grid(facts: Facts) -> str:
    """Feedback x objective: the mean gain over the base."""
    cells: dict[str, list[str]] = {}
    for objective, _, rows in facts.grid:
        cells.setdefault(objective, []).append(gain(facts.effect(rows)))
    width = len(facts.feedbacks)
    lines = [[f"`{name}`", *found, *[""] * (width - len(found))] for name, found in cells.items()]
    return table(["objective", *facts.feedbacks], lines)


def claim(facts: Facts, categories: Sequence[str | None] = (None,)) -> str:
    """The judge's binary labels against each metric, same objective, clips and budget; by category."""
    rivals = [name for name in METRICS if name in facts.feedbacks]
    rows = []
    for category in categories:
        for objective in facts.objectives:
            if objective != CONTROL:
                ours = facts.main(JUDGE, objective)
                found = [facts.between(ours, facts.main(name, objective), category) for name in rivals]
                named = [] if category is None else [category]
                rows.append([*named, f"`{objective}`", *map(_apart, found)])
    head = ["objective", *(f"{JUDGE} - {name}" for name in rivals)]
    return table(head if None in categories else ["category", *head], rows)


def claim_by_category(facts: Facts) -> str:
    """The same for each category of the examined prompts."""
    return claim(
        facts, sorted({name for row in facts.where(variant=MAIN) for name in json.loads(row.categories)})
    )


def best_of(facts: Facts) -> str:
    """Best-of-n by each feedback, without training."""
    rows = []
    for (size,), found in groups(facts.where(objective=BEST_OF), "best_of"):
        by_feedback = [[row for row in found if row.feedback == name] for name in facts.feedbacks]
        rows.append([str(size), *(gain(facts.effect(one)) for one in by_feedback)])
    return table(["n", *facts.feedbacks], rows)


def sweep(facts: Facts, variant: str) -> str:
    """A variant's rows by value: before, after, gain."""
    chosen = facts.where(variant=variant)
    in_rounds = len({row.rounds for row in chosen}) > 1
    rows = []
    for (feedback, objective, number, _, value), found in groups(
        chosen, "feedback", "objective", "rounds", "noise", "value"
    ):
        told = [feedback, f"`{objective}`", value, *([str(number)] if in_rounds else [])]
        rows.append([*told, *_levels(facts, found), _motion(found)])
    more = ["round"] if in_rounds else []
    return table(["feedback", "objective", "value", *more, "before", "after", "gain", "motion"], rows)


def held_out(facts: Facts) -> str:
    """Gain on the category whose clips did not teach, beside that of the cell that learned from all."""
    rows = []
    chosen = facts.where(variant="category-heldout")
    for (feedback, objective, category), left in groups(chosen, "feedback", "objective", "value"):
        whole = facts.main(feedback, objective)
        gains = [gain(facts.effect(one, category)) for one in (left, whole)]
        rows.append([category, f"`{objective}`", *gains, _apart(facts.between(left, whole, category))])
    return table(["left out", "objective", "gain on it", "gain on it, taught", "difference"], rows)


def in_a_row(facts: Facts) -> str:
    """Rounds in a row: mean success before and after each, over seeds, each on clips of its own.

    The champion is the policy that the next round starts from: the candidate, or who was there before.
    """
    rows = []
    for (value, number), found in groups(facts.where(variant=IN_A_ROW), "value", "rounds"):
        by_seed = ", ".join("none" if row.after is None else f"{row.after:.3f}" for row in found)
        levels = [row.after if row.promoted else row.before for row in found]
        known = [level for level in levels if level is not None]
        champion = f"{sum(known) / len(known):.3f}" if len(known) == len(levels) else "none"
        told = [by_seed, _motion(found), str(sum(row.promoted for row in found)), champion]
        rows.append([value or "the study's own", str(number), *_levels(facts, found), *told])
    head = ["later rounds", "round", "before", "after", "gain", "after, by seed", "motion", "promoted"]
    return table([*head, "champion"], rows)


def against_base(facts: Facts) -> str:
    """Each objective under each feedback: whether it beats the base, and what its training looked like."""
    rows = []
    for objective, feedback, found in facts.grid:
        effect = facts.effect(found)
        if effect is None:
            rows.append([f"`{objective}`", feedback, "nothing learned", "", ""])
            continue
        verdict = "yes" if effect.sign > 0 else "no"
        said = "; ".join(symptoms(found)) or "no symptom"
        rows.append([f"`{objective}`", feedback or "(all clips)", verdict, _motion(found), said])
    return table(["objective", "feedback", "beats the base", "motion", "diagnosis"], rows)


def not_beaten(facts: Facts) -> str:
    """The first seed's diagnosis, whole, of every cell that is not shown to beat the base."""
    lines = []
    for objective, feedback, found in facts.grid:
        effect = facts.effect(found)
        if found and (effect is None or effect.sign < 1):
            said = " ".join(one["text"] for one in json.loads(found[0].diagnosis)) or found[0].outcome
            lines.append(f"- {feedback or 'all clips'} x `{objective}`, seed {found[0].seed}: {said}")
    return "\n".join(lines)


def symptoms(rows: Sequence[Studied]) -> list[str]:
    """Names of what the runs' numbers say, with how many of the seeds show it."""
    found = Counter(
        name
        for row in rows
        for name in dict.fromkeys(one["name"] for one in json.loads(row.diagnosis))
        if name
    )
    return [f"{name} ({count} of {len(rows)} seeds)" for name, count in found.items()]


def tuned(facts: Facts) -> str:
    """What tuning tried, and which setting each objective has."""
    rows = []
    chosen = {row.objective: row.settings for row in facts.where(variant=MAIN, best_of=1)}
    for row in facts.where(variant=TUNING):
        mark = "chosen" if chosen.get(row.objective) == row.settings else ""
        lacks = row.after is None or row.before is None
        change = "none" if lacks else f"{100 * (row.after - row.before):+.1f}"  # type: ignore[operator]
        named = [(part, *one) for part, tree in json.loads(row.settings).items() for one in tree.items()]
        told = ", ".join(f"{part}.{name} {value}" for part, name, value in named)
        rows.append([f"`{row.objective}`", told, change, mark])
    return table(["objective", "settings", "gain on the tuning prompts", ""], rows)


def budget(facts: Facts) -> str:
    """What every cell had: clips, labels, steps; and what its feedback kept of them."""
    columns = ("clips", "labels", "accepted", "pairs", "steps", "batch")
    rows = []
    for feedback in facts.feedbacks:
        found = facts.where(variant=MAIN, feedback=feedback, best_of=1)
        pairwise = [row for row in found if row.objective.startswith("dpo")]
        rows.append([feedback, *(_range(pairwise if name == "pairs" else found, name) for name in columns)])
    return table(["feedback", *columns], rows)


def _range(rows: Sequence[Studied], name: str) -> str:
    values = sorted(set(map(attrgetter(name), rows)))
    return " to ".join(map(str, dict.fromkeys([*values[:1], *values[-1:]])))


def _apart(effect: Effect | None) -> str:
    return gain(effect, "not to be compared")


def _levels(facts: Facts, rows: Sequence[Studied]) -> list[str]:
    effect = facts.effect(rows)
    levels = ["", ""] if effect is None else [f"{effect.before:.3f}", f"{effect.after:.3f}"]
    return [*levels, gain(effect)]


def _motion(rows: Sequence[Studied]) -> str:
    """Motion after over before, mean over seeds."""
    found: list[dict[str, Any]] = [json.loads(row.guards).get("motion") or {} for row in rows]
    ratios = [
        one["after"] / one["before"] for one in found if one.get("before") and one.get("after") is not None
    ]
    return f"x{sum(ratios) / len(ratios):.2f}" if ratios else ""
