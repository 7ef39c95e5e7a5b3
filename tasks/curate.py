"""Curate: scores to examples and pairs, in one unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final

from data.curation import CurateSettings, curate
from tasks import fingerprints, score
from tasks.context import RewardRef, RoundContext, open_store
from tasks.stage_spec import Phase, StageSpec
from tasks.units import Inputs, OneAnswer

STAGE = "curate"


@dataclass(frozen=True)
class CurateUnit(OneAnswer):
    """The curation of all training clips by one reward; its report is the manifest's `info`."""

    root: str
    settings: CurateSettings
    feedback: RewardRef
    clips: Inputs
    scores: Inputs
    label: str = "examples and pairs"
    task: ClassVar[str] = "curate-clips"

    @cached_property
    def question(self) -> dict[str, Any]:
        """What decides what is kept."""
        return fingerprints.curate(self.settings, self.feedback, self.clips.digest, self.scores.digest)

    @property
    def inputs(self) -> Mapping[str, Inputs]:
        return {"clips": self.clips, "scores": self.scores}

    def run(self) -> None:
        """Decide, and commit the decisions with their reasons."""
        store = open_store(self.root)
        clips, scores = self.clips.keys, self.scores.keys
        known = self.clips.digests, self.scores.digests
        result = curate(store, clips, scores, self.settings, self.feedback.version, digests=known)
        tables = {**result.tables, "inputs": self.listed()}
        store.commit(STAGE, self.question, tables, info=result.report)


def unit(context: RoundContext) -> CurateUnit:
    """The round's curation. Raises StageFailed if a shard of clips or scores is missing."""
    scored, feedback = score.units(context), score.measure(context, context.feedback)
    scores = Inputs.of(context.store, STAGE, [shard.key_of(feedback) for shard in scored])
    return CurateUnit(context.generation.root, context.curate, feedback, score.clips_of(scored), scores)


def _outcome(context: RoundContext) -> str | None:
    manifest = context.store.manifest(unit(context).key)
    return None if manifest is None else str(manifest.info["outcome"])


SPEC: Final = StageSpec(
    name=STAGE,
    flow="curate-dataset",
    version=fingerprints.VERSIONS[STAGE],
    title="what is worth learning from",
    does="Decide which clips teach, and how much.",
    phases=lambda context: iter([Phase([unit(context)])]),
    form=("feedback", "shaping.kind", "shaping.threshold", "curate.pairs_per_prompt", "curate.margin"),
    needs_device=False,  # SQL and arithmetic
    outcome=_outcome,
)
