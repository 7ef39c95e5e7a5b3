"""Best of N: of several clips for a prompt and seed, the one that a reward prefers: a table, no network.

The candidates are clips like any other and lie in shards of their own; a shard of choices holds the rows of
those that were kept, so that whatever reads clips reads them too. Gao et al. 2022, arXiv 2210.10760, "BoN".
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final

from data.records import Choice, Clip, Score
from data.store import Media
from tasks import fingerprints
from tasks.context import BestOf, open_store
from tasks.units import Inputs, OneAnswer

STAGE: Final = "best-of"

log = logging.getLogger("vidloop.tasks")


@dataclass(frozen=True)
class ChoiceShard(OneAnswer):
    """The clips kept of one batch of jobs: their rows as clips, and a row of `choices` for every candidate.

    Attributes:
        policy_id: the best-of-N policy's.
        clips: the generated shards of the candidates: first the jobs' own clips, then their second ones, ...
        scores: what the choosing reward said of each of these shards.
        jobs: how many clips are kept.
    """

    root: str
    policy_id: str
    best_of: BestOf
    clips: Inputs
    scores: Inputs
    jobs: int
    label: str
    task: ClassVar[str] = "choose-best"

    @cached_property
    def question(self) -> dict[str, Any]:
        """What decides which clips are kept."""
        return fingerprints.best_of(self.policy_id, self.best_of, self.clips.digests, self.scores.digests)

    def run(self) -> None:
        """Choose, and commit the kept clips and the reasons."""
        store = open_store(self.root)
        made: list[list[Clip]] = [store.read(key, "clips") for key in self.clips.keys]
        scores: list[Score] = [row for key in self.scores.keys for row in store.read(key, "scores")]
        by = self.best_of.by
        values = {
            row.clip_id: row.value
            for row in scores
            if (row.reward, row.reward_version) == (by.kind, by.version)
        }
        kept: list[Clip] = []
        choices: list[Choice] = []
        unjudged = 0
        by_job = [sorted(rows, key=lambda clip: clip.row_in_batch) for rows in made]
        for candidates in zip(*by_job, strict=True):
            best = preferred([(clip.clip_id, values.get(clip.clip_id)) for clip in candidates])
            judged = any(values.get(clip.clip_id) is not None for clip in candidates)
            unjudged += not judged
            for clip in candidates:
                is_best = clip.clip_id == best
                value = values.get(clip.clip_id)
                reason = _reason(is_best, value, judged, by.name)
                seed = candidates[0].seed
                choices.append(
                    Choice(self.policy_id, clip.prompt_id, seed, clip.clip_id, value, is_best, reason)
                )
                if is_best:
                    kept.append(clip)
        named = {path for clip in kept for path in (clip.video_path, clip.latent_path)}
        manifests = (store.manifest(key) for key in self.clips.keys)
        held = {item.path: item for one in manifests if one is not None for item in one.media}
        media: list[Media] = [held[path] for path in sorted(named)]
        if unjudged:
            log.warning("%s: %d of %d prompts and seeds have no judged clip", self.label, unjudged, len(kept))
        store.commit(
            STAGE,
            self.question,
            {"clips": kept, "choices": choices},
            media,
            parents=(*self.clips.keys, *self.scores.keys),
            info={"clips": len(kept), "candidates": len(choices), "unjudged": unjudged},
        )


def preferred(candidates: Sequence[tuple[str, float | None]]) -> str:
    """The clip that is kept: of the highest value, of equals the one whose id comes first.

    Args:
        candidates: clip ids with their values, at least one; null where the reward failed. Such a clip is
            kept only if there is no other.
    """

    def rank(one: tuple[str, float | None]) -> tuple[bool, float, str]:
        clip, value = one
        return (value is None, 0.0 if value is None else -value, clip)

    return min(candidates, key=rank)[0]


def _reason(kept: bool, value: float | None, judged: bool, by: str) -> str:
    if not judged:
        said = f"{by} judged none of the candidates: the first by clip id stands for them"
        return f"kept: {said}" if kept else f"left: {said}"
    if value is None:
        return f"left: {by} did not judge it"
    return f"kept: first by {by}, and by clip id of equals" if kept else f"left: {by} prefers another"
