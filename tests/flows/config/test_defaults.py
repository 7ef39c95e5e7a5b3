"""Every default of a recipe against a checked-in file: a fingerprint leaves defaults out, so a default that
changes would answer an old question with new words unless its component's version rises."""

from __future__ import annotations

import json
from pathlib import Path

from flows.config import defaults

HELD = Path(__file__).with_name("defaults.json")


def test_no_default_changes_without_a_new_version() -> None:
    held, found = json.loads(HELD.read_text()), defaults.defaults()
    assert defaults.forgotten(held, found) == [], (
        "raise the version of the stage or the reward, then: make generated"
    )
    assert held == found, "make generated"


def test_a_changed_default_is_noticed_and_a_new_version_settles_it() -> None:
    held = json.loads(HELD.read_text())
    changed = json.loads(HELD.read_text())
    changed["generate"]["defaults"]["generate.steps"] = 11
    assert defaults.forgotten(held, changed) == ["generate.steps"]
    changed["generate"]["version"] = held["generate"]["version"] + 1
    assert defaults.forgotten(held, changed) == []
    # A key that is new changes no fingerprint.
    changed = json.loads(HELD.read_text())
    changed["generate"]["defaults"]["generate.new_key"] = 1
    assert defaults.forgotten(held, changed) == []
