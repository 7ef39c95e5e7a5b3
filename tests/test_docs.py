"""The documentation: its links lead somewhere, and what is listed is all there is."""

import re
from pathlib import Path

import pytest

from flows.config.reference import settings_page

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_of_the_repository_exist(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


VARIABLE = re.compile(r"\bVIDLOOP_[A-Z0-9_]*[A-Z0-9]\b")


def variables(*folders: str) -> set[str]:
    return {
        name
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        for name in VARIABLE.findall(path.read_text("utf-8"))
    }


def test_every_environment_variable_is_on_its_page_and_no_other() -> None:
    page = (ROOT / "docs" / "reference" / "environment.md").read_text("utf-8")
    program, compose, tests = re.split(r"^## .*$", page, flags=re.MULTILINE)[1:]

    def rows(section: str) -> set[str]:
        return set(VARIABLE.findall(" ".join(re.findall(r"^\| (`V[^|]*) \|", section, re.MULTILINE))))

    packages = ("vidloop", "flows", "tasks", "models", "rewards", "data", "miniature", "studies")
    assert rows(program) == variables(*packages)
    example = {name for name in VARIABLE.findall((ROOT / ".env.example").read_text("utf-8"))}
    assert rows(compose) == example - rows(program)
    made_up = {"VIDLOOP_JUDGE_KEY_NONE", "VIDLOOP_JUDGE_KEY_TEST"}
    assert rows(tests) == variables("tests", "benchmarks") - rows(program) - rows(compose) - made_up


def test_the_page_of_settings_is_what_the_models_say() -> None:
    held = (ROOT / "docs" / "reference" / "settings.md").read_text("utf-8")
    assert held == settings_page(), "make generated"
    assert "| `gate.confidence` | number" in held


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    named = set(re.findall(r"([\w./-]+\.md)$", text.split("\nnav:\n")[1], re.MULTILINE))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert named == pages | {"index.md", "contributing.md", "security.md", "changelog.md"}
