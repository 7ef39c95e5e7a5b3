"""The helper that copies whole files out of the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import doc_files
from tests.doc_files import copy_with, files_of

PAGE = """Words.

```python
# rewards/shine.py
\"\"\"Shine.\"\"\"
LEVEL = 3
```

```python
x = "no path in the first line"
```

```yaml
# recipes/shine.yaml   with more words is no path
a: 1
```

```yaml
# recipes/glow.yaml
a: 1
```
"""


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    root = tmp_path / "root"
    (root / "docs").mkdir(parents=True)
    (root / "docs/page.md").write_text(PAGE)
    (root / "pyproject.toml").write_text("")
    (root / "rewards").mkdir()
    (root / "rewards/__init__.py").write_text("")
    (root / "rewards/shine.py").write_text("LEVEL = 1\n")
    monkeypatch.setattr(doc_files, "ROOT", root)
    return "docs/page.md"


def test_only_blocks_that_begin_with_a_path_are_files(page: str) -> None:
    assert files_of(page) == {
        "rewards/shine.py": '# rewards/shine.py\n"""Shine."""\nLEVEL = 3\n',
        "recipes/glow.yaml": "# recipes/glow.yaml\na: 1\n",
    }


def test_the_copy_runs_the_pages_files_and_the_checkout_keeps_its_own(page: str, tmp_path: Path) -> None:
    copy = copy_with(page, tmp_path / "copy")
    assert copy.files == ("rewards/shine.py", "recipes/glow.yaml")
    assert copy.run("-c", "from rewards.shine import LEVEL; print(LEVEL)").strip() == "3"
    assert (tmp_path / "root/rewards/shine.py").read_text() == "LEVEL = 1\n"
    with pytest.raises(AssertionError, match="no such thing"):
        copy.run("-c", "raise SystemExit('no such thing')")
