"""Bundle: all that an outsider needs to check what a round claims, as one folder that needs no vidloop.

    store + summary.json -> rows, videos, recipe, report, verdict.sql -> FOLDER with SHA256SUMS

What comes in: a store and a round. What goes out: a folder without secrets, addresses and paths of this
machine; the same round gives the same bytes. Who calls: `vidloop report --bundle`.

Open first: `write_bundle`, then `verdict` (the gate's arithmetic as SQL). After that

    choice      which prompts' clips are in it
    rows        which rows are
    rubrics     what the judges were asked
    made_with   versions and kernels
    outside     what is left out, and how
    folder      written as a whole, or not at all
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import ConfigError
from data.records import Clip, Evaluation, Policy, Row
from data.store import Store

if TYPE_CHECKING:
    from flows.reporting.bundle.folder import Draft
    from flows.reporting.bundle.rubrics import Held
    from tasks.summary import RoundSummary

__all__ = ["Options", "write_bundle"]


@dataclass(frozen=True)
class Options:
    """What else is in a bundle.

    Attributes:
        prompts: how many for each reason (best, worst, most changed, by lot).
        seed: of the lot.
        weights: whether the adapters are in it.
    """

    prompts: int = 3
    seed: int = 0
    weights: bool = False


def write_bundle(store: Store, round_id: str | None, folder: Path, shown: Options | None = None) -> Path:
    """Write the evidence of a round, or of the newest one, into `folder`, and return its path.

    Raises:
        ConfigError: the folder is there and not empty, or the round compared nothing.
        StoreError: no such round; something that it rests on is missing or was changed; or the disk is full.
    """
    from flows.reporting.bundle import outside, rows, rubrics
    from flows.reporting.bundle.folder import new_folder
    from flows.reporting.compare import compared_clips, evaluated
    from flows.reporting.read import find_summary

    summary, shown = find_summary(store, round_id), shown or Options()
    pairs = evaluated(store, summary)
    if not pairs:
        reason = summary.primary.reason or summary.verdict
        raise ConfigError(f"round {summary.round} compared no clips ({reason}): it makes no claim to check")
    said = outside.summary(summary)
    units = rows.units(store, summary)
    tables = rows.rows(store, summary, units)
    asked = list(rubrics.rubrics(summary))
    target = folder.expanduser().absolute()
    with new_folder(target) as draft:
        for name, held in tables.items():
            draft.write(f"tables/{name}.parquet", rows.parquet(name, held))
        _rubrics(draft, asked)
        for stage, found in units.items():
            ran = said.stages.get(stage)
            told = {"summary": ran.model_dump() if ran else None, "units": [rows.told(one) for one in found]}
            draft.write(f"stages/{stage}.json", _json(told))
        told_of = _media(draft, store, tables, compared_clips(pairs, summary), shown)
        _words(draft, store, said, tables, {"shown": shown, "rubrics": asked, **told_of})
    return target


def _rubrics(draft: Draft, asked: list[Held]) -> None:
    from flows.reporting.bundle import rows, rubrics

    draft.write("tables/rubrics.parquet", rows.as_parquet(rubrics.table(asked)))
    for one in asked:
        if one.text is not None:
            draft.write(f"rubrics/{one.reward}.yaml", one.text)


def _media(
    draft: Draft, store: Store, tables: dict[str, list[Row]], clips: list[Any], shown: Options
) -> dict[str, Any]:
    """Write videos, and adapters where they are wanted; what the README says of them."""
    from flows.reporting.bundle import choice

    chosen = choice.choose(clips, shown.prompts, shown.seed)
    policies = [row for row in tables["policies"] if isinstance(row, Policy)]
    weights = dict(_adapters(policies)) if shown.weights else {}
    for name, path in {**choice.videos(chosen), **weights}.items():
        draft.write(name, store.read_media(path))
    draft.write("clips/index.csv", choice.index(chosen))
    return {"chosen": chosen, "policies": policies, "weights": list(weights)}


def _words(
    draft: Draft, store: Store, said: RoundSummary, tables: dict[str, list[Row]], more: dict[str, Any]
) -> None:
    """Write what a person reads first: recipe, summary, report, versions, the query, and the README."""
    from flows.reporting.bundle import outside, verdict
    from flows.reporting.bundle.made_with import made_with
    from flows.reporting.compare import evaluated, main_split
    from flows.reporting.page import render, template
    from flows.reporting.paired_clips import pack
    from flows.reporting.read import read_facts

    evaluations = [row for row in tables["evaluations"] if isinstance(row, Evaluation)]
    clips = [row for row in tables["clips"] if isinstance(row, Clip)]
    asked = verdict.question(said, evaluations, main_split(evaluated(store, said), said))
    found, facts = asked.decide(), outside.facts(read_facts(store, said))
    draft.write("recipe.yaml", _yaml(said.recipe))
    draft.write("summary.json", _json(said.model_dump()))
    draft.write("versions.json", _json(outside.cleaned(made_with(store, said, clips))))
    draft.write("report.html", render(facts, pack(store, facts.clips)))
    draft.write("verdict.sql", verdict.sql(asked))
    readme = template(
        "bundle.md.j2",
        facts=facts,
        summary=said,
        found=found,
        confidence=asked.gate.confidence,
        differs=verdict.differs(found, said),
        tables={name: len(one) for name, one in tables.items()},
        **more,
    )
    draft.write("README.md", readme)


def _adapters(policies: list[Policy]) -> Iterator[tuple[str, str]]:
    """Path in the bundle, and in the store, of every policy's adapter."""
    for one in policies:
        if one.adapter_path:
            yield f"weights/{one.policy_id}.safetensors", one.adapter_path


def _json(said: Any) -> str:
    return json.dumps(said, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def _yaml(said: Any) -> str:
    import yaml

    text: str = yaml.safe_dump(said, sort_keys=False, allow_unicode=True)
    return text
