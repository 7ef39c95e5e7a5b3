"""Text that is shown and never obeyed: a CommonMark parser with tables and HTML reads back what was written."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from flows.reporting.markdown import image, plain

PARSER = MarkdownIt("commonmark", {"html": True}).enable("table")
MARKUP = "\\`*_{}[]()<>#+-.!|~&$:@=^\"' \nab1"


def read(text: str) -> str:
    """What a reader sees of `text`, if it is nothing but one paragraph of plain text."""
    opening, inline, closing = PARSER.parse(text)
    assert (opening.type, closing.type) == ("paragraph_open", "paragraph_close")
    assert inline.children
    assert {child.type for child in inline.children} <= {"text", "text_special"}, text
    return "".join(child.content for child in inline.children)


@given(st.text(st.sampled_from(MARKUP), min_size=1).filter(str.strip))
def test_any_text_is_read_as_it_was_written(text: str) -> None:
    assert read(plain(text)) == " ".join(text.split())


@pytest.mark.parametrize(
    "text",
    [
        "![x](http://127.0.0.1/beacon.png)", "<img src=x onerror=alert(1)>", "see <http://a.b>", "| a | b |", "# title",
        "```mermaid", "1. first", "&lt;script&gt;", "---", "[x]: http://a.b",
    ],
)  # fmt: skip
def test_markup_stays_text(text: str) -> None:
    assert read(plain(text)) == text


def test_an_image_carries_its_bytes_and_nothing_else_may_be_one() -> None:
    png = b"\x89PNG\r\n\x1a\n rest"
    (_, inline, _) = PARSER.parse(image(png, "a [hostile] ](text"))
    (token,) = inline.children or []
    assert token.type == "image"
    assert token.content
    source = str(token.attrs["src"])
    assert base64.b64decode(source.removeprefix("data:image/png;base64,")) == png
    assert str(token.children[0].content if token.children else "").startswith("a")
    with pytest.raises(ValueError, match="PNG or a JPEG"):
        image(b"<svg onload=alert(1)>", "x")
