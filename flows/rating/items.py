"""What raters are shown: pairs of clips, or clips; and those of them whose answer is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from data import labels
from data.errors import ConfigError, DataError, StoreError
from data.keys import digest
from data.queries import connect, run_query
from data.records import prompt_id
from data.store import Store
from flows.rating.questions import Asked
from flows.reporting.compare import evaluated, main_split
from flows.reporting.read import find_summary

# What a reward must say of a clip before people are held to it.
_SURE_NO, _SURE_YES = 0.1, 0.9
_CLIPS: Final = """
SELECT clip_id, prompt, category, video_path, video_sha256, frames / fps, fps, codec
FROM clips WHERE clip_id IN (SELECT unnest($ids))
"""
# A reward of several versions may say several things: then nothing is known.
_VALUES: Final = """
SELECT clip_id, min(value) FROM scores WHERE reward = $reward AND value IS NOT NULL
GROUP BY clip_id HAVING min(value) = max(value)
"""


@dataclass(frozen=True)
class Shown:
    """A clip as the page needs it: where its video is, how long it lasts, how many frames a second it has."""

    clip_id: str
    prompt: str
    category: str
    video_path: str
    video_sha256: str
    seconds: float
    fps: float
    codec: str


@dataclass(frozen=True)
class Item:
    """A clip, or two of one prompt, and the questions (by name) that are put to it.

    `gold` has the answers that are known, by question: yes, no, a number, first or second.
    """

    clips: tuple[Shown, ...]
    questions: tuple[str, ...] = ()
    gold: Mapping[str, str] = field(default_factory=dict)

    @property
    def item_id(self) -> str:
        """Digest of its clips, whichever stands first: 16 hex digits."""
        return digest(sorted(clip.clip_id for clip in self.clips))[:16]


def pairs_of_round(store: Store, round_id: str | None) -> list[Item]:
    """Before and after of each prompt and seed on which a round was examined; None: the newest round.

    Raises:
        StoreError: there is no such round, nothing was compared in it, or its rows are gone.
    """
    summary = find_summary(store, round_id)
    compared = evaluated(store, summary)
    split = main_split(compared, summary)
    named = [(one.before.clip_id, one.after.clip_id) for one in compared if one.split == split]
    if not named:
        raise StoreError(
            f"round {summary.round} compared no clips ({summary.verdict}): name another with --round"
        )
    return _items(store, [pair for pair in named if pair[0] != pair[1]])


def clips_of_query(store: Store, sql: str) -> list[Item]:
    """Clips that a query names: one column of clip ids, or two of pairs.

    Raises:
        DataError: the query fails, has other columns, or names a clip that the store does not have.
    """
    columns, rows = run_query(store, sql)
    if len(columns) not in (1, 2):
        raise DataError(f"--clips: the query has {len(columns)} columns: give clip ids, or two for pairs")
    named = list(dict.fromkeys(tuple(str(value) for value in row) for row in rows))
    if alike := [row for row in named if len(set(row)) != len(row)]:
        raise DataError(f"--clips: the query pairs clip {alike[0][0]} with itself")
    return _items(store, named)


def _items(store: Store, named: Sequence[tuple[str, ...]]) -> list[Item]:
    clips = read_clips(store, sorted({clip for row in named for clip in row}))
    found = {item.item_id: item for item in (Item(tuple(clips[clip] for clip in row)) for row in named)}
    if torn := [item for item in found.values() if len({clip.prompt for clip in item.clips}) > 1]:
        ids = " and ".join(clip.clip_id for clip in torn[0].clips)
        raise DataError(f"--clips: {ids} are of two prompts: compare clips of one")
    return list(found.values())


def read_clips(store: Store, ids: Sequence[str]) -> dict[str, Shown]:
    """Clips by their ids. Raises DataError: the store lacks one."""
    with connect(store) as views:
        found = {row[0]: Shown(*row) for row in views.execute(_CLIPS, {"ids": list(ids)}).fetchall()}
    if missing := [clip for clip in ids if clip not in found]:
        raise DataError(
            f"{store.url} has no clip {missing[0]!r} ({len(missing)} of {len(ids)} are missing): "
            "name the store that the clips are in with --store"
        )
    return found


def choose(
    items: Sequence[Item],
    asked: Sequence[Asked],
    laws: Mapping[str, Sequence[str]],
    count: int,
    golds: int,
    known: Mapping[str, Mapping[str, str]],
    seed: int,
) -> list[Item]:
    """`count` items, and `golds` more whose answers are known: those of smallest hash, so nobody picks.

    Args:
        items: to choose from.
        asked: the questions.
        laws: which laws concern a prompt, by the prompt's id.
        count: items without known answers; fewer where there are no more.
        golds: items with known answers.
        known: the answers that are known, by item and question.
        seed: of the hash.

    Raises:
        ConfigError: no item is left that any question is put to, or too few of known answers.
    """
    put = []
    for item in items:
        clip = item.clips[0]
        said = laws.get(prompt_id(clip.prompt), ())
        names = tuple(one.question.name for one in asked if one.concerns(clip.category, said))
        if names:
            put.append(replace(item, questions=names))
    if not put:
        raise ConfigError(
            "no question is put to any of these clips: ask others with --question, or, where questions are "
            "of laws, name the prompts file that says whom they concern with --laws"
        )
    put.sort(key=lambda item: digest([seed, item.item_id]))
    gold = [
        replace(item, gold={name: answer for name, answer in known[item.item_id].items()})
        for item in put
        if set(known.get(item.item_id, ())) & set(item.questions)
    ][:golds]
    if len(gold) < golds:
        raise ConfigError(
            f"--golds {golds}: the answer is known of {len(gold)} of these items only; ask for that many"
        )
    taken = {item.item_id for item in gold}
    return [*[item for item in put if item.item_id not in taken][:count], *gold]


def known_by_rater(store: Store, items: Sequence[Item], rater: str) -> dict[str, dict[str, str]]:
    """What a rater who is believed said of these items. Raises DataError: the store has no vote of his."""
    found: dict[str, dict[str, str]] = {}
    votes = [row for row in labels.every(store) if row.rater == rater and row.value is not None]
    if not votes:
        raise DataError(f"--gold-rater {rater}: {store.url} has no label of his: vidloop import labels FILE")
    first = {item.item_id: item.clips[0].clip_id for item in items}
    for row in votes:
        clips = [row.clip_id] + ([row.other_clip_id] if row.other_clip_id else [])
        item = digest(sorted(clips))[:16]
        if item in first:
            swapped = {"first": "second", "second": "first"} if row.clip_id != first[item] else {}
            found.setdefault(item, {})[row.question] = swapped.get(row.answer, row.answer)
    return found


def known_by_reward(
    store: Store, items: Sequence[Item], question: str, reward: str
) -> dict[str, dict[str, str]]:
    """What a reward that is believed says of these items, where it is sure: of a pair, that one is right and
    the other is not. Raises DataError: it scored none of the clips.
    """
    with connect(store) as views:
        values = dict(views.execute(_VALUES, {"reward": reward}).fetchall())
    if not values:
        raise DataError(
            f"--gold-reward: {store.url} has no score of {reward!r}; view scores names the rewards"
        )
    found = {}
    for item in items:
        sure = [_sure(values.get(clip.clip_id)) for clip in item.clips]
        if None in sure:
            continue
        if len(sure) == 1:
            found[item.item_id] = {question: "yes" if sure[0] else "no"}
        elif sure[0] != sure[1]:
            found[item.item_id] = {question: "first" if sure[0] else "second"}
    return found


def _sure(value: float | None) -> bool | None:
    if value is None or _SURE_NO < value < _SURE_YES:
        return None
    return value >= _SURE_YES
