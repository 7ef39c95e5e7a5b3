"""Score: rewards over the stored files, shard by shard; every file is decoded once for all rewards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from data.errors import StageFailed, VideoError
from data.keys import digest
from data.records import Clip, Score
from data.store import Store
from data.video import decode_mp4
from rewards import Judgement, LoadedClip, build_reward
from tasks import generate, questions
from tasks.context import RESIDENTS, RewardRef, RoundContext, open_store, resident_name
from tasks.units import Unit

STAGE = "score"


@dataclass(frozen=True)
class ScoreShard:
    """All rewards of the clips of one generated shard: a manifest for each reward."""

    root: str
    clips_key: str
    clips_digest: str
    rewards: tuple[RewardRef, ...]
    label: str
    task: str = "score-shard"

    @property
    def questions(self) -> tuple[dict[str, Any], ...]:
        """See `Unit.questions`."""
        return tuple(questions.score(reward, self.clips_digest) for reward in self.rewards)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """See `Unit.keys`."""
        return tuple(self.key_of(reward) for reward in self.rewards)

    def key_of(self, reward: RewardRef) -> str:
        """Key of one reward's manifest."""
        return digest(questions.score(reward, self.clips_digest))

    def run(self) -> None:
        """Decode the clips, and commit what each reward that is missing says of them."""
        store = open_store(self.root)
        clips: list[Clip] = store.read(self.clips_key, "clips")
        loaded: dict[str, LoadedClip] = {}
        undecodable: dict[str, str] = {}
        for clip in clips:
            try:
                frames, fps = decode_mp4(store.read_media(clip.video_path))
            except VideoError as error:
                undecodable[clip.clip_id] = str(error)
            else:
                loaded[clip.clip_id] = LoadedClip(clip.clip_id, clip.prompt, frames, fps)
        for reward in self.rewards:
            if store.verify(self.key_of(reward), "size") is None:
                continue
            judged = self._judge(reward, list(loaded.values())) | {
                clip: Judgement(None, {}, error) for clip, error in undecodable.items()
            }
            rows = [_row(clip.clip_id, reward, judged[clip.clip_id]) for clip in clips]
            failed = sum(row.status == "failed" for row in rows)
            question = questions.score(reward, self.clips_digest)
            counts = {"clips": len(rows), "failed": failed}
            store.commit(STAGE, question, {"scores": rows}, parents=[self.clips_key], counts=counts)

    def _judge(self, reward: RewardRef, clips: Sequence[LoadedClip]) -> dict[str, Judgement]:
        if not clips:
            return {}
        name = resident_name(reward.name, reward.settings)
        with RESIDENTS.borrow(
            f"reward {reward.name}", name, lambda: build_reward(reward.name, reward.settings)
        ) as judge:
            assert judge.version == reward.version, f"{reward.name}: {judge.version} is not {reward.version}"
            judgements = judge.score(clips)
        return {clip.clip_id: judgement for clip, judgement in zip(clips, judgements, strict=True)}


def shards(
    store: Store, generated: Sequence[generate.GenerateShard], rewards: tuple[RewardRef, ...]
) -> list[ScoreShard]:
    """A unit for every generated shard. Raises StageFailed if one of them is not in the store."""
    found = digests(store, STAGE, [shard.keys[0] for shard in generated])
    return [
        ScoreShard(shard.how.root, shard.keys[0], clips_digest, rewards, shard.label)
        for shard, clips_digest in zip(generated, found, strict=True)
    ]


def digests(store: Store, stage: str, keys: Sequence[str]) -> list[str]:
    """Digests of the manifests of `keys`, which the questions of later stages name.

    Raises:
        StageFailed: `stage` needs a manifest that is not there.
    """
    found = []
    for key in keys:
        manifest = store.manifest(key)
        if manifest is None:
            raise StageFailed(
                stage, f"stage {stage} needs unit {key}, which is not in {store.root}: run the round again"
            )
        found.append(manifest.digest)
    return found


def units(context: RoundContext) -> list[ScoreShard]:
    """The scores of the round's training clips."""
    return shards(context.store, generate.units(context), context.rewards)


def phases(context: RoundContext) -> Iterator[Sequence[Unit]]:
    """Stage 2: every training clip, by every reward.

    Raises:
        StageFailed: a reward failed on more clips than the recipe allows; what was judged is kept.
    """
    asked = units(context)
    yield asked
    check_failures(context.store, STAGE, asked, context.max_failed_share)


def check_failures(store: Store, stage: str, scored: Sequence[ScoreShard], allowed: float) -> None:
    """Raise StageFailed if a reward failed on a larger share of its clips than `allowed`."""
    for reward in scored[0].rewards:
        keys = [shard.key_of(reward) for shard in scored]
        counts = [manifest.counts for manifest in map(store.manifest, keys) if manifest]
        clips, failed = (sum(count[name] for count in counts) for name in ("clips", "failed"))
        if failed > allowed * clips:
            rows: list[Score] = [row for key in keys for row in store.read(key, "scores")]
            first = next(row for row in rows if row.status == "failed")
            raise StageFailed(
                stage,
                f"stage {stage}: reward {reward.name} failed on {failed} of {clips} clips, more than "
                f"score.max_failed_share allows ({allowed:.0%}). First: clip {first.clip_id}: {first.error}. "
                "What was judged is kept",
            )


def _row(clip_id: str, reward: RewardRef, judgement: Judgement) -> Score:
    return Score(
        clip_id=clip_id,
        reward=reward.name,
        reward_version=reward.version,
        value=judgement.value,
        status="ok" if judgement.error is None else "failed",
        error=judgement.error,
        detail=json.dumps(judgement.detail, sort_keys=True, allow_nan=False),
    )
