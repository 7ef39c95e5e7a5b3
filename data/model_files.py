"""Which files of a model's folder are the model: what loaders read, and nothing that lies beside it.

An identity covers these alone, so that what editors, file managers and notebooks leave in a folder, and
weights of a precision that is not loaded, make no other model of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from data.errors import ModelError
from data.json_text import parse_json
from data.weights import check_content, weight_files

CONFIG: Final = "config.json"
VOCABULARY: Final = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "spm.model",
    "sentencepiece.model",
    "sentencepiece.bpe.model",
    "source.spm",
    "tekken.json",
    "vocab.json",
    "vocab.txt",
    "dict.txt",
)
"""What tokenizers of transformers call the file that holds their words; one is enough."""
# By the names that transformers, diffusers and open_clip read them by.
_NAMED: Final = (
    CONFIG,
    "generation_config.json",
    "scheduler_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "open_clip_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "merges.txt",
    "normalizer.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    *(name for name in VOCABULARY if name.endswith((".json", ".txt", ".model"))),
)
# These make their words of bytes, and keep no file of them.
_WORDLESS: Final = ("ByT5", "Canine", "Perceiver")


def model_files(
    folder: Path, stems: Sequence[str], shards_first: bool = False, more: Sequence[str] = ()
) -> list[Path]:
    """Files of one network's, tokenizer's or scheduler's folder that a loader reads, sorted.

    Args:
        folder: an existing one.
        stems, shards_first: as of `data.weights.weight_files`.
        more: patterns of files that are read beside those of every model.

    Raises:
        ModelError: an index of weights is damaged, or names what is not there.
    """
    named = (folder / name for name in _NAMED)
    other = (path for pattern in more for path in folder.glob(pattern))
    weights = weight_files(folder, stems, shards_first)
    return sorted({path for path in (*named, *other, *weights) if path.is_file()})


def check_files(files: Iterable[Path]) -> None:
    """Raise ModelError if a file is empty or a pointer of git-LFS, or one of JSON holds no object."""
    for file in files:
        check_content(file)
        if file.suffix == ".json":
            read_json(file)


def read_json(file: Path) -> dict[str, Any]:
    """The object in a configuration, or in another file of JSON. Raises ModelError: it holds none."""
    check_content(file)
    try:
        found = parse_json(file.read_text(encoding="utf-8"))
    except ValueError as failure:
        raise ModelError(f"{file} is not JSON: {failure}") from failure
    if not isinstance(found, dict):
        raise ModelError(f"{file} holds no JSON object")
    return found


def check_tokenizer(folder: Path, kind: str = "") -> None:
    """Check that a folder holds a tokenizer's words.

    Args:
        folder: where they are.
        kind: its class's name, if it is known.

    Raises:
        ModelError: it holds no file of words.
    """
    there = any((folder / name).is_file() for name in VOCABULARY)
    if not there and not kind.startswith(_WORDLESS):
        raise ModelError(
            f"{folder} holds no tokenizer's words ({', '.join(VOCABULARY[:3])}, ...): copy the files of the "
            "tokenizer too, or save the model again"
        )
