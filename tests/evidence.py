"""A bundle as an outsider checks it: `sha256sum`, and DuckDB in a process that cannot import vidloop."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_SCRIPT = (
    "import duckdb, json; q = duckdb.sql(open('verdict.sql').read()); "
    "print(json.dumps([dict(zip(q.columns, row)) for row in q.fetchall()]))"
)


def sums(folder: Path) -> subprocess.CompletedProcess[str]:
    """What `sha256sum --check` says of a bundle."""
    command = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def verdict(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """What verdict.sql says, by (metric, place); what was promoted, by ("promoted", "all of these")."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", _SCRIPT], cwd=folder, capture_output=True, text=True, check=True
    )
    return {(row["metric"] or row["what"], row["place"]): row for row in json.loads(done.stdout)}
