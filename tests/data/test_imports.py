import subprocess
import sys
from pathlib import Path

import data

CHECKOUT = Path(data.__file__).parents[1]
MODULES = [
    "errors", "keys", "plugins", "resources", "settings", "records", "store", "store.failpoints", "store.manifest",
    "store.durable_files", "store.gc", "champion", "prompts", "curation", "queries", "video",
]  # fmt: skip
HEAVY = ["torch", "prefect", "duckdb", "av", "cv2", "vllm", "matplotlib", "pandas"]


def test_importing_the_package_loads_nothing_heavy():
    # A round that is all cached passes through these modules and must not pay for torch.
    code = (
        "import importlib, sys\n"
        f"for module in {MODULES!r}:\n"
        "    importlib.import_module(f'data.{module}')\n"
        f"    print(*[f'{{module}} loads {{name}}' for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
