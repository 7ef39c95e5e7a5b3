"""Recalibrate: lines by which a judge's P(yes) becomes what labels say, held to clips that had no part in it.

A line for each question of the rubric of which people answered the question of the same name (yes or no), and
one for the value, on the labels that a calibration is given. What is reported is of clips left out: prompts
are dealt into five parts, and each part is told by lines that were fitted on the others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from data import labels
from data.errors import ConfigError, DataError
from data.keys import digest
from data.records import Label
from data.store.durable_files import write_durably
from rewards import Judgement, reward_kind, reward_ref
from rewards.judge.answers import combine
from rewards.judge.recalibration import Floats, Line, Recalibration, brier, fit, log_loss
from rewards.judge.rubric import Question, Rubric, load_rubric
from rewards.judge.settings import NAME as JUDGE
from rewards.judge.settings import JudgeSettings
from rewards.people import PeopleSettings
from rewards.people import judge as agreed
from tasks import answers
from tasks.calibrate import Compared, compare
from tasks.context import RewardRef, RoundContext
from tasks.units import Runner

FOLDS: Final = 5
FEWEST: Final = 20
"""Clips with a label that a line needs."""


@dataclass(frozen=True)
class Fitted:
    """A line and how good it is on clips that it was not fitted on.

    Attributes:
        what: a question's id, or "value".
        line: fitted on all clips.
        clips: that have a label.
        before, after: log loss of the judge as it is, and recalibrated by lines fitted on other clips.
        brier_before, brier_after: the same as Brier score.
    """

    what: str
    line: Line
    clips: int
    before: float
    after: float
    brier_before: float
    brier_after: float


def recalibrate(
    context: RoundContext,
    reward: RewardRef,
    truth: tuple[str, Mapping[str, bool]] | RewardRef,
    runner: Runner,
    file: Path,
) -> tuple[list[Fitted], list[str]]:
    """Fit lines to the recipe's training clips that are in the store, and write them to a file.

    Args:
        context: an opened round; its store has clips already.
        reward: a judge; a recalibration that it has already is left out of it.
        truth: labels of the value, as of `tasks.calibrate.calibrate`.
        runner: works through the score units.
        file: for `judge.recalibration`.

    Returns:
        (the lines, that of the value last; why others have none).

    Raises:
        ConfigError: the reward is no judge, or its rubric is one of grades.
        DataError: no clips or labels; of none are there enough for a line.
        StageFailed: the judge could not be asked.
        StoreError: the file cannot be written.
    """
    if reward.kind != JUDGE or not reward_kind(JUDGE).is_probability(reward.settings):
        raise ConfigError(f"--fit is of a judge that answers yes or no, and {reward.name} is none")
    settings: JudgeSettings = reward.settings.changed(recalibration="")
    found = compare(context, reward_ref(reward.name, JUDGE, settings), truth, runner)
    data = _data(context, found, load_rubric(settings.rubric))
    lacking = [f"{data.called(name)}: {why}" for name in data.known if (why := data.lacks(name))]
    names = [name for name in data.known if not data.lacks(name)]
    if not names:
        raise DataError(f"no line can be fitted. {'; '.join(lacking)}")
    after: dict[str | None, dict[str, float]] = {name: {} for name in names}
    for fold in range(FOLDS):
        others = data.lines(names, fold)
        for name in names:
            values = data.values(name, others)
            after[name] |= {
                clip: others.of(name, values[clip]) for clip in data.known[name] if data.folds[clip] == fold
            }
    lines = data.lines(names)
    fitted = [_fitted(data, name, lines, after[name]) for name in names]
    facts = [{name: getattr(one, name) for name in _FACTS} for one in fitted]
    said = lines.changed(fitted={"labels": found.labels, "lines": facts})
    text = json.dumps(said.model_dump(), indent=1, sort_keys=True) + "\n"
    write_durably(file.parent, file, text.encode(), replace=True)
    return fitted, lacking


_FACTS: Final = ("what", "clips", "before", "after", "brier_before", "brier_after")


@dataclass(frozen=True, eq=False)
class _Data:
    """What was asked, answered, and is known; None stands for the clip's value among names of questions.

    Attributes:
        rubric: that was asked.
        answers: by clip, and in it by question or law.
        categories, folds: of each clip.
        known: labels by question, and of the value, by clip; of clips that have a value.
    """

    rubric: Rubric
    answers: Mapping[str, Mapping[str, Judgement]]
    categories: Mapping[str, str]
    folds: Mapping[str, int]
    known: Mapping[str | None, Mapping[str, bool]]

    def called(self, name: str | None) -> str:
        """In a report."""
        return name or "value"

    def lacks(self, name: str | None) -> str | None:
        """Why no line can be fitted, and held to other clips; None: it can."""
        known = self.known[name]
        if len(known) < FEWEST:
            return f"{len(known)} clips with a label and a value, a line needs {FEWEST}"
        for fold in range(FOLDS):
            if len({label for clip, label in known.items() if self.folds[clip] != fold}) < 2:
                return "labels of one kind are of too few prompts to hold a line to others"
        return None

    def values(self, name: str | None, lines: Recalibration) -> dict[str, float]:
        """What a question says of clips that have a label; of the value, with lines for questions."""
        if name is not None:
            return {clip: float(self.answers[clip][name].value or 0.0) for clip in self.known[name]}
        said = lines.changed(value=None)
        return {
            clip: float(combine(self.rubric, self.categories[clip], self.answers[clip], said).value or 0.0)
            for clip in self.known[None]
        }

    def lines(self, names: Sequence[str | None], without: int | None = None) -> Recalibration:
        """Lines for these questions, and then the value, fitted on all clips but those of one fold."""
        found = Recalibration()
        for name in names:  # the value comes last
            values = self.values(name, found)
            clips = [clip for clip in sorted(values) if self.folds[clip] != without]
            line = fit(_floats(values, clips), _labels(self.known[name], clips))
            found = (
                found.changed(value=line)
                if name is None
                else found.changed(questions={**found.questions, name: line})
            )
        return found


def _data(context: RoundContext, found: Compared, rubric: Rubric) -> _Data:
    told: dict[str, dict[str, Judgement]] = {clip: {} for clip in found.clips}
    for unit in found.units:
        for one, part in zip(rubric.asked, found.reward.parts, strict=True):
            for clip, judged in answers.read(context.store, unit.key_of(part)).items():
                told[clip][one.id] = judged
    rows = labels.counted(context.store)

    def valued(known: Mapping[str, bool], name: str | None) -> dict[str, bool]:
        of = {clip: found.values.get(clip) if name is None else _value(told, clip, name) for clip in known}
        return {clip: label for clip, label in known.items() if of[clip] is not None}

    return _Data(
        rubric,
        told,
        {clip: row.category for clip, row in found.clips.items()},
        {clip: int(digest(["fold", row.prompt_id])[:8], 16) % FOLDS for clip, row in found.clips.items()},
        {
            **{one.id: valued(_people(rows, one), one.id) for one in rubric.questions},
            None: valued(found.truth, None),
        },
    )


def _value(told: Mapping[str, Mapping[str, Judgement]], clip: str, name: str) -> float | None:
    judged = told.get(clip, {}).get(name)
    return None if judged is None else judged.value


def _people(rows: Sequence[Label], question: Question) -> dict[str, bool]:
    """Whether most people found it good, who answered the question of this name; of a tie nothing."""
    about = [row for row in rows if row.question == question.id and row.kind == "yes_no"]
    good = question.good == "positive"  # else yes says that something is wrong
    said = agreed(about, PeopleSettings(question=question.id))
    return {clip: (one.value > 0.5) == good for clip, one in said.items() if one.value not in (None, 0.5)}


def _fitted(data: _Data, name: str | None, lines: Recalibration, after: Mapping[str, float]) -> Fitted:
    values = data.values(name, Recalibration())
    clips = sorted(values)
    label = _labels(data.known[name], clips)
    before, later = _floats(values, clips), _floats(after, clips)
    line = lines.value if name is None else lines.questions[name]
    assert line is not None
    return Fitted(
        data.called(name),
        line,
        len(clips),
        log_loss(before, label),
        log_loss(later, label),
        brier(before, label),
        brier(later, label),
    )


def _floats(values: Mapping[str, float], clips: Sequence[str]) -> Floats:
    return np.array([values[clip] for clip in clips], np.float64)


def _labels(known: Mapping[str, bool], clips: Sequence[str]) -> npt.NDArray[np.bool_]:
    return np.array([known[clip] for clip in clips], np.bool_)
