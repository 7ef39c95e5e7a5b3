"""The prompt sets of the world: train, dev, heldout and unseen.

A combination is a template with its tuple of subjects. train, dev and heldout share the seen templates and no
combination; `unseen` holds the templates that no round trains on. The sets are the same in every process: the
choice is greedy: the least used colour of the first subject, then its shape, then the second subject's, and
so on; ties are broken by digest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import permutations, product

from data.errors import DataError
from data.keys import digest
from data.prompts import PromptSets
from data.records import Prompt, prompt_id
from miniature.world.catalog import COLOURS, TEMPLATES, Subject, Template, caption

SPLITS = ("train", "dev", "heldout", "unseen")
# Prompts of each seen template; `unseen`: of each unseen one. With four seen templates in each of the five
# categories: 120 (24 a category, as in arXiv 2412.02617), 60, 120 and 50.
_PER_TEMPLATE = {"train": 6, "dev": 3, "heldout": 6, "unseen": 10}

Combination = tuple[Subject, ...]


def prompt_set(split: str) -> list[Prompt]:
    """The prompts of a split, by category and template. Raises DataError for an unknown split."""
    if split not in SPLITS:
        raise DataError(f"unknown prompt set {split!r}; one of: {', '.join(SPLITS)}")
    return [
        _prompt(template, subjects, split)
        for template in TEMPLATES.values()
        if template.unseen == (split == "unseen")
        for subjects in _choice(template.name)[split]
    ]


def _prompt(template: Template, subjects: Combination, split: str) -> Prompt:
    text = caption(template.name, subjects)
    return Prompt(
        prompt_id=prompt_id(text),
        text=text,
        category=template.category,
        template=template.name,
        split=split,
        source="world",
    )


@cache
def _choice(name: str) -> dict[str, list[Combination]]:
    template = TEMPLATES[name]
    left = {digest([name, *map(str, subjects)]): subjects for subjects in _combinations(template)}
    if template.symmetric:  # one order of each pair
        smallest: dict[frozenset[Subject], str] = {}
        for key in sorted(left, reverse=True):
            smallest[frozenset(left[key])] = key
        left = {key: left[key] for key in smallest.values()}
    chosen: dict[str, list[Combination]] = {}
    for split in ("unseen",) if template.unseen else ("train", "heldout", "dev"):
        used: Counter[tuple[int, str]] = Counter()
        chosen[split] = []
        for _ in range(_PER_TEMPLATE[split]):
            key = min(left, key=lambda k: (*(used[word] for word in _words(left[k])), k))
            subjects = left.pop(key)
            used.update(_words(subjects))
            chosen[split].append(subjects)
    return chosen


def _combinations(template: Template) -> Iterator[Combination]:
    for colours in permutations(COLOURS, template.subjects):
        for shapes in product(*template.shapes):
            yield tuple(Subject(colour, shape) for colour, shape in zip(colours, shapes, strict=True))


def _words(subjects: Combination) -> list[tuple[int, str]]:
    """Colours and shapes by position."""
    return [(i, word) for i, subject in enumerate(subjects) for word in (subject.colour, subject.shape)]


SETS = PromptSets(SPLITS, prompt_set)
