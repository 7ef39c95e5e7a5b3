import json
import re
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from data.errors import DataError, UserError
from data.prompts import MAX_CHARS, REAL, load_laws, load_prompts
from data.records import Prompt, prompt_id
from miniature.world.catalog import CATEGORIES

ROOT = Path(__file__).parents[2]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path, *words):
    with pytest.raises(UserError) as error:
        load_prompts(path)
    for word in (path.name, *words):
        assert word in str(error.value)


def test_a_text_file_has_a_prompt_a_line(tmp_path):
    path = write(tmp_path / "mine.txt", "\ufeffa red ball falls\r\n  zwei Bälle stoßen zusammen 球\n\n\n")
    texts = ["a red ball falls", "zwei Bälle stoßen zusammen 球"]
    assert load_prompts(path) == [
        Prompt(prompt_id(text), text, "", "", "custom", "mine.txt") for text in texts
    ]
    assert load_prompts(str(path)) == load_prompts(path)


def test_json_lines_csv_and_parquet_say_the_same(tmp_path):
    rows = [
        {"id": "walk-1", "text": "a cat, walking", "category": "animals", "split": "train"},
        {"id": "7", "text": 'a "quoted" dog', "category": "animals", "split": "train"},
    ]
    write(tmp_path / "p.jsonl", "\n".join(json.dumps(row | {"note": 1}) for row in rows))
    write(
        tmp_path / "p.csv",
        'id,text,category,split\nwalk-1,"a cat, walking",animals,train\n7,"a ""quoted"" dog",animals,train\n',
    )
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    loaded = [load_prompts(tmp_path / f"p.{ending}") for ending in ("jsonl", "csv", "parquet")]
    for prompts, ending in zip(loaded, ("jsonl", "csv", "parquet"), strict=True):
        assert [(p.prompt_id, p.text, p.category, p.split) for p in prompts] == [
            (prompt_id(row["text"]), row["text"], "animals", "train") for row in rows
        ]
        assert [p.source for p in prompts] == [f"p.{ending}#walk-1", f"p.{ending}#7"]


def test_the_field_may_be_called_prompt_and_an_id_may_be_a_number(tmp_path):
    [prompt] = load_prompts(write(tmp_path / "p.jsonl", '{"prompt": "a ball", "id": 3}'))
    assert prompt.text == "a ball"
    assert prompt.source == "p.jsonl#3"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "empty"), ("   ", "empty"), ("\u3000", "empty"), ("x" * (MAX_CHARS + 1), "2001 characters"),
        ("x" * 5000, "5000 characters"), ("a\x00ball", "U+0000"), ("a\x1b[31mball", "U+001B"), ("ball\x1c", "U+001C"),
        ("a\x85ball", "U+0085"), ("\x0bball", "U+000B"),
    ],
)  # fmt: skip
def test_faulty_texts_are_refused_with_file_and_line(tmp_path, line, reason):
    refused(write(tmp_path / "p.txt", f"fine\n{line}\nfine too\n"), ":2:", reason)
    refused(write(tmp_path / "p.jsonl", '{"text": "fine"}\n' + json.dumps({"text": line})), ":2:", reason)


@pytest.mark.parametrize(
    "own_id",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "..",
        ".hidden",
        "a\x00b",
        "x" * 200,
        "a b",
        [1],
        {},
    ],
)
def test_ids_that_look_like_paths_are_refused(tmp_path, own_id):
    refused(
        write(tmp_path / "p.jsonl", '{"text": "fine"}\n' + json.dumps({"text": "a ball", "id": own_id})),
        ":2:",
        "not a plain name",
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            '{"text": "a"}\n{"text": "b", "id": "x"}\n{"text": "c", "id": "x"}',
            [":3:", "the same id as line 2"],
        ),
        ('{"text": "a"}\n{"text": " a "}', [":2:", "the same text as line 1"]),
        ('{"text": "a"}\n{"text": 3}', [":2:", "a number, not a text"]),
        ('{"text": "a"}\n{"text": null}', [":2:", "null, not a text"]),
        ('{"text": "a"}\n["b"]', [":2:", "a list, not an object"]),
        ('{"text": "a"}\n{"txt": "b"}', [":2:", "no field 'text'", "txt"]),
        ('{"text": "a"}\n{}', [":2:", "nothing"]),
        ('{"text": "a"}\n{"text": "b"', [":2:", "not JSON"]),
        ('{"text": "a"}\n{"text": "\\ud800"}', [":2:", "U+D800"]),
        ('{"text": "a", "category": 5}', [":1:", "category must be"]),
        ('{"text": "a", "category": "x\\ny"}', [":1:", "category must be"]),
        ("[" * 100_000, [":1:", "not JSON"]),
        ("", ["no prompts"]),
        ("\n\n", ["no prompts"]),
    ],
)
def test_faulty_json_lines_are_refused(tmp_path, content, words):
    refused(write(tmp_path / "p.jsonl", content), *words)


def test_faulty_tables_are_refused(tmp_path):
    refused(write(tmp_path / "p.csv", "text,category\na,b\nc\n"), ":3:", "fields")
    refused(write(tmp_path / "p.csv", "text,category\na,b\nc,d,e\n"), ":3:", "fields")
    refused(write(tmp_path / "p.csv", "category\nx\n"), ":2:", "no field 'text'")
    refused(write(tmp_path / "p.csv", "text\n"), "no prompts")
    refused(write(tmp_path / "p.csv", 'text\n"a\n'), "not CSV")
    refused(write(tmp_path / "p.parquet", b"PAR1 but not really PAR1"), "not a Parquet file")
    refused(write(tmp_path / "p.txt", b"\xff\xfe broken"), "not UTF-8")


def test_missing_and_unknown_files_are_refused(tmp_path):
    with pytest.raises(
        UserError,
        match=r"no prompts at 'heldut': give a set \(real-train, real-heldout, train, dev, heldout, unseen\) or an existing file",
    ):
        load_prompts("heldut")
    with pytest.raises(UserError, match="no prompts at"):
        load_prompts(tmp_path)
    refused(write(tmp_path / "p.docx", b"x"), "cannot read prompts from '.docx'")
    refused(write(tmp_path / "README", b"x"), "without ending")


def test_the_longest_text_and_line_breaks_inside_are_fine(tmp_path):
    path = write(
        tmp_path / "p.jsonl", json.dumps({"text": "x" * MAX_CHARS}) + "\n" + json.dumps({"text": "a\nb\tc"})
    )
    assert [len(prompt.text) for prompt in load_prompts(path)] == [MAX_CHARS, 5]


@pytest.mark.parametrize(("split", "least"), [("train", 120), ("dev", 60), ("heldout", 100), ("unseen", 40)])
def test_named_sets_come_from_the_world(split, least):
    prompts = load_prompts(split)
    assert len(prompts) >= least
    assert {prompt.split for prompt in prompts} == {split}
    assert [prompt.prompt_id for prompt in prompts] == [prompt_id(prompt.text) for prompt in prompts]


def test_the_real_sets_hold_enough_of_every_category():
    sets = {name: load_prompts(name) for name in REAL}
    for name, least in (("real-train", 40), ("real-heldout", 20)):
        count = Counter(prompt.category for prompt in sets[name])
        assert set(count) == set(CATEGORIES)
        assert min(count.values()) >= least
        assert {prompt.split for prompt in sets[name]} == {name}


def test_no_real_prompt_or_template_is_in_both_sets():
    train, heldout = (load_prompts(name) for name in REAL)
    for prompts in (train, heldout):
        homes = {(prompt.template, prompt.category) for prompt in prompts}
        assert len({template for template, _ in homes}) == len(homes), "a template is of one category"
        assert "" not in dict(homes)
        assert min(Counter(prompt.template for prompt in prompts).values()) >= 4
    assert not {prompt.template for prompt in train} & {prompt.template for prompt in heldout}
    words = [re.sub(r"[^a-z]+", " ", prompt.text.lower()).strip() for prompt in train + heldout]
    assert len(set(words)) == len(words), "nor the same sentence in another spelling"


def test_real_prompts_are_short_sentences_of_one_line():
    for prompt in (prompt for name in REAL for prompt in load_prompts(name)):
        assert 5 <= len(prompt.text.split()) <= 22, prompt.text
        assert prompt.text.isascii(), prompt.text
        assert prompt.text[0].islower() or prompt.text[0] == "T", prompt.text
        assert not prompt.text.endswith("."), prompt.text


def test_the_general_rubric_asks_something_of_every_category_of_the_real_sets():
    questions = yaml.safe_load((ROOT / "rewards/judge/rubrics/general.yaml").read_text())["questions"]
    asked = {category for question in questions for category in question.get("categories", [])}
    assert {prompt.category for name in REAL for prompt in load_prompts(name)} <= asked


def test_laws_are_read_by_prompt_and_prompts_that_name_none_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(
        '{"text": "a", "laws": ["heat", "time"]}\n{"text": "b"}\n{"text": "c", "laws": []}\n'
    )
    assert load_laws(tmp_path / "p.jsonl") == {prompt_id("a"): ("heat", "time"), prompt_id("c"): ()}
    (tmp_path / "p.csv").write_text("text,laws\na,heat; time\nb,\n")
    assert load_laws(tmp_path / "p.csv") == {prompt_id("a"): ("heat", "time")}
    assert load_laws("train") == {}, "a set that says nothing of laws"
    with pytest.raises(DataError, match="give a set"):
        load_laws(tmp_path / "none.jsonl")


@pytest.mark.parametrize("laws", ['"Heat!"', "7", '["a b"]', "[1]", '{"heat": 1}'])
def test_what_is_no_list_of_laws_is_named_with_its_line(laws: str, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(f'{{"text": "a"}}\n{{"text": "b", "laws": {laws}}}\n')
    assert len(load_prompts(tmp_path / "p.jsonl")) == 2
    with pytest.raises(DataError, match=r"p\.jsonl:2: laws must be a list"):
        load_laws(tmp_path / "p.jsonl")


def test_laws_are_no_part_of_a_prompt_so_that_naming_them_makes_no_clip_anew(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"text": "a"}\n')
    before = load_prompts(tmp_path / "p.jsonl")
    (tmp_path / "p.jsonl").write_text('{"text": "a", "laws": ["heat"]}\n')
    assert load_prompts(tmp_path / "p.jsonl") == before


def test_every_real_prompt_names_laws_that_the_physics_rubric_has():
    rubric = yaml.safe_load((ROOT / "rewards/judge/rubrics/physics.yaml").read_text())
    known = {law["id"] for law in rubric["laws"]}
    named = {}
    for name in REAL:
        laws = load_laws(name)
        assert set(laws) == {prompt.prompt_id for prompt in load_prompts(name)}
        assert all(2 <= len(set(some)) == len(some) for some in laws.values())
        named[name] = {law for some in laws.values() for law in some}
    assert named == dict.fromkeys(REAL, known), "every law examines, and could teach"
