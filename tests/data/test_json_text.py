"""JSON that others wrote: what is deeper than anything that we write is no better than what is cut off."""

from __future__ import annotations

import json

import pytest

from data.json_text import DEPTH, parse_json


def nested(depth: int, how: str) -> str:
    opening, closing = ("[", "]") if how == "lists" else ('{"a":', "}")
    inner = "[]" if how == "lists" else "{}"
    return opening * (depth - 1) + inner + closing * (depth - 1)


@pytest.mark.parametrize("how", ["lists", "objects"])
def test_depth_is_bounded(how: str) -> None:
    assert parse_json(nested(DEPTH, how)) == json.loads(nested(DEPTH, how))
    for depth in (DEPTH + 1, 900, 100_000):
        with pytest.raises(ValueError, match=f"more than {DEPTH} parts inside one another"):
            parse_json(nested(depth, how))


def test_brackets_in_texts_and_side_by_side_are_no_depth() -> None:
    said = {"text": "[{" * 200, "row": [[]] * 200}
    assert parse_json(json.dumps(said)) == said
    assert parse_json(b"\xef\xbb\xbf" + json.dumps(said).encode()) == said


@pytest.mark.parametrize("wrong", ["", "{", "[1,]", "nope", b"\xff\xfe", "1" * 5000])
def test_what_is_no_json_is_a_value_error(wrong: str | bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (Python's own words)
        parse_json(wrong)
