"""People as a reward: what several raters said of a clip, as one value from 0 to 1.

    yes or no, grades   the mean of the answer over the raters' agreement, from the question's least (0) to
                        its highest (1)
    pairs               the mean over the clip's pairs of (1 + margin) / 2; `detail.compared` has each pair's
                        margin, P(this one is better) - P(the other is), and curation takes pairs from there

Agreement is the majority's shares, or the posterior of Dawid and Skene (1979, Applied Statistics 28(1)), who
weigh each rater by a matrix of errors that is estimated from all votes; by crowd-kit. Of what a rater was
asked again the first answer counts, and skipped is not answered. A clip of which too few raters said anything
has no value.

Values lie in the store, so a version is of labels: new votes make a new one, and earlier scores stay.
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from data import labels
from data.errors import ConfigError
from data.explain import nearest
from data.keys import digest
from data.labels import said
from data.records import Label
from data.settings import Settings, setting
from data.store import Store
from rewards.base import Judgement, LoadedClip, failed, guarded
from rewards.kind import RewardKind, version_of

NAME: Final = "people"
# Raise it when the same votes and settings would give other values.
_CODE: Final = 1
# Of the estimate by Dawid and Skene: it ends before, where it changes no more.
_ITERATIONS: Final = 100

# What each rater said of a clip, or of a pair (a, b) with a < b, as a number.
Clips = tuple[str, ...]
Votes = Mapping[Clips, Mapping[str, float]]
Agreed = Mapping[Clips, Mapping[float, float]]


class PeopleSettings(Settings):
    """What people said of the clips (`vidloop import labels`)."""

    question: str = setting("good", "Question", "Name of the question whose answers count.", min_length=1)
    question_version: str = setting(
        "",
        "Version",
        "Digest of the question's words; empty: the only one that labels have.",
        pattern=r"^([0-9a-f]{16})?$",
    )
    raters: int = setting(1, "Raters", "A clip, or a pair, of which fewer answered has no value.", ge=1)
    agreement: Literal["majority", "dawid-skene"] = setting(
        "majority",
        "Agreement",
        "majority: every rater counts alike. dawid-skene: by how well each agrees with the others, estimated "
        "from all votes; wants raters who share several clips.",
    )


@dataclass(frozen=True)
class Told:
    """The settings, and which labels of which store they speak of.

    Attributes:
        settings: what a recipe says.
        store: its name.
        units: keys of the units that labels and exclusions are read from.
        votes: digest of the labels that count.
    """

    settings: PeopleSettings
    store: str
    units: tuple[str, ...]
    votes: str

    @property
    def version(self) -> str:
        """Of the values that these labels give."""
        return version_of(NAME, _CODE, self.settings, self.votes, "question_version")


def told(settings: PeopleSettings, store: Store) -> Told:
    """What the store's labels say now, by reference.

    Raises:
        ConfigError: the store has no label of the question, or of several versions of it.
        Damaged: a part of them is.
    """
    units = labels.units(store)
    found = labels.counted(store, units)
    rows = [row for row in found if row.question == settings.question]
    if not rows:
        close = nearest(settings.question, sorted({row.question for row in found}))
        raise ConfigError(
            f"people: {store.url} holds no label of question {settings.question!r}{close}. "
            "`vidloop import labels FILE` brings labels, people.question says which are meant"
        )
    versions = sorted({row.question_version for row in rows})
    asked = settings.question_version
    if (asked and asked not in versions) or (not asked and len(versions) > 1):
        raise ConfigError(
            f"people: question {settings.question!r} has labels of versions {', '.join(versions)}: say one "
            "in people.question_version"
        )
    counted = _chosen(found, settings)
    return Told(settings, store.url, units, digest([[row.label_id, row.answer] for row in counted]))


def _chosen(found: Sequence[Label], settings: PeopleSettings) -> list[Label]:
    """The labels that the settings speak of, in the order of their ids."""
    version = settings.question_version
    return [
        row for row in found if row.question == settings.question and version in ("", row.question_version)
    ]


class People:
    """The reward. Raises Damaged: labels are."""

    name = NAME
    range = (0.0, 1.0)

    def __init__(self, asked: Told) -> None:
        self.settings, self.version = asked.settings, asked.version
        rows = _chosen(labels.counted(Store.open(asked.store), asked.units), asked.settings)
        self.judgements = judge(rows, asked.settings)

    @guarded
    def score(self, clips: Sequence[LoadedClip]) -> list[Judgement]:
        """What people said of each."""
        nobody = failed(f"nobody answered question {self.settings.question!r} of this clip")
        return [self.judgements.get(clip.clip_id, nobody) for clip in clips]


def judge(rows: Sequence[Label], settings: PeopleSettings) -> dict[str, Judgement]:
    """The judgement of every clip that has a label.

    Args:
        rows: labels of one version of one question.
        settings: how many raters, and how they agree.
    """
    votes: dict[Clips, dict[str, float]] = defaultdict(dict)
    for row in sorted(rows, key=lambda row: (row.repeat, row.at or "", row.label_id)):
        value = said(row)
        clips = (
            (row.clip_id,) if row.other_clip_id is None else tuple(sorted((row.clip_id, row.other_clip_id)))
        )
        if value is not None:
            votes[clips].setdefault(row.rater, (value - row.low) / (row.high - row.low))
        else:
            votes[clips]
    enough = {clips: given for clips, given in votes.items() if len(given) >= settings.raters}
    agreed = (_dawid_skene if settings.agreement == "dawid-skene" else _majority)(enough)
    few = {
        clip: failed(f"{len(given)} of {settings.raters} raters answered")
        for clips, given in votes.items() if len(clips) == 1 and clips not in enough
        for clip in clips
    }  # fmt: skip
    whole = {
        clips[0]: Judgement(
            math.fsum(answer * share for answer, share in shares.items()),
            {"raters": len(enough[clips]), "shares": {f"{one:g}": shares[one] for one in sorted(shares)}},
        )
        for clips, shares in agreed.items() if len(clips) == 1
    }  # fmt: skip
    return few | whole | _pairs(votes, agreed, settings)


def _pairs(votes: Votes, agreed: Agreed, settings: PeopleSettings) -> dict[str, Judgement]:
    compared: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for clips, shares in agreed.items():
        if len(clips) == 2:
            one, other = clips
            margin = shares.get(1.0, 0.0) - shares.get(0.0, 0.0)
            compared[one].append((other, margin))
            compared[other].append((one, -margin))
    asked = {clip for clips in votes if len(clips) == 2 for clip in clips}
    return {
        clip: Judgement(
            math.fsum((1 + margin) / 2 for _, margin in compared[clip]) / len(compared[clip]),
            {"compared": [list(one) for one in sorted(compared[clip])]},
        )
        if clip in compared
        else failed(f"of none of its pairs {settings.raters} raters said which is better")
        for clip in sorted(asked)
    }


def _majority(votes: Votes) -> Agreed:
    return {
        clips: {
            answer: sum(one == answer for one in given.values()) / len(given) for answer in given.values()
        }
        for clips, given in votes.items()
    }


def _dawid_skene(votes: Votes) -> Agreed:
    if not votes:
        return {}
    import pandas
    from crowdkit.aggregation import DawidSkene

    rows = [
        (place, rater, answer)
        for place, given in enumerate(votes.values())
        for rater, answer in sorted(given.items())
    ]
    frame = pandas.DataFrame(rows, columns=["task", "worker", "label"])
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of what pandas will no longer take from the library
        found = DawidSkene(n_iter=_ITERATIONS).fit_predict_proba(frame)
    return {
        clips: {float(answer): float(found.loc[place, answer]) for answer in found.columns}
        for place, clips in enumerate(votes)
    }


REWARD: Final = RewardKind(
    name=NAME,
    settings=PeopleSettings,
    build=People,
    version=lambda asked: asked.version,
    range=People.range,
    reads="labels of people in the store",
    held=told,
    threshold=lambda asked: 0.5,
    is_probability=lambda asked: True,
)
