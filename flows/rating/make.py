"""A session, made from what a command asks for, or found again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.errors import ConfigError, DataError, StoreError
from data.prompts import load_laws
from data.store import Store
from flows.rating import database, items, session
from flows.rating.database import Database
from flows.rating.questions import read_questions


@dataclass(frozen=True)
class Wish:
    """What a session is to be; see the options of `vidloop rate` for the words.

    Attributes:
        round: whose before and after; None: the newest, unless `clips`.
        clips: SQL instead of a round.
        questions: as `questions.read_questions`.
        count: items without known answers.
        raters: their names.
        votes: that each item wants; 0: one of each rater.
        repeats: share of items shown again.
        golds: items with known answers.
        gold_rater, gold_reward: who knows them: a rater, or QUESTION=REWARD.
        laws: prompts files that say which laws concern a prompt.
        seed: of every draw.
    """

    raters: Sequence[str]
    round: str | None = None
    clips: str = ""
    questions: Sequence[str] = ()
    count: int = 100
    votes: int = 0
    repeats: float = 0.1
    golds: int = 0
    gold_rater: str = ""
    gold_reward: str = ""
    laws: Sequence[str] = ()
    seed: int = 0


def make(store: Store, folder: Path, wish: Wish) -> tuple[Database, dict[str, str]]:
    """The session that a wish describes: made now, or the one that was made of the same wish.

    Returns:
        The session, and each rater's token; no tokens where it was there: only their digests are kept.

    Raises:
        ConfigError: the wish cannot be fulfilled; the message says which part.
        DataError, StoreError: as `items`.
    """
    if wish.clips and wish.round:
        raise ConfigError("--round and --clips: say one of them")
    pool = items.clips_of_query(store, wish.clips) if wish.clips else items.pairs_of_round(store, wish.round)
    if not pool:
        raise ConfigError(
            "there is nothing to rate: the clips that were named are none, or all pairs are alike"
        )
    asked = read_questions(wish.questions, len(pool[0].clips) == 2)
    laws = {prompt: said for file in wish.laws for prompt, said in load_laws(file).items()}
    known: dict[str, dict[str, str]] = {}
    if wish.gold_rater:
        known = items.known_by_rater(store, pool, wish.gold_rater)
    if wish.gold_reward:
        question, given, reward = wish.gold_reward.partition("=")
        if not given or question not in [one.question.name for one in asked]:
            raise ConfigError(
                f"--gold-reward {wish.gold_reward}: say QUESTION=REWARD, of a question that is asked"
            )
        known = {**items.known_by_reward(store, pool, question, reward), **known}
    chosen = items.choose(pool, asked, laws, wish.count, wish.golds, known, wish.seed)
    plan = session.plan_of(
        store.url, chosen, [one.question for one in asked], wish.raters, wish.votes or len(wish.raters),
        wish.repeats, wish.seed,
    )  # fmt: skip
    if plan.session in database.sessions(folder):
        return database.open_session(folder, plan.session), {}
    tokens = {rater: session.new_token() for rater in wish.raters}
    digests = {rater: session.token_digest(token) for rater, token in tokens.items()}
    return database.create(folder, plan, chosen, digests), tokens


def check_store(found: Database, store: Store) -> None:
    """Raise StoreError unless a store holds all clips of a session, as they were when it was made."""
    clips = {clip.clip_id: clip for item in found.items.values() for clip in item.clips}
    refused = f"session {found.plan.session} is of the store {found.plan.store}, and not of {store.url}"
    try:
        held = items.read_clips(store, sorted(clips))
    except DataError as error:
        raise StoreError(f"{refused}: {error}") from None
    if other := [name for name, clip in clips.items() if held[name].video_sha256 != clip.video_sha256]:
        raise StoreError(f"{refused}: clip {other[0]} has another video there")
