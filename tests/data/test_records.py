import dataclasses
import math

import pyarrow as pa
import pytest

from data.records import (
    SCHEMA_VERSION,
    TABLES,
    Clip,
    Evaluation,
    Policy,
    Score,
    clip_id,
    from_table,
    prompt_id,
    to_table,
)  # fmt: skip


def test_every_table_has_the_columns_of_its_rows():
    for name, spec in TABLES.items():
        assert spec.schema.names == [field.name for field in dataclasses.fields(spec.row)], name
        assert set(spec.key) <= set(spec.schema.names)
        assert spec.schema.metadata == {b"schema_version": str(SCHEMA_VERSION).encode()}


def test_only_measurements_may_be_null():
    nullable = {
        (name, field.name) for name, spec in TABLES.items() for field in spec.schema if field.nullable
    }
    assert nullable == {
        *(
            ("imports", name)
            for name in ("reason", "clip_id", "container", "codec", "pix_fmt", "width", "height", "rotation")
        ),
        *(("imports", name) for name in ("frames", "fps", "seconds")),
        ("choices", "value"),
        *(
            ("labels", name)
            for name in ("other_clip_id", "value", "at", "seconds", "plays", "shown_left", "gold")
        ),
        ("scores", "value"),
        ("scores", "error"),
        ("evaluations", "value"),
        ("evaluations", "error"),
        ("studies", "before"),
        ("studies", "after"),
        ("studies", "ci_low"),
        ("studies", "ci_high"),
    }


def test_rows_come_back_as_they_were_sorted_by_key(make_score):
    rows = [make_score("c2", 0.5), make_score("c1", None), make_score("c1", 1.0, reward="clip")]
    table = to_table("scores", rows)
    assert from_table("scores", table) == [rows[2], rows[1], rows[0]]
    assert to_table("scores", rows[::-1]).equals(table)


def test_lists_and_texts_of_policies_come_back():
    policy = Policy(
        "y1",
        "base",
        ["y0"],
        "dpo",
        "d1",
        "media/ab/x.safetensors",
        "0" * 64,
        8,
        16.0,
        ["to_q"],
        10,
        "{}",
        "[]",
    )
    assert from_table("policies", to_table("policies", [policy])) == [policy]
    assert to_table("policies", []).schema == TABLES["policies"].schema


def test_two_rows_of_one_key_are_refused(make_score):
    with pytest.raises(ValueError, match="two rows have the key"):
        to_table("scores", [make_score("c1", 1.0), make_score("c1", 0.0)])


def test_rows_of_another_table_are_refused(make_score):
    with pytest.raises(TypeError, match="holds Clip rows, not Score"):
        to_table("clips", [make_score("c1", 1.0)])


def test_values_of_a_wrong_type_are_refused(make_clip):
    with pytest.raises(TypeError, match="float"):
        to_table("clips", [make_clip("c1", seed=1.5)])
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        to_table("clips", [make_clip("c1", codec=5)])
    with pytest.raises(ValueError, match="fps holds a number that is not finite"):
        to_table("clips", [make_clip("c1", fps=math.nan)])
    with pytest.raises(ValueError, match="column codec may not be null"):
        to_table("clips", [make_clip("c1", codec=None)])


@pytest.mark.parametrize(
    ("value", "status", "error"),
    [(math.nan, "ok", None), (math.inf, "ok", None), (None, "ok", None), (0.0, "failed", "broken"),
     (None, "failed", None), (None, "failed", ""), (1.0, "ok", "but"), (1.0, "fine", None)],
)  # fmt: skip
def test_a_failed_judgement_is_never_a_number_and_always_has_a_reason(value, status, error):
    with pytest.raises(ValueError, match="status"):
        Score("c1", "clip", "v1", value, status, error, "{}")
    with pytest.raises(ValueError, match="status"):
        Evaluation("y1", "p1", "c", "heldout", 1, "physics", value, status, error, "c1")


def test_columns_of_a_later_version_are_left_out_and_missing_ones_noticed(make_clip):
    table = to_table("clips", [make_clip("c1")])
    assert from_table("clips", table.append_column("new", pa.array([1]))) == [make_clip("c1")]
    with pytest.raises(KeyError):
        from_table("clips", table.drop_columns(["seed"]))


def test_ids_are_functions_of_what_they_name():
    sampling = {"steps": 8, "guidance": 1.0}
    base = clip_id("base", "a ball", 1, sampling, 4)
    assert base == clip_id("base", "a ball", 1, dict(reversed(sampling.items())), 4)
    others = [
        clip_id("other", "a ball", 1, sampling, 4), clip_id("base", "a box", 1, sampling, 4),
        clip_id("base", "a ball", 2, sampling, 4), clip_id("base", "a ball", 1, {"steps": 9, "guidance": 1.0}, 4),
        clip_id("base", "a ball", 1, sampling, 8),
    ]  # fmt: skip
    assert len({base, *others}) == 6
    assert base.startswith("c")
    assert len(base) == 25
    assert prompt_id("a ball") != prompt_id("a box")
    assert len(prompt_id("a ball")) == 17


def test_a_clip_is_immutable(make_clip):
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_clip("c1").seed = 2  # type: ignore[misc]
    assert isinstance(make_clip("c1"), Clip)


def test_an_arrow_table_in_order_is_taken_as_it_is(store, make_score):
    rows = [make_score(f"c{i}", None if i % 3 else i / 7, reward=f"r{i % 2}") for i in range(3_000)]
    table = to_table("scores", rows)
    pieces = pa.concat_tables([table.slice(0, 7), table.slice(7)])
    committed = [
        store.commit("score", {"stage": "score", "name": str(i)}, {"scores": given}).part("scores")
        for i, given in enumerate((rows, table, pieces))
    ]
    assert len({part.sha256 for part in committed}) == 1
    for name, spec in TABLES.items():
        assert to_table(name, spec.schema.empty_table()).equals(to_table(name, []))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.select(t.schema.names[::-1]), "schema"),
        (lambda t: t.replace_schema_metadata({}), "schema"),
        (lambda t: t.take([1, 0, 2]), "not in the order of their key"),
        (lambda t: t.take([0, 0, 1]), "not in the order of their key"),
        (lambda t: t.take([0, 2, 1]), "not in the order of their key"),
        (lambda t: with_column(t, "value", [0.0, math.inf, None]), "not finite"),
        (lambda t: with_column(t, "value", [math.nan, None, None]), "not finite"),
        (lambda t: with_column(t, "detail", ["{}", None, "{}"]), "detail may not be null"),
    ],
)
def test_an_arrow_table_that_is_not_such_is_refused(make_score, change, said):
    table = to_table(
        "scores", [make_score("c1", 1.0), make_score("c1", 0.5, version="v2"), make_score("c2", None)]
    )
    with pytest.raises(ValueError, match=said):
        to_table("scores", change(table))


def with_column(table, name, values):
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(place), pa.array(values))
