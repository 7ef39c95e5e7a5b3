"""What programs and people leave in prompt files is taken for what it means, or refused with its line."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import DataError
from data.prompts import load_laws, load_prompts, same_text
from data.records import Prompt, prompt_id

NAN = float("nan")
TABLES = ("jsonl", "csv", "parquet")


@pytest.mark.parametrize(
    "columns",
    [
        pytest.param({"text": pa.nulls(3_000_000, pa.string())}, id="rows"),
        pytest.param({"text": ["x" * 1_000_000] * 2000}, id="bytes"),
    ],
)
def test_a_small_parquet_file_cannot_claim_millions_of_rows_or_gigabytes(
    columns: Any, tmp_path: Path
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "p.parquet", compression="zstd")
    assert (tmp_path / "p.parquet").stat().st_size < 20_000
    with pytest.raises(DataError, match="no table of texts"):
        load_prompts(tmp_path / "p.parquet")


def test_a_parquet_file_that_is_damaged_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "p.parquet"
    pq.write_table(pa.table({"text": ["a cup falls"], "when": pa.array([2**62], pa.timestamp("us"))}), file)
    assert [one.text for one in load_prompts(file)] == [
        "a cup falls"
    ]  # no other column is turned into values
    whole = file.read_bytes()
    for place in range(0, len(whole), 5):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0xA5]) + whole[place + 1 :])
        with contextlib.suppress(DataError):
            load_prompts(file)


def table(folder: Path, ending: str, names: list[str], rows: list[list[Any]]) -> Path:
    """A file of the same cells in one of the formats; CSV as pandas writes it, NaN and None as empty."""
    path = folder / f"p.{ending}"
    if ending == "parquet":
        columns = [pa.array(list(column)) for column in zip(*rows, strict=True)]
        pq.write_table(pa.Table.from_arrays(columns, names=names), path)
    elif ending == "jsonl":
        lines = (
            "{"
            + ", ".join(f"{json.dumps(n)}: {json.dumps(v)}" for n, v in zip(names, row, strict=True))
            + "}"
            for row in rows
        )
        path.write_text("\n".join(lines), encoding="utf-8")
    else:
        cells = [
            ["" if v is None or v != v else '"' + str(v).replace('"', '""') + '"' for v in row]
            for row in [names, *rows]
        ]
        path.write_text("".join(",".join(row) + "\n" for row in cells), encoding="utf-8", newline="")
    return path


def written(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_bytes(content.encode())
    return path


def own_ids(path: Path) -> list[str]:
    return [prompt.source.removeprefix(path.name).removeprefix("#") for prompt in load_prompts(path)]


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as error:
        load_prompts(path)
    return str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        'id, text, category\nw-1, "a cat, walking", animals\nw-2, a dog, animals\n',
        'id , text , category\n w-1 ,"a cat, walking", animals \n w-2 , a dog , animals \n',
        '  id,   text,\tcategory\r\nw-1,   "a cat, walking",\tanimals\r\n\r\nw-2,a dog\t,animals\r\n',
        '"id", "text", "category"\n"w-1", "a cat, walking", "animals"\n"w-2 ", " a dog", " animals"\n',
    ],
)
def test_blanks_around_cells_and_names_are_no_part_of_them(content: str, tmp_path: Path) -> None:
    assert load_prompts(written(tmp_path, "p.csv", content)) == [
        Prompt(prompt_id("a cat, walking"), "a cat, walking", "animals", "", "custom", "p.csv#w-1"),
        Prompt(prompt_id("a dog"), "a dog", "animals", "", "custom", "p.csv#w-2"),
    ]


@pytest.mark.parametrize("ending", TABLES)
def test_blanks_around_names_and_values_are_none_of_them_in_any_table(ending: str, tmp_path: Path) -> None:
    path = table(tmp_path, ending, [" text", "id ", " category "], [[" a cat ", " w-1", "animals\r\n"]])
    [prompt] = load_prompts(path)
    assert (prompt.text, prompt.category, prompt.source) == ("a cat", "animals", f"p.{ending}#w-1")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("2, a cat, walking", "3, not 2"),
        ('2,\t"a cat, walking"', "3, not 2"),
        ('2, "a cat" walks', "for each inside"),
        ('2, "a cat', "straight before the comma"),
    ],
)
def test_cells_in_doubt_are_refused_with_line_and_remedy(row: str, reason: str, tmp_path: Path) -> None:
    message = refusal(written(tmp_path, "p.csv", f"id, text\n1, a dog\n{row}\n"))
    assert "p.csv:3: " in message
    assert reason in message
    assert "double quotes" in message


@pytest.mark.parametrize("ending", TABLES)
@pytest.mark.parametrize(
    ("given", "read"),
    [
        ([NAN, 2.0, NAN], ["", "2", ""]),
        (["", "w-2", "   "], ["", "w-2", ""]),
        (["nan", "NaN", "nan"], ["", "", ""]),
        ([None, "w-2", None], ["", "w-2", ""]),
        (["None", "<NA>", "w-3"], ["", "", "w-3"]),
        (["null", "NULL", "NaT"], ["", "", ""]),
        (["nan-1", "banana", "none"], ["nan-1", "banana", "none"]),
    ],
)
def test_ids_that_are_missing_are_none(
    ending: str, given: list[Any], read: list[str], tmp_path: Path
) -> None:
    rows = [[text, one] for text, one in zip("abc", given, strict=True)]
    assert own_ids(table(tmp_path, ending, ["text", "id"], rows)) == read
    assert own_ids(table(tmp_path, ending, ["text", "prompt_id"], rows)) == read


@pytest.mark.parametrize("ending", TABLES)
@pytest.mark.parametrize(
    ("given", "read"),
    [
        ([1.0, 2.0, 30.0], ["1", "2", "30"]),
        ([0.0, NAN, 1e15], ["0", "", "1000000000000000"]),
        (["1.0", "007", ""], ["1", "007", ""]),
        ([1.0, 1.5, 2.0], ["1.0", "1.5", "2.0"]),
        (["1.0", "1.1", "1.10"], ["1.0", "1.1", "1.10"]),
        (["v1.0", "2.0", "3.0"], ["v1.0", "2.0", "3.0"]),
        ([9007199254740993, 9007199254740992, 7], ["9007199254740993", "9007199254740992", "7"]),
    ],
)
def test_ids_that_are_whole_numbers_lose_their_point(
    ending: str, given: list[Any], read: list[str], tmp_path: Path
) -> None:
    rows = [[text, one] for text, one in zip("abc", given, strict=True)]
    assert own_ids(table(tmp_path, ending, ["text", "id"], rows)) == read


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("given", [9007199254740994.0, 1e22, float("inf"), -1e300])
def test_floats_that_have_lost_digits_are_no_ids(ending: str, given: float, tmp_path: Path) -> None:
    message = refusal(table(tmp_path, ending, ["text", "id"], [["a", 1.0], ["b", given]]))
    assert ":2: " in message
    assert "has lost digits: write it as text" in message


def test_an_id_that_is_there_twice_however_it_is_written_is_refused(tmp_path: Path) -> None:
    for content in ('"1", "1.0"', "1, 1.0", '"w", " w"'):
        one, two = content.split(", ")
        path = written(tmp_path, "p.jsonl", f'{{"text": "a", "id": {one}}}\n{{"text": "b", "id": {two}}}')
        assert "p.jsonl:2: the same id as line 1" in refusal(path)


@pytest.mark.parametrize("ending", TABLES)
def test_labels_and_laws_that_are_missing_are_none(ending: str, tmp_path: Path) -> None:
    names = ["text", "category", "template", "split", "laws"]
    path = table(tmp_path, ending, names, [["a", NAN, NAN, NAN, NAN]])
    assert load_prompts(path) == [Prompt(prompt_id("a"), "a", "", "", "custom", path.name)]
    assert load_laws(path) == {}
    path = table(tmp_path, ending, names, [["a", "nan", "<NA>", "", ""], ["b", "none", "t", "dev", "heat"]])
    assert [(p.category, p.template, p.split) for p in load_prompts(path)] == [
        ("", "", "custom"),
        ("none", "t", "dev"),
    ]
    assert load_laws(path) == {prompt_id("b"): ("heat",)}


@pytest.mark.parametrize("ending", TABLES)
@pytest.mark.parametrize("given", ["nan", "NaN", "None", " <NA> "])
def test_a_text_that_is_missing_is_no_prompt(ending: str, given: str, tmp_path: Path) -> None:
    message = refusal(table(tmp_path, ending, ["text"], [["a"], [given]]))
    assert f"p.{ending}:{3 if ending == 'csv' else 2}: " in message
    assert "write a text or remove it" in message
    assert "p.txt:2: " in refusal(written(tmp_path, "p.txt", f"a\n{given}\n"))


def test_a_number_that_is_none_is_called_so(tmp_path: Path) -> None:
    assert "p.jsonl:1: the prompt is NaN" in refusal(written(tmp_path, "p.jsonl", '{"text": NaN}'))
    assert "p.parquet:1: the prompt is NaN" in refusal(table(tmp_path, "parquet", ["text"], [[NAN]]))


@pytest.mark.parametrize("ending", TABLES)
@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("two\r\nlines", "two\nlines"),
        ("a\r\n\r\nb\r\n", "a\n\nb"),
        ("old\rMac", "old\nMac"),
        ("\r\na\nb\rc", "a\nb\nc"),
    ],
)
def test_lines_of_a_cell_end_in_lf(ending: str, given: str, text: str, tmp_path: Path) -> None:
    [prompt] = load_prompts(table(tmp_path, ending, ["text", "category"], [[given, "x"]]))
    assert (prompt.text, prompt.prompt_id, prompt.category) == (text, prompt_id(text), "x")


def test_what_spreadsheets_of_windows_write_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, "p.csv", '\ufefftext,category\r\n"two\r\nlines",x\r\n"one, line",y\r\n')
    assert [(p.text, p.category) for p in load_prompts(path)] == [("two\nlines", "x"), ("one, line", "y")]


INVISIBLE = [
    "\u200b",
    "\ufeff\u2060",
    "\u200e \u200f",
    "\u00ad\u00ad",
    "\u3164",
    "\u2800\u2800",
    "\u034f\ufe0f",
]


@pytest.mark.parametrize("ending", [*TABLES, "txt"])
@pytest.mark.parametrize("given", INVISIBLE)
def test_what_no_reader_sees_is_no_prompt(ending: str, given: str, tmp_path: Path) -> None:
    path = (
        written(tmp_path, "p.txt", f"a\n{given}\nb\n")
        if ending == "txt"
        else table(tmp_path, ending, ["text"], [["a"], [given]])
    )
    message = refusal(path)
    assert f"{path.name}:{3 if ending == 'csv' else 2}: the prompt is empty to a reader" in message
    assert f"U+{ord(given[0]):04X}" in message


@pytest.mark.parametrize(
    "text", ["\u200ba cat", "👩\u200d🚀 walks", "می\u200cخواهم", "🎈", "球", "?", "é\u0301"]
)
def test_what_has_something_to_see_keeps_its_text_and_id(text: str, tmp_path: Path) -> None:
    for path in (
        written(tmp_path, "p.txt", f"first\n{text}\n"),
        table(tmp_path, "parquet", ["text"], [["first"], [text]]),
    ):
        assert [(p.text, p.prompt_id) for p in load_prompts(path)][1] == (text, prompt_id(text))


@pytest.mark.parametrize("ending", [*TABLES, "txt"])
@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("a café", "a cafe\u0301"),
        ("Bälle", "Ba\u0308lle"),
        ("한국", "\u1112\u1161\u11ab\u1100\u116e\u11a8"),
        ("5 Å", "5 \u212b"),
        ("a cat", "a\u200b cat\ufeff"),
        ("a cat", "a\u00a0cat"),
        ("a cat", "a  cat"),
    ],
)
def test_twins_to_a_reader_are_refused(ending: str, one: str, two: str, tmp_path: Path) -> None:
    path = (
        written(tmp_path, "p.txt", f"{one}\n{two}\n")
        if ending == "txt"
        else table(tmp_path, ending, ["text"], [[one], [two]])
    )
    message = refusal(path)
    line = 2 if ending == "csv" else 1
    assert f"{path.name}:{line + 1}: the same text as line {line} to a reader" in message
    assert "remove one of them" in message
    assert same_text(one) == same_text(two), "nor may one teach and the other examine"


def test_texts_that_a_reader_can_tell_apart_are_two(tmp_path: Path) -> None:
    texts = ["a cat", "A cat", "a cat.", "👩🚀", "👩\u200d🚀", "cafe", "café", "①", "1"]
    path = written(tmp_path, "p.txt", "\n".join(texts))
    assert [prompt.text for prompt in load_prompts(path)] == texts


def test_categories_that_look_the_same_are_one(tmp_path: Path) -> None:
    for ending in TABLES:
        rows = [["a", "Bälle"], ["b", "Ba\u0308lle"]]
        prompts = load_prompts(table(tmp_path, ending, ["text", "category"], rows))
        assert {prompt.category for prompt in prompts} == {"Bälle"}


@pytest.mark.parametrize(
    "content",
    [
        "# my prompts\na cat\n#\na dog\n",
        "\ufeff# my prompts\r\na cat\r\n  ## dogs ##\r\n######\r\na dog\r\n#\ttail\r\n",
        "a cat\na dog\n# a bird\n\n\n",
        "a cat\na dog\n\ufeff# of another file\n\u00a0# and more\n",
    ],
)
def test_comments_of_a_text_file_are_no_prompts(content: str, tmp_path: Path) -> None:
    path = written(tmp_path, "p.txt", content)
    assert [prompt.text for prompt in load_prompts(path)] == ["a cat", "a dog"]


def test_comments_leave_the_numbers_of_lines_and_a_file_of_them_alone_holds_no_prompts(
    tmp_path: Path,
) -> None:
    assert "p.txt:4: the same text as line 2" in refusal(written(tmp_path, "p.txt", "# x\na\n# y\na\n"))
    assert "holds no prompts" in refusal(written(tmp_path, "p.txt", "# x\n# y\n"))


@pytest.mark.parametrize("line", ["#a cat", "#!sets", "// a cat", "; a cat", "-- a cat", "<!-- a cat -->"])
def test_what_could_be_a_comment_is_refused_with_what_to_do(line: str, tmp_path: Path) -> None:
    message = refusal(written(tmp_path, "p.txt", f"a dog\n{line}\n"))
    assert "p.txt:2: starts with" in message
    assert "begin a comment with '# '" in message
    [prompt] = load_prompts(table(tmp_path, "jsonl", ["text"], [[line]]))
    assert prompt.prompt_id == prompt_id(line), "the way out that the message names"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("# made by hand\ntext,id\na,1\n", 1),
        ("# id,text\n1,a\n", 1),
        ("text,id\na,1\n# old,2\n", 3),
        ("text\na\n# b\n", 3),
    ],
)
def test_comments_in_csv_are_refused_with_their_line(content: str, line: int, tmp_path: Path) -> None:
    message = refusal(written(tmp_path, "p.csv", content))
    assert f"p.csv:{line}: reads as a comment, which CSV does not have: remove the line" in message


@pytest.mark.parametrize("line", ["# b", "// b", "", "null"])
def test_lines_of_json_lines_that_are_no_objects_are_refused_with_what_to_do(
    line: str, tmp_path: Path
) -> None:
    message = refusal(written(tmp_path, "p.jsonl", f'{{"text": "a"}}\n{line}\n{{"text": "c"}}\n'))
    assert "p.jsonl:2: " in message
    assert "object" in message.partition(":2: ")[2]


@pytest.mark.parametrize("ending", TABLES)
@pytest.mark.parametrize(
    "names", [["text", "text"], ["text", "\ufefftext "], ["prompt", "id", "id"], ["text", "laws", " laws"]]
)
def test_two_fields_of_one_name_are_refused(ending: str, names: list[str], tmp_path: Path) -> None:
    message = refusal(table(tmp_path, ending, names, [[f"value-{place}" for place in range(len(names))]]))
    called = names[-1].strip(" \ufeff")
    assert f"p.{ending}:{2 if ending == 'csv' else 1}: two fields are called {called!r}" in message
    assert "rename or remove one of them" in message


@pytest.mark.parametrize("ending", TABLES)
def test_two_fields_of_a_name_that_nobody_reads_do_no_harm(ending: str, tmp_path: Path) -> None:
    path = table(tmp_path, ending, ["text", "note", "note", ""], [["a", "x", "y", "z"]])
    assert [prompt.text for prompt in load_prompts(path)] == ["a"]
