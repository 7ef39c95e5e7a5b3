"""The command as a process of its own: what it leaves behind when it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data.store import Store


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    here = {**os.environ, "PYTHONPATH": os.getcwd()}
    return subprocess.run([sys.executable, *arguments], env=here, capture_output=True, text=True)


def test_a_query_says_its_answer_and_nothing_else(store: Store) -> None:
    done = python("-m", "flows", "query", "--store", str(store.root), "--format", "csv", "SELECT 7 AS seven")
    assert (done.returncode, done.stdout, done.stderr) == (0, "seven\n7\n", "")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("pass", 0),
        ("raise VidloopError('told')", 2),
        ("raise typer.Exit(5)", 5),
        ("raise KeyboardInterrupt", 130),
        ("raise RuntimeError('untold')", 3),
    ],
)
def test_what_libraries_do_at_the_end_is_done_and_the_exit_code_holds(
    command: str, code: int, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import atexit, sys, threading, time, typer\n"
        "from flows.cli import app as cli, main\n"
        "from data.errors import VidloopError\n"
        "@cli.app.command('try')\n"
        "@cli.answers\n"
        "def tried():\n"
        "    atexit.register(print, 'at the end')\n"
        "    threading.Thread(target=lambda: (time.sleep(0.2), print('from a thread'))).start()\n"
        f"    {command}\n"
        "sys.argv = ['vidloop', 'try']\n"
        "main.main()\n"
    )
    done = python(str(script))
    assert done.returncode == code
    assert done.stdout.splitlines() == ["from a thread", "at the end"]
    assert "Traceback" not in done.stderr
