import numpy as np
import pytest

from miniature.world import table
from miniature.world.catalog import TEMPLATES, caption, parse
from miniature.world.scene import random_subjects


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_wrong_caption_is_a_caption_and_not_the_right_one(name):
    rng = np.random.default_rng(0)
    kinds = set()
    for _ in range(40):
        subjects = random_subjects(name, rng)
        wrong = table.wrong_caption(name, subjects, rng)
        parsed = parse(wrong)
        assert parsed is not None
        assert wrong != caption(name, subjects)
        if TEMPLATES[name].symmetric:
            assert wrong != caption(name, subjects[::-1])
        kinds.add(parsed.template == name)
    assert kinds == {True, False}


def test_the_tally_counts_every_clip_once():
    tally = table.judge_some("drop", first=0, clips=3, seed=0)
    for kind in ("right", "softened", "wrong", "broken"):
        assert table.count(tally, "drop", kind=kind)[0] == 3
    assert table.share(tally, "drop", kind="right") == 1.0
    assert table.share(tally, "drop", kind="broken") == 0.0
    laws = {law for _, kind, law, _ in tally if kind == "broken"}
    assert sum(table.count(tally, "drop", kind="broken", law=law)[0] for law in laws) == 3


def test_a_clip_does_not_depend_on_its_chunk():
    whole = table.judge_some("hit", first=0, clips=2, seed=1)
    parts = [table.judge_some("hit", first, 1, seed=1) for first in (0, 1)]
    assert whole == parts[0] + parts[1]


def test_the_tables_go_between_their_marks(tmp_path):
    drops = {("right", "", True): 3, ("right", "", False): 1, ("broken", "floats", False): 2}
    text = table.markdown(table.Tally({("drop", *clip): count for clip, count in drops.items()}))
    assert "| `drop` | 4 | 0.750 | 0.000 | 0.000 | 0.000 |" in text
    assert "| floats | 2 | 0.000 |" in text
    assert all(f"`{name}`" in text for name in TEMPLATES)
    page = tmp_path / "oracle.md"
    page.write_text("before\n<!-- the tables -->\nold\n<!-- end of the tables -->\nafter\n")
    table.write(text, "the command", page)
    written = page.read_text()
    assert written.startswith("before\n")
    assert written.endswith("\nafter\n")
    assert "old" not in written
    assert "`the command`" in written
    page.write_text("no marks")
    with pytest.raises(ValueError, match="no place for the tables"):
        table.write(text, "the command", page)


@pytest.mark.parametrize("arguments", [["--clips", "0"], ["--workers", "0"], ["--clips", "many"]])
def test_bad_arguments_end_with_a_message(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        table.main(arguments)
    assert end.value.code == 2
    assert arguments[0] in capsys.readouterr().err
