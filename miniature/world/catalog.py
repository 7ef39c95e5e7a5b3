"""Words of the world: colours, shapes, templates, captions and their exact inverse.

Nothing here moves or is drawn. A template is a sentence with one to three subjects; a subject is a colour and
a shape. `caption` and `parse` are inverse to each other: every caption names one template and its subjects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Rgb = tuple[float, float, float]

# Near the corners of the RGB cube, so that no blend of one of them with the background resembles another.
COLOURS: dict[str, Rgb] = {
    "red": (0.90, 0.10, 0.10),
    "green": (0.10, 0.68, 0.15),
    "blue": (0.12, 0.22, 0.95),
    "yellow": (0.97, 0.84, 0.08),
    "purple": (0.78, 0.12, 0.82),
    "cyan": (0.08, 0.80, 0.90),
}
# Props are grey, at levels far from each other: no prop can be taken for a subject.
PROPS: dict[str, Rgb] = {"floor": (0.64,) * 3, "wood": (0.40,) * 3, "hand": (0.12,) * 3}
BACKGROUND: Rgb = (0.93,) * 3
MATTE: Rgb = (0.80,) * 3  # what lies outside the stage when the frame is not square
SHAPES: tuple[str, ...] = ("ball", "square", "triangle")

FLOOR = 0.90  # y of the floor's surface
TABLE = 0.45  # y of the table's surface
BOX_FLOOR = 0.855  # y of the inner floor of the open box

CATEGORIES: tuple[str, ...] = (
    "object removal",
    "multiple objects",
    "deformable objects",
    "directional movement",
    "falling down",
)


@dataclass(frozen=True)
class Subject:
    """An object that a caption names."""

    colour: str
    shape: str

    def __str__(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Template:
    """A sentence of the world.

    caption: the sentence, with {0}, {1}, {2} where the subjects stand.
    subjects: how many; shapes[i]: the shapes that subject i may have.
    violations: the ways in which a scene of this template can break its law.
    unseen: no round of training uses it.
    symmetric: the subjects may change places and the sentence means the same.
    """

    name: str
    category: str
    caption: str
    violations: tuple[str, ...]
    shapes: tuple[tuple[str, ...], ...] = (SHAPES,)
    unseen: bool = False
    symmetric: bool = False

    @property
    def subjects(self) -> int:
        return len(self.shapes)


@dataclass(frozen=True)
class Parsed:
    """What a caption says: a template's name and its subjects in order."""

    template: str
    subjects: tuple[Subject, ...]


_LOOKS = ("changes_colour", "changes_shape", "vanishes")
_FALLS = ("floats", "passes_through", "grows", "jitters", *_LOOKS)
_DROPS = (*_FALLS, "falls_up", "turns_back")
_PAIR_FALLS = ("floats", "passes_through", "falls_slowly", "jitters", *_LOOKS)
_MOVES = ("turns_back", "stops_midway", "wrong_way", "grows", "jitters", "duplicates", *_LOOKS)
_MEETS = ("passes_through", "stops_midway", "acts_at_distance", "loses_momentum", "jitters", *_LOOKS)
_BENDS = ("changes_area", "grows", "jitters", *_LOOKS)
_SPRINGS = (*_BENDS, "never_relaxes", "stays_rigid")
_LEAVES = ("never_leaves", "stops_midway", "turns_back", "duplicates", *_LOOKS)
_LEAVES_ANOTHER = (*_LEAVES, "takes_both")
_SINKS = ("never_leaves", "stops_midway", "turns_back", "passes_through", *_LOOKS)
_BLUNT = ("ball", "square")  # shapes that touch at half their height
_TWO, _TWO_BLUNT = (SHAPES, SHAPES), (_BLUNT, _BLUNT)
_REMOVAL, _SEVERAL, _SOFT, _MOVEMENT, _DOWN = CATEGORIES

_ALL: tuple[Template, ...] = (
    Template("lift_from_box", _REMOVAL, "a hand lifts the {0} out of the box", _LEAVES),
    Template("pull_away", _REMOVAL, "a hand pulls the {0} away to the right", _LEAVES),
    Template("lift_beside", _REMOVAL, "a hand lifts the {0} beside the {1}", _LEAVES_ANOTHER, _TWO),
    Template("lower_into_box", _REMOVAL, "a hand lowers the {0} into the box", _SINKS),
    Template(
        "lift_off",
        _REMOVAL,
        "a hand lifts the {0} off the {1}",
        _LEAVES_ANOTHER,
        (SHAPES, ("square",)),
        unseen=True,
    ),
    Template("hit", _SEVERAL, "a {0} hits a {1} and stops", _MEETS, _TWO_BLUNT),
    Template("hit_small", _SEVERAL, "a big {0} hits a small {1}", _MEETS, _TWO_BLUNT),
    Template("meet", _SEVERAL, "a {0} and a {1} meet and bounce apart", _MEETS, _TWO_BLUNT, symmetric=True),
    Template("stick", _SEVERAL, "a {0} hits a {1} and they stick together", _MEETS, _TWO_BLUNT),
    Template("hit_row", _SEVERAL, "a {0} hits a {1} next to a {2}", _MEETS, (_BLUNT,) * 3, unseen=True),
    Template("squeeze", _SOFT, "a {0} is squeezed flat and springs back", _SPRINGS),
    Template("stretch", _SOFT, "a {0} is stretched tall and springs back", _SPRINGS),
    Template("press", _SOFT, "a hand presses the {0} flat", (*_BENDS, "passes_through", "springs_back")),
    Template(
        "splat",
        _SOFT,
        "a soft {0} drops onto the floor and splats",
        (*_BENDS, "stays_rigid", "floats", "passes_through"),
    ),
    Template("wobble", _SOFT, "a soft {0} wobbles and settles", _SPRINGS, unseen=True),
    Template("move_left", _MOVEMENT, "a {0} moves to the left", _MOVES),
    Template("move_right", _MOVEMENT, "a {0} moves to the right", _MOVES),
    Template("move_up", _MOVEMENT, "a {0} moves straight up", _MOVES),
    Template("slide", _MOVEMENT, "a {0} slides to the right and stops", (*_MOVES, "never_stops")),
    Template("move_diagonal", _MOVEMENT, "a {0} moves up and to the right", _MOVES, unseen=True),
    Template("bounce", _DOWN, "a {0} falls onto the floor and bounces", (*_DROPS, "gains_energy")),
    Template("drop", _DOWN, "a {0} drops onto the floor and rests", _DROPS),
    Template(
        "off_table", _DOWN, "a {0} slides off the table and falls", (*_FALLS, "falls_up", "stops_midway")
    ),
    Template("fall_together", _DOWN, "a {0} and a {1} fall down together", _PAIR_FALLS, _TWO, symmetric=True),
    Template(
        "toss",
        _DOWN,
        "a {0} is thrown up and falls back down",
        ("floats", "grows", "jitters", *_LOOKS),
        unseen=True,
    ),
)

TEMPLATES: dict[str, Template] = {template.name: template for template in _ALL}
_BY_SENTENCE = {template.caption: template for template in _ALL}
VIOLATIONS: tuple[str, ...] = tuple(sorted({name for template in _ALL for name in template.violations}))


def caption(template: str, subjects: Sequence[Subject]) -> str:
    """The sentence of a template about these subjects."""
    return TEMPLATES[template].caption.format(*subjects)


def parse(text: str) -> Parsed | None:
    """The exact inverse of `caption`; None for any text that is not a caption of the catalog."""
    words = text.split(" ")
    subjects: list[Subject] = []
    sentence: list[str] = []
    for word, before in zip(words, ["", *words], strict=False):
        if before in COLOURS and word in SHAPES:
            sentence[-1] = f"{{{len(subjects)}}}"
            subjects.append(Subject(before, word))
        else:
            sentence.append(word)
    template = _BY_SENTENCE.get(" ".join(sentence))
    if template is None or not allows(template, subjects):
        return None
    return Parsed(template.name, tuple(subjects))


def allows(template: Template, subjects: Sequence[Subject]) -> bool:
    """Whether these subjects may stand in the template: number, words, shapes, colours all different."""
    return (
        len(subjects) == template.subjects
        and all(subject.colour in COLOURS for subject in subjects)
        and all(subject.shape in shapes for subject, shapes in zip(subjects, template.shapes, strict=True))
        and len({subject.colour for subject in subjects}) == len(subjects)
    )


def vocabulary() -> tuple[str, ...]:
    """Every word that a caption can hold, sorted: what a word-level tokenizer needs."""
    words = {word for sentence in _BY_SENTENCE for word in sentence.split(" ") if not word.startswith("{")}
    return tuple(sorted(words | set(COLOURS) | set(SHAPES)))
