import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import data
from data import keys
from data.errors import ConfigError
from data.keys import canonical_json, clip_seed, digest, file_digest, only_one, tree_digest

CHECKOUT = Path(data.__file__).parents[1]

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def shuffled(value):
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(list(value))}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


@given(values)
def test_the_order_of_keys_does_not_matter(value):
    assert digest(shuffled(value)) == digest(value)


@given(values, values)
def test_values_with_different_json_have_different_digests(first, second):
    assert (digest(first) == digest(second)) == (canonical_json(first) == canonical_json(second))


def test_known_digest():
    # Written down so that a change of the canonical form, which would orphan every store, cannot go unseen.
    assert digest({"b": [1, 2.5, None, True], "a": "é"}) == (
        "0b8cc543e984d4d7398f5f603a4b91d358a2565f1d6b6a058565d662854e37cf"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
def test_numbers_that_are_not_finite_are_refused(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest(value)


@pytest.mark.parametrize(
    "value",
    [{1, 2}, b"x", {1: "a"}, np.float64(1.0), np.int64(1), Path("/x"), {"a": [np.bool_(True)]}, object()],
)
def test_values_without_one_json_form_are_refused(value):
    with pytest.raises(TypeError):
        digest(value)


def test_the_error_says_where():
    with pytest.raises(TypeError, match=r"value\['a'\]\[1\] is a builtins.set"):
        digest({"a": [0, {1}]})


def test_integers_floats_and_truth_values_differ():
    assert len({digest(1), digest(1.0), digest(True), digest("1")}) == 4


def test_digests_are_equal_across_processes_and_hash_seeds():
    code = (
        "from data.keys import digest, clip_seed;"
        "print(digest({k: [k, {'z': 1, 'a': 2.5}] for k in ('x', 'b', 'q')}), clip_seed(3, 'p1', 2, 'train'))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=CHECKOUT, env=os.environ | {"PYTHONHASHSEED": seed},
            check=True, capture_output=True, text=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    here = digest({k: [k, {"a": 2.5, "z": 1}] for k in ("q", "b", "x")})
    assert printed == {f"{here} {clip_seed(3, 'p1', 2, 'train')}\n"}


@given(st.integers(), st.text(), st.integers(0), st.text())
def test_clip_seeds_are_of_the_digest_of_their_list(seed, prompt, index, purpose):
    whole = digest(["clip_seed", seed, prompt, index, purpose])
    assert clip_seed(seed, prompt, index, purpose) == int(whole[:16], 16) >> 1


def test_clip_seeds_depend_on_every_argument_and_fit():
    base = (1, "p1", 0, "train")
    others = [(2, "p1", 0, "train"), (1, "p2", 0, "train"), (1, "p1", 1, "train"), (1, "p1", 0, "evaluate")]
    seeds = [clip_seed(*arguments) for arguments in (base, *others)]
    assert len(set(seeds)) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert clip_seed(*base) == seeds[0]


def test_file_and_tree_digests_follow_names_and_contents(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.bin").write_bytes(b"one")
    (tmp_path / "sub" / "b.txt").write_bytes(b"two")
    before = tree_digest(tmp_path)
    os.utime(tmp_path / "a.bin", (1, 1))
    assert tree_digest(tmp_path) == before
    only_bin = tree_digest(tmp_path, ["*.bin"])
    (tmp_path / "sub" / "b.txt").write_bytes(b"twO")
    assert tree_digest(tmp_path) != before
    assert tree_digest(tmp_path, ["*.bin"]) == only_bin
    assert file_digest(tmp_path / "a.bin").startswith("7692c3ad")
    (tmp_path / "a.bin").rename(tmp_path / "c.bin")
    assert tree_digest(tmp_path, ["*.bin"]) != only_bin


def test_a_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(keys, "file_digest", lambda path: (read.append(path.name), file_digest(path))[1])
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"one")
        os.utime(tmp_path / name, (1000, 1000))
    first = tree_digest(tmp_path)
    assert tree_digest(tmp_path) == first
    assert sorted(read) == ["a", "b"]
    (tmp_path / "b").write_bytes(b"two")
    os.utime(tmp_path / "b", (1001, 1001))  # same size, another time
    assert tree_digest(tmp_path) != first
    assert sorted(read) == ["a", "b", "b"]
    (tmp_path / "b").write_bytes(b"six")  # just now: the clock of a file system may be too coarse to tell
    changed = tree_digest(tmp_path)
    (tmp_path / "b").write_bytes(b"ten")
    assert tree_digest(tmp_path) != changed


def test_a_digest_of_nothing_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        tree_digest(tmp_path, ["*.safetensors"])
    with pytest.raises(NotADirectoryError):
        tree_digest(tmp_path / "missing")


@pytest.mark.parametrize(
    ("name", "found"), [("ab", "ab"), ("abc", "abcd"), ("x", "xy"), ("q", "q"), ("", ""), ("xyz", "xyz")]
)
def test_an_id_is_found_by_its_first_digits(name: str, found: str) -> None:
    assert only_one(name, ["ab", "abcd", "xy"]) == found


def test_first_digits_of_several_ids_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"2 begin with 'a': ab, abcd, \.\.\.; give more"):
        only_one("a", ["abcd", "ab", "xy"])
