"""docs/families.md holds a whole family and its recipe: copied out of the page, they work."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.doc_files import ROOT, copy_with

CONTRACT = """
import dataclasses, sys, pytest
import tests.models.families.tiny as tiny
tiny.CASES = (dataclasses.replace(tiny.CASES[0], name="toy", family="toy"),)
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "tests/models/families/test_contract.py"]))
"""


@pytest.mark.slow
def test_the_family_of_the_page_plans_a_round_and_passes_the_contract(tmp_path: Path) -> None:
    copy = copy_with("docs/families.md", tmp_path / "tree")
    assert copy.files == ("models/families/toy.py", "recipes/toy.yaml")
    planned = copy.vidloop("plan", "--recipe", "recipes/toy.yaml", "--store", tmp_path / "store")
    assert "generate" in planned
    names = copy.run(
        "-c",
        "import sys; from models.families import family_names; print(*family_names(), 'torch' in sys.modules)",
    )
    assert names.split() == ["cogvideox", "ltx", "toy", "wan", "wan-experts", "False"]
    shutil.copytree(ROOT / "tests", copy.folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    assert " passed" in copy.run("-c", CONTRACT, limit_s=900)
