"""`vidloop import labels`: what it says, and with which exit code."""

import typer.testing

from data import labels
from flows.cli.main import commands


def run(*words):
    return typer.testing.CliRunner().invoke(commands(), ["import", "labels", *map(str, words)])


def test_labels_are_imported_or_refused_in_words(store, commit, make_clip, tmp_path):
    commit("generate", clips=[make_clip("c1")])
    path = tmp_path / "people.csv"
    path.write_text("clip_id,question,answer,rater\nc1,good,yes,ann\nc9,good,yes,ann\n")
    refused = run(path, "--store", store.root)
    assert refused.exit_code == 2
    assert "line 3: the store has no clip 'c9'" in refused.output
    assert "--skip-bad" in refused.output
    assert labels.every(store) == []
    some = run(path, "--store", store.root, "--skip-bad")
    assert some.exit_code == 0
    assert some.output.startswith("1 labels of 1 clips by 1 raters; 0 were there before\nLeft out: 1 of its")
    assert len(labels.every(store)) == 1
    assert (
        "0 labels of 0 clips by 0 raters; 1 were there before"
        in run(path, "--store", store.root, "--skip-bad").output
    )
