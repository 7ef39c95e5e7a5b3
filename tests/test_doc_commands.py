"""Every command of the documentation is understood by the program that it calls, and what is cheap is run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import typer.testing

from flows.cli.main import commands
from tests.doc_blocks import BLOCKS, PAGES, ROOT, Block, by_page, commands_in_text
from tests.doc_commands import asked, called
from tests.doc_files import copy_with
from tests.played import Played, played, played_once  # noqa: F401  (fixtures)

SHELL = by_page("sh")
IN_TEXT = {page.relative_to(ROOT).as_posix(): commands_in_text(page) for page in PAGES}
# Pages whose files must be there before their commands are understood.
WITH_FILES = {block.page for block in BLOCKS if block.file}
# What typer says of a command or an option that the text names without its argument; it exports neither.
ONLY_NAMED = ("MissingParameter", "BadOptionUsage")
HELD = """
import sys
from pathlib import Path
sys.path.append(sys.argv[1])
from tests.doc_commands import asked, called
for lines in sys.argv[2:]:
    print(*asked(called(lines, Path.cwd())))
"""


@pytest.fixture
def folder(played: Played) -> Path:
    """The played folder with what an operator has beside it."""
    shutil.copy(ROOT / ".env.example", played.folder)
    shutil.copy(ROOT / "recipes/wan2.1-1.3b.yaml", "my-wan.yaml")
    (played.folder / "serve").mkdir()
    (played.folder / "serve/auth").write_text("vidloop:secret")
    return played.folder


@pytest.mark.parametrize("page", sorted(SHELL.keys() - WITH_FILES))
def test_commands_of_a_page_are_understood_and_cheap_ones_run(
    page: str,
    played: Played,
    folder: Path,
) -> None:
    for block in SHELL[page]:
        for one in asked(called(played.filled(block.text), folder)):
            if one.only_looks:
                result = typer.testing.CliRunner().invoke(commands(), one.words)
                assert result.exit_code == 0, f"{block}: {one.words}\n{result.output}"


@pytest.mark.parametrize(
    "page", [page for page, found in IN_TEXT.items() if found and page not in WITH_FILES]
)
def test_commands_in_the_text_of_a_page_are_understood(page: str, folder: Path) -> None:
    for command in IN_TEXT[page]:
        try:
            list(asked(called(command, folder)))
        except Exception as error:
            if type(error).__name__ not in ONLY_NAMED:
                raise


@pytest.mark.parametrize("page", sorted(WITH_FILES))
def test_commands_of_a_page_with_files_are_understood_where_these_are(page: str, folder: Path) -> None:
    copy = copy_with(page, folder / "copy")
    lines = [*(block.text for block in SHELL.get(page, ())), *IN_TEXT[page]]
    copy.run("-c", HELD, ROOT, *lines)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "crontab"], ids=str)
def test_lines_for_cron_are_such(block: Block, folder: Path) -> None:
    from prefect.client.schemas.schedules import CronSchedule

    found = re.fullmatch(r"((?:\S+ ){5}) *cd \S+ && (.*)\n", block.text)
    assert found is not None
    CronSchedule(cron=found[1].strip(), timezone="UTC")
    assert list(asked(called(found[2], folder)))
