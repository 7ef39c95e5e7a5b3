"""Calibrate: a judge against labels, and what it says of clips that were tampered with.

Its scores come from the score stage (so they are in the store afterwards, and a round uses them); the
tampered clips are judged here and thrown away. What was found is written beside the rounds, under the judge's
version and the labels: a round looks there before it believes its judge. Of several, the one of most clips
speaks.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import FiniteFloat, TypeAdapter

from data.errors import ConfigError, DataError
from data.json_text import parse_json
from data.keys import digest
from data.parquet_files import read_columns
from data.records import Clip
from data.resources import shipped
from data.store import Damaged, Store
from data.video import VideoSettings, decode_mp4, encode_mp4
from rewards import LoadedClip, Part, reward_kind
from rewards.calibration import Bin, Count, Figures, Share, figures, reliability
from rewards.composite import is_mixture
from rewards.few_labels import Estimate, Judged
from rewards.few_labels import rate as estimate
from rewards.judge.settings import NAME as JUDGE
from tasks import answers, generate, imports, score
from tasks.context import RewardRef, RoundContext
from tasks.label_draws import draw_labels, drawn
from tasks.score import lent
from tasks.shard_clips import ShardClips
from tasks.units import Runner, only_whole

# Of the clips that it should pass it passes this share or more even when frozen: it does not look for motion.
STILL: Final = 0.5
FROZEN: Final = "frozen frame"
_FOLDER: Final = "calibrations"
HARMLESS: Final = ("compression",)
FEW: Final = 20  # clips below which a control says nothing
# Half of the 95% interval of the accuracy, above which a calibration says too little of its judge.
_VAGUE: Final = 0.1


@dataclass(frozen=True)
class Control:
    """What became of good clips when they were tampered with.

    Attributes:
        n: clips that were judged both ways.
        intact: share of them that passed as they are.
        tampered: share that passed tampered with.
    """

    n: Count
    intact: Share | None
    tampered: Share | None


@dataclass(frozen=True)
class Calibration:
    """What was found of one judge. `bins` are empty where values are no probabilities.

    `labels` is the labels' name, `labels_id` their content: 8 hex digits. `rate` is the share of all judged
    clips that would have label 1, where only some have a label (`rewards.few_labels`).
    """

    reward: str
    kind: str
    version: str
    labels: str
    threshold: FiniteFloat
    overall: Figures
    categories: dict[str, Figures]
    bins: list[Bin]
    controls: dict[str, Control]
    labels_id: str = ""
    rate: Estimate | None = None

    @property
    def still(self) -> bool:
        """Whether the judge passes frozen clips nearly as it passes moving ones."""
        frozen = self.controls.get(FROZEN)
        if frozen is None or frozen.n < FEW or not frozen.intact or frozen.tampered is None:
            return False
        return frozen.tampered >= STILL * frozen.intact


_JSON: Final = TypeAdapter(Calibration)


@dataclass(frozen=True)
class Compared:
    """What a reward said of clips, and what they are.

    Attributes:
        reward: that was asked.
        units: of the scores.
        clips: rows by clip id.
        values: the reward's by clip id, None where it failed.
        labels: name of what says the truth.
        truth: the label of each clip that has one.
        content: all that decides `truth`, as plain JSON.
    """

    reward: RewardRef
    units: Sequence[score.ScoreShard]
    clips: Mapping[str, Clip]
    values: Mapping[str, float | None]
    labels: str
    truth: Mapping[str, bool]
    content: object


def compare(
    context: RoundContext,
    reward: RewardRef,
    labels: tuple[str, Mapping[str, bool]] | RewardRef,
    runner: Runner,
) -> Compared:
    """Score the recipe's training clips that are in the store. Arguments and errors are as of `calibrate`."""
    store = context.store
    shards = only_whole(store, generate.units(context))
    outside = only_whole(store, imports.held(context))
    if not (shards or outside):
        raise DataError(f"{store.url} holds no clips of this recipe: run `vidloop generate` first")
    names = {part.name for part in reward.parts}
    components = tuple(one for one in context.rewards if is_mixture(reward) and one.name in names)
    asked = (*components, reward, *((labels,) if isinstance(labels, RewardRef) else ()))
    units = [*score.shards(store, shards, asked), *score.imported(store, outside, asked)]
    runner(store, score.STAGE, units)
    clips = {row.clip_id: row for unit in units for row in store.read(unit.clips_key, "clips")}
    values = _said(store, units, reward)
    if not isinstance(labels, RewardRef):
        name, truth = labels
        return Compared(reward, units, clips, values, name, truth, sorted(truth.items()))
    known = _said(store, units, labels)
    sure = {clip: value >= 0.5 for clip, value in known.items() if value is not None}
    return Compared(reward, units, clips, values, labels.name, sure, labels.version)


def _said(store: Store, units: Sequence[score.ScoreShard], by: RewardRef) -> dict[str, float | None]:
    """The values of a reward by clip id."""
    judged = (answers.read(store, unit.key_of(by)) for unit in units)
    return {clip: judgement.value for some in judged for clip, judgement in some.items()}


def calibrate(
    context: RoundContext,
    reward: RewardRef,
    labels: tuple[str, Mapping[str, bool]] | RewardRef,
    threshold: float | None,
    controls: int,
    runner: Runner,
) -> Calibration:
    """Score the recipe's training clips that are in the store, and compare.

    Args:
        context: an opened round; its store has clips already.
        reward: the judge.
        labels: their name and the label of each clip by id; or a reward that is 1 or 0, the oracle.
        threshold: value that passes; None: the one at which as many pass as have label 1.
        controls: at most so many clips are tampered with; 0: none, nor of a reward that sees no frames.
        runner: works through the score units.

    Raises:
        DataError: no clips, no labels of these clips, or nothing was judged.
        StageFailed: the judge could not be asked.
    """
    store, reward = context.store, score.measure(context, reward)
    found = compare(context, reward, labels, runner)
    clips, values, truth = found.clips, found.values, found.truth
    known = [clip for clip in clips if clip in truth and clip in values]
    judged = [clip for clip in known if values[clip] is not None]
    if not judged:
        raise DataError(f"none of the {len(clips)} clips of this recipe has both a label and a value")
    value = np.array([values[clip] for clip in judged], np.float64)
    label = np.array([truth[clip] for clip in judged], np.bool_)
    if threshold is None:
        threshold = float(np.quantile(value, 1 - label.mean()))
    probability = reward_kind(reward.kind).is_probability(reward.settings)

    def of(some: Sequence[str]) -> Figures:
        return figures([values[c] for c in some], [truth[c] for c in some], threshold, probability)

    return Calibration(
        reward=reward.name,
        kind=reward.kind,
        version=reward.version,
        labels=found.labels,
        labels_id=digest(found.content)[:8],
        threshold=threshold,
        overall=of(known),
        categories={
            category: of([clip for clip in known if clips[clip].category == category])
            for category in sorted({clips[clip].category for clip in known})
        },
        bins=reliability(value, label) if probability else [],
        controls=_controls(store, found.units, reward, [c for c in judged if truth[c]], threshold, controls)
        if reward_kind(reward.kind).held is None
        else {},
        rate=_rate(store, found),
    )


def draw_next(
    context: RoundContext,
    reward: RewardRef,
    labels: tuple[str, Mapping[str, bool]] | RewardRef,
    runner: Runner,
    budget: int,
) -> tuple[list[str], str]:
    """Draw clips to label next, see `tasks.label_draws.draw_labels`; further arguments are of `calibrate`.

    Raises:
        ConfigError: the reward's values are no probabilities, so nobody knows which clips it is unsure of.
        DataError: as `calibrate`, or there are not so many clips.
        StageFailed: the judge could not be asked.
    """
    if not reward_kind(reward.kind).is_probability(reward.settings):
        raise ConfigError(f"--draw is of a reward that says how sure it is, and {reward.name} does not")
    found = compare(context, reward, labels, runner)
    known = {clip: value for clip, value in found.values.items() if value is not None}
    return draw_labels(context.store, known, budget)


def _rate(store: Store, found: Compared) -> Estimate | None:
    """The share of all judged clips with label 1; None: all have a label.

    Where clips were drawn to be labelled, the labels of others do not count: they had no known chance.
    """
    before = drawn(store)
    clips = sorted(clip for clip, value in found.values.items() if value is not None and clip in found.clips)
    if before.chances:
        clips = [clip for clip in clips if clip in before.chances]
    counts = found.truth.keys() & (before.clips if before.chances else found.truth.keys())
    if counts >= set(clips):
        return None
    return estimate(
        Judged(
            np.array([found.values[clip] for clip in clips], np.float64),
            np.array([found.truth[clip] if clip in counts else np.nan for clip in clips], np.float64),
            [found.clips[clip].prompt_id for clip in clips],
            np.array([before.chances[clip] for clip in clips]) if before.chances else None,
        )
    )


def write(store: Store, found: Calibration) -> str:
    """Keep what was found, in the place of what the same labels said of the same judge before.

    Returns:
        Its path below the store's root.
    """
    text = json.dumps(dataclasses.asdict(found) | {"still": found.still}, indent=1, sort_keys=True) + "\n"
    name = f"{found.kind}-{found.version}-{found.labels_id}.json"
    store.write_file(f"{_FOLDER}/{name}", text.encode())
    return f"{_FOLDER}/{name}"


def read(store: Store, kind: str, version: str) -> tuple[Calibration, Path] | None:
    """What was found of a judge, and in which file, in this store or with a package; or None.

    Of several labels' those of most clips speak.
    Raises Damaged: a file is.
    """
    name = f"{kind}-{version}"
    paths = [store.local(one) for one in store.find(f"{_FOLDER}/{name}*.json")]
    paths += [path for one, path in sorted(shipped("calibrations").items()) if one.startswith(name)]
    found = ((_load(store, path, kind), path) for path in paths)
    return max(found, key=lambda one: one[0].overall.n, default=None)


def parsed(content: bytes, kind: str = JUDGE) -> Calibration:
    """A calibration as `write` wrote it; `kind`: of the reward, which older files do not say.

    Raises ValueError: it is none, or has figures that cannot be.
    """
    said = parse_json(content)
    if not isinstance(said, dict):
        raise ValueError("it is no object of JSON")
    return _JSON.validate_python({"kind": kind} | said)


def _load(store: Store, path: Path, kind: str) -> Calibration:
    try:
        return parsed(path.read_bytes(), kind)
    except (OSError, ValueError) as error:
        told = " ".join(str(error).split())
        remedy = f"`{store.heal_command}` sets it aside; then `vidloop calibrate`"
        raise Damaged(f"cannot read the calibration {path} ({told})", remedy) from error


def vague(found: Calibration) -> str | None:
    """Why a calibration says little of its judge; None: it says enough."""
    from scipy.stats import binomtest

    n, accuracy = found.overall.n, found.overall.accuracy
    if accuracy is None:
        return f"no clip with a label of {found.labels} was judged"
    if found.overall.positives in (0, 1):
        return f"all {n} labels of {found.labels} are alike"
    right = binomtest(round(accuracy * n), n).proportion_ci(method="wilson")
    if right.high - right.low > 2 * _VAGUE:
        return (
            f"{n} clips with labels of {found.labels}: it is right on {right.low:.0%} to {right.high:.0%} of "
            "clips (95% interval)"
        )
    return None


def warnings(context: RoundContext) -> list[str]:
    """What a round should know of a judge that it learns from; nothing for rewards that are no judges."""
    lines = []
    for judge in judges(context.feedback):
        known = read(context.store, judge.kind, judge.version)
        if known is None:
            lines.append(
                f"the {judge.name} that teaches was not calibrated: nobody knows how often it is right. "
                "`vidloop calibrate` with the same recipe and store tells"
            )
            continue
        found, path = known
        if why := vague(found):
            lines.append(
                f"the {judge.name} that teaches was hardly calibrated: {why}. `vidloop calibrate` with more "
                f"labels tells more ({path})"
            )
        if found.still:
            lines.append(
                f"the {judge.name} that teaches passes frozen clips: it may reward stillness ({path})"
            )
    return lines


def judges(reward: RewardRef) -> list[RewardRef | Part]:
    """The judges behind a reward: itself, those that it mixes, or none."""
    if is_mixture(reward):
        return [part for part in reward.parts if part.kind == JUDGE]
    return [reward] if reward.parts else []


def read_labels(path: Path) -> tuple[str, dict[str, bool]]:
    """Labels from a CSV or Parquet file with columns `clip_id` and `label` (0 or 1, false or true).

    Raises DataError: the file cannot be read, lacks a column, names a clip twice, or has another label.
    """
    columns = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    names = [name for name, _ in columns]
    for name in ("clip_id", "label"):
        if names.count(name) != 1:
            several = f"{names.count(name)} columns" if name in names else "no column"
            raise DataError(f"labels {path}: {several} {name}; it needs clip_id and label")
    clips, labels = (values for name in ("clip_id", "label") for given, values in columns if given == name)
    found: dict[str, bool] = {}
    for clip, label in zip(clips, labels, strict=True):
        if not isinstance(clip, str):
            raise DataError(f"labels {path}: the clip {clip!r} is no text")
        if label not in (0, 1):
            raise DataError(f"labels {path}: clip {clip} has label {label!r}, must be 0 or 1")
        if clip in found:
            raise DataError(f"labels {path}: clip {clip} is named twice")
        found[clip] = bool(label)
    return path.name, found


def _parquet(path: Path) -> list[tuple[str, list[Any]]]:
    return read_columns(path, lambda name: name in ("clip_id", "label"))


def _csv(path: Path) -> list[tuple[str, list[Any]]]:
    import pyarrow as pa
    import pyarrow.csv as csv

    as_written = csv.ConvertOptions(column_types={"clip_id": pa.string()})
    try:
        table = csv.read_csv(path, convert_options=as_written)
        return [
            (name, column.to_pylist()) for name, column in zip(table.column_names, table.columns, strict=True)
        ]
    # Beside Arrow's own: names that are not UTF-8, times that there are not.
    except (pa.ArrowException, ArithmeticError, LookupError, OSError, ValueError) as error:
        raise DataError(f"labels {path}: {error}") from None


Tamper = Callable[[LoadedClip, np.random.Generator, Sequence[LoadedClip]], LoadedClip]


def _misnamed(clip: LoadedClip, rng: np.random.Generator, others: Sequence[LoadedClip]) -> LoadedClip:
    """Another clip's prompt; asked as a clip of its own category, whose questions it gets."""
    wrong = [other for other in others if other.prompt != clip.prompt] or [clip]
    return replace(clip, prompt=wrong[int(rng.integers(len(wrong)))].prompt)


def _compressed(clip: LoadedClip) -> LoadedClip:
    """As videos on the web are: a constant rate factor of 33, half the colour resolution."""
    height, width = (side - side % 2 for side in clip.frames.shape[1:3])
    settings = VideoSettings(crf=33, pix_fmt="yuv420p")
    frames, _ = decode_mp4(encode_mp4(clip.frames[:, :height, :width], clip.fps or 8.0, settings))
    return replace(clip, frames=frames)


# A judge should hardly pass these, and should not mind what is in `HARMLESS`.
_TAMPERING: Final[Mapping[str, Tamper]] = {
    FROZEN: lambda clip, rng, others: _showing(clip, [len(clip.frames) // 2] * len(clip.frames)),
    "shuffled frames": lambda clip, rng, others: _showing(clip, rng.permutation(len(clip.frames))),
    "reversed motion": lambda clip, rng, others: _showing(clip, range(len(clip.frames))[::-1]),
    "wrong caption": _misnamed,
    "compression": lambda clip, rng, others: _compressed(clip),
}


def _showing(clip: LoadedClip, places: Sequence[int] | np.ndarray) -> LoadedClip:
    return replace(clip, frames=clip.frames[list(places)])


def _controls(
    store: Store,
    units: Sequence[score.ScoreShard],
    reward: RewardRef,
    good: Sequence[str],
    threshold: float,
    most: int,
) -> dict[str, Control]:
    chosen = set(sorted(good, key=lambda clip: digest(["control", clip]))[:most])
    if not chosen:
        return {}
    loaded = [
        clip for unit in units for clip in ShardClips(store, unit.clips_key).loaded if clip.clip_id in chosen
    ]
    found = {}
    with lent(reward) as judge:
        intact = [one.value for one in judge.score(loaded)]
        for name, tamper in _TAMPERING.items():
            rng = np.random.default_rng(0)
            judged = judge.score([tamper(clip, rng, loaded) for clip in loaded])
            pairs = [
                (before >= threshold, after.value >= threshold)
                for before, after in zip(intact, judged, strict=True)
                if before is not None and after.value is not None
            ]
            shares = (float(np.mean(side)) for side in zip(*pairs, strict=True)) if pairs else (None, None)
            found[name] = Control(len(pairs), *shares)
    return found
