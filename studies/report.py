"""`vidloop study report`: docs/study.md, its plots, and docs/study.json, from the rows in a store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from data.errors import DataError
from studies import contract
from studies.charts import charts
from studies.facts import Facts
from studies.grid import BEST_OF, CONTROL, IN_A_ROW, MAIN
from studies.recipe import Study
from studies.tables import champion, gain, groups, motion, pairwise, span, symptoms

BEGIN: Final = "<!-- written by hand: begin -->"
END: Final = "<!-- written by hand: end -->"
_NOTHING_YET: Final = "Nothing has been written here yet. What stands between the two marks is kept."
_JUDGE: Final = "judge-binary"
_METRICS: Final = ("clip", "flow")
_TITLES: Final = {
    "noise": "Wrong labels",
    "pairs": "Pairs a prompt",
    "reference": "Which reference, over rounds",
    "category-heldout": "One category left out of training",
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
    if not facts.where(variant=MAIN, best_of=1):
        raise DataError(
            f"study {study.name} has no row of its main part yet: run `vidloop study --only main`"
        )
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "study.md"
    kept = by_hand(page.read_text(encoding="utf-8"), str(page)) if page.exists() else _NOTHING_YET
    plots = charts(facts)
    files = {
        page: markdown(study, facts, kept).encode(),
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


def markdown(study: Study, facts: Facts, kept: str) -> str:
    """The page, from `page.md.j2`."""
    main = facts.where(variant=MAIN, best_of=1)
    # It is Markdown, and nothing in it is anybody's but ours: there is nothing to escape.
    pages = Environment(
        loader=PackageLoader("studies", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701
    )
    pages.globals |= {one.__name__: one for one in (gain, groups, champion, symptoms, pairwise, span, motion)}
    return pages.get_template("page.md.j2").render(
        study=study,
        facts=facts,
        from_json=json.loads,
        titles=_TITLES,
        kept=kept,
        begin=BEGIN,
        end=END,
        judge=_JUDGE,
        rivals=[name for name in _METRICS if name in facts.feedbacks],
        control=CONTROL,
        best_of=BEST_OF,
        first=main[0],
        seeds=sorted({row.seed for row in main}),
        categories=sorted({name for row in facts.where(variant=MAIN) for name in json.loads(row.categories)}),
        chosen={row.objective: row.settings for row in main},
        rounds=facts.where(variant=IN_A_ROW),
        missing=facts.missing(),
    )
