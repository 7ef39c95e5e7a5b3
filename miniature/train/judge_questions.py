"""The questions of a training step: about a clip's own caption, about wrong ones, and short ones about looks.

The short ones ("look: a red ball?") are what lets the judge see colours and shapes at all: asked about whole
captions alone, it stays for minutes where only motion matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from miniature.train.judge_corpus import KINDS, JudgeClips
from miniature.world.catalog import COLOURS, SHAPES, TEMPLATES, Parsed, Subject, allows, caption, parse
from rewards.judge.prompt import question_text
from rewards.judge.rubric import Rubric, load_rubric

RUBRIC: Final = "miniature/rubrics/world.yaml"
LOOK: Final = "look: {}?"
WRONG: Final = 4  # questions about wrong captions, and short ones, prepared for each clip
SHORT: Final = 4
EACH: Final = len(KINDS) + WRONG + SHORT


@dataclass(frozen=True)
class Asked:
    """A question with its answer: 1, 0, or NaN where nobody knows."""

    text: str
    answer: float


def rubric() -> Rubric:
    """The rubric the judge is trained on: the one that the miniature's rounds use."""
    found = load_rubric(RUBRIC)
    assert tuple(question.id for question in found.questions) == KINDS
    return found


def questions(words: Rubric, text: str, answers: Sequence[float], rng: np.random.Generator) -> list[Asked]:
    """`EACH` questions about a clip: of its own caption, of wrong captions, of looks.

    Wrong captions and looks have answers only where the clip shows what its own caption says; about a clip
    that does not, nobody knows whether it shows something else.
    """
    parsed = parse(text)
    assert parsed is not None, f"not a caption of the world: {text!r}"
    own = [
        Asked(question_text(question.text, text), answer)
        for question, answer in zip(words.questions, answers, strict=True)
    ]
    right = answers[KINDS.index("overall")] == 1.0
    there = answers[KINDS.index("objects")] == 1.0
    wrong = [_wrong(words, parsed, right, place, rng) for place in range(WRONG)]
    return own + wrong + [_look(parsed, there, place, rng) for place in range(SHORT)]


def _wrong(words: Rubric, parsed: Parsed, right: bool, place: int, rng: np.random.Generator) -> Asked:
    """A question about a caption that differs in one thing, which the clip (if right) does not show."""
    ways = [_other_look, _other_template, _other_look, _other_template]
    subjects, template, kind = ways[place](parsed, rng)
    # Every other one is asked the question that the difference is about, the others over all.
    name = kind if rng.random() < 0.5 else "overall"
    question = words.questions[KINDS.index(name)]
    return Asked(question_text(question.text, caption(template, subjects)), 0.0 if right else np.nan)


def _other_look(parsed: Parsed, rng: np.random.Generator) -> tuple[tuple[Subject, ...], str, str]:
    """One subject of another colour, or shape where the template allows one."""
    subjects = list(parsed.subjects)
    at = int(rng.integers(len(subjects)))
    shapes = [shape for shape in TEMPLATES[parsed.template].shapes[at] if shape != subjects[at].shape]
    if shapes and rng.random() < 0.5:
        subjects[at] = replace(subjects[at], shape=shapes[int(rng.integers(len(shapes)))])
    else:
        taken = {subject.colour for subject in subjects}
        free = [colour for colour in COLOURS if colour not in taken]
        subjects[at] = replace(subjects[at], colour=free[int(rng.integers(len(free)))])
    return tuple(subjects), parsed.template, "objects"


def _other_template(parsed: Parsed, rng: np.random.Generator) -> tuple[tuple[Subject, ...], str, str]:
    """The same subjects doing something else, or each other's part in it."""
    template = TEMPLATES[parsed.template]
    swapped = parsed.subjects[::-1]
    if len(swapped) > 1 and not template.symmetric and allows(template, swapped) and rng.random() < 0.4:
        return swapped, parsed.template, "task"
    others = [
        other.name
        for other in TEMPLATES.values()
        if other.name != parsed.template and allows(other, parsed.subjects)
    ]
    if not others:  # only hit_row has three subjects
        return swapped, parsed.template, "task"
    return parsed.subjects, others[int(rng.integers(len(others)))], "task"


def _look(parsed: Parsed, there: bool, place: int, rng: np.random.Generator) -> Asked:
    subject = parsed.subjects[int(rng.integers(len(parsed.subjects)))]
    if place % 2 == 0:
        return Asked(LOOK.format(f"a {subject}"), 1.0 if there else np.nan)
    taken = {one.colour for one in parsed.subjects}
    if rng.random() < 0.5:
        free = [colour for colour in COLOURS if colour not in taken]
        subject = replace(subject, colour=free[int(rng.integers(len(free)))])
    else:
        shapes = [shape for shape in SHAPES if shape != subject.shape]
        subject = replace(subject, shape=shapes[int(rng.integers(len(shapes)))])
    return Asked(LOOK.format(f"a {subject}"), 0.0 if there else np.nan)


@dataclass(eq=False)
class Bank:
    """The questions of all clips as tensors, so that a training step only gathers.

    Attributes:
        ids: int16 [N, EACH, W]: question, end of turn, beginning of the answer; padded at the right.
        answer_at: int16 [N, EACH]: place of the last token, whose next one is the answer.
        text: int16 [N, EACH]: number of tokens of the question itself.
        labels: float32 [N, EACH]: 1, 0 or NaN.
    """

    ids: torch.Tensor
    answer_at: torch.Tensor
    text: torch.Tensor
    labels: torch.Tensor


def bank(clips: JudgeClips, tokenizer: Any, tail: Sequence[int], seed: int, device: str) -> Bank:
    """Questions about every clip, tokenised; the same arguments give the same questions."""
    words, rng = rubric(), np.random.default_rng(seed)
    asked = [
        questions(words, text, answers, rng)
        for text, answers in zip(clips.captions, clips.labels.tolist(), strict=True)
    ]
    texts = list(dict.fromkeys(one.text for some in asked for one in some))
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    number = {text: place for place, text in enumerate(texts)}
    longest = max(map(len, encoded)) + len(tail)
    table: NDArray[np.int16] = np.zeros((len(texts), longest), np.int16)
    lengths = np.array([len(ids) for ids in encoded], np.int16)
    for row, ids in enumerate(encoded):
        table[row, : len(ids) + len(tail)] = [*ids, *tail]
    place = np.array([[number[one.text] for one in some] for some in asked])
    return Bank(
        ids=torch.from_numpy(table[place]).to(device),
        answer_at=torch.from_numpy(lengths[place] + len(tail) - 1).to(device),
        text=torch.from_numpy(lengths[place]).to(device),
        labels=torch.tensor([[one.answer for one in some] for some in asked], device=device),
    )


def vocabulary_texts() -> list[str]:
    """Texts from which the tokenizer learns its words: every template's questions, every subject."""
    words, texts = rubric(), []
    subjects = [Subject(colour, shape) for colour in COLOURS for shape in SHAPES]
    for template in TEMPLATES.values():
        for place in range(len(subjects)):
            chosen = [subjects[(place + 4 * i) % len(subjects)] for i in range(template.subjects)]
            text = template.caption.format(*chosen)
            texts += [question_text(question.text, text) for question in words.questions]
    texts += [LOOK.format(f"a {subject}") for subject in subjects]
    return [*texts, words.system]
