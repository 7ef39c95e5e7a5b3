"""`vidloop import clips`: a folder of somebody else's videos becomes a set of clips, each file with its reason."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import typer.testing

from data.errors import ConfigError, DataError
from data.queries import run_query
from data.store import Store
from data.video import decode_mp4
from flows.cli.main import commands
from flows.rounds.plain import plain_stage
from tests.odd_videos import moving, odd_files, video
from tests.tiny_round import HELDOUT, TRAIN, begun

FORM = ("--fps", "8", "--frames", "16", "--size", "96x64")


def run(*words):
    return typer.testing.CliRunner().invoke(commands(), ["import", "clips", *map(str, words)])


def table(folder: Path, *lines: tuple[str, ...], header=("path", "prompt"), name="prompts.csv") -> Path:
    with open(folder / name, "w", newline="") as file:
        csv.writer(file).writerows([header, *lines])
    return folder / name


def rows(store: Path, what="*"):
    names, found = run_query(Store.open(store), f"SELECT {what} FROM imports ORDER BY source")
    return [dict(zip(names, row, strict=True)) for row in found]


def test_each_odd_file_is_taken_converted_or_refused_with_its_reason(tmp_path):
    files = odd_files()
    assert len(files) >= 30
    for name, (data, _, _) in files.items():
        (tmp_path / name).write_bytes(data)
    table(tmp_path, *[(name, f"clip {place}") for place, name in enumerate(files)])
    done = run(tmp_path, "--name", "odd", *FORM, "--store", tmp_path / "store")
    assert done.exit_code == 0, done.output
    found = {row["source"]: row for row in rows(tmp_path / "store")}
    assert set(found) == set(files)
    wrong = {
        name: (found[name]["status"], found[name]["reason"], found[name]["done"])
        for name, (_, status, said) in files.items()
        if found[name]["status"] != status or said not in (found[name]["reason"] or str(found[name]["done"]))
    }
    assert not wrong
    # What shows the whole of the moving light shows the same, whatever held it.
    store = Store.open(tmp_path / "store")
    _, clips = run_query(store, "SELECT source, video_path FROM imports JOIN clips USING (clip_id)")
    shown = {source: decode_mp4(store.read_media(path)) for source, path in clips}
    assert {(fps, frames.shape) for frames, fps in shown.values()} == {(8.0, (16, 64, 96, 3))}
    other = {
        "cinema.mp4",
        "ntsc.mp4",
        "uneven.mkv",
        "edited.mp4",
        "larger.mp4",
        "wide.mp4",
        "odd.mp4",
        "oblong.mp4",
    }
    for name in shown.keys() - other:
        assert np.abs(shown[name][0].astype(int) - moving()).mean() < 2.5, name
    # Every third picture of the one at 24 a second, on uneven times as well; the edit begins at its fifth.
    third, later = moving(48)[::3], moving(24)[4:20]
    assert np.abs(shown["cinema.mp4"][0].astype(int) - third).mean() < 2.5
    assert np.abs(shown["uneven.mkv"][0].astype(int) - third).mean() < 4
    assert np.abs(shown["edited.mp4"][0].astype(int) - later).mean() < 2.5
    assert f"{tmp_path / 'prompts.csv'}:" in done.output


def test_files_that_are_none_are_not_read(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (tmp_path / "secret.mp4").write_bytes(video(moving()))
    (folder / "good.mp4").write_bytes(video(moving()))
    (folder / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (folder / "zero.mp4").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.mp4")
    (folder / "folder.mp4").mkdir()
    (folder / "inside").symlink_to(tmp_path)
    expected = {
        "good.mp4": None,
        "link.mp4": "it is a link, which is not followed: name the file itself",
        "zero.mp4": "it is a link, which is not followed: name the file itself",
        "/dev/zero": "it is a device",
        "pipe.mp4": "it is a pipe",
        "folder.mp4": "it is a folder",
        "../secret.mp4": "it leaves the folder: name it by its absolute path if that is meant",
        "inside/secret.mp4": "it leaves the folder: name it by its absolute path if that is meant",
        "gone.mp4": "there is no such file",
        "good.mp4/x": "there is no such file",
    }
    table(folder, *[(name, "a light moves") for name in expected])
    done = run(folder, "--name", "set", "--store", tmp_path / "store")
    assert done.exit_code == 0, done.output
    assert {row["source"]: row["reason"] for row in rows(tmp_path / "store")} == expected
    # On purpose, by its absolute path.
    path = table(folder, (str(tmp_path / "secret.mp4"), "a light moves"), name="outside.csv")
    assert run(path, "--name", "outside", "--store", tmp_path / "other").exit_code == 0


@pytest.mark.parametrize(
    ("header", "lines", "said"),
    [
        (("path", "prompt", "categroy"), [("a.mp4", "x", "y")], "column 'categroy' is not known; did you mean 'category'"),
        (("path", "prompt"), [("a.mp4", "x"), ("a.mp4", "y")], "prompts.csv:3: names the file of line 2 again"),
        (("path", "prompt"), [("a.mp4", "x"), ("./a.mp4", "y")], "prompts.csv:3: names the file of line 2 again"),
        (("path", "prompt"), [("a.mp4", "x"), ("b.mp4", "")], "prompts.csv:3: the prompt is empty"),
        (("path", "prompt"), [("a.mp4", ""), ("b.mp4", "")], "prompts.csv:2: the prompt is empty: write a text or remove it\n"),
        (("path", "prompt"), [("", "x")], "prompts.csv:2: no path: name the clip's file"),
        (("file", "prompt"), [("a.mp4", "x")], "column 'file' is not known"),
        (("path",), [("a.mp4",)], "no field 'text' (or 'prompt')"),
        (("path", "prompt"), [], "holds no lines"),
    ],
)  # fmt: skip
def test_a_table_that_is_wrong_is_refused_by_line_before_anything(tmp_path, header, lines, said):
    table(tmp_path, *lines, header=header)
    done = run(tmp_path, "--name", "set", "--store", tmp_path / "store")
    assert done.exit_code == 2
    assert said in done.output
    assert not (tmp_path / "store").exists()


def test_what_is_said_wrong_says_so(tmp_path):
    for words, said in (
        ((tmp_path / "no", "--name", "a"), "no clips at"),
        ((tmp_path, "--name", "a"), "holds no table of prompts"),
        ((tmp_path, "--name", "../a"), "--name '../a'"),
        ((tmp_path, "--name", "a", "--size", "64"), "--size '64': say width and height as 832x480"),
        ((tmp_path, "--name", "a", "--fps", "0"), "fps"),
        ((tmp_path, "--name", "a", "--fit", "wrap"), "fit"),
    ):
        done = run(*words, "--store", tmp_path / "store")
        assert (done.exit_code, said in done.output) == (2, True), (words, done.output)
    table(tmp_path)
    table(tmp_path, name="more.csv")
    done = run(tmp_path, "--name", "a", "--store", tmp_path / "store")
    assert "holds 2 tables (more.csv, prompts.csv" in done.output


def test_columns_of_no_use_and_other_formats_of_the_table(tmp_path):
    (tmp_path / "a.mp4").write_bytes(video(moving()))
    table(tmp_path, ("a.mp4", "a light", "luck", "0.7"), header=("path", "text", "category", "aesthetic"))
    assert "say --ignore aesthetic" in run(tmp_path, "--name", "a", "--store", tmp_path / "store").output
    done = run(tmp_path, "--name", "a", "--ignore", "aesthetic", "--store", tmp_path / "store")
    assert done.exit_code == 0, done.output
    line = {"path": "a.mp4", "prompt": "a light", "category": "luck"}
    (tmp_path / "clips.jsonl").write_text(json.dumps(line) + "\n")
    done = run(tmp_path / "clips.jsonl", "--name", "b", "--store", tmp_path / "store")
    assert done.exit_code == 0, done.output
    _, found = run_query(
        Store.open(tmp_path / "store"), "SELECT prompt, category, policy_id, fps, frames FROM clips"
    )
    assert found == [("a light", "luck", "imported", 8.0, 16)]  # the same clip, once


def test_a_file_twice_under_two_names_counts_once(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(video(moving()))
    table(tmp_path, ("a.mp4", "a light"), ("b.mp4", "a light"))
    done = run(tmp_path, "--name", "a", "--store", tmp_path / "store")
    assert "b.mp4: it has the bytes and the prompt of a.mp4" in done.output
    assert "Set a: 1 clips" in done.output


def test_nothing_taken_makes_no_set(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"text")
    table(tmp_path, ("a.mp4", "a light"))
    done = run(tmp_path, "--name", "a", "--store", tmp_path / "store")
    assert done.exit_code == 2
    assert "no file was taken, so there is no set a" in done.output
    assert rows(tmp_path / "store", "status") == [{"status": "refused"}]
    assert not (tmp_path / "store/imports").exists()


@pytest.mark.parametrize(
    ("fit", "top", "corner"),
    [("crop", "converted", (40, 40)), ("pad", "converted", (0, 0)), ("stretch", "converted", (40, 40))],
)
def test_another_size_is_cut_padded_or_stretched(tmp_path, fit, top, corner):
    (tmp_path / "a.mp4").write_bytes(video(moving(16, 128, 64)))
    table(tmp_path, ("a.mp4", "a light"))
    done = run(tmp_path, "--name", "a", "--size", "64x64", "--fit", fit, "--store", tmp_path / "store")
    assert done.exit_code == 0, done.output
    assert rows(tmp_path / "store", "status") == [{"status": top}]
    store = Store.open(tmp_path / "store")
    ((path,),) = run_query(store, "SELECT video_path FROM clips")[1]
    frames, _ = decode_mp4(store.read_media(path))
    assert frames.shape == (16, 64, 64, 3)
    # A slope of red from left to right, and of green from top to bottom; black bars above and below.
    assert abs(int(frames[0, 2, 60, 1]) - corner[1]) < 12
    whole = moving(16, 128, 64)
    left = {"crop": whole[0, 60, 32, 0], "pad": 0, "stretch": whole[0, 60, 0, 0]}[fit]
    assert abs(int(frames[0, 60, 0, 0]) - int(left)) < 12


def test_an_import_that_was_killed_goes_on_where_it_was(tmp_path, vidloop):
    for place in range(70):
        frames = moving(4, 32, 32)
        frames[:, :16, :16] = place * 3
        (tmp_path / f"{place}.mp4").write_bytes(video(frames))
    table(tmp_path, *[(f"{place}.mp4", f"light {place}") for place in range(70)])
    words = ("import", "clips", tmp_path, "--name", "a", "--store", tmp_path / "store")
    killed = vidloop(*words, VIDLOOP_FAILPOINT="store.before_manifest:3", VIDLOOP_FAILPOINT_ACTION="kill")
    assert killed.code == -9
    manifests = tmp_path / "store/manifests/import"
    first = {path: path.stat().st_mtime_ns for path in manifests.iterdir()}
    assert len(first) == 2
    assert not (tmp_path / "store/imports").exists()
    done = vidloop(*words)
    assert "Set a: 70 clips" in done.out, done.err
    after = {path: path.stat().st_mtime_ns for path in manifests.iterdir()}
    assert len(after) == 3
    assert first.items() <= after.items()


def test_clips_of_one_store_score_the_same_in_another(tmp_path, tiny):
    """Encoded once more on the way: within a few per cent of what they had."""
    store = begun(tiny).store
    for stage in ("generate", "score"):
        plain_stage(stage, begun(tiny))
    _, made = run_query(store, "SELECT clip_id, prompt, category, video_path FROM clips")
    for clip, _, _, path in made:
        (tmp_path / f"{clip}.mp4").write_bytes(store.read_media(path))
    header = ("path", "prompt", "category")
    listed = table(tmp_path, *[(f"{clip}.mp4", prompt, of) for clip, prompt, of, _ in made], header=header)
    other = tiny.at(tmp_path / "other")
    done = run(listed, "--name", "theirs", "--recipe", tiny.recipe, "--store", other.store)
    assert done.exit_code == 0, done.output
    context = begun(other, "clips.imported=theirs")
    assert context.jobs == ()
    plain_stage("score", context)
    assert run_query(context.store, "SELECT count(*) FROM scores")[1] == [(2 * len(made),)]
    _, theirs = run_query(
        context.store,
        "SELECT split_part(source, '.', 1), value FROM scores JOIN imports USING (clip_id) "
        "WHERE reward = 'sharpness'",
    )
    ours = dict(run_query(store, "SELECT clip_id, value FROM scores WHERE reward = 'sharpness'")[1])
    assert {clip: pytest.approx(ours[clip], rel=0.05) for clip in ours} == dict(theirs)
    # Both at once: what the policy makes teaches beside them.
    both = begun(other, "clips.imported=theirs", "clips.generated=true")
    assert len(both.jobs) == len(made)
    plain_stage("generate", both)
    plain_stage("score", both)
    plain_stage("curate", both)
    assert run_query(context.store, "SELECT count(*) FROM examples")[1] == [(2 * len(made),)]


def test_a_set_that_is_not_there_or_not_whole_says_so(tmp_path, tiny):
    with pytest.raises(ConfigError, match="holds no imported set 'none'; known: none"):
        begun(tiny, "clips.imported=none")
    (tmp_path / "a.mp4").write_bytes(video(moving(9, 32, 32)))
    table(tmp_path, ("a.mp4", TRAIN[0][0]))
    assert run(tmp_path / "prompts.csv", "--name", "mine", "--store", tiny.store).exit_code == 0
    with pytest.raises(ConfigError, match="did you mean 'mine'"):
        begun(tiny, "clips.imported=mien")
    context = begun(tiny, "clips.imported=mine")
    (path,) = (tiny.store / "media").rglob("*.mp4")
    path.unlink()
    with pytest.raises(DataError, match="`vidloop import clips` with the same files and options"):
        plain_stage("generate", context)
    assert run(tmp_path / "prompts.csv", "--name", "mine", "--store", tiny.store).exit_code == 0
    plain_stage("score", begun(tiny, "clips.imported=mine"))


def test_what_is_imported_may_not_examine(tmp_path, tiny):
    (tmp_path / "a.mp4").write_bytes(video(moving(9, 32, 32)))
    table(tmp_path, ("a.mp4", HELDOUT[0][0]))
    assert run(tmp_path / "prompts.csv", "--name", "mine", "--store", tiny.store).exit_code == 0
    with pytest.raises(ConfigError, match=r"with those that train, clips\.imported"):
        begun(tiny, "clips.imported=mine")
    with pytest.raises(ConfigError, match="policy takes the best of several clips"):
        begun(tiny, "clips.imported=mine", "policy={best_of: 2}", "evaluate.same_as_feedback=true")
