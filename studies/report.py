"""`vidloop study report`: docs/study.md, its plots, and docs/study.json, from the rows in a store."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from data.errors import DataError
from studies import contract, tables
from studies.charts import charts
from studies.conclusions import conclusions, sure
from studies.facts import Facts
from studies.grid import CONTROL, IN_A_ROW, SWEEPS, TUNING
from studies.recipe import Study

BEGIN: Final = "<!-- written by hand: begin -->"
END: Final = "<!-- written by hand: end -->"
_NOTHING_YET: Final = "Nothing has been written here yet. What stands between the two marks is kept."

_SWEEPS: Final = {
    "noise": "Wrong labels",
    "pairs": "Pairs a prompt",
    "reference": "Which reference, over rounds",
    "draws": "How many draws",
}


def write(study: Study, facts: Facts, folder: Path) -> list[Path]:
    """Write the report into `folder`; what was written by hand in an older one is kept.

    Returns:
        The files.

    Raises:
        DataError: the study's main part has no rows yet, or the older report has lost one of the two marks
            around what was written by hand.
    """
    if not facts.where(variant="main", best_of=1):
        raise DataError(
            f"study {study.name} has no row of its main part yet: run `vidloop study --only main`"
        )
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "study.md"
    kept = by_hand(page.read_text(encoding="utf-8"), str(page)) if page.exists() else _NOTHING_YET
    plots = charts(facts)
    files = {
        page: markdown(study, facts, kept, sorted(plots)).encode(),
        folder / "study.json": contract.text(facts.rows).encode(),
        **{folder / name: data for name, data in plots.items()},
    }
    for path, data in files.items():
        path.write_bytes(data)
    return list(files)


def by_hand(text: str, where: str) -> str:
    """What stands between the marks. Raises DataError if one of them is gone: nothing is overwritten then."""
    _, begin, rest = text.partition(BEGIN)
    kept, end, _ = rest.partition(END)
    if not begin or not end:
        raise DataError(
            f"{where} has lost the mark {BEGIN if not begin else END}: put it back, or move it away"
        )
    return kept.strip("\n")


def markdown(study: Study, facts: Facts, kept: str, plots: list[str]) -> str:
    """The page."""
    main = facts.where(variant="main", best_of=1)
    seeds = sorted({row.seed for row in main})
    lines = [
        "# Which feedback, with which objective?",
        "",
        f"Written by `vidloop study report` from the rows of study `{study.name}`; figures are points of "
        f"success on {_examined(facts)}, the mean over seeds {', '.join(map(str, seeds))}, with 95% "
        "intervals of a bootstrap that resamples both prompts and seeds (10,000 draws). The intervals are of "
        "this grid as it was run; with so few seeds they say little about other seeds. None is corrected for "
        "how many there are.",
        "",
        "## What was found",
        "",
        *(f"- {one}" for one in conclusions(facts)),
        "",
        BEGIN,
        kept,
        END,
        "",
        "## Gain over the base",
        "",
        *tables.grid(facts),
        "",
        *_plot(plots, "study-gains.svg", "Gain of every objective under every feedback"),
        "`unfiltered` learns from all clips, whatever the feedback says of them.",
        "",
        "## Judge against metrics",
        "",
        "Same objective, clips, settings and steps; positive: the judge's binary labels taught more.",
        "",
        *tables.claim(facts),
        "",
        "By category:",
        "",
        *tables.claim_by_category(facts),
        "",
        "## Each objective against the base",
        "",
        "Motion is after / before of the motion guard, the mean over seeds. The diagnosis is what "
        "`models/training/diagnosis.py` says of the training runs; [symptoms.md](symptoms.md): what to do.",
        "",
        *tables.against_base(facts),
        "",
        *_failures(facts),
        "## Best of n, without training",
        "",
        *tables.best_of(facts),
        "",
        *_in_a_row(facts, plots),
        *_sweeps(facts, plots),
        "## How it was run",
        "",
        f"Grid: `{study.name}`, recipe `{study.recipe}`; the judge's backend was "
        f"`{study.cell.get('judge', {}).get('backend', 'vllm')}`. Graded feedbacks are shaped from the 5th "
        "to the 95th percentile of the seed's clips and accept as large a share of each prompt's clips as "
        f"passes `{study.accept_like}`; pairs exceed one margin in r', the same for every feedback.",
        "",
        *tables.budget(facts),
        "",
        *_tuning(study, facts),
        *_missing(study, facts),
        "## Where the figures come from",
        "",
        'Every figure is made of rows of view `studies` (`vidloop query "FROM studies"`), which name the '
        "cell, both policies and the keys of its curation, training and evaluation; "
        '[study.json](study.json) has them too. The clips of a cell: `vidloop query "SELECT clip_id FROM '
        "evaluations WHERE policy_id = '<policy_after>'\"`; `vidloop remake CLIP_ID` makes one again, and "
        "says whether its frames are the same.",
        "",
    ]
    return "\n".join(lines)


def _examined(facts: Facts) -> str:
    row = facts.where(variant="main", best_of=1)[0]
    return f"{row.n} clips of {row.split} prompts a policy and seed (metric `{row.metric}`)"


def _plot(plots: list[str], name: str, what: str) -> list[str]:
    return [f"![{what}]({name})", ""] if name in plots else []


def _failures(facts: Facts) -> list[str]:
    """The whole diagnosis of what did not beat the base."""
    lines: list[str] = []
    for objective in facts.objectives:
        for feedback in facts.feedbacks if objective != CONTROL else [""]:
            rows = facts.main(feedback, objective)
            if rows and sure(facts.effect(rows)) < 1:
                said = " ".join(tables.findings(rows)) or rows[0].outcome
                lines.append(f"- {feedback or 'all clips'} x `{objective}`, seed {rows[0].seed}: {said}")
    return (
        ["Of those not shown to beat the base, what the first seed's run says:", "", *lines, ""]
        if lines
        else []
    )


def _in_a_row(facts: Facts, plots: list[str]) -> list[str]:
    rows = facts.where(variant=IN_A_ROW)
    if not rows:
        return []
    return [
        "## Rounds in a row",
        "",
        f"`{rows[0].objective}` with {rows[0].feedback}; each round starts from the last promoted policy, "
        "with clips and an examination of its own.",
        "",
        *tables.in_a_row(facts),
        "",
        *_plot(plots, "study-rounds.svg", "Success after each round, by seed"),
    ]


def _sweeps(facts: Facts, plots: list[str]) -> list[str]:
    lines: list[str] = []
    for variant in SWEEPS:
        if not facts.where(variant=variant):
            continue
        if variant == "category-heldout":
            lines += ["## One category left out of training", "", *tables.held_out(facts), ""]
        else:
            lines += [f"## {_SWEEPS[variant]}", "", *tables.sweep(facts, variant), ""]
        if variant == "noise":
            lines += _plot(plots, "study-noise.svg", "Gain by share of wrong labels")
    return lines


def _missing(study: Study, facts: Facts) -> list[str]:
    """What the grid names and the store does not hold: nothing is left out without a word."""
    found = facts.missing(study)
    if not found:
        return []
    return [
        f"{len(found)} cells of the grid are not in these tables:",
        "",
        *(f"- {label}: {reason}" for label, reason in found),
        "",
    ]


def _tuning(study: Study, facts: Facts) -> list[str]:
    if study.tuning is None or not facts.where(variant=TUNING):
        return []
    return [
        f"Each objective's own settings were chosen on `{study.tuning.prompts}` prompts with seed "
        f"{study.tuning.seed}, which is none of the study's, with {study.tuning.feedback} labels, from as "
        "many trials each:",
        "",
        *tables.tuned(facts),
        "",
    ]
