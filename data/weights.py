"""Weights as they lie in a folder: which files a loader reads, and the shapes that their headers state.

Nothing here reads a tensor or imports PyTorch: a header is a few kilobytes, whatever the model's size.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from data.errors import ModelError
from data.json_text import parse_json

Shape = tuple[int, ...]

SUFFIX: Final = ".safetensors"
INDEX: Final = ".safetensors.index.json"
# Files of other formats, which may hold code, or which only one program reads.
_OTHERS: Final = (".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".gguf")
_POINTER: Final = b"version https://git-lfs"
_METADATA: Final = "__metadata__"
# A header's own length; the library takes none above this either.
_LENGTH: Final = 8
_LONGEST: Final = 100_000_000
# What files of float8 weights call the numbers that weights are to be multiplied by.
_SCALE: Final = re.compile(
    r"(^|[._])(scaled_fp8|(weight|input|output)_scale\w*|scale_(weight|input|output))$"
)
_NAMED: Final = 3


@dataclass(frozen=True)
class Weights:
    """Weights of one network.

    Attributes:
        files: all that are read, the index of shards among them.
        shapes: of each tensor, by its key.
    """

    files: tuple[Path, ...]
    shapes: Mapping[str, Shape]

    @property
    def sharded(self) -> bool:
        """Whether an index names the files."""
        return any(file.name.endswith(INDEX) for file in self.files)


def weight_files(folder: Path, stems: Sequence[str], shards_first: bool = False) -> tuple[Path, ...]:
    """The files of a folder that a loader reads weights from; () if it holds none of them.

    Files of another precision ("model.fp16.safetensors") and of another format are not among them.

    Args:
        folder: of one network.
        stems: names of the weights without their ending, in the order in which the loader looks.
        shards_first: an index goes before a single file (diffusers), not after it (transformers).

    Raises:
        ModelError: an index is damaged, or names what is not there.
    """
    for stem in stems:
        found = [folder / f"{stem}{SUFFIX}", folder / f"{stem}{INDEX}"]
        for file in reversed(found) if shards_first else found:
            if file.is_file():
                return _shards(file) if file.name.endswith(INDEX) else (file,)
    return ()


def read_weights(folder: Path, stems: Sequence[str], shards_first: bool = False) -> Weights:
    """Files and shapes of a folder's weights. Arguments as of `weight_files`.

    Raises:
        ModelError: there are none, or other formats only; a file is cut off, is no safetensors or a pointer
            of git-LFS, or holds float8 weights with scales of their own.
    """
    files = weight_files(folder, stems, shards_first)
    if not files:
        raise ModelError(_none(folder, stems))
    shapes: dict[str, Shape] = {}
    for file in files:
        if not file.name.endswith(INDEX):
            shapes |= read_header(file)
    return Weights(files, shapes)


def read_header(file: Path) -> dict[str, Shape]:
    """Shape of each tensor of one safetensors file, by its key.

    Raises:
        ModelError: the file cannot be read, is cut off, is no safetensors, or a pointer of git-LFS.
    """
    check_content(file)
    size = file.stat().st_size
    with file.open("rb") as opened:
        head = opened.read(_LENGTH)
        length = struct.unpack("<Q", head)[0] if len(head) == _LENGTH else 0
        if not 0 < length <= _LONGEST:
            raise ModelError(f"{file} is no safetensors file: copy it again, or save the model again")
        text = opened.read(length)
    if len(text) < length:
        raise ModelError(_cut(file, size, f"at least {_LENGTH + length}"))
    try:
        said: dict[str, Any] = parse_json(text)
        about = {key: one for key, one in said.items() if key != _METADATA}
        shapes = {key: tuple(map(int, one["shape"])) for key, one in about.items()}
        ends = max((int(one["data_offsets"][1]) for one in about.values()), default=0)
    except (ValueError, AttributeError, KeyError, IndexError, TypeError, OverflowError) as error:
        raise ModelError(
            f"{file} is no safetensors file (its header cannot be read: {error}): copy it again, or save the "
            "model again"
        ) from None
    if size != _LENGTH + length + ends:
        raise ModelError(_cut(file, size, str(_LENGTH + length + ends)))
    return shapes


def check_content(file: Path) -> None:
    """Raise ModelError if a file of a model cannot be read, is empty, or is a pointer of git-LFS."""
    try:
        with file.open("rb") as opened:
            head = opened.read(len(_POINTER))
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror}") from None
    if not head:
        raise ModelError(f"{file} is empty: copy it again, or save the model again")
    if head == _POINTER:
        raise ModelError(
            f"{file} is a pointer of git-LFS and not the file itself: run `git lfs pull` where it was "
            "cloned, or download it"
        )


def check_scales(what: str, keys: Iterable[str]) -> None:
    """Raise ModelError if float8 weights come with scales of their own, which no loader here applies.

    Args:
        what: whose weights they are.
        keys: of its tensors, those that the model has no place for.
    """
    scales = sorted(key for key in keys if _SCALE.search(key))
    if scales:
        raise ModelError(
            f"{what}: its weights are float8 numbers with scales of their own ({some(scales)}), which would "
            "be dropped, and all weights would be wrong. Take the weights in bfloat16 or float32; "
            "model.quantise: fp8-storage makes float8 of them"
        )


def check_single_file(file: str | Path) -> None:
    """Check a single file of weights before it is converted, as docs/run-your-own-model.md shows.

    Raises:
        ModelError: as `read_header`; or it has scales, which the conversion would drop in silence.
    """
    check_scales(str(file), read_header(Path(file)))


def check_keys(what: str, found: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> None:
    """Check that weights fill a network, and hold nothing else.

    Args:
        what: whose weights they are, for example "the vae of my-wan (AutoencoderKLWan)".
        found: shapes of the weights.
        wanted: shapes of what the network, as its configuration describes it, would save.

    Raises:
        ModelError: names the first keys that are missing, unexpected or of another shape.
    """
    common = found.keys() & wanted.keys()
    shapes = {key: (found[key], wanted[key]) for key in common if found[key] != wanted[key]}
    require_fit(what, wanted.keys() - common, found.keys() - common, shapes)


def require_fit(
    what: str, missing: Iterable[str], unexpected: Iterable[str], shapes: Mapping[str, tuple[Shape, Shape]]
) -> None:
    """Raise ModelError if there is a key that is missing, unexpected, or of a (found, wanted) shape."""
    lacking, surplus = sorted(missing), sorted(unexpected)
    check_scales(what, surplus)
    said = [
        *([f"lack {_count(lacking, 'key')} ({some(lacking)})"] if lacking else []),
        *([f"hold {_count(surplus, 'key')} that it has no place for ({some(surplus)})"] if surplus else []),
        *([f"have {_count(shapes, 'key')} of another shape ({some(_shaped(shapes))})"] if shapes else []),
    ]
    if said:
        raise ModelError(
            f"{what}: the weights do not fill the network that its configuration describes. They "
            f"{', '.join(said)}. Configuration and weights are of two models, or one of them was changed: "
            "take both from one place"
        )


def some(names: Sequence[str]) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _shaped(shapes: Mapping[str, tuple[Shape, Shape]]) -> list[str]:
    return [f"{key} is {list(is_)}, not {list(wanted)}" for key, (is_, wanted) in sorted(shapes.items())]


def _count(names: Sequence[str] | Mapping[str, object], one: str) -> str:
    return f"{len(names)} {one}{'' if len(names) == 1 else 's'}"


def _shards(index: Path) -> tuple[Path, ...]:
    check_content(index)
    try:
        named: dict[str, str] = parse_json(index.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted({str(shard) for shard in named.values()})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(f"{index} has no weight_map: copy it again, or save the model again") from None
    missing = [shard for shard in shards if not os.path.isfile(index.parent / shard)]  # of any name
    if missing:
        raise ModelError(
            f"{index.parent} lacks {missing[0]}"
            + (f" and {len(missing) - 1} more shards" if len(missing) > 1 else "")
            + f", which {index.name} names: copy it too"
        )
    return (index, *(index.parent / shard for shard in shards))


def _none(folder: Path, stems: Sequence[str]) -> str:
    wanted = " or ".join(f"{stem}{SUFFIX}" for stem in stems)
    there = sorted(file.name for file in folder.iterdir() if not file.name.startswith("."))
    variants = [name for name in there if name.endswith(SUFFIX)]
    others = [name for name in there if name.endswith(_OTHERS)]
    if variants:
        return (
            f"{folder} holds no {wanted}; {some(variants)} is not read: load the variant with its own "
            "library and save the model again with save_pretrained()"
        )
    if others:
        return (
            f"{folder} holds weights as {some(others)} only, and only safetensors is read: load the model "
            "once with its own library and save it with save_pretrained(), which writes safetensors "
            "(docs/run-your-own-model.md has the lines)"
        )
    return f"{folder} holds no weights ({wanted}, or an index of shards): copy them too"


def _cut(file: Path, size: int, wanted: str) -> str:
    return f"{file} has {size} bytes and should have {wanted}: it was cut off or changed. Copy it again"
