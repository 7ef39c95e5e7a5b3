"""The benchmark of large tables, on small ones: its segment is one, and it says what it measured."""

import json

from benchmarks import tables
from data.queries import run_query
from data.store import Store, segments


def test_a_small_store_is_built_and_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(
        tables, "measured", lambda root: {name: tables.ask(root, name) for name in tables.questions(root)}
    )
    sizes = ["--clips", "64", "--rewards", "2", "--shard", "16", "--tail", "1", "--plain", "32"]
    tables.main(["--folder", str(tmp_path), "--out", str(tmp_path), *sizes])
    store = Store.open(tmp_path / "large-64")
    (segment,) = segments.live(store)
    assert (segment.alive, len(segments.tail(store))) == (12, 3)
    assert run_query(store, "SELECT count(*), count(DISTINCT clip_id) FROM scores")[1] == [(160, 80)]
    assert (
        len(
            store.read(segment.index.keys[0].decode(), "scores")
            + store.read(segment.index.keys[0].decode(), "clips")
        )
        == 16
    )
    said = json.loads((tmp_path / "tables.json").read_text())
    assert said["shape"]["scores"] == 160
    assert said["compacted"]["wide"]["seconds"] > 0
    assert said["compacted"]["plan"]["stages"][:2] == [
        "generate  4 cached, 0 to run", "score     4 cached, 0 to run",
    ]  # fmt: skip
    assert set(said["uncompacted"]) == set(tables.BARS) - {"plan"}
