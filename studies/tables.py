"""The tables of docs/study.md: what was found, with intervals, as Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from data.records import Studied
from studies.facts import Effect, Facts
from studies.grid import BEST_OF, CONTROL, IN_A_ROW, TUNING

JUDGE = "judge-binary"
METRICS = ("clip", "flow")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def gain(effect: Effect | None, nothing: str = "no training data") -> str:
    """A difference in points with its interval; `nothing` where there is none."""
    if effect is None:
        return nothing
    lacking = f", {effect.absent} seeds without training data" if effect.absent else ""
    if effect.low is None or effect.high is None:
        return f"{100 * effect.value:+.1f}{lacking}"
    return f"{100 * effect.value:+.1f} ({100 * effect.low:+.1f} to {100 * effect.high:+.1f}){lacking}"


def grid(facts: Facts) -> list[str]:
    """Feedback x objective: the mean gain over the base."""
    rows = []
    for objective in facts.objectives:
        if objective == CONTROL:
            one = gain(facts.effect(facts.main("", CONTROL)))
            rows.append([f"`{objective}`", *([one] + [""] * (len(facts.feedbacks) - 1))])
        else:
            rows.append(
                [
                    f"`{objective}`",
                    *(gain(facts.effect(facts.main(name, objective))) for name in facts.feedbacks),
                ]
            )
    return table(["objective", *facts.feedbacks], rows)


def claim(facts: Facts, category: str | None = None) -> list[str]:
    """The judge's binary labels against each metric, same objective, clips and budget."""
    rivals = [name for name in METRICS if name in facts.feedbacks]
    rows = []
    for objective in facts.objectives:
        if objective == CONTROL:
            continue
        ours = facts.main(JUDGE, objective)
        found = [_apart(facts.between(ours, facts.main(name, objective), category)) for name in rivals]
        rows.append([f"`{objective}`", *found])
    return table(["objective", *(f"{JUDGE} - {name}" for name in rivals)], rows)


def claim_by_category(facts: Facts) -> list[str]:
    """The same by category, over all objectives together: the mean of their differences."""
    rivals = [name for name in METRICS if name in facts.feedbacks]
    trained = [name for name in facts.objectives if name != CONTROL]
    rows = []
    for category in facts.categories():
        for objective in trained:
            ours = facts.main(JUDGE, objective)
            found = [_apart(facts.between(ours, facts.main(name, objective), category)) for name in rivals]
            rows.append([category, f"`{objective}`", *found])
    return table(["category", "objective", *(f"{JUDGE} - {name}" for name in rivals)], rows)


def best_of(facts: Facts) -> list[str]:
    """Best-of-n by each feedback, without training."""
    sizes = sorted({row.best_of for row in facts.where(objective=BEST_OF)})
    rows = [
        [str(size)]
        + [
            gain(facts.effect(facts.where(objective=BEST_OF, best_of=size, feedback=name)))
            for name in facts.feedbacks
        ]
        for size in sizes
    ]
    return table(["n", *facts.feedbacks], rows)


def sweep(facts: Facts, variant: str) -> list[str]:
    """A variant's rows by value: before, after, gain."""
    chosen = facts.where(variant=variant)
    rows = []
    for feedback, objective, value, number in _keys(chosen):
        found = [
            row
            for row in chosen
            if (row.feedback, row.objective, row.value, row.rounds) == (feedback, objective, value, number)
        ]
        told = [feedback, f"`{objective}`", value, *([str(number)] if _in_rounds(chosen) else [])]
        rows.append([*told, *_levels(facts.effect(found)), gain(facts.effect(found)), _motion(found)])
    more = ["round"] if _in_rounds(chosen) else []
    return table(["feedback", "objective", "value", *more, "before", "after", "gain", "motion"], rows)


def held_out(facts: Facts) -> list[str]:
    """Gain on the category whose clips did not teach, beside that of the cell that learned from all."""
    chosen = facts.where(variant="category-heldout")
    rows = []
    for feedback, objective, category, _ in _keys(chosen):
        left = [
            row
            for row in chosen
            if (row.feedback, row.objective, row.value) == (feedback, objective, category)
        ]
        whole = facts.main(feedback, objective)
        rows.append(
            [
                category,
                f"`{objective}`",
                gain(facts.effect(left, category)),
                gain(facts.effect(whole, category)),
                _apart(facts.between(left, whole, category)),
            ]
        )
    return table(["left out", "objective", "gain on it", "gain on it, taught", "difference"], rows)


def in_a_row(facts: Facts) -> list[str]:
    """Rounds in a row: mean success before and after each, over seeds, each on clips of its own.

    The champion is the policy that the next round starts from: the candidate, or who was there before.
    """
    chosen = facts.where(variant=IN_A_ROW)
    rows = []
    for value in sorted({row.value for row in chosen}):
        for number in sorted({row.rounds for row in chosen}):
            found = [row for row in chosen if row.rounds == number and row.value == value]
            promoted = sum(row.promoted for row in found)
            by_seed = ", ".join(f"{row.after:.3f}" if row.after is not None else "none" for row in found)
            effect = facts.effect(found)
            champion = champions(found)
            held = "none" if champion is None else f"{champion:.3f}"
            levels = [*_levels(effect), gain(effect), by_seed, _motion(found), str(promoted), held]
            rows.append([value or "the study's own", str(number), *levels])
    head = ["later rounds", "round", "before", "after", "gain", "after, by seed", "motion", "promoted"]
    return table([*head, "champion"], rows)


def champions(rows: Sequence[Studied]) -> float | None:
    """Mean success of the policies that are champions after these rounds, a round a seed; None if unknown."""
    levels = [row.after if row.promoted else row.before for row in rows]
    known = [level for level in levels if level is not None]
    return sum(known) / len(known) if known and len(known) == len(levels) else None


def against_base(facts: Facts) -> list[str]:
    """Each objective under each feedback: whether it beats the base, and what its training looked like."""
    rows = []
    for objective in facts.objectives:
        for feedback in facts.feedbacks if objective != CONTROL else [""]:
            found = facts.main(feedback, objective)
            effect = facts.effect(found)
            if effect is None:
                rows.append([f"`{objective}`", feedback, "nothing learned", "", ""])
                continue
            beats = effect.low is not None and effect.low > 0
            said = "; ".join(symptoms(found)) or "no symptom"
            verdict = "yes" if beats else "no"
            rows.append([f"`{objective}`", feedback or "(all clips)", verdict, _motion(found), said])
    return table(["objective", "feedback", "beats the base", "motion", "diagnosis"], rows)


def symptoms(rows: Sequence[Studied]) -> list[str]:
    """Names of what the runs' numbers say, with how many of the seeds show it."""
    found: dict[str, int] = {}
    for row in rows:
        for name in dict.fromkeys(one["name"] for one in json.loads(row.diagnosis) if one["name"]):
            found[name] = found.get(name, 0) + 1
    return [f"{name} ({count} of {len(rows)} seeds)" for name, count in found.items()]


def findings(rows: Sequence[Studied]) -> list[str]:
    """The sentences of the first seed's diagnosis."""
    return [one["text"] for one in json.loads(rows[0].diagnosis)] if rows else []


def tuned(facts: Facts) -> list[str]:
    """What tuning tried, and which setting each objective has."""
    rows = []
    chosen = {row.objective: row.settings for row in facts.where(variant="main", best_of=1)}
    for row in facts.where(variant=TUNING):
        mark = "chosen" if chosen.get(row.objective) == row.settings else ""
        change = (
            "none" if row.after is None or row.before is None else f"{100 * (row.after - row.before):+.1f}"
        )
        rows.append([f"`{row.objective}`", _settings(row.settings), change, mark])
    return table(["objective", "settings", "gain on the tuning prompts", ""], rows)


def budget(facts: Facts) -> list[str]:
    """What every cell had: clips, labels, steps; and what its feedback kept of them."""
    rows = []
    for feedback in facts.feedbacks:
        found = facts.where(variant="main", feedback=feedback, best_of=1)
        pairwise = [row for row in found if row.objective.startswith("dpo")]
        rows.append(
            [
                feedback,
                _range(found, lambda row: row.clips),
                _range(found, lambda row: row.labels),
                _range(found, lambda row: row.accepted),
                _range(pairwise, lambda row: row.pairs),
                _range(found, lambda row: row.steps),
                _range(found, lambda row: row.batch),
            ]
        )
    return table(["feedback", "clips", "labels", "accepted", "pairs", "steps", "batch"], rows)


def _range(rows: Sequence[Studied], of: Callable[[Studied], int]) -> str:
    values = sorted({of(row) for row in rows})
    if not values:
        return ""
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"


def _apart(effect: Effect | None) -> str:
    return gain(effect, "not to be compared")


def _levels(effect: Effect | None) -> list[str]:
    return ["", ""] if effect is None else [f"{effect.before:.3f}", f"{effect.after:.3f}"]


def _motion(rows: Sequence[Studied]) -> str:
    """Motion after over before, mean over seeds."""
    found: list[dict[str, Any]] = [json.loads(row.guards).get("motion") or {} for row in rows]
    ratios = [
        one["after"] / one["before"] for one in found if one.get("before") and one.get("after") is not None
    ]
    return f"x{sum(ratios) / len(ratios):.2f}" if ratios else ""


def _settings(text: str) -> str:
    return ", ".join(
        f"{part}.{name} {value}" for part, tree in json.loads(text).items() for name, value in tree.items()
    )


def _keys(rows: Sequence[Studied]) -> list[tuple[str, str, str, int]]:
    found = {(row.feedback, row.objective, row.value, row.rounds): (row.noise, row.value) for row in rows}
    return sorted(found, key=lambda key: (key[0], key[1], key[3], found[key]))


def _in_rounds(rows: Sequence[Studied]) -> bool:
    return len({row.rounds for row in rows}) > 1
