"""Which release this is; pyproject.toml says the same (held by a test)."""

from typing import Final

VERSION: Final = "0.2.0"
