"""Keys: the same question has the same key, in every process and on every machine.

A key is the SHA-256 of canonical JSON, so only values that JSON can say exactly are allowed. Sets (their
order depends on the process), bytes, numpy scalars and NaN are refused instead of being converted silently.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from data.errors import ConfigError

_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
_RECENT_NS: Final = 2 * 10**9
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})


def canonical_json(value: object) -> str:
    """The one spelling of `value`: sorted keys, no spaces, ASCII only.

    Raises:
        TypeError: something in `value` is not a dict, list, tuple, str, int, float, bool or None of exactly
            that type (`numpy.float64` and string enums are subclasses: convert them at the border).
        ValueError: a float is NaN or infinite.
    """
    if not _is_exact(value):
        _check(value, "value")
    return _ENCODER.encode(value)


def digest(value: object) -> str:
    """SHA-256 of `canonical_json(value)`, 64 hex digits. 1, 1.0 and True are three different values."""
    return bytes_digest(canonical_json(value).encode("ascii"))


def parsed_digest(value: object) -> str:
    """As `digest`, of what a JSON parser made: there is no type in it to be looked for."""
    return bytes_digest(_ENCODER.encode(value).encode("ascii"))


def bytes_digest(data: bytes) -> str:
    """SHA-256 of bytes, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's content, 64 hex digits. Raises OSError if it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_digest(folder: str | Path, patterns: Iterable[str] | None = None) -> str:
    """Digest of the files below `folder`: their relative names (with `/`) and contents, not their times.

    A file is read once in a process, and again when its size or modification time has changed: a round asks
    several times for the digest of weights that may have gigabytes.

    Args:
        folder: an existing directory.
        patterns: glob patterns such as `"*.safetensors"`, matched at any depth; None takes every file.

    Raises:
        NotADirectoryError: `folder` is not a directory.
        FileNotFoundError: no file matches, which would otherwise give a digest of nothing.
    """
    root = Path(folder)
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a directory")
    found = {path for pattern in patterns or ("*",) for path in root.rglob(pattern) if path.is_file()}
    if not found:
        raise FileNotFoundError(f"{root} holds no file to digest")
    return files_digest(root, found)


def files_digest(root: Path, files: Iterable[Path]) -> str:
    """As `tree_digest`, of some files below `root`. Raises OSError if one cannot be read."""
    return digest(sorted([path.relative_to(root).as_posix(), _remembered_digest(path)] for path in files))


def _remembered_digest(path: Path) -> str:
    about = path.stat()
    if time.time_ns() - about.st_mtime_ns < _RECENT_NS:
        return file_digest(path)  # it may be written again within one tick of the file system's clock
    return _digest_of_version(path.absolute(), about.st_size, about.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _digest_of_version(path: Path, size: int, mtime_ns: int) -> str:
    return file_digest(path)


def clip_seed(recipe_seed: int, prompt_id: str, index: int, purpose: str) -> int:
    """Seed of one clip, in [0, 2**63). It depends on its arguments alone: adding prompts moves no seed.

    Args:
        recipe_seed: the recipe's `seed`.
        prompt_id: id of the prompt.
        index: which clip of that prompt, from 0.
        purpose: what the clip is for, for example "train" or "evaluate", so that the two never share a seed.
    """
    # As `digest` of the list ["clip_seed", ...], in a fraction of the time: a round may have a million clips.
    said = f'["clip_seed",{recipe_seed:d},{_ENCODER.encode(prompt_id)},{index:d},{_ENCODER.encode(purpose)}]'
    return int(bytes_digest(said.encode("ascii"))[:16], 16) >> 1


def only_one(name: str, known: Iterable[str]) -> str:
    """The id among `known` that `name` is, or that alone begins with it; else `name` itself, which none is.

    Raises ConfigError: several begin with it, and none is it.
    """
    found = sorted({one for one in known if name and one.startswith(name)})
    if name in found or not found:
        return name
    if len(found) > 1:
        raise ConfigError(f"{len(found)} begin with {name!r}: {', '.join(found[:4])}, ...; give more of it")
    return found[0]


def _is_exact(value: object) -> bool:
    """Whether `_check` finds nothing: the same without a name for each place, which takes longer."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if isinstance(value, dict):
        return kind is dict and all(type(key) is str for key in value) and all(map(_is_exact, value.values()))
    return isinstance(value, list | tuple) and kind in (list, tuple) and all(map(_is_exact, value))


def _check(value: object, where: str) -> None:
    kind = type(value)
    if kind in _SCALARS:
        return
    if kind is dict:
        assert isinstance(value, dict)
        for key, item in value.items():
            if type(key) is not str:
                raise TypeError(f"{where}: key {key!r} is not a str, only str keys have a stable digest")
            _check(item, f"{where}[{key!r}]")
    elif kind is list or kind is tuple:
        assert isinstance(value, (list, tuple))
        for position, item in enumerate(value):
            _check(item, f"{where}[{position}]")
    else:
        raise TypeError(f"{where} is a {kind.__module__}.{kind.__qualname__}, which has no stable JSON form")
