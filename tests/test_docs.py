"""The documentation: its links lead somewhere, its example works."""

import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from rewards import LoadedClip

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_of_the_repository_exist(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


def test_the_example_reward_scores_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "add-a-reward.md").read_text("utf-8")
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    module = types.ModuleType("brightness")
    monkeypatch.setitem(sys.modules, "brightness", module)  # dataclasses look their module up
    room = vars(module)
    exec(compile(code, "docs/add-a-reward.md", "exec", dont_inherit=True), room)

    def score(level: int, **settings: int) -> tuple[float | None, str | None]:
        clip = LoadedClip("c1", "a prompt", np.full((4, 8, 8, 3), level, np.uint8), 8.0)
        (judgement,) = room["BrightnessReward"](room["BrightnessSettings"](**settings)).score([clip])
        return judgement.value, judgement.error

    assert score(0) == (0.0, None)
    assert score(255)[0] == pytest.approx(1.0)
    assert score(255, skip=4) == (None, "no frame is left after skipping 4")
    versions = {room["brightness_version"](room["BrightnessSettings"](skip=skip)) for skip in (0, 1)}
    assert len(versions) == 2
