"""Plain sentences out of the figures: a sign and an interval decide what is said, nobody's expectation."""

from __future__ import annotations

from studies.facts import Effect, Facts
from studies.grid import BEST_OF, CONTROL, IN_A_ROW
from studies.tables import JUDGE, METRICS, champions, gain, symptoms

# What the study is held to: one round lifts success so much, three rounds in a row reach so much.
ONE_ROUND = 0.20
IN_A_ROW_LEVEL = 0.75


def conclusions(facts: Facts) -> list[str]:
    """What can be said, a sentence an entry."""
    return [
        *_best(facts),
        *_claim(facts),
        *_graded(facts),
        *_beaten(facts),
        *_control(facts),
        *_noise(facts),
        *_best_of(facts),
        *_rounds(facts),
    ]


def sure(effect: Effect | None) -> int:
    """1: the interval lies above zero; -1: below; 0: neither, or there is none."""
    if effect is None or effect.low is None or effect.high is None:
        return 0
    return 1 if effect.low > 0 else -1 if effect.high < 0 else 0


def ranked(facts: Facts, feedback: str) -> list[tuple[str, Effect]]:
    """Objectives by their gain under one feedback, the best first."""
    found = [
        (name, effect)
        for name in facts.objectives
        if name != CONTROL and (effect := facts.effect(facts.main(feedback, name))) is not None
    ]
    return sorted(found, key=lambda one: -one[1].value)


def _best(facts: Facts) -> list[str]:
    found = ranked(facts, JUDGE)
    if not found:
        return []
    name, effect = found[0]
    reached = "reaches" if effect.value >= ONE_ROUND else "misses"
    lines = [
        f"With {JUDGE} labels the best objective is `{name}`: {effect.before:.3f} to {effect.after:.3f}, "
        f"{gain(effect)} points in one round ({effect.n} clips of {effect.seeds} seeds). That {reached} the "
        f"{100 * ONE_ROUND:.0f} points asked for."
    ]
    if len(found) > 1:
        second = found[1][0]
        apart = facts.between(facts.main(JUDGE, name), facts.main(JUDGE, second))
        lines.append(f"The next is `{second}`, {gain(apart)} points behind{_doubt(apart)}.")
    ceiling = facts.between(facts.main("oracle", name), facts.main(JUDGE, name))
    if ceiling is not None:
        lines.append(
            f"Labels of the oracle in place of the judge's change that by {gain(ceiling)} points"
            f"{_doubt(ceiling)}: what the judge's errors cost."
        )
    return lines


def _claim(facts: Facts) -> list[str]:
    lines = []
    for rival in METRICS:
        if rival not in facts.feedbacks:
            continue
        signs = {
            name: sure(facts.between(facts.main(JUDGE, name), facts.main(rival, name)))
            for name in facts.objectives
            if name != CONTROL
        }
        better, worse, open_ = (_named(signs, sign) for sign in (1, -1, 0))
        told = [
            f"better with {better}" if better else "",
            f"worse with {worse}" if worse else "",
            f"undecided with {open_}" if open_ else "",
        ]
        agrees = (
            "as the paper claims" if better and not worse else "against the paper's claim" if worse else ""
        )
        lines.append(
            f"{JUDGE} against {rival}: {', '.join(filter(None, told))}{f' ({agrees})' if agrees else ''}."
        )
    return lines


def _graded(facts: Facts) -> list[str]:
    if "judge-p" not in facts.feedbacks:
        return []
    found = {
        name: facts.between(facts.main("judge-p", name), facts.main(JUDGE, name))
        for name in facts.objectives
        if name != CONTROL
    }
    signs = {name: sure(effect) for name, effect in found.items()}
    better, worse = _named(signs, 1), _named(signs, -1)
    if not better and not worse:
        return ["P(yes) in place of the binary label: no objective with an interval off zero."]
    told = [f"helps {better}" if better else "", f"harms {worse}" if worse else ""]
    return [f"P(yes) in place of the binary label {', '.join(filter(None, told))}; the others are undecided."]


def _beaten(facts: Facts) -> list[str]:
    lines = []
    for feedback in facts.feedbacks:
        failed = []
        for name in facts.objectives:
            if name == CONTROL:
                continue
            rows = facts.main(feedback, name)
            if sure(facts.effect(rows)) < 1:
                why = "; ".join(symptoms(rows)) or "no symptom in the run's numbers"
                failed.append(f"`{name}` {gain(facts.effect(rows))} ({why})")
        if failed:
            lines.append(f"With {feedback}, not shown to beat the base: {', '.join(failed)}.")
        else:
            lines.append(f"With {feedback}, every objective beats the base.")
    return lines


def _control(facts: Facts) -> list[str]:
    effect = facts.effect(facts.main("", CONTROL))
    if effect is None:
        return []
    verdict = {1: "helps by itself", -1: "harms by itself", 0: "changes nothing that could be shown"}
    return [f"Training on one's own clips without any filter {verdict[sure(effect)]}: {gain(effect)} points."]


def _noise(facts: Facts) -> list[str]:
    rows = facts.where(variant="noise")
    lines = []
    for name in sorted({row.objective for row in rows}):
        held = {
            share: effect
            for share in sorted({row.noise for row in rows})
            if (effect := facts.effect([row for row in rows if row.objective == name and row.noise == share]))
            is not None
        }
        lost = next((share for share, effect in held.items() if sure(effect) < 1), None)
        most = max(held, default=0.0)
        lines.append(
            f"`{name}` no longer shows a gain from {lost:.0%} wrong labels on."
            if lost is not None
            else f"`{name}` still gains with {most:.0%} wrong labels ({gain(held.get(most))} points)."
        )
    return lines


def _best_of(facts: Facts) -> list[str]:
    rows = facts.where(objective=BEST_OF, feedback=JUDGE)
    if not rows:
        return []
    most = max(row.best_of for row in rows)
    chosen = facts.effect([row for row in rows if row.best_of == most])
    return [
        f"Without training, the best of {most} clips by {JUDGE} gains {gain(chosen)} points, at {most} times "
        "the cost of every clip made later."
    ]


def _rounds(facts: Facts) -> list[str]:
    rows = facts.where(variant=IN_A_ROW, value="")
    if not rows:
        return []
    last = max(row.rounds for row in rows)
    ends = [row for row in rows if row.rounds == last]
    level = champions(ends)
    if level is None:
        return [f"In round {last} in a row some seed had nothing to learn from."]
    reached = "reaches" if level >= IN_A_ROW_LEVEL else "misses"
    return [
        f"After {last} rounds in a row with `{rows[0].objective}` and {rows[0].feedback} the champions "
        f"succeed on {level:.3f}, on average over {len(ends)} seeds, each measured in its last round. "
        f"That {reached} the {IN_A_ROW_LEVEL:g} asked for."
    ]


def _named(signs: dict[str, int], sign: int) -> str:
    return ", ".join(f"`{name}`" for name, found in signs.items() if found == sign)


def _doubt(effect: Effect | None) -> str:
    return "" if sure(effect) else ", which the interval does not tell from nothing"
