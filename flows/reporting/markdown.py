"""Text for markdown: what people and models wrote is shown as it is, and is never read as markup."""

from __future__ import annotations

import base64
import re
from typing import Final

# What means something to CommonMark, tables, strike-through, mathematics, or the HTML that they let in ...
_ANYWHERE: Final = re.compile(r"([\\`*_\[\]<>|~&$])")
# ... and what does so at the beginning of a line: headings, lists, rules.
_AT_FIRST: Final = re.compile(r"^(\d*)([-+=#.)])")
_TYPES: Final = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg"}


def plain(text: str) -> str:
    """`text` as one line in which no character is markup: links, images and tags stay letters."""
    return _AT_FIRST.sub(r"\1\\\2", _ANYWHERE.sub(r"\\\1", " ".join(text.split())))


def image(picture: bytes, said: str) -> str:
    """A picture inside the text, as a data URI.

    Args:
        picture: a PNG or JPEG file.
        said: what is read where no picture is shown.

    Raises:
        ValueError: the bytes are of another kind.
    """
    kind = next((kind for start, kind in _TYPES.items() if picture.startswith(start)), None)
    if kind is None:
        raise ValueError("a picture in markdown must be a PNG or a JPEG")
    return f"![{plain(said)}](data:{kind};base64,{base64.b64encode(picture).decode('ascii')})"
