"""Score: rewards over the stored files, shard by shard; every file is decoded once for all rewards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Final, cast

from data.errors import StageFailed
from data.keys import digest
from data.records import Clip, Score
from data.store import Damaged, Store
from rewards import (
    Judgement,
    LoadedClip,
    Part,
    PartedReward,
    PartScores,
    Reward,
    build_reward,
    reward_kind,
    reward_ref,
)
from rewards.composite import is_bounded, is_mixture, measured
from rewards.judge.judge import JudgeReward
from tasks import answers, cut_prompts, fingerprints, generate, imports, lookups, prompt_answers
from tasks.best_of import ChoiceShard
from tasks.context import (
    RESIDENTS,
    Generation,
    RewardRef,
    RoundContext,
    Sampled,
    gpu_turn,
    on_gpu,
    open_store,
)
from tasks.networks import report_network
from tasks.recent import Recent
from tasks.shard_clips import ShardClips
from tasks.stage_spec import Phase, StageSpec
from tasks.units import Inputs, Unit, are_there, each_once

STAGE = "score"
# Kind of resident: one server of the run's own at a time; the next judge's takes its place.
SERVER: Final = "judge's server"


@dataclass(frozen=True)
class ScoreShard(Unit):
    """All rewards of the clips of one generated shard: a manifest for each reward and each part of one.

    `clips` is their number, for whoever tells how fast it goes.
    """

    root: str
    clips_key: str
    clips_digest: str
    rewards: tuple[RewardRef, ...]
    label: str
    clips: int = 0
    task: ClassVar[str] = "score-shard"

    @property
    def questions(self) -> tuple[dict[str, Any], ...]:
        """Parts stand before the reward that combines them."""
        return tuple(fingerprints.score(one, self.clips_digest) for one in self._asked.values())

    def key_of(self, reward: RewardRef | Part) -> str:
        """Key of one reward's, or part's, manifest."""
        known = self._keys.get((reward.kind, reward.version))
        return known or digest(fingerprints.score(reward, self.clips_digest))

    @property
    def _asked(self) -> dict[tuple[str, str], RewardRef | Part]:
        """Each once: a composite's parts are rewards of their own, which may stand beside it."""
        asked: list[RewardRef | Part] = []
        for reward in self.rewards:
            asked += [*reward.parts, reward]
        return {(one.kind, one.version): one for one in asked}

    @cached_property
    def _keys(self) -> dict[tuple[str, str], str]:
        return dict(zip(self._asked, self.keys, strict=True))

    @property
    def clips_scored(self) -> int:
        return self.clips

    @property
    def spreads(self) -> bool:
        """A judge's server belongs to one process and serves all of its threads."""
        return not any(reward.parts for reward in self.rewards)

    def run(self) -> None:
        """Decode the clips, and commit what each reward that is missing says of them.

        Raises JudgeDown: a judge answers nobody any more; what it said until then is kept.
        """
        store = open_store(self.root)
        clips = ShardClips(store, self.clips_key)
        for reward in self.rewards:
            if store.verify(self.key_of(reward), "size") is None:
                continue
            if reward.parts:
                judged = self._in_parts(store, reward, clips)
            else:
                judged = self._judge(reward, clips.loaded) | clips.undecodable
            self._commit(store, reward, clips.rows, judged)

    def _judge(self, reward: RewardRef, clips: Sequence[LoadedClip]) -> dict[str, Judgement]:
        if not clips:
            return {}
        with _turn(reward), lent(reward) as judge:
            _tell_network(reward, judge)
            judgements = judge.score(clips)
        return {clip.clip_id: judgement for clip, judgement in zip(clips, judgements, strict=True)}

    def _in_parts(self, store: Store, reward: RewardRef, clips: ShardClips) -> dict[str, Judgement]:
        """Judgements of the whole from those of its parts, of which only the missing ones are asked for."""
        known: dict[str, dict[str, Judgement]] = {}
        wanted: dict[str, list[LoadedClip]] = {}
        missing: list[Part] = []
        for part in reward.parts:
            key = self.key_of(part)
            if store.verify(key, "size") is None:
                known[part.name] = answers.read(store, key)
                continue
            missing.append(part)
            before = known[part.name] = answers.kept(store, part, self.clips_digest)
            wanted[part.name] = [
                clip for clip in clips.loaded if part.applies(clip.category) and clip.clip_id not in before
            ]
        scored = PartScores({})
        if any(wanted.values()):
            with _turn(reward), lent(reward) as judge:
                parted = cast(PartedReward, judge)
                prompt_answers.settle(store, parted, (clip for some in wanted.values() for clip in some))
                scored = parted.score_parts(wanted)
                if scored.down is None:
                    _tell_network(reward, parted)
        for name, judgements in scored.judgements.items():
            known[name] |= judgements
        if scored.down is not None:
            for part in missing:
                answers.keep(store, part, self.clips_digest, self.clips_key, known[part.name])
            raise JudgeDown(f"reward {reward.name}: {scored.down}")
        for part in missing:
            known[part.name] |= clips.undecodable
            asked = [row for row in clips.rows if part.applies(row.category)]
            self._commit(store, part, asked, known[part.name])
            answers.forget(store, part, self.clips_digest)
        combine = reward_kind(reward.kind).combine
        assert combine is not None, f"reward {reward.name} has no parts"
        return {
            row.clip_id: combine(
                reward.settings,
                row.category,
                {name: judged[row.clip_id] for name, judged in known.items() if row.clip_id in judged},
            )
            for row in clips.rows
        }

    def _commit(
        self,
        store: Store,
        reward: RewardRef | Part,
        clips: Sequence[Clip],
        judged: Mapping[str, Judgement],
    ) -> None:
        rows = [answers.score_row(clip.clip_id, reward, judged[clip.clip_id]) for clip in clips]
        counts = {"clips": len(rows), "failed": sum(row.status == "failed" for row in rows)}
        again = sum(judged[clip.clip_id].again for clip in clips)
        if again:
            counts["again"] = again
        question = fingerprints.score(reward, self.clips_digest)
        store.commit(STAGE, question, {"scores": rows}, parents=[self.clips_key], info=counts)


def serves(reward: RewardRef) -> bool:
    """Whether the reward starts a server of the run's own."""
    return reward_kind(reward.kind).serves(reward.settings)


def _turn(reward: RewardRef) -> AbstractContextManager[None]:
    """This thread's turn on the GPU; a reward that runs no network in this process waits for nobody."""
    return gpu_turn(reward_kind(reward.kind).device(reward.settings))


def _tell_network(reward: RewardRef, built: Reward) -> None:
    line = reward_kind(reward.kind).network_told(built, reward.settings)
    if line is not None:
        report_network(f"reward {reward.name}", line)


@contextmanager
def lent(reward: RewardRef) -> Iterator[Reward]:
    """The reward, ready to score; it stays loaded for the next borrower."""
    name = (reward.kind, reward.settings)

    def load() -> Reward:
        return build_reward(reward.kind, reward.settings)

    kind = SERVER if serves(reward) else f"reward {reward.name}"
    if reward.parts:
        if on_gpu():
            # A judge's server asks for its share of the GPU's memory at once: the sampler makes room.
            RESIDENTS.give_up("sampler")
        # One for all threads: a server, or a large model, is not had twice.
        borrowed = RESIDENTS.borrow(
            kind, name, load, fork=lambda first: first, close=lambda first: cast(PartedReward, first).close()
        )
    else:
        borrowed = RESIDENTS.borrow(kind, name, load)
    with borrowed as judge:
        assert judge.version == reward.version, f"{reward.name}: {judge.version} is not {reward.version}"
        yield judge


def in_turns(units: Sequence[ScoreShard], *, more: bool) -> Iterator[Phase]:
    """`units`, whose rewards are the same, as phases; `more`: others follow.

    A judge's server is ended when another judge's is to start, so all clips are judged by the one before the
    first is by the other. Each manifest is one reward's, so it does not matter which list it is of.
    """
    rewards = units[0].rewards if units else ()
    later = [reward for reward in rewards if serves(reward)][1:]
    if not later:
        yield Phase(units, more=more)
        return
    mixed = [reward for reward in rewards if is_mixture(reward)]  # once all that they mix is there
    first = [reward for reward in rewards if reward not in (*later, *mixed)]
    turns = [some for some in (first, *([reward] for reward in later), mixed) if some]
    for place, some in enumerate(turns, 1):
        yield Phase([replace(unit, rewards=tuple(some)) for unit in units], more=more or place < len(turns))


@contextmanager
def beside_generation(context: RoundContext) -> Iterator[None]:
    """Around the generate stage of a round: what it prepares is found by the score stage.

    That is the judge's server, for which scoring then need not wait; only one on the CPU: on a GPU,
    generation has the memory (`rewards.judge.served`). Nothing starts if all clips are there: whether all are
    judged, too, the score stage finds out. If the stage ends in an error, the server ends with it. Raises
    ConfigError: there is no environment with vLLM.
    """
    first = next((reward for reward in (*context.choosers, *context.rewards) if serves(reward)), None)
    if first is None or all(are_there(context.store, generate.units(context))):
        yield
        return
    try:
        with lent(first) as judge:
            if isinstance(judge, JudgeReward):
                judge.prepare()
        yield
    except BaseException:
        RESIDENTS.give_up(SERVER)
        raise


class JudgeDown(ConnectionError):
    """A judge that answers nobody: it may be back a moment later, and so the unit is tried again."""


def shards(
    store: Store, generated: Sequence[generate.GenerateShard], rewards: tuple[RewardRef, ...]
) -> list[ScoreShard]:
    """A unit for every generated shard. Raises StageFailed if one of them is not in the store."""
    clips = Inputs.of(store, STAGE, [shard.key for shard in generated])

    def make() -> list[ScoreShard]:
        return [
            ScoreShard(shard.how.root, shard.key, clips_digest, rewards, shard.label, len(shard.jobs))
            for shard, clips_digest in zip(generated, clips.digests, strict=True)
        ]

    return list(_made.get(generated, (clips.digests, rewards), make))


def imported(
    store: Store, shards: Sequence[imports.HeldShard], rewards: tuple[RewardRef, ...]
) -> list[ScoreShard]:
    """The same of clips from outside."""
    clips = Inputs.of(store, STAGE, [one.shard.key for one in shards])
    return [
        ScoreShard(one.root, one.shard.key, clips_digest, rewards, one.label, one.shard.clips)
        for one, clips_digest in zip(shards, clips.digests, strict=True)
    ]


# As those of `tasks.generate`.
_made: Final[Recent[list[ScoreShard]]] = Recent(16)


def clips_of(scored: Iterable[ScoreShard]) -> Inputs:
    """The clips that units score."""
    shards = list(scored)
    return Inputs(tuple(one.clips_key for one in shards), tuple(one.clips_digest for one in shards))


def judging(store: Store, how: Generation, sampled: Sequence[Sampled]) -> list[ScoreShard]:
    """What best-of-N policies choose by: scores of all candidates. Raises StageFailed: a clip is missing."""
    found: list[ScoreShard] = []
    for one in sampled:
        if one.best_of is not None:
            for some in generate.candidates(how, one):
                found += shards(store, some, (one.best_of.by,))
    return each_once(found)


def choices(store: Store, how: Generation, sampled: Sampled, what: str = "clips") -> list[ChoiceShard]:
    """Which candidates of a best-of-N policy are kept, a unit for each batch of jobs.

    Raises StageFailed: a candidate, or the choosing reward's score of one, is missing.
    """
    best_of = sampled.best_of
    assert best_of is not None
    judged = [shards(store, some, (best_of.by,)) for some in generate.candidates(how, sampled, what)]
    found = []
    for turn in zip(*judged, strict=True):  # the same jobs, candidate by candidate
        scores = Inputs.of(store, STAGE, [shard.key_of(best_of.by) for shard in turn])
        label = f"best of {best_of.n} by {best_of.by.name}: {turn[0].label}"
        found.append(
            ChoiceShard(how.root, sampled.policy_id, best_of, clips_of(turn), scores, turn[0].clips, label)
        )
    return found


def of(
    store: Store, how: Generation, sampled: Sampled, rewards: tuple[RewardRef, ...], what: str = "clips"
) -> list[ScoreShard]:
    """The scores of some clips; of a best-of-N policy only of those it keeps. Raises StageFailed."""
    if sampled.best_of is None:
        return shards(store, generate.shards(how, sampled.policy, sampled.jobs, what), rewards)
    chosen = choices(store, how, sampled, what)
    kept = Inputs.of(store, STAGE, [one.key for one in chosen])
    return [
        ScoreShard(how.root, one.key, kept_digest, rewards, one.label, one.jobs)
        for one, kept_digest in zip(chosen, kept.digests, strict=True)
    ]


def units(context: RoundContext, rewards: Sequence[RewardRef] | None = None) -> list[ScoreShard]:
    """The scores of the round's training clips, by `rewards` or by all that name their values already."""
    if rewards is None:
        rewards = [reward for reward in context.rewards if is_bounded(reward)]
    made = [
        unit
        for sampled in context.training
        for unit in of(context.store, context.generation, sampled, tuple(rewards))
    ]
    return [*made, *imported(context.store, imports.held(context), tuple(rewards))]


def choose(context: RoundContext, sampled: Sequence[Sampled]) -> Iterator[Phase]:
    """What must be done before the clips of best-of-N policies are known; nothing where there is none.

    Raises StageFailed: a choosing reward failed on more clips than the recipe allows.
    """
    store, how = context.store, context.generation
    chosen = [one for one in sampled if one.best_of is not None]
    for by in dict.fromkeys(unit.rewards[0].name for unit in judging(store, how, chosen)):
        asked = [unit for unit in judging(store, how, chosen) if unit.rewards[0].name == by]
        yield Phase(asked, more=True)
        check_failures(store, STAGE, asked, context.max_failed_share)
    if chosen:
        yield Phase(each_once([unit for one in chosen for unit in choices(store, how, one)]), more=True)


def phases(context: RoundContext) -> Iterator[Phase]:
    """Every training clip, by every reward; then by mixtures whose bounds these values give.

    Of a best-of-N policy first what chooses among the candidates, and the choice.

    Raises StageFailed: a reward failed on more clips than the recipe allows; what was judged is kept.
    """
    yield from choose(context, context.training)
    asked = units(context)
    yield from in_turns(asked, more=not all(map(is_bounded, context.rewards)))
    check_failures(context.store, STAGE, asked, context.max_failed_share)
    mixtures = [measure(context, reward) for reward in context.rewards if not is_bounded(reward)]
    if mixtures:
        mixed = units(context, mixtures)
        yield Phase(mixed)
        check_failures(context.store, STAGE, mixed, context.max_failed_share)


def prepare(context: RoundContext, units: Sequence[Unit]) -> None:
    """Before units are looked up in the store: `release_unanswered` of those that score."""
    scored = [unit for unit in units if isinstance(unit, ScoreShard)]
    release_unanswered(context.store, scored, context.max_failed_share)


def measure(context: RoundContext, reward: RewardRef) -> RewardRef:
    """`reward` itself; or, for a mixture with open bounds, the one with those of the training clips.

    Raises StageFailed: a component's scores are not in the store.
    """
    if is_bounded(reward):
        return reward
    scored = units(context)
    values: dict[str, list[float | None]] = {}
    for part in reward.parts:
        keys = Inputs.of(context.store, STAGE, [shard.key_of(part) for shard in scored]).keys
        rows = context.store.batches(keys, "scores", ["value"])
        values[part.name] = [value for some in rows for value in some["value"].to_pylist()]
    return reward_ref(reward.name, reward.kind, measured(reward.settings, values))


def named(context: RoundContext) -> dict[str, RewardRef]:
    """Every reward of the round by the recipe's name, under the version that its scores have."""
    others = (*context.evaluate.measures, *context.choosers, *context.evaluate.choosers)
    asked = {one.name: one for one in (*context.rewards, context.feedback, *others)}
    found = {}
    for name, reward in sorted(asked.items()):
        # A mixture whose components were not scored has no version yet, and no scores.
        with suppress(StageFailed):
            found[name] = measure(context, reward)
    return found


def check_failures(store: Store, stage: str, scored: Sequence[ScoreShard], allowed: float) -> None:
    """Raise StageFailed if a reward failed on a larger share of its clips than `allowed`."""
    for reward, failed, clips in _over(store, scored, allowed):
        keys = [shard.key_of(reward) for shard in scored]
        rows: list[Score] = [row for key in keys for row in store.read(key, "scores")]
        first = next(row for row in rows if row.status == "failed")
        raise StageFailed(
            stage,
            f"stage {stage}: reward {reward.name} failed on {failed} of {clips} clips, more than "
            f"score.max_failed_share allows ({allowed:.0%}). First: clip {first.clip_id}: {first.error}. "
            "What was judged is kept",
        )


def release_unanswered(store: Store, scored: Sequence[ScoreShard], allowed: float) -> None:
    """Let the clips that a judge did not answer be asked about again, where there are too many to go on.

    A round that can live with its failures keeps them, so that it is the same when it is repeated. One that
    cannot must not find them answered the next time: what was answered is set aside, the rest is forgotten.
    """
    failing = [reward for reward, _, _ in _over(store, scored, allowed)]
    # A mixture has no answers of its own: its components are asked again, and then it is combined again.
    over = {part.name for reward in failing if is_mixture(reward) for part in reward.parts}
    over |= {reward.name for reward in failing}
    mixed = [reward for reward in scored[0].rewards if is_mixture(reward)] if scored else []
    for shard in scored:
        for reward in shard.rewards:
            if reward in mixed or reward.name not in over:
                continue
            parts = zip(reward.parts, _infos(store, map(shard.key_of, reward.parts)), strict=True)
            again = [part for part, info in parts if "again" in (info or {})]
            for part in again:
                key = shard.key_of(part)
                with suppress(Damaged):  # else everything is asked again
                    answers.keep(store, part, shard.clips_digest, shard.clips_key, answers.read(store, key))
                lookups.discard(store, key)
            if again:
                lookups.discard(store, shard.key_of(reward))
        for reward in mixed:
            if None in _infos(store, map(shard.key_of, reward.parts)):
                lookups.discard(store, shard.key_of(reward))


def _over(store: Store, scored: Sequence[ScoreShard], allowed: float) -> Iterator[tuple[RewardRef, int, int]]:
    """Rewards that failed on more of their clips than `allowed`: (reward, clips it failed on, clips in all).

    Counted are the shards that are in the store; a damaged one is not, and is judged anew.
    """
    for reward in scored[0].rewards if scored else ():
        infos = _infos(store, (shard.key_of(reward) for shard in scored))
        counts = [info for info in infos if info is not None]
        failed, clips = (sum(count[name] for count in counts) for name in ("failed", "clips"))
        if failed > allowed * clips:
            yield reward, failed, clips


def _infos(store: Store, keys: Iterable[str]) -> list[dict[str, Any] | None]:
    """What units say of their work; None of one that is not in the store, or whose manifest is damaged."""
    return [None if one is None else one.info for one in lookups.known(store, list(keys))]


SPEC: Final = StageSpec(
    name=STAGE,
    flow="score-with-rewards",
    version=fingerprints.VERSIONS[STAGE],
    title="what the rewards say of them",
    does="Have what every reward says of the training clips in the store.",
    phases=phases,
    form=("score.rewards", "score.max_failed_share", "judge.backend", "judge.url"),
    prepare=prepare,
    rewards=lambda context: (*context.choosers, *context.rewards, context.feedback),
    early_start=beside_generation,
    warnings=cut_prompts.in_scores,
)
