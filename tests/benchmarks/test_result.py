import json

import pytest

from benchmarks.result import Result, command_line, device_name, versions, write


def result(**changes):
    return Result(
        **{
            "name": "judge",
            "device": "a device",
            "plain": 10.0,
            "ours": 40.0,
            "ratio": 4.0,
            "unit": "clips/min",
            "shape": {"clips": 8},
            "equality": {"largest": 0.0},
            "command": "python -m benchmarks.judge",
            "versions": versions("torch"),
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
