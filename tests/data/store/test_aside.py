"""What is taken out of a store: moved, with a line that says why; and what a lost format.json comes to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from data.errors import StoreError
from data.store import FORMAT, Damaged, Manifest, Store, format
from tests.data.store.places import files, in_a_folder


def lines(store: Store) -> list[dict[str, str]]:
    logs = store.find("aside/log*.jsonl")
    return [json.loads(line) for log in logs for line in store.read_file(log).splitlines()]


def test_nothing_that_is_set_aside_takes_another_things_place(store: Store) -> None:
    for content in (b"first", b"second", b"third"):
        store.write_file("rounds/r1/summary.json", content)
        store.set_aside("rounds/r1/summary.json", "why not")
    kept = store.find("aside/rounds/r1/*")
    assert [files(store.url)[path] for path in kept] == [b"first", b"second", b"third"]
    assert [line["path"] for line in lines(store)] == ["rounds/r1/summary.json"] * 3
    assert [line["now"] for line in lines(store)] == kept
    store.set_aside("rounds/r1/summary.json", "it is not there")
    assert len(lines(store)) == 3


@in_a_folder
def test_of_a_link_the_link_is_moved(store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("somebody's")
    (store.root / "champion.json").symlink_to(outside)
    store.set_aside("champion.json", "a link")
    assert outside.read_text() == "somebody's"
    assert (store.root / "aside/champion.json").is_symlink()


@in_a_folder
def test_a_folder_of_the_store_may_lie_on_another_disk(store: Store, other_disk: Path) -> None:
    (store.root / "media").symlink_to(other_disk)
    media = store.write_media(b"pixels", "mp4")
    store.path(media.path).write_bytes(b"pixies")
    assert store.write_media(b"pixels", "mp4") == media
    assert store.read_media(media.path) == b"pixels"
    assert (store.root / "aside" / media.path).read_bytes() == b"pixies"


def test_the_manifest_of_another_unit_is_no_manifest(
    store: Store, commit: Callable[..., Manifest], make_score: Callable[..., object]
) -> None:
    one, other = (commit("score", name, scores=[make_score("c1", 1.0)]) for name in ("one", "other"))
    there = store.read_file(f"manifests/score/{other.key}.json")
    store.backend.put(f"manifests/score/{one.key}.json", there)
    with pytest.raises(Damaged, match=r"manifest of another unit.*vidloop scrub --heal --store"):
        store.manifest(one.key)
    assert commit("score", "one", scores=[make_score("c1", 1.0)]) == one
    assert store.manifest(one.key) == one


@in_a_folder
@pytest.mark.parametrize("lost", ["gone", "folder", "later format"])
def test_a_lost_format_file_is_named_and_written_anew(
    store: Store, commit: Callable[..., Manifest], make_score: Callable[..., object], lost: str
) -> None:
    unit = commit("score", "one", scores=[make_score("c1", 1.0)])
    path = store.root / "format.json"
    written = json.loads(path.read_text())
    path.unlink()
    if lost == "folder":
        path.mkdir()
    elif lost == "later format":  # a flipped bit: the version that wrote it knows no such format
        path.write_text(json.dumps({**written, "format": FORMAT + 2}))
    with pytest.raises(Damaged, match="`vidloop scrub --heal --store"):
        Store.open(store.root)
    assert format.heal(store.backend) is not None
    assert Store.open(store.root).manifest(unit.key) == unit
    assert format.heal(store.backend) is None


def test_a_folder_of_something_else_does_not_become_a_store(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(StoreError, match="neither a store nor empty"):
        Store.open(tmp_path, create=True)
    with pytest.raises(StoreError, match="no store at"):
        Store.open(tmp_path)
