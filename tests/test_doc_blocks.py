"""Every fenced block of the documentation is tried: Python runs, SQL is answered, lines of a recipe can be planned."""

from __future__ import annotations

import contextlib
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from data.errors import UserError
from data.plugins import GROUPS
from data.queries import run_query
from data.store import Store
from flows.config.load import load_recipe
from flows.config.rewards import as_mapping, merged
from flows.rounds.dry_run import plan_lines, to_look_at
from rewards.judge.rubric import Rubric, load_rubric
from tests.doc_blocks import BLOCKS, ROOT, Block, by_page
from tests.played import RECIPE, Played, played, played_once  # noqa: F401  (fixtures)

# What tries the blocks that need more than a folder with a played round: it names the page.
TRIED = {
    "docs/add-a-reward.md": "tests/rewards/test_added_reward.py",
    "docs/add-an-objective.md": "tests/tasks/test_add_an_objective.py",
    "docs/families.md": "tests/models/families/test_families_page.py",
}
# Lines that name something of the reader's own: what `plan` says of it is all that is wrong with them.
READERS_OWN = {
    "clips: {imported: outside}": "holds no imported set 'outside'",
    "hpsv2: {model: weights/hpsv21}": "hpsv2.model: there is no folder weights/hpsv21",
    "prompt: prompts/videoscore.txt": "videoscore.prompt: prompts/videoscore.txt cannot be read",
}
# Words of blocks that a test of the page's own runs, on a network made for it.
ELSEWHERE = {"from_single_file": "tests/models/families/test_layout.py"}
LANGUAGES = {"sh", "python", "yaml", "toml", "sql", "crontab", "text"}


def parts(language: str) -> list[Any]:
    return [pytest.param(one, id=str(one)) for page in by_page(language).values() for one in page]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_fence_says_what_its_block_is(block: Block) -> None:
    assert block.language in LANGUAGES, f"{block}: say sh, python, ..., or text of what nobody runs"


def test_blocks_that_are_whole_files_are_tried_by_a_test_of_their_page() -> None:
    pages = {block.page for block in BLOCKS if block.file}
    assert pages == TRIED.keys()
    assert [page for page, test in TRIED.items() if page not in (ROOT / test).read_text("utf-8")] == []


def given(page: str, played: Played) -> dict[str, Any]:
    """What the lines of a page take for granted."""
    if page == "docs/oracle.md":
        from data.video import decode_mp4

        return {"frames": decode_mp4(next(played.folder.glob("store/media/*/*.mp4")))[0]}
    if page == "docs/add-a-template.md":
        import miniature.world.catalog

        return dict(vars(miniature.world.catalog))
    if page == "docs/run-your-own-model.md":
        as_bin(Path("my-wan"))
    return {}


def as_bin(folder: Path) -> None:
    """The miniature with its weights as .bin only."""
    shutil.copytree(ROOT / "miniature/weights/wan", folder)
    for part, name in (("transformer", "diffusion_"), ("vae", "diffusion_"), ("text_encoder", "")):
        (weights,) = (folder / part).glob("*.safetensors")
        torch.save(load_file(weights), weights.with_name(f"{name}pytorch_model.bin"))
        weights.unlink()


@pytest.mark.parametrize("page", by_page("python"))
def test_python_lines_run_in_the_order_of_their_page(page: str, played: Played) -> None:
    names = given(page, played)
    for block in by_page("python")[page]:
        if (test := tried_elsewhere(block)) is None:
            exec(compile(played.filled(block.text), str(block), "exec"), names)
        else:
            assert page.split("/")[-1] in (ROOT / test).read_text("utf-8")


def tried_elsewhere(block: Block) -> str | None:
    return next((test for word, test in ELSEWHERE.items() if word in block.text), None)


@pytest.mark.parametrize("block", parts("yaml"))
def test_lines_for_a_file_of_settings_fit_into_one(block: Block, played: Played) -> None:
    lines = yaml.safe_load(block.text.replace("<commit>", "0" * 40))
    if lines.keys() <= Rubric.model_fields.keys():
        rubric = yaml.safe_load((ROOT / "rewards/judge/rubrics/general.yaml").read_text("utf-8"))
        Path("rubric.yaml").write_text(yaml.safe_dump(rubric | lines), "utf-8")
        assert load_rubric("rubric.yaml").questions
        return
    base = yaml.safe_load(Path(RECIPE).read_text("utf-8"))
    base["rewards"], lines["rewards"] = (
        as_mapping(one.get("rewards", base["rewards"])) for one in (base, lines)
    )
    Path(RECIPE).write_text(yaml.safe_dump(merged(base, lines)), "utf-8")
    lacks = next((said for line, said in READERS_OWN.items() if line in block.text), None)
    refused = contextlib.nullcontext() if lacks is None else pytest.raises(UserError, match=re.escape(lacks))
    with refused, to_look_at(load_recipe(RECIPE), "store") as context:
        assert list(plan_lines(context))


@pytest.mark.parametrize("block", parts("toml"))
def test_entry_points_are_of_groups_that_are_looked_up(block: Block) -> None:
    groups = tomllib.loads(block.text)["project"]["entry-points"]
    assert groups.keys() <= set(GROUPS)


@pytest.mark.parametrize("block", parts("sql"))
def test_queries_are_answered(block: Block, played: Played) -> None:
    for sql in block.text.split("\n\n"):
        names, _ = run_query(Store.open("store"), sql)
        assert names
