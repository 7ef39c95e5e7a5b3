"""Facts and packed clips -> one HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.reporting import charts, words
from flows.reporting.facts import Curve, Facts
from flows.reporting.paired_clips import HOW_CHOSEN, CardGroup

HERE = Path(__file__).parent / "page"

# What is drawn together: title, curve names (TRL's), the level that means "no difference", what to look for.
CURVES: tuple[tuple[str, tuple[str, ...], float | None, str], ...] = (
    ("Loss", ("loss",), None, "Noisy from step to step; it should fall, not explode."),
    (
        "Error against the reference",
        ("gap/chosen", "gap/rejected"),
        0.0,
        "Losers should rise above winners. Winners far above zero: the model forgets what it could do.",
    ),
    (
        "Denoising error",
        ("error/chosen", "error/rejected"),
        None,
        "Of winners and losers, accepted and rejected.",
    ),
    ("Denoising error", ("error",), None, "Of the clips in the batch."),
    ("rewards/margins", ("rewards/margins",), 0.0, "How much more than the reference winners are preferred."),
    ("rewards/accuracies", ("rewards/accuracies",), 0.5, "Share of pairs in the right order; 0.5 is chance."),
    ("displaced", ("displaced",), None, "Share of pairs whose winner became less likely than before."),
    (
        "logit/rms",
        ("logit/rms",),
        None,
        "Size of the logit: 0.1 to 1 early on, or beta does not fit.",
    ),
    (
        "Saturated and dead",
        ("saturated", "dead"),
        None,
        "Shares that teach nothing more, and that nothing was learned of. All are dead at the first step.",
    ),
    ("anchor", ("anchor",), None, "The chosen clips' own error, as a term of the loss."),
    ("kl", ("kl",), 0.0, "Distance to the reference."),
    ("grad_norm", ("grad_norm",), None, "Norm of the gradient before clipping."),
)


def template(name: str, **values: Any) -> str:
    """A page of folder page/, with the style sheet that all of them share. Every text is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = (HERE / "report.css").read_text("utf-8")
    return environment.get_template(name).render(css=css, **values)


def render(facts: Facts, groups: Sequence[CardGroup], media_note: str) -> str:
    """The page.

    The template escapes every text; charts escape theirs. A content security policy in the page forbids every
    request, so that hostile text could not make one even if it got through.

    Args:
        facts: what the page says.
        groups: clips to show, from `paired_clips.pack`.
        media_note: how the embedded copies were encoded.
    """
    import yaml

    script = (HERE / "report.js").read_text("utf-8")
    rate = words.is_rate(facts.summary)
    stages = facts.summary.stages.values()
    return template(
        "report.html.j2",
        facts=facts,
        groups=groups,
        script=script,
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        sentence=words.sentence(facts),
        verdict=words.verdict(facts),
        rate=rate,
        short_verdict="promoted" if facts.summary.promoted else "not promoted",
        how_chosen=HOW_CHOSEN,
        media_note=media_note,
        no_clips=_why_no_clips(facts),
        compared=sum(group.total for group in groups),
        success_svg=charts.success_chart(facts.comparisons) if facts.comparisons else "",
        reward_cards=[
            {
                "spread": one,
                "svg": charts.reward_chart(one) if one.values else "",
                "note": charts.spread_note(one) if one.values else "",
            }
            for one in facts.rewards
        ],
        question_cards={
            judge.name: [
                {
                    "spread": one,
                    "svg": charts.reward_chart(one, "P(yes) to question") if one.values else "",
                    "note": charts.spread_note(one, "answers"),
                }
                for one in judge.questions
            ]
            for judge in facts.judges
        },
        curve_cards=curve_cards(facts.curves),
        total_seconds=sum(stage.seconds for stage in stages),
        total_shards=sum(stage.shards for stage in stages),
        total_cached=sum(stage.cached_shards for stage in stages),
        recipe=yaml.safe_dump(dict(facts.summary.recipe), sort_keys=False, allow_unicode=True),
        show=words.percent if rate else words.number,
        change=words.points if rate else words.signed,
        percent=words.percent,
        number=words.number,
        ratio=words.ratio,
        duration=words.duration,
    )


def curve_cards(curves: Sequence[Curve]) -> list[dict[str, str]]:
    """The curves worth a look, grouped and ordered as in `CURVES`; the policy's row holds all of them."""
    held = {curve.name: curve for curve in curves if curve.values}
    cards = []
    for title, names, level, note in CURVES:
        drawn = [held[name] for name in names if name in held]
        if drawn:
            cards.append({"title": title, "svg": charts.curve_chart(title, drawn, level), "note": note})
    return cards


def _why_no_clips(facts: Facts) -> str:
    if facts.summary.policy_after in (None, facts.summary.policy_before):
        return f"There is nothing to compare: this round made no new policy ({facts.summary.verdict})."
    return "No held-out clip was measured under both policies."
