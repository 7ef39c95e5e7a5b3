"""The fenced blocks and the commands in the text of README.md, CONTRIBUTING.md and the pages under docs/.

The word after a fence says what a block is, and thereby how tests/test_doc_blocks.py and
tests/test_doc_commands.py try it; `text` is what nobody runs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PAGES: Final = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
_FILE = re.compile(r"# ([\w.-]+(?:/[\w.-]+)*\.\w+)\n")
_COMMAND = re.compile(r"`((?:vidloop|make|python -m|prefect|docker compose) [a-z][^`\n]*)`")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: its path, from the root.
        line: where its fence stands, from 1.
        language: what stands after the fence.
        text: its lines.
    """

    page: str
    line: int
    language: str
    text: str

    @property
    def file(self) -> str:
        """The path that its first line names, if that line is a comment with nothing else; else empty."""
        found = _FILE.match(self.text)
        return found[1] if found else ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path, root: Path = ROOT) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text("utf-8")
    return [
        Block(
            page.relative_to(root).as_posix(), text[: found.start()].count("\n") + 1,
            found["language"], re.sub(f"^{found['indent']}", "", found["text"], flags=re.MULTILINE),
        )
        for found in _FENCE.finditer(text)
    ]  # fmt: skip


BLOCKS: Final = [block for page in PAGES for block in blocks_of(page)]


def by_page(language: str) -> dict[str, list[Block]]:
    """The blocks of one language by page, but those that are whole files (tests/doc_files.py tries them)."""
    found: dict[str, list[Block]] = {}
    for block in BLOCKS:
        if block.language == language and not block.file:
            found.setdefault(block.page, []).append(block)
    return found


def commands_in_text(page: Path) -> list[str]:
    """Commands between backquotes; those that show a syntax ([...]) or leave words out (...) are none.

    What the changelog names is the past's.
    """
    if page.name == "CHANGELOG.md":
        return []
    text = _FENCE.sub("", page.read_text("utf-8"))
    return [one for one in dict.fromkeys(_COMMAND.findall(text)) if not re.search(r" \[|\.\.\.", one)]
