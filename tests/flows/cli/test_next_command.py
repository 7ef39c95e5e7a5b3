"""The command that a promoted round prints plays the next round of the same recipe, in the same store."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
import typer.testing

from data import champion
from flows.cli.main import commands
from flows.cli.options import report_on_terminal
from flows.config.load import load_recipe
from flows.reporting import console
from flows.rounds.plain import plain_round
from tests.tiny_round import Tiny, begun


@pytest.fixture
def spaced(tiny: Tiny) -> Tiny:
    """The tiny recipe and store in folders whose names a shell would take apart."""
    folder = tiny.folder / "Ann's rounds"
    folder.mkdir()
    shutil.copy(tiny.recipe, folder)
    return Tiny(folder, folder / "a store")


@pytest.mark.parametrize("by_command", [True, False])
def test_it_repeats_what_the_round_was_told(
    spaced: Tiny, by_command: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [
        'generate.negative_prompt=Ann\'s "$HOME"; rm',
        "seed=4",
        "finetune.steps=2",
        "gate.confidence=0.9",
    ]
    context = begun(spaced, *told)
    summary = plain_round(context)
    assert summary.policy_after is not None
    champion.promote(context.store, summary.policy_after, summary.round)
    monkeypatch.chdir(spaced.folder.parent)
    if by_command:
        report_on_terminal(str(spaced.recipe), told, plain=True)
    else:  # as a worker does, which knows no command
        lines: list[str] = []
        console.choose(console.ProgressReporter(lines.append))
    console.current().on_round_end(context, summary.model_copy(update={"promoted": True}))
    printed = capsys.readouterr().out.splitlines() if by_command else lines
    (line,) = (one for one in printed if one.strip().startswith("vidloop round"))
    program, *words = shlex.split(line.removesuffix("on from the new champion"))
    assert (program, ("--plain" in words)) == ("vidloop", by_command)
    result = typer.testing.CliRunner().invoke(commands(), [*words, "--dry-run"])
    assert result.exit_code == 0, result.output
    recipe = words[words.index("--recipe") + 1]
    again = load_recipe(recipe, [words[place + 1] for place, word in enumerate(words) if word == "--set"])
    before = load_recipe(str(spaced.recipe), told)
    changed = {"policy": "champion", "seed": 5}
    assert again.model_dump() == before.model_dump() | changed
    assert Path(words[words.index("--store") + 1]).resolve() == spaced.store
