"""Whether the files of a local model folder are whole, before hours are spent on it. No torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from data.errors import ModelError
from data.model_files import CONFIG, check_files, check_tokenizer, model_files, read_json
from data.weights import SUFFIX, check_single_file, read_weights

INDEX: Final = "model_index.json"
_SCHEDULER: Final = "scheduler_config.json"
# Endings of the names of classes that have neither weights nor words.
_PROCESSORS: Final = ("Processor", "FeatureExtractor")


class Part(NamedTuple):
    """A part of a pipeline, as the index names it: its library, and its class there."""

    library: str
    kind: str

    @property
    def stems(self) -> tuple[str, ...]:
        """What the library calls the weights."""
        return ("diffusion_pytorch_model",) if self.library == "diffusers" else ("model",)

    @property
    def shards_first(self) -> bool:
        """Whether the library looks for an index of shards before it looks for a single file."""
        return self.library == "diffusers"

    @property
    def is_tokenizer(self) -> bool:
        """Whether it is a tokenizer."""
        return "Tokenizer" in self.kind

    @property
    def is_network(self) -> bool:
        """Whether it has weights."""
        known = self.library in ("diffusers", "transformers")
        other = self.is_tokenizer or self.kind.endswith(("Scheduler", *_PROCESSORS))
        return known and not other


def parts_of(folder: Path) -> dict[str, Part]:
    """Parts that the index of a model's folder names. Raises ModelError: there is none, or it is damaged."""
    if not (folder / INDEX).is_file():
        raise ModelError(f"{folder} holds no {INDEX}: expected a model saved with save_pretrained()")
    # What begins with an underscore is a fact of the pipeline; what is no pair of names is a setting of it.
    return {
        part: Part(*named)
        for part, named in sorted(read_json(folder / INDEX).items())
        if not part.startswith("_") and isinstance(named, list) and [type(one) for one in named] == [str, str]
    }


def loaded_files(folder: Path) -> list[Path]:
    """Everything of a model's folder that changes what it computes: the index, and what loaders read.

    Cards, pictures, copies and weights of another precision are not among it. Raises ModelError: no index.
    """
    parts = parts_of(folder)
    inside = (model_files(folder / name, part.stems, part.shards_first) for name, part in parts.items())
    return [folder / INDEX, *(file for files in inside for file in files)]


def check_layout(path: str | Path) -> None:
    """Check that the files of a local folder are whole: those of every part that its index names.

    A hub id is not looked at: what it lacks is found when it is fetched.

    Raises:
        ModelError: names what is missing, cut off, a pointer of git-LFS or of another format; also if the
            index is damaged, or `path` is a single file of weights.
    """
    folder = Path(path)
    if folder.is_file():
        if folder.suffix == SUFFIX:
            check_single_file(folder)
        raise ModelError(
            f"model.path {folder} is a file; it must be a folder in diffusers layout, or a hub id. Convert "
            "single-file weights once with from_single_file() and save_pretrained(): "
            "docs/run-your-own-model.md has the lines"
        )
    if not folder.is_dir():
        return
    parts = parts_of(folder)
    check_parts(folder, list(parts))
    for name, part in parts.items():
        check_part(folder / name, part)


def check_parts(path: str | Path, needed: Sequence[str]) -> None:
    """Raise ModelError if a local folder is no model's, or lacks one of the `needed` parts."""
    folder = Path(path)
    if not folder.is_dir():
        return
    named = parts_of(folder)
    for part in needed:
        if part not in named or not os.path.isdir(folder / part):  # of any name
            why = f", which its {INDEX} names" if part in named else ""
            raise ModelError(
                f"model at {folder} has no {part}{why}: copy that folder too, or save the pipeline again"
            )


def check_part(folder: Path, part: Part) -> None:
    """Raise ModelError if the folder of one part lacks files that are loaded, or one of them is not whole."""
    check_files(model_files(folder, part.stems, part.shards_first))
    if part.is_tokenizer:
        check_tokenizer(folder, part.kind)
    elif part.is_network or part.kind.endswith("Scheduler"):
        name = CONFIG if part.is_network else _SCHEDULER
        if not (folder / name).is_file():
            raise ModelError(f"{folder} holds no {name}: copy it too, or save the pipeline again")
    if part.is_network:
        read_weights(folder, part.stems, part.shards_first)
