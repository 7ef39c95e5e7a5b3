"""What raters are asked: by name, in a judge's words, or in one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from data.errors import ConfigError
from data.explain import nearest
from data.labels import Question
from data.resources import shipped
from data.yaml_text import read_yaml
from rewards.judge.rubric import Law, Rubric, load_rubric
from rewards.judge.rubric import Question as Judged

_PAIRS: Final = Path(__file__).parent / "questions.yaml"
OF_PAIRS: Final = ("prompt", "motion")
OF_CLIPS: Final = ("general:task", "general:physics")


@dataclass(frozen=True)
class Asked:
    """A question, and which clips it is put to.

    Attributes:
        question: with `{prompt}` in its words where the clip's prompt is shown.
        categories: of prompts that it is put to; empty: all.
        law: put only to clips whose prompt this law concerns; "": to all.
    """

    question: Question
    categories: tuple[str, ...] = ()
    law: str = ""

    def concerns(self, category: str, laws: Sequence[str]) -> bool:
        """Whether it is put to clips of a prompt of this category, which these laws concern."""
        return (not self.categories or category in self.categories) and (not self.law or self.law in laws)


def read_questions(named: Sequence[str], pairs: bool) -> list[Asked]:
    """The questions that were asked for.

    Args:
        named: each a name of questions.yaml (of pairs), RUBRIC or RUBRIC:ID of a rubric by its name or file,
            or NAME=WORDS; none: `OF_PAIRS` or `OF_CLIPS`.
        pairs: whether two clips are compared. A rubric's question is then put as: of which clip it is truer.

    Raises:
        ConfigError: one is unknown, or two have one name.
    """
    found = [one for name in named or (OF_PAIRS if pairs else OF_CLIPS) for one in _read(name, pairs)]
    names = [one.question.name for one in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"--question: two questions are called {twice[0]}: leave one out, or say NAME=WORDS"
        )
    return found


def _read(named: str, pairs: bool) -> list[Asked]:
    name, own, words = named.partition("=")
    if own:
        return [Asked(Question(name.strip(), words.strip(), "pair" if pairs else "yes_no"))]
    ours: Mapping[str, str] = read_yaml(_PAIRS, str(_PAIRS)) if pairs else {}
    if named in ours:
        return [Asked(Question(named, ours[named], "pair"))]
    rubrics = {Path(file).stem: path for file, path in shipped("rubrics").items()}
    head, _, part = named.rpartition(":") if ":" in named else (named, "", "")
    if head not in rubrics and not Path(head).suffix:
        known = [*ours, *rubrics]
        raise ConfigError(
            f"--question: there is no question {named!r}{nearest(named, known)}; known are "
            f"{', '.join(known)} (of a rubric, RUBRIC:ID takes one question), NAME=WORDS is one of your own"
        )
    rubric = load_rubric(str(rubrics.get(head, head)))
    asked = [one for one in rubric.asked if part in ("", one.id)]
    if not asked:
        ids = [one.id for one in rubric.asked]
        raise ConfigError(f"--question: rubric {head} has no question {part!r}{nearest(part, ids)}")
    return [found for one in asked for found in _of_rubric(rubric, one, pairs)]


def _of_rubric(rubric: Rubric, one: Judged | Law, pairs: bool) -> list[Asked]:
    if isinstance(one, Law):
        many = len(one.questions) > 1
        return [
            Asked(_question(rubric, f"{one.id}-{n}" if many else one.id, text, True, pairs), law=one.id)
            for n, text in enumerate(one.questions, 1)
        ]
    said = _question(rubric, one.id, one.text, one.good == "positive", pairs)
    return [Asked(said, tuple(one.categories))]


def _question(rubric: Rubric, name: str, text: str, good: bool, pairs: bool) -> Question:
    scale = rubric.scale
    if pairs:
        answer = ("yes" if good else "no") if scale is None else ("higher number" if good else "lower number")
        return Question(name, f'Which clip earns the answer "{answer}" rather? {text}', "pair")
    if scale is None:
        return Question(name, text)
    return Question(name, text, "grade", float(scale.lowest), float(scale.highest))
