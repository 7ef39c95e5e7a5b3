"""Release: answers of a reward that an operator disbelieves are set aside, so that they are asked for again.

They may be failures that were the machine's and no clip's (versions before 0.2 kept such), or values of a
judge that was ill. Nothing is deleted: units go to the store's folder aside/, with a line in its log.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from data.errors import ConfigError, DataError
from data.queries import run_query
from data.records import Score
from data.store import Manifest, Store
from rewards import RewardRef, reward_kinds
from rewards.composite import is_mixture
from tasks import answers, lookups, score


@dataclass(frozen=True)
class Released:
    """What was set aside: how many clips are without an answer of the reward now, and the units' keys."""

    clips: int
    units: tuple[str, ...]


def release(store: Store, reward: RewardRef, failed: bool = False, where: str | None = None) -> Released:
    """Set aside what `reward` said, of training clips and of those that examine.

    A unit holds one reward's answers for a few clips. Of a reward without parts it is released whole, and
    the clips beside the disbelieved ones get their values anew, too. Of a judge, answers that nobody
    disbelieves are kept, so that only the others are asked for again.

    Args:
        store: the store.
        reward: whose answers; of its present version.
        failed: only where it gave no value.
        where: only of clips for which this condition of SQL holds, over the views scores and clips together:
            "error LIKE '%CUBLAS%'", "category = 'water' AND value > 0.9".

    Raises:
        ConfigError: the reward is a mixture: its components have the answers.
        DataError: `where` is no condition.
        StoreError: the store is damaged or read-only.
    """
    if is_mixture(reward):
        parts = ", ".join(part.name for part in reward.parts)
        raise ConfigError(f"reward {reward.name} has no answers of its own: say one of {parts}")
    chosen = None if where is None else _where(store, reward, where)
    said = f"released: {reward.name}" + (", failed" if failed else "") + (f", where {where}" if where else "")
    held = store.manifests(score.STAGE)
    clips: set[str] = set()
    units: list[str] = []
    for manifest in _of(held, reward.kind, reward.version):
        rows: list[Score] = store.read(manifest.key, "scores")
        doubted = {
            row.clip_id
            for row in rows
            if (row.status == "failed" or not failed) and (chosen is None or row.clip_id in chosen)
        }
        if not doubted:
            continue
        clips |= doubted
        about = [one for one in held if one.question.get("clips") == manifest.question["clips"]]
        gone = [*_parts(store, reward, about, doubted, failed), *filter(_mixes, about), manifest]
        for one in gone:
            lookups.set_aside(store, one.key, said)
        units += [one.key for one in gone]
    return Released(len(clips), tuple(units))


def _parts(
    store: Store, reward: RewardRef, about: Iterable[Manifest], doubted: set[str], failed: bool
) -> list[Manifest]:
    """Units of the reward's parts with answers about these clips; the others of their answers are kept."""
    found = []
    for part in reward.parts:
        for manifest in _of(about, part.kind, part.version):
            judged = answers.read(store, manifest.key)
            doubtful = {
                clip
                for clip, judgement in judged.items()
                if clip in doubted and (judgement.value is None or not failed)
            }
            if doubtful:
                others = {clip: judgement for clip, judgement in judged.items() if clip not in doubtful}
                clips_digest, (clips_key, *_) = manifest.question["clips"], manifest.parents
                answers.keep(store, part, clips_digest, clips_key, others)
                found.append(manifest)
    return found


def _of(manifests: Iterable[Manifest], kind: str, version: str) -> list[Manifest]:
    asked = (kind, version)
    return [
        one for one in manifests if (one.question.get("reward"), one.question.get("reward_version")) == asked
    ]


def _mixes(manifest: Manifest) -> bool:
    """Whether a unit combines other rewards' answers, and so is combined again from them."""
    kind = reward_kinds().get(manifest.question.get("reward", ""))
    return kind is not None and kind.bind is not None


def _where(store: Store, reward: RewardRef, condition: str) -> set[str]:
    """Ids of the clips for which the condition holds."""
    kind, version = (one.replace("'", "''") for one in (reward.kind, reward.version))
    # A line of its own, so that a comment in it ends there.
    asked = [
        "SELECT DISTINCT clip_id FROM scores JOIN clips USING (clip_id)",
        f"WHERE reward = '{kind}' AND reward_version = '{version}' AND (",
        f"{condition}",
        ")",
    ]
    try:
        _, rows = run_query(store, "\n".join(asked))
    except DataError as error:
        raise DataError(f"--where {condition!r} is no condition over scores and clips: {error}") from error
    return {clip for (clip,) in rows}
