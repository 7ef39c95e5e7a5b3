import itertools

import numpy as np
import pytest

from miniature.world.catalog import (
    BACKGROUND,
    CATEGORIES,
    COLOURS,
    SHAPES,
    TEMPLATES,
    Subject,
    caption,
    parse,
    vocabulary,
)
from miniature.world.scene import random_subjects


def test_every_category_has_seen_templates_and_one_unseen():
    for category in CATEGORIES:
        of_it = [t for t in TEMPLATES.values() if t.category == category]
        assert sum(t.unseen for t in of_it) == 1
        assert sum(not t.unseen for t in of_it) >= 3
    assert {t.category for t in TEMPLATES.values()} == set(CATEGORIES)


def test_there_are_enough_colours_and_shapes_and_they_are_far_apart():
    assert len(COLOURS) >= 6
    assert len(SHAPES) >= 3
    for a, b in itertools.combinations([*COLOURS.values(), BACKGROUND], 2):
        assert np.abs(np.subtract(a, b)).max() > 0.5


@pytest.mark.parametrize("name", TEMPLATES)
def test_parse_is_the_inverse_of_caption(name):
    rng = np.random.default_rng(0)
    for _ in range(20):
        subjects = random_subjects(name, rng)
        parsed = parse(caption(name, subjects))
        assert (parsed.template, parsed.subjects) == (name, subjects)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a red ball",
        "a red ball falls",
        "A red ball moves to the left",
        "a red ball moves to the left ",
        "a  red ball moves to the left",
        "a pink ball moves to the left",
        "a red cube moves to the left",
        "a red ball hits a red ball and stops",  # colours must differ
        "a red triangle hits a blue ball and stops",  # a triangle does not touch at half its height
        "a {0} moves to the left",
        "red ball a moves to the left",
    ],
)
def test_what_is_no_caption_is_not_parsed(text):
    assert parse(text) is None


def test_the_vocabulary_covers_every_caption_and_nothing_else():
    rng = np.random.default_rng(0)
    words = set()
    for name in TEMPLATES:
        for _ in range(60):
            words |= set(caption(name, random_subjects(name, rng)).split(" "))
    assert words == set(vocabulary())
    assert list(vocabulary()) == sorted(vocabulary())


def test_a_subject_reads_as_it_is_written():
    assert caption("bounce", [Subject("red", "ball")]) == "a red ball falls onto the floor and bounces"
