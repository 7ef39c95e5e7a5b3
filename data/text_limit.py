"""How much of a prompt a text encoder reads: what is longer is cut by its tokenizer, and that is said.

A tokenizer is read, and no network: PyTorch is imported only where its folder holds no `tokenizer.json`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

# Tokens that stand around a text: T5 has one, CLIP two.
_AROUND: Final = 2


@dataclass(frozen=True)
class TextLimit:
    """What a text encoder reads of a text at most.

    Attributes:
        tokens: so many, those around a text included.
        count: how many a text has, uncut.
    """

    tokens: int
    count: Callable[[str], int]

    def exceeded(self, text: str) -> int | None:
        """How many tokens a text has that is cut; None if it is read whole."""
        # No tokenizer makes two tokens of an ASCII character, so that short texts need none.
        if text.isascii() and len(text) + _AROUND <= self.tokens:
            return None
        found = self.count(text)
        return found if found > self.tokens else None

    def cuts(self, texts: Iterable[str]) -> dict[str, int]:
        """Those of `texts` that are cut, each once, with how many tokens they have."""
        found = {text: self.exceeded(text) for text in dict.fromkeys(texts)}
        return {text: tokens for text, tokens in found.items() if tokens is not None}


def limit_of(folder: Path, tokens: int) -> TextLimit | None:
    """The limit of an encoder that reads `tokens`, by the tokenizer in `folder`; None: it holds none.

    Tokens are counted before a pipeline tidies the text (entities of HTML, broken encodings), which makes it
    shorter if anything.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    return TextLimit(tokens, lambda text: _counter(folder)(text))


@functools.cache
def _counter(folder: Path) -> Callable[[str], int]:
    file = folder / "tokenizer.json"
    if file.is_file():
        from tokenizers import Tokenizer

        quick = Tokenizer.from_file(str(file))
        quick.no_truncation()  # files may have been saved with both
        quick.no_padding()
        return lambda text: len(quick.encode(text).ids)
    from transformers import AutoTokenizer

    whole: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    return lambda text: len(whole(text, verbose=False).input_ids)
