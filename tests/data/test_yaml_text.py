"""Every file of settings that a person gives: its numbers, and what is refused, soon and by name."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from data import yaml_text
from data.errors import ConfigError
from data.resources import INSTALLED, shipped
from data.yaml_text import DEPTH, MOST, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("012", 12), ("-007", -7), ("+3", 3), ("0o14", 12), ("0x1F", 31), ("1e-4", 1e-4), ("1.", 1.0), (".5", 0.5),
        ("-1.5E+3", -1500.0), (".inf", math.inf), ("08.5", 8.5),
        ("1:30", "1:30"), ("190:20:30", "190:20:30"), ("1:30.5", "1:30.5"), ("1_000", "1_000"), ("0b11", "0b11"),
        ("0x", "0x"), ("0o9", "0o9"), ("-0x1", "-0x1"), ("1e", "1e"), (".", "."), ("2026-11-30", "2026-11-30"),
        ("2026-13-45", "2026-13-45"), ("12:30:00", "12:30:00"), ("yEs", "yEs"),
        ("yes", True), ("Off", False), ("~", None), ("", None),
    ],
)  # fmt: skip
def test_values_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = parse_yaml(f"a: {text}", "here")["a"]
    assert (type(found), found) == (type(value), value)
    assert not isinstance(found, date)


def test_keys_are_texts_as_they_stand() -> None:
    found = parse_yaml("{on: 1, 012: 2, 1.50: 3, null: 4, 2026-01-01: 5}", "here")
    assert found == {"on": 1, "012": 2, "1.50": 3, "null": 4, "2026-01-01": 5}
    with pytest.raises(ConfigError, match=r"here, line 1: the key 'no' is given twice"):
        parse_yaml("{no: 1, no: 2}", "here")


def test_what_json_says_is_read_as_it_is() -> None:
    tree = {"a": [1, 2.5, None, True, "no", "012", "# \u00e9 \u65e5"], "b": {"c": {}, "d": []}}
    assert parse_yaml(json.dumps(tree, indent=1, ensure_ascii=False), "here") == tree


def test_an_alias_says_again_what_its_anchor_says() -> None:
    assert parse_yaml("a: &one {b: [1]}\nc: *one\n", "here") == {"a": {"b": [1]}, "c": {"b": [1]}}


def bomb(first: str, more: str) -> str:
    """Nine times nine times nine ... of `first`, in a thousand characters."""
    lines = [f"a0: &a0 {first}", *(f"a{i}: &a{i} {more % (f'*a{i - 1},' * 9)}" for i in range(1, 15))]
    return "\n".join(lines)


REFUSED = {
    "lists of lists": (bomb("x", "[%s]"), "every alias written out"),
    "mappings of lists": (bomb("{k: x}", "{k: [%s]}"), "every alias written out"),
    "a long text often": (f"a: &a {'x' * (MOST // 3)}\nb: [*a, *a, *a]", "line 2: longer than settings are"),
    "itself": ("a: &a [*a]", r"\*a stands inside"),
    "itself deeper": ("a: &a {b: {c: *a}}", r"\*a stands inside"),
    "deep lists": ("[" * 100_000, f"more than {DEPTH} parts inside one another"),
    "deep mappings": ("{a: " * 50_000, f"more than {DEPTH} parts"),
    "deep dashes": ("- " * 50_000 + "x", f"more than {DEPTH} parts"),
    "deep and closed": ("[" * (DEPTH + 1) + "]" * (DEPTH + 1), f"more than {DEPTH} parts"),
    "digits": ("a:\n- 1" + "0" * 5_000, "line 2: a whole number of 5001 characters"),
    "many digits": ("a: -" + "9" * 200_000, "whole number of 200001 characters"),
    "digits of 16": ("a: 0x" + "f" * 100_000, "whole number of 100002 characters"),
    "long": ("a: " + "x" * MOST, "longer than 262144 characters"),
    "many values": ("[" + "1," * (MOST // 2 - 1) + "]", "longer than settings are"),
    "no whole number": ("a: !!int x", "this is no int"),
    "no number": ("a: !!float x", "this is no float"),
    "no choice": ("a: !!bool maybe", "this is no bool"),
    "no mapping": ("a: !!map x", "this is no map"),
    "a tag of dates": ("a: !!timestamp x", "could not determine a constructor"),
    "a tag of bytes": ("a: !!binary x", "could not determine a constructor"),
    "a control character": ("a: b\nc: \x07", r"line 2: the character U\+0007"),
    "nothing at all": ("a: \0", r"U\+0000"),
    "half a character": ("a: \ud83d", r"U\+D83D"),
    "an open bracket": ("a: 1\nb: [c", r"while parsing a flow sequence \(line 2\)"),
    "an unknown alias": ("a: *b", "undefined alias"),
    "two documents": ("a: 1\n---\nb: 2", "another document"),
}


@pytest.fixture(params=["quick", "plain"])
def parse(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Any]:
    """`parse_yaml` with PyYAML's quick parser, or as it is where PyYAML was built without."""
    if request.param == "quick":
        return parse_yaml
    monkeypatch.delattr(yaml, "CSafeLoader")
    spec = importlib.util.spec_from_file_location("plain_yaml_text", yaml_text.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    plain: Callable[[str, str], Any] = module.parse_yaml
    return plain


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_too_much_or_no_yaml_is_refused_at_once(case: str, parse: Callable[[str, str], Any]) -> None:
    text, said = REFUSED[case]
    with pytest.raises(ConfigError, match=said) as caught:
        parse(text, "recipe mine.yaml")
    assert str(caught.value).startswith("recipe mine.yaml")
    assert len(str(caught.value)) < 300


def test_both_parsers_read_alike(parse: Callable[[str, str], Any]) -> None:
    for file in [*shipped("recipes").values(), *shipped("rubrics").values()]:
        assert parse(file.read_text(encoding="utf-8"), "here") == read_yaml(file, "here")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: b\n".encode("utf-16"), "it is in UTF-16"),
        ("a: b\n".encode("utf-16-be"), r"U\+0000"),
        (b"\xfe\xff" + "a: b\n".encode("utf-16-be"), "it is in UTF-16"),
        ("a: b\n# caf\u00e9\n".encode("latin-1"), "line 2 is not in UTF-8"),
        ("a: b\nc: d\ne: \u201cf\u201d\n".encode("cp1252"), "line 3 is not in UTF-8"),
        ("a: \u65e5\u672c\n".encode("shift-jis"), "line 1 is not in UTF-8"),
        (b"\x89PNG\r\n\x1a\n", "not in UTF-8"),
        (b"a: b\n" * MOST, "larger than 256 KiB"),
    ],
)
def test_files_in_another_encoding_are_named(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^rubric mine.*{said}"):
        read_yaml(tmp_path / "mine.yaml", "rubric mine")


@pytest.mark.parametrize("text", ["a: caf\u00e9\n", "# \u65e5\u672c\na: 1\n", '{"a": "x"}'])
def test_a_byte_order_mark_is_no_part_of_the_text(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(text.encode("utf-8-sig"))
    assert read_yaml(tmp_path / "a.yaml", "here") == yaml.safe_load(text)


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    read, write = os.pipe()
    writer = subprocess.Popen(
        ["sh", "-c", "printf 'a: ['; sleep 0.3; seq -s, 1000; sleep 0.3; printf ']'"], stdout=write
    )
    os.close(write)
    assert read_yaml(Path(f"/dev/fd/{read}"), "here") == {"a": list(range(1, 1001))}
    writer.wait()
    os.close(read)


ENDLESS = """
import resource, sys
from data.errors import UserError
from flows.config.load import load_recipe
from rewards.judge.rubric import load_rubric
from studies.recipe import load_study
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
for path in sys.argv[1:]:
    for load in (load_recipe, load_rubric, load_study):
        try:
            load(path)
        except UserError as error:
            print(path in str(error), str(error)[:200])
# Not ru_maxrss, which a process has from the one that started it.
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_files_without_an_end_are_named_soon_and_in_little_memory(tmp_path: Path) -> None:
    sparse, fifo, texts = tmp_path / "sparse.yaml", tmp_path / "fifo.yaml", tmp_path / "bomb.yaml"
    with open(sparse, "wb") as file:
        file.truncate(50 << 30)
    os.mkfifo(fifo)
    texts.write_text(bomb("x", "[%s]"))
    paths = [
        "/dev/zero",
        "/dev/urandom",
        "/dev/null",
        str(sparse),
        str(fifo),
        str(texts),
        str(tmp_path),
        "x" * 5_000,
    ]
    done = subprocess.run(
        [sys.executable, "-c", ENDLESS, *paths], cwd=INSTALLED, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *cases, memory = done.stdout.strip().splitlines()
    assert int(memory.split()[1]) < 500 * 1024, memory  # KiB
    assert len(cases) == 3 * len(paths)
    assert all(line.startswith("True") for line in cases), cases
