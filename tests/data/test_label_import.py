"""Files of labels: ours and three of others'; what is wrong is named by line, and nothing is half there."""

import contextlib
import csv
import dataclasses
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data import labels
from data.errors import DataError
from data.keys import bytes_digest
from data.label_files import FORMATS
from data.label_import import import_labels
from data.records import Import

CLIPS = ("c1", "c2", "c3")


@pytest.fixture
def filled(store, commit, make_clip, tmp_path):
    """A store with three clips, whose videos lie beside the tables too."""
    for clip in CLIPS:
        (tmp_path / f"{clip}.mp4").write_bytes(clip.encode())
    commit("generate", clips=[make_clip(clip, video_sha256=bytes_digest(clip.encode())) for clip in CLIPS])
    return store


def table(path, rows):
    """Rows in a file of the kind that its ending says."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), path)
    else:
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
    return path


def said(store):
    return sorted(
        (row.question, row.clip_id, row.other_clip_id, row.rater, row.answer) for row in labels.every(store)
    )


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_our_own_columns_in_every_kind_of_file(filled, tmp_path, ending):
    sha256 = bytes_digest(b"c3")
    path = table(
        tmp_path / f"people.{ending}",
        [
            {"clip_id": "c1", "question": "good", "answer": "yes", "rater": "ann", "seconds": 2.5, "plays": 2,
             "words": "Is it good?", "at": "2026-11-30T19:00:00Z", "session": "s"},
            {"video": "c2.mp4", "question": "good", "answer": "0", "rater": "ann"},
            {"sha256": sha256, "question": "physics", "low": 1, "high": 5, "answer": "4", "rater": "bob"},
            {"clip_id": "c1", "other_clip_id": "c2", "question": "better", "answer": "second", "rater": "bob",
             "shown_left": "second", "gold": "first"},
        ],
    )  # fmt: skip
    found = import_labels(filled, path)
    assert (len(found.new), found.known, found.bad) == (4, 0, ())
    assert said(filled) == [
        ("better", "c1", "c2", "bob", "second"),
        ("good", "c1", None, "ann", "yes"),
        ("good", "c2", None, "ann", "no"),
        ("physics", "c3", None, "bob", "4"),
    ]
    pair, first, other, grade = sorted(labels.every(filled), key=lambda row: (row.question, row.clip_id))
    assert (pair.shown_left, pair.gold, pair.value) == ("c2", "first", 0.0)
    assert (first.seconds, first.plays, first.session) == (2.5, 2, "s")
    assert first.at == "2026-11-30T19:00:00.000000+00:00"
    assert (other.seconds, other.plays, other.at, other.shown_left) == (None, None, None, None)
    assert (grade.value, grade.low, grade.high) == (4.0, 1.0, 5.0)
    assert {row.source for row in labels.every(filled)} == {bytes_digest(path.read_bytes())}


def test_a_file_that_is_read_twice_or_grew_gives_each_vote_once(filled, tmp_path):
    rows = [{"clip_id": clip, "question": "good", "answer": "yes", "rater": "ann"} for clip in CLIPS]
    path = table(tmp_path / "people.csv", rows[:2])
    import_labels(filled, path)
    assert (import_labels(filled, path).new, import_labels(filled, path).known) == ((), 2)
    grown = import_labels(filled, table(path, rows))
    assert ([row.clip_id for row in grown.new], grown.known) == (["c3"], 2)
    assert len(labels.every(filled)) == 3


BAD = [
    ({"clip_id": "c9"}, "line 3: the store has no clip 'c9'"),
    ({"video": "gone.mp4", "clip_id": None}, "line 3: video 'gone.mp4' cannot be read"),
    ({"sha256": "0" * 64, "clip_id": None}, "line 3: the store has no clip of the video"),
    ({"answer": "perhaps"}, "line 3: good: 'perhaps' is not one of no, yes, skip"),
    ({"low": 1, "high": 5, "answer": "6"}, "line 3: good: '6' is no grade from 1 to 5"),
    ({"clip_id": "c1", "answer": "no"}, "line 3: rater ann answered good of c1 in line 2 already"),
    ({"rater": None}, "line 3: no rater"),
    ({"clip_id": None}, "line 3: no clip"),
    ({"video": "c2.mp4"}, "line 3: clip_id and video: name a clip by one of them"),
    ({"answr": "yes"}, "no column 'answr'; did you mean 'answer'"),
    ({"plays": 1.5}, "line 3: plays .*1.5.* is no whole number"),
]


@pytest.mark.parametrize(("change", "told"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_wrong_is_named_by_line_and_nothing_is_imported(filled, tmp_path, change, told):
    right = {"clip_id": "c1", "question": "good", "answer": "yes", "rater": "ann"}
    rows = [right, {**right, "clip_id": "c2", **change}]
    path = table(tmp_path / "people.csv", [{k: v for k, v in row.items() if v is not None} for row in rows])
    with pytest.raises(DataError, match=told):
        import_labels(filled, path)
    assert labels.every(filled) == []
    found = import_labels(filled, path, skip_bad=True)
    if "answr" not in change:  # there the column is wrong, of every row
        assert ([row.clip_id for row in found.new], len(found.bad)) == (["c1"], 1)


def test_a_rater_who_says_something_else_later_is_not_believed_twice(filled, tmp_path):
    row = {"clip_id": "c1", "question": "good", "answer": "yes", "rater": "ann"}
    import_labels(filled, table(tmp_path / "one.csv", [row]))
    other = {**row, "answer": "no"}
    with pytest.raises(
        DataError, match=r"line 1: .*with yes before; if it was asked again, say so in column repeat"
    ):
        import_labels(filled, table(tmp_path / "two.jsonl", [other]))
    import_labels(filled, table(tmp_path / "two.jsonl", [other | {"repeat": 1}]))
    assert [row.answer for row in sorted(labels.every(filled), key=lambda row: row.repeat)] == ["yes", "no"]


def test_two_clips_of_one_video_are_not_guessed_between(filled, commit, make_clip, tmp_path):
    commit("generate", "twin", clips=[make_clip("c4", video_sha256=bytes_digest(b"c1"))])
    row = {"video": "c1.mp4", "question": "good", "answer": "yes", "rater": "ann"}
    with pytest.raises(DataError, match=r"2 clips have the video c1\.mp4: say clip_id"):
        import_labels(filled, table(tmp_path / "people.csv", [row]))


def test_a_clip_from_outside_goes_by_the_file_that_it_was(filled, commit, make_clip, tmp_path):
    (tmp_path / "own.webm").write_bytes(b"as it came")
    how = {field.name: None for field in dataclasses.fields(Import)}
    how |= {"name": "mine", "source": "own.webm", "source_sha256": bytes_digest(b"as it came"), "conversion": "{}",
            "prompt_id": "p1", "status": "converted", "done": [], "clip_id": "c9"}  # fmt: skip
    commit("import", clips=[make_clip("c9", video_sha256="f" * 64)], imports=[Import(**how)])
    row = {"video": "own.webm", "question": "good", "answer": "yes", "rater": "ann"}
    assert [one.clip_id for one in import_labels(filled, table(tmp_path / "people.csv", [row])).new] == ["c9"]


def test_pairs_of_videogen_rewardbench(filled, tmp_path):
    row = {"path_A": "c1.mp4", "path_B": "c2.mp4", "A_model": "a", "B_model": "b", "prompt": "a ball falls"}
    path = table(tmp_path / "bench.csv", [row | {"VQ": "A", "MQ": "B", "TA": "same", "Overall": ""}])
    import_labels(filled, path, "videogen-rewardbench")
    assert [(one[0], *one[1:3], one[4]) for one in said(filled)] == [
        ("MQ", "c1", "c2", "second"),
        ("TA", "c1", "c2", "tie"),
        ("VQ", "c1", "c2", "first"),
    ]
    with pytest.raises(DataError, match="line 2: VQ 'C' is not one of A, B, same"):
        import_labels(filled, table(path, [row | {"VQ": "C"}]), "videogen-rewardbench")


def v2(**supervision):
    return {"schema_version": 2, "input": {"prompt": "a ball falls", "media": []}, "supervision": supervision,
            "metadata": {"annotator": "ann"}}  # fmt: skip


def video(path, **more):
    return {"media": [{"type": "video", "path": path, "fps": 8.0} | more]}


def test_records_of_flow_factory(filled, tmp_path):
    path = tmp_path / "train.jsonl"
    rows = [
        v2(type="preference", chosen=video("c2.mp4"), rejected=video("c1.mp4")),
        v2(type="demonstration", target=video("c3.mp4")),
    ]
    import_labels(filled, table(path, rows), "flow-factory")
    assert said(filled) == [
        ("demonstration", "c3", None, "ann", "yes"),
        ("preference", "c2", "c1", "ann", "first"),
    ]
    wrong = [
        v2(type="preference", chosen=video("c2.mp4"), rejected=video("c1.png", type="image")),
        v2(type="wish"),
        {"schema_version": 1},
    ]
    with pytest.raises(
        DataError, match=r"(?s)line 1: supervision.rejected.media has 0 videos.*'wish'.*schema_version 1"
    ):
        import_labels(filled, table(path, wrong), "flow-factory")


def test_marks_of_videophy2(filled, tmp_path):
    row = {"caption": "a ball falls", "video_url": "https://example.org/v/c1.mp4?download=true", "joint": 0}
    import_labels(filled, table(tmp_path / "marks.csv", [row | {"sa": 5, "pc": 2}]), "videophy2")
    assert said(filled) == [("pc", "c1", None, "videophy2", "2"), ("sa", "c1", None, "videophy2", "5")]
    with pytest.raises(DataError, match="line 2: pc: '6' is no grade from 1 to 5"):
        import_labels(filled, table(tmp_path / "more.csv", [row | {"pc": 6}]), "videophy2")


RIGHT = {
    "own": {"clip_id": "c1", "other_clip_id": "c2", "question": "good", "kind": "pair", "answer": "first", "rater": "ann",
            "session": "s", "at": "2026-11-30", "seconds": 1.5, "plays": 1, "shown_left": "first", "gold": "tie",
            "repeat": 0, "words": "Which?", "low": 0, "high": 1},
    "videogen-rewardbench": {"path_A": "c1.mp4", "path_B": "c2.mp4", "VQ": "A"},
    "videophy2": {"video_url": "https://example.org/c1.mp4", "sa": 5, "pc": 1},
    "flow-factory": {"schema_version": 2, "metadata": {"annotator": "ann"}, "supervision": {
        "type": "preference", "chosen": {"media": [{"type": "video", "path": "c1.mp4"}]},
        "rejected": {"media": [{"type": "video", "path": "c2.mp4"}]}}},
}  # fmt: skip
ODD = st.sampled_from([
    10**400, -(10**400), 1e400, "1e400", 2**63, -1, True, None, "", " ", "c1", "c1.mp4", "c3", "\ud800", "\0", "a\0b",
    "http://[", "http://x/%00", "..", ".", "/", "A", "first", "0001-01-01T00:00+23:00", "9999-12-31T23:59-23:00", "pair",
    "grade", 2, 2.0, "2", 5, "x" * 300, [], {}, [[]], [{}], {"media": [{}]}, {"media": [{"type": "video", "path": "\0"}]},
])  # fmt: skip


@st.composite
def changed(draw, given):
    """The same with some of its parts, at whatever depth, another value."""
    if isinstance(given, dict) and draw(st.integers(0, 3)):
        return {name: draw(changed(value)) for name, value in given.items() if draw(st.integers(0, 9))}
    if isinstance(given, list) and draw(st.integers(0, 3)):
        return [draw(changed(value)) for value in given]
    return draw(ODD) if not draw(st.integers(0, 4)) else given


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), format_=st.sampled_from(sorted(FORMATS)))
def test_whatever_a_row_holds_is_a_vote_or_refused(filled, tmp_path, data, format_):
    """With `--skip-bad` every row is a label or a reason with its line, and what was kept can be read."""
    rows = [data.draw(changed(RIGHT[format_])) for _ in range(2)]
    path = tmp_path / "odd.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows if isinstance(row, dict)))
    found = import_labels(filled, path, format_, skip_bad=True)
    assert len(found.bad) <= len(rows)
    assert {row.label_id for row in found.new} <= {row.label_id for row in labels.every(filled)}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=60), head=st.booleans())
def test_whatever_a_text_holds_is_read_or_refused(filled, tmp_path, text, head):
    path = tmp_path / "odd.csv"
    path.write_text(
        ("clip_id,question,answer,rater\n" if head else "") + text, errors="surrogatepass", newline=""
    )
    with contextlib.suppress(DataError):
        import_labels(filled, path, skip_bad=True)


def test_files_that_cannot_be_read_say_so(filled, tmp_path):
    for name, format_, told in (
        ("gone.csv", "own", "cannot be read"),
        ("people.xlsx", "own", "come in files .csv, .jsonl, .parquet"),
        ("people.csv", "flow-factory", "come in files .jsonl"),
        ("people.csv", "flowfactory", "did you mean 'flow-factory'"),
    ):
        if name != "gone.csv":
            (tmp_path / name).write_text("clip_id\n")
        with pytest.raises(DataError, match=told):
            import_labels(filled, tmp_path / name, format_)
