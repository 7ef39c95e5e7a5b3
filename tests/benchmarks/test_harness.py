import importlib.util
import json
import re

import pytest

from benchmarks.harness import RESULTS, Result, command_line, device_name, in_turn, versions, write


def result(**changes):
    return Result(
        **{
            "name": "judge",
            "plain": 10.0,
            "ours": 40.0,
            "unit": "clips/min",
            "more_is_better": True,
            "libraries": ["torch"],
            "shape": {"clips": 8},
            "equality": {"largest": 0.0},
            **changes,
        }
    )


def test_the_file_has_the_keys_that_scripts_read(tmp_path):
    content = json.loads(write(result(), tmp_path).read_text())
    wanted = {"name", "device", "plain", "ours", "ratio", "unit", "shape", "equality", "command", "versions"}
    assert wanted <= content.keys()
    assert "memory_ratio" not in content
    assert list(tmp_path.iterdir()) == [tmp_path / "judge.json"]


def test_memory_is_written_where_it_was_measured(tmp_path):
    content = json.loads(write(result(name="training-pair", memory_ratio=0.5), tmp_path).read_text())
    assert content["memory_ratio"] == 0.5


def test_a_figure_that_is_no_number_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        write(result(ours=float("nan")), tmp_path)
    assert not (tmp_path / "judge.json").exists()


def test_the_machine_and_the_command_are_named():
    assert device_name()
    assert command_line().startswith("python ")
    assert versions("torch")["torch"]


def test_the_ratio_says_how_many_times_better_ours_is_whatever_the_unit(tmp_path):
    assert result().ratio == 4.0
    found = result(name="training-pair", unit="s", more_is_better=False, served={"vllm": "1.2"})
    assert found.ratio == 0.25
    content = json.loads(write(found, tmp_path).read_text())
    assert content["ratio"] == 0.25
    assert (content["device"], content["command"]) == (device_name(), command_line())
    assert content["versions"] == versions("torch") | {"vllm": "1.2"}


def test_sides_take_turns_at_being_first():
    assert list(in_turn(["a", "b"], 3)) == [(0, "a"), (0, "b"), (1, "b"), (1, "a"), (2, "a"), (2, "b")]


def test_the_commands_of_the_kept_results_are_there():
    for path in RESULTS.glob("*.json"):
        content = json.loads(path.read_text())
        for found in content.get("rows", [content]):
            module, _, since = (
                found["command"].removeprefix("python -m ").partition("  # before 0.2.0; since then: ")
            )
            named = re.findall(r"benchmarks\.\w+", since) or [module.split()[0]]
            assert all(importlib.util.find_spec(name) for name in named), found["command"]
