from collections import Counter

import pytest

from data.errors import UserError
from data.records import prompt_id
from miniature.world.catalog import CATEGORIES, COLOURS, SHAPES, TEMPLATES, caption, parse
from miniature.world.prompts import SPLITS, prompt_set


def combinations(split):
    """What a prompt is about; the order does not count where it means nothing."""
    out = []
    for prompt in prompt_set(split):
        parsed = parse(prompt.text)
        ordered = not TEMPLATES[parsed.template].symmetric
        out.append((parsed.template, parsed.subjects if ordered else frozenset(parsed.subjects)))
    return out


@pytest.mark.parametrize("split", SPLITS)
def test_every_prompt_parses_back_and_is_described_rightly(split):
    prompts = prompt_set(split)
    assert len({p.text for p in prompts}) == len(prompts)
    for prompt in prompts:
        parsed = parse(prompt.text)
        assert caption(parsed.template, parsed.subjects) == prompt.text
        assert prompt.template == parsed.template
        assert prompt.category == TEMPLATES[parsed.template].category
        assert prompt.split == split
        assert prompt.prompt_id == prompt_id(prompt.text)


def test_the_sizes():
    sizes = {split: Counter(p.category for p in prompt_set(split)) for split in SPLITS}
    assert sizes["train"] == dict.fromkeys(CATEGORIES, 24)
    assert sizes["dev"].total() >= 60
    assert sizes["heldout"].total() >= 100
    assert all(sizes["heldout"][category] >= 20 for category in CATEGORIES)
    assert sizes["unseen"].total() >= 40


def test_the_sets_share_no_combination():
    seen = [combinations(split) for split in SPLITS]
    everything = [c for split in seen for c in split]
    assert len(set(everything)) == len(everything)


def test_unseen_templates_are_only_in_their_own_set():
    for split in SPLITS:
        assert {TEMPLATES[p.template].unseen for p in prompt_set(split)} == {split == "unseen"}
    heldout, train = ({p.template for p in prompt_set(s)} for s in ("heldout", "train"))
    assert heldout == train == {name for name, t in TEMPLATES.items() if not t.unseen}


def test_each_template_is_trained_on_all_colours_and_shapes():
    for name, template in TEMPLATES.items():
        if template.unseen:
            continue
        firsts = [parse(p.text).subjects[0] for p in prompt_set("train") if p.template == name]
        assert {s.colour for s in firsts} == set(COLOURS)
        assert {s.shape for s in firsts} == set(template.shapes[0]) <= set(SHAPES)


def test_the_sets_never_change():
    assert [p.text for p in prompt_set("train")][:3] == [
        "a hand lifts the purple ball out of the box",
        "a hand lifts the blue triangle out of the box",
        "a hand lifts the red square out of the box",
    ]
    assert prompt_set("heldout") == prompt_set("heldout")


def test_an_unknown_set_is_refused():
    with pytest.raises(UserError, match="unknown prompt set 'test'; one of: train, dev, heldout, unseen"):
        prompt_set("test")
