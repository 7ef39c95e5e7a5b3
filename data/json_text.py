"""JSON that somebody else wrote, or a disk gave back: what nests without end is no better."""

from __future__ import annotations

import codecs
import json
from typing import Any, Final

DEPTH: Final = 100
"""So many parts may lie inside one another; what the program writes has a dozen at most."""
_TOO_DEEP: Final = f"more than {DEPTH} parts inside one another"


def parse_json(content: str | bytes) -> Any:
    """What a text says, or its bytes in UTF-8.

    Raises:
        ValueError: it is no JSON, nests deeper than `DEPTH`, or has a number of more than 4,300 digits.
    """
    text = content if isinstance(content, str) else content.removeprefix(codecs.BOM_UTF8).decode()
    try:
        found = json.loads(text)
    except RecursionError:  # Python's own bound, about a thousand
        raise ValueError(_TOO_DEEP) from None
    # Only where there are so many brackets is it worth a look: the texts in it may have them too.
    if text.count("[") + text.count("{") > DEPTH and _deeper(found):
        raise ValueError(_TOO_DEEP)
    return found


def _deeper(value: Any) -> bool:
    level = [value]
    for _ in range(DEPTH):
        parts = [one for one in level if isinstance(one, dict | list)]
        if not parts:
            return False
        level = [inner for one in parts for inner in (one.values() if isinstance(one, dict) else one)]
    return any(isinstance(one, dict | list) for one in level)
