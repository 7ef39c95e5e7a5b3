import json
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import data
from data.errors import StoreError
from data.records import to_table
from data.store import FORMAT, Store
from tests.data.store.places import files, in_a_folder

CHECKOUT = Path(data.__file__).parents[1]
QUESTION = {"stage": "generate", "version": 1, "seed": 3, "steps": [1, 2]}


@pytest.fixture
def unit(store, make_clip):
    """A committed unit: one clip with a video and a latent."""
    video, latent = store.write_media(b"video" * 100, "mp4"), store.write_media(b"latent", ".safetensors")
    clip = make_clip("c1", video_path=video.path, video_sha256=video.sha256, latent_path=latent.path)
    return store.commit("generate", QUESTION, {"clips": [clip]}, [video, latent], info={"failed": 0})


def everything(store):
    """Every file of a store and its bytes, but for what was set aside, the times of rewards, and locks."""
    return {
        name: content
        for name, content in files(store.url).items()
        if not name.startswith(("aside/", "rewards/", "locks/"))
    }


def flip(store, path, position=-1):
    content = bytearray(store.backend.read(path))
    content[position] ^= 1
    store.backend.put(path, bytes(content))


def cut(store, path, size=3):
    store.backend.put(path, store.backend.read(path)[:size])


def remove(store, path):
    store.backend.remove(path)


def test_a_committed_unit_is_found_whole_and_read_back(store, unit, make_clip):
    again = Store.open(store.url)
    assert again.manifest(unit.key) == unit
    assert again.manifest(unit.key).digest == unit.digest
    assert again.verify(unit.key) is None
    [clip] = again.read(unit.key, "clips")
    assert clip == make_clip(
        "c1", video_path=clip.video_path, video_sha256=clip.video_sha256, latent_path=clip.latent_path
    )
    assert again.read_media(clip.video_path) == b"video" * 100
    assert again.manifests() == again.manifests("generate") == [unit]
    assert again.manifests("score") == []
    assert unit.question == QUESTION
    assert unit.info == {"failed": 0}


@in_a_folder
def test_parts_are_parquet_that_any_tool_opens(store, unit):
    [part] = unit.parts
    table = pq.read_table(store.path(part.path))
    assert table.num_rows == part.rows == 1
    assert table.schema.metadata[b"schema_version"] == b"1"
    assert pq.ParquetFile(store.path(part.path)).metadata.row_group(0).column(0).compression == "ZSTD"


def test_no_answer_is_none(store):
    assert store.manifest("0" * 64) is None
    assert store.verify("0" * 64) == "no manifest"
    with pytest.raises(StoreError, match="holds no unit"):
        store.read("0" * 64, "clips")


def test_a_table_the_unit_does_not_have_is_empty(store, unit):
    assert store.read(unit.key, "scores") == []
    assert store.arrow([], "pairs").num_rows == 0


def test_two_stores_of_the_same_work_are_equal_byte_for_byte(store, new_place, make_score):
    rows = [make_score(f"c{i}", i / 7) for i in range(20)]
    stores = [store, Store.open(new_place("other"), create=True)]
    for which, order in zip(stores, (rows, rows[::-1]), strict=True):
        which.commit(
            "score", {"stage": "score", "version": 1}, {"scores": order}, [which.write_media(b"m", "mp4")]
        )
    assert everything(stores[0]) == everything(stores[1])


def test_committed_bytes_hold_no_time_host_or_process(store, unit):
    held = everything(store)
    text = b"".join(held[path] for path in held if path.startswith(("manifests/", "parts/")))
    assert os.uname().nodename.encode() not in text
    assert store.url.encode() not in text
    manifest = json.loads(held[f"manifests/generate/{unit.key}.json"])
    assert set(manifest) == {
        "check", "counts", "key", "media", "parents", "parts", "question", "schema_version", "stage",
    }  # fmt: skip


@in_a_folder  # an object does not rot
def test_writing_media_twice_keeps_it_once_and_repairs_it(store):
    first = store.write_media(b"pixels", "mp4")
    flip(store, first.path)
    with pytest.raises(StoreError, match="was changed"):
        store.read_media(first.path)
    assert store.write_media(b"pixels", "mp4") == first
    assert store.read_media(first.path) == b"pixels"
    assert store.find("media/*/*") == [first.path]
    assert first.path == f"media/{first.sha256[:2]}/{first.sha256}.mp4"


@pytest.mark.parametrize("which", ["part", "media"])
@pytest.mark.parametrize(
    ("harm", "reason"),
    [(flip, "sha256 of"), (cut, "size of"), (remove, "missing")],
)
def test_a_harmed_file_is_noticed_and_the_unit_heals(store, unit, which, harm, reason):
    before = everything(store)
    harm(store, (unit.parts if which == "part" else unit.media)[0].path)
    assert reason in store.verify(unit.key)
    assert which in store.verify(unit.key)
    if which == "part":
        with pytest.raises(StoreError, match=r"`vidloop scrub --heal --store .*` sets aside"):
            store.read(unit.key, "clips")
    clips = [] if which == "part" else store.read(unit.key, "clips")
    store.discard(unit.key)
    assert store.manifest(unit.key) is None
    video, latent = store.write_media(b"video" * 100, "mp4"), store.write_media(b"latent", "safetensors")
    if clips:
        assert (
            store.commit("generate", QUESTION, {"clips": clips}, [latent, video], info={"failed": 0}) == unit
        )
        if store.backend.rots or harm is not flip:  # else nothing looks
            assert everything(store) == before
    assert store.find("tmp/*") == []


def test_level_size_does_not_read_the_bytes(store, unit):
    flip(store, unit.media[0].path)
    assert store.verify(unit.key, "size") is None
    cut(store, unit.media[0].path)
    assert "size of media" in store.verify(unit.key, "size")


def test_a_changed_manifest_counts_as_not_done(store, unit):
    path = f"manifests/generate/{unit.key}.json"
    store.backend.put(path, store.read_file(path).replace(b'"failed": 0', b'"failed": 1'))
    assert "changed after it was written" in store.verify(unit.key)
    with pytest.raises(StoreError, match="changed after it was written"):
        store.manifests()
    store.backend.put(path, b"{")
    assert "not a readable manifest" in store.verify(unit.key)
    store.discard(unit.key)
    assert store.verify(unit.key) == "no manifest"


def test_discard_keeps_what_other_units_name(store, unit, make_clip):
    media = unit.media
    clip = store.read(unit.key, "clips")
    other = store.commit("evaluate", {"stage": "evaluate", "version": 1}, {"clips": clip}, media, [unit.key])
    store.discard(unit.key)
    assert store.verify(other.key) is None
    assert store.manifests() == [other]
    assert not store.has(unit.parts[0].path)
    store.discard(unit.key)  # nothing left to do is fine


def test_the_first_of_two_answers_stays_and_the_second_is_reported(store, make_score, caplog):
    question = {"stage": "score", "version": 1}
    first = store.commit("score", question, {"scores": [make_score("c1", 1.0)]})
    with caplog.at_level(logging.WARNING, "vidloop.store"):
        assert store.commit("score", question, {"scores": [make_score("c1", 1.0)]}) == first
        assert not caplog.records
        assert store.commit("score", question, {"scores": [make_score("c1", 0.0)]}) == first
    assert "the first stays" in caplog.text
    assert store.read(first.key, "scores") == [make_score("c1", 1.0)]
    assert store.verify(first.key) is None


def test_many_processes_may_answer_one_question_at_once(store):
    code = (
        "import sys, time, pathlib; from data.store import Store; from data.records import Score\n"
        "store = Store.open(sys.argv[1]); print('ready', flush=True); sys.stdin.readline()\n"
        "row = Score('c1', 'clip', 'v1', float(sys.argv[2]), 'ok', None, '{}')\n"
        "print(store.commit('score', {'stage': 'score', 'version': 1}, {'scores': [row]}).digest)\n"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, store.url, str(i)], cwd=CHECKOUT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )
        for i in range(4)
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    digests = {writer.communicate()[0].strip() for writer in writers}
    [manifest] = store.manifests()
    assert digests == {manifest.digest}
    assert store.verify(manifest.key) is None


def test_rows_may_only_name_media_that_are_committed_with_them(store, make_clip):
    media = store.write_media(b"x", "mp4")
    with pytest.raises(ValueError, match=r"clips.video_path names media/.*not in `media`"):
        store.commit("generate", QUESTION, {"clips": [make_clip("c1", video_path=media.path)]})
    store.backend.remove(media.path)
    with pytest.raises(StoreError, match="is not there"):
        store.commit("generate", QUESTION, {"clips": [make_clip("c1", video_path=media.path)]}, [media])
    assert store.manifests() == []


def test_the_question_must_name_its_stage(store):
    for stage in ("score", "Generate", "../x", ""):
        with pytest.raises(ValueError, match="stage name"):
            store.commit(stage, QUESTION, {})


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../x", "media/../../x", "media//x", "", ".", "media/.hidden", "a\x00b", "a\\..\\b/c\n"],
)
def test_paths_from_data_cannot_leave_the_store(store, path):
    with pytest.raises(StoreError):
        store.read_media(path)
    with pytest.raises(StoreError):
        store.write_file(path, b"")


@pytest.mark.parametrize("key", ["", "..", "x" * 64, "*", "A" * 64, "0" * 63])
def test_keys_are_checked(store, key):
    with pytest.raises(StoreError, match="is not a key"):
        store.manifest(key)


def test_a_missing_store_is_an_error_unless_it_may_be_made(tmp_path):
    with pytest.raises(StoreError, match=r"no store at .*--store"):
        Store.open(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    Store.open(tmp_path / "none", create=True)
    assert Store.open(tmp_path / "none").manifests() == []


def test_a_folder_of_something_else_is_not_made_a_store(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match=r"is neither a store nor empty \(it holds thesis.tex\)"):
        Store.open(tmp_path, create=True)
    assert os.listdir(tmp_path) == ["thesis.tex"]
    with pytest.raises(StoreError):
        Store.open(tmp_path / "thesis.tex", create=True)


def test_a_store_half_made_when_the_power_went_is_made_whole(tmp_path):
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "x.tmp").write_bytes(b"")
    assert Store.open(tmp_path, create=True).manifests() == []


def test_a_newer_store_is_left_alone(store, unit):
    before = everything(store)
    later = {"format": FORMAT + 1, "written_by": "9.4.0"}
    store.backend.put("format.json", json.dumps(later).encode())
    with pytest.raises(StoreError, match=r"written by vidloop 9.4.0; .*use vidloop 9.4.0 or newer"):
        Store.open(store.url, create=True)
    store.backend.put("format.json", before["format.json"])
    assert everything(store) == before


def test_a_manifest_of_a_newer_schema_is_neither_read_nor_thrown_away(store, unit):
    path = f"manifests/generate/{unit.key}.json"
    later = store.read_file(path).replace(b'"schema_version": 1', b'"schema_version": 2')
    store.backend.put(path, later)
    with pytest.raises(StoreError, match="use the newer vidloop"):
        store.verify(unit.key)
    assert store.read_file(path) == later


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "x"}', "\x00"])
def test_a_damaged_format_file_is_named(store, content):
    store.backend.put("format.json", content.encode())
    with pytest.raises(StoreError, match=r"format.json is damaged"):
        Store.open(store.url)


def test_a_read_only_store_is_read_and_its_first_write_explains_itself(make_score):
    # As another user, because root writes anywhere; everything is imported before the rights are given up.
    code = (
        "import os, sys; from data.store import Store; from data.records import Score; from data.errors import StoreError\n"
        "root, key = sys.argv[1:]\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "store = Store.open(root)\n"
        "print(len(store.read(key, 'scores')), store.verify(key))\n"
        "for write in (lambda: store.write_media(b'x', 'mp4'), lambda: store.log_run('r1', {}), lambda: store.discard(key),\n"
        "              lambda: store.write_file('champion.json', b''), lambda: store.scratch(key),\n"
        "              lambda: store.commit('score', {'stage': 'score', 'v': 2}, {'scores': []})):\n"
        "    try: write(); print('written')\n"
        "    except StoreError as error: print(error)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        store = Store.open(Path(folder) / "store", create=True)
        key = store.commit("score", {"stage": "score", "v": 1}, {"scores": [make_score("c1", 1.0)]}).key
        for path in [store.root, *store.root.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        done = subprocess.run(
            [sys.executable, "-c", code, str(store.root), key], cwd=CHECKOUT, capture_output=True, text=True
        )
        for path in [store.root, *store.root.rglob("*")]:
            path.chmod(0o755)
    assert done.returncode == 0, done.stderr
    first, *errors = done.stdout.splitlines()
    assert first == "1 None"
    assert len(errors) == 6
    for error in errors:
        assert "cannot write" in error
        assert str(store.root) in error
        assert "make the store writable" in error


@in_a_folder
def test_a_file_where_a_folder_should_be_is_named(store):
    (store.root / "media").write_bytes(b"")
    with pytest.raises(StoreError, match=r"cannot use .*/media/.*: "):
        store.write_media(b"x", "mp4")


@in_a_folder
def test_run_facts_are_appended_outside_every_digest(store, unit):
    store.log_run("r1", {"stage": "generate", "seconds": 1.5})
    with open(store.root / "runs" / "r1.jsonl", "a") as file:
        file.write('{"torn": ')  # a crash in the middle of a line
    store.log_run("r1", {"stage": "score", "cached": True})
    lines = (store.root / "runs" / "r1.jsonl").read_text().splitlines()
    assert [json.loads(line)["stage"] for line in (lines[0], lines[2])] == ["generate", "score"]
    assert {"time", "host", "pid"} <= set(json.loads(lines[0]))
    assert store.verify(unit.key) is None
    with pytest.raises(StoreError):
        store.log_run("../r1", {})
    with pytest.raises(ValueError, match="JSON compliant"):
        store.log_run("r1", {"seconds": float("nan")})


def test_checkpoints_have_a_place_until_the_unit_is_done(store, unit):
    folder = store.scratch(unit.key)
    (folder / "step-10.safetensors").write_bytes(b"weights")
    assert store.scratch(unit.key) == folder
    assert os.listdir(folder) == ["step-10.safetensors"]
    store.clear_scratch(unit.key)
    assert not folder.exists()
    store.clear_scratch(unit.key)


@in_a_folder  # tests/data/store/test_objects.py has its like, with a shorter term
def test_a_lock_is_let_go_when_its_holder_dies(store):
    code = "import sys, os; from data.store import Store\nwith Store.open(sys.argv[1]).lock('gpu-0'): print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, store.url],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"held\n"
    holder.kill()
    holder.communicate()
    with store.lock("gpu-0"):
        pass


def test_written_files_are_replaced_in_one_step(store):
    for said in (b"{}", b"[]"):
        store.write_file("rounds/r1/summary.json", said)
        assert store.read_file("rounds/r1/summary.json") == said
    assert store.find("tmp/*") == []


def test_large_tables_keep_their_order_and_bytes(store, make_score):
    rows = [make_score(f"c{i:05d}", i / 3) for i in range(2000)]
    manifest = store.commit("score", {"stage": "score", "version": 1}, {"scores": rows[::-1]})
    assert store.read(manifest.key, "scores") == rows
    assert store.arrow([manifest.key], "scores").equals(to_table("scores", rows))
